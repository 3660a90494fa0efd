"""Which uses of honeytokens have been told. Owns that somebody who goes on with one does not fill the log."""

from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.domain.time import NANOS, Instant

QUIET_SECONDS = 60
"""The same honeytoken of the same peer gives one finding in this time, unless it costs a lease again."""
USES_MAX = 1024


class TrapUses:
    """The newest uses, by honeytoken and peer."""

    def __init__(self) -> None:
        """None yet."""
        self._told_ns: dict[tuple[str, str], int] = {}

    def told(self, honeytoken: Honeytoken, whose: str, now: Instant) -> bool:
        """True when it need not be told again."""
        told_ns = self._told_ns.get((honeytoken.sha256, whose))
        return told_ns is not None and now.boot_ns - told_ns < QUIET_SECONDS * NANOS

    def tell(self, honeytoken: Honeytoken, whose: str, now: Instant) -> None:
        """It has been told: its event is durable."""
        self._told_ns[honeytoken.sha256, whose] = now.boot_ns
        while len(self._told_ns) > USES_MAX:
            del self._told_ns[next(iter(self._told_ns))]
