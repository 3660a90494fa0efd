"""The port to the centre's durable memory of fleet budgets: every slice that was granted and not forgotten.

Several replicas may share one memory. Each commit is made upon a version, and refused when another was made since: so
whatever was decided, was decided knowing all that was granted before (E1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.reasons import Reason, Refusal
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


@dataclass(frozen=True, slots=True)
class EscrowBooks:
    """What is remembered.

    Args:
        version: counts the commits; 0 before the first.
        fence: the highest that was ever used.
        slices: by fence.
    """

    version: int
    fence: int
    slices: Sequence[StoredSlice]


def put_since(version: int) -> Refusal:
    """What a commit upon an older version is told."""
    return Refusal(
        Reason.CONCURRENT_UPDATE,
        f"slices were put since version {version}: read them, and decide again",
        retry_after_seconds=0.01,
    )


class EscrowLog(Protocol):
    """Slices by fence, durable."""

    async def slices(self, after_version: int = 0) -> EscrowBooks:
        """Every slice that is remembered and was put after this version; it may give others as well.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def put_slices(self, version: int, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> int:
        """Insert or replace slices, remember the highest fence used, and record the events: all or nothing.

        Args:
            version: the newest that is known to who decided this.
            fence: the highest that was ever used.
            slices: as they are to be found again.
            events: that tell of it.

        Returns:
            The version of this commit.

        Raises:
            Refusal: CONCURRENT_UPDATE (another commit was made since `version`), OVERLOADED: nothing of it is stored.
                STORE_UNAVAILABLE: it is not known whether it is.
        """
        ...

    async def forget_slices(self, fences: Sequence[int]) -> None:
        """Drop slices; their fences are never used again.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
