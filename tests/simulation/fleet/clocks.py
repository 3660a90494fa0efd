"""The clocks of simulated hosts: the boot clock drifts, the wall clock jumps. True time is the world's alone."""

from collections.abc import Callable

from tests.fakes.manual_clock import START_WALL_MS

from leasehold_broker.domain.time import Instant

DRIFT_PPM_MAX = 4900
"""Two clocks differ in rate by less than the 1 % that E9 grants."""


class HostClock:
    """A host's clocks: the boot clock runs at a rate of its own, the wall clock is off by some, and may be set."""

    def __init__(self, true_ns: Callable[[], int], rate_ppm: int, booted_ns: int, wall_off_ms: int) -> None:
        """Of this host."""
        self._true_ns = true_ns
        self._rate_ppm = rate_ppm
        self._booted_ns = booted_ns
        self.wall_off_ms = wall_off_ms

    def now(self) -> Instant:
        """As the port says."""
        true = self._true_ns()
        boot_ns = self._booted_ns + true + true * self._rate_ppm // 10**6
        return Instant(START_WALL_MS + true // 1_000_000 + self.wall_off_ms, boot_ns)
