"""Time as the domain is told it. Owns the pair of readings; refuses to read a clock."""

from leasehold_broker.domain.values import value

NANOS = 1_000_000_000


@value
class Instant:
    """One reading of both clocks.

    Args:
        wall_ms: Unix time in milliseconds: a label for events and calendar windows, never an interval.
        boot_ns: nanoseconds that only grow and include suspended time (CLOCK_BOOTTIME): every interval and deadline.
    """

    wall_ms: int
    boot_ns: int

    def after(self, seconds: float) -> int:
        """The boot_ns deadline `seconds` from here."""
        return self.boot_ns + int(seconds * NANOS)

    def seconds_until(self, deadline_ns: int) -> float:
        """Seconds from here to a boot_ns deadline; negative once passed."""
        return (deadline_ns - self.boot_ns) / NANOS


class SteadyTime:
    """Milliseconds for rolling windows: they begin at the wall clock's reading, then run with the boot clock alone.

    So setting the wall clock, forwards or back, neither opens nor closes a rolling window. A new process begins at the
    wall clock again, but never before `at_least_ms`, the newest moment that the one before it has counted at.
    """

    __slots__ = ("_offset_ms",)

    def __init__(self, now: Instant, at_least_ms: int = 0) -> None:
        """Begin now."""
        self._offset_ms = max(now.wall_ms, at_least_ms) - now.boot_ns // (NANOS // 1000)

    def ms(self, now: Instant) -> int:
        """The reading at this instant."""
        return self._offset_ms + now.boot_ns // (NANOS // 1000)
