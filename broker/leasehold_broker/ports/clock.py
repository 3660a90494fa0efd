"""The clock port."""

from typing import Protocol

from leasehold_broker.domain.time import Instant


class Clock(Protocol):
    """Reads both clocks at once."""

    def now(self) -> Instant:
        """The current instant; boot_ns never falls and includes suspended time."""
        ...
