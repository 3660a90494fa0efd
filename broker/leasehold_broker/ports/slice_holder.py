"""The port between the link to the centre and whoever holds a sidecar's slices of fleet budgets."""

from collections.abc import Callable, Sequence
from typing import Protocol

from leasehold_broker.domain.fleet_budget import SliceReport, SliceTold
from leasehold_broker.domain.time import Instant


class SliceHolder(Protocol):
    """Holds slices for one life of a sidecar. Nothing here waits."""

    life: str
    """Names this process; empty: it takes no part in fleet budgets."""
    press: Callable[[], None]
    """Set by the link: to be called when something should be said to the centre soon."""

    @property
    def holding(self) -> bool:
        """True while something is held that was not returned, or whose return the centre has not answered."""
        ...

    def take(
        self, told: Sequence[SliceTold], sent: Instant | None, now: Instant, authority_seconds: float = 0.0
    ) -> None:
        """Put in force what the centre says, in answer to the heartbeat that was sent then, good for so long."""
        ...

    def due_seconds(self, now: Instant) -> float | None:
        """When to report, without waiting for the next heartbeat; None: there is no hurry."""
        ...

    def reports(self, now: Instant) -> tuple[SliceReport, ...]:
        """How every slice stands; to be sent now."""
        ...

    def answered(self, reports: Sequence[SliceReport]) -> None:
        """The centre has these."""
        ...
