"""How long a rotation has been in its state, over all processes that had it. Owns what counts as time.

Time counts while a process looks, by its boot clock: what it had counted is durable, and the next process goes on from
there. A time when nobody looked (no process ran, the machine was suspended) counts for nothing beyond one look, and the
wall clock is never asked. So a restart neither begins a drain anew nor ends it.
"""

from leasehold_broker.domain.time import Instant

LOOK_SECONDS_MAX = 120.0
"""More than the longest step and the longest pause between two looks."""


class StateTime:
    """The time of one state."""

    __slots__ = ("_last", "_seconds")

    def __init__(self, waited_ms: int, now: Instant) -> None:
        """Go on from what was counted before."""
        self._seconds = waited_ms / 1000
        self._last = now

    def seconds(self, now: Instant) -> float:
        """Count up to now; seconds in this state."""
        self._seconds += min(LOOK_SECONDS_MAX, max(0.0, -now.seconds_until(self._last.boot_ns)))
        self._last = now
        return self._seconds

    def waited_ms(self, now: Instant) -> int:
        """The same in milliseconds, to be kept."""
        return int(self.seconds(now) * 1000)
