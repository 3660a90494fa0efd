"""The port to the centre's durable memory of fleet budgets: every slice that was granted and not forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.windows import Window


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """One slice as it is to be found again. Amounts are running totals in the metric's unit."""

    budget: str
    metric: Metric
    window: Window
    fence: int
    sidecar: str
    life: str
    granted: int
    returned: int
    reported: int
    written_off: int
    state: SliceState


class EscrowLog(Protocol):
    """Slices by fence, durable."""

    async def slices(self) -> tuple[int, Sequence[StoredSlice]]:
        """The highest fence that was ever used, and every slice that is remembered."""
        ...

    async def put_slices(self, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> None:
        """Insert or replace slices, remember the highest fence used, and record the events: all or nothing.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED. Then nothing of it is stored.
        """
        ...

    async def forget_slices(self, fences: Sequence[int]) -> None:
        """Drop slices; their fences are never used again.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
