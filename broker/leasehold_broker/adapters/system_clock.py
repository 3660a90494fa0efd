"""The machine's clocks."""

import time

from leasehold_broker.domain.time import Instant


class SystemClock:
    """Implements `Clock`: wall time as a label, CLOCK_BOOTTIME for every interval (it counts suspended time)."""

    def now(self) -> Instant:
        """The current instant."""
        return Instant(time.time_ns() // 1_000_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
