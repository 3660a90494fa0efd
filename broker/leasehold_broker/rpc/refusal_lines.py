"""One log line for each refused call, but not for each call of a flood: that would fill the disk.

Owns the allowance. What is not told is counted, and the next line that is told says how many were not. The audit log
has the refusals in any case, with floods folded.
"""

import structlog

from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import NANOS, Instant

LINES_PER_SECOND = 20
LINES_AT_ONCE_MAX = 100
_log = structlog.get_logger("leasehold.rpc")


class RefusalLines:
    """Tells of refused calls, within an allowance."""

    def __init__(self) -> None:
        """With a full allowance."""
        self._left = float(LINES_AT_ONCE_MAX)
        self._since_ns: int | None = None
        self._untold = 0

    def tell(self, method: str, request_id: str, reason: Reason, now: Instant) -> None:
        """One more refused call."""
        since_ns = now.boot_ns if self._since_ns is None else self._since_ns
        self._left = min(LINES_AT_ONCE_MAX, self._left + (now.boot_ns - since_ns) * LINES_PER_SECOND / NANOS)
        self._since_ns = now.boot_ns
        if self._left < 1:
            self._untold += 1
            return
        self._left -= 1
        more = {"untold_before": self._untold} if self._untold else {}
        self._untold = 0
        _log.info("rpc refused", method=method, request_id=request_id, reason=reason.value, **more)
