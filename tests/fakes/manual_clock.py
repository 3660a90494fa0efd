"""A clock that moves only when told to."""

from leasehold_broker.domain.time import NANOS, Instant

START_WALL_MS = 1_795_000_000_000


class ManualClock:
    """Implements the clock port; both readings move together unless told otherwise."""

    def __init__(self, wall_ms: int = START_WALL_MS, boot_ns: int = 1_000 * NANOS) -> None:
        """Start at these readings."""
        self.wall_ms = wall_ms
        self.boot_ns = boot_ns

    def now(self) -> Instant:
        """The reading as last set."""
        return Instant(self.wall_ms, self.boot_ns)

    def advance(self, seconds: float) -> None:
        """Move both readings."""
        self.wall_ms += int(seconds * 1000)
        self.boot_ns += int(seconds * NANOS)
