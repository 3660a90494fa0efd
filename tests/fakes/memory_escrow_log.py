"""An escrow log in memory, complete: it keeps what was put, and refuses what it is told to refuse."""

from collections.abc import Callable, Sequence

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.windows import Period, Rolling
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice, put_since


class MemoryEscrowLog:
    """Implements `EscrowLog` and `BudgetChangeLog`. `down`: refuse the next commits with this."""

    def __init__(self) -> None:
        """Start empty."""
        self.fence = 0
        self.version = 0
        self.kept: dict[int, StoredSlice] = {}
        self._put_at: dict[int, int] = {}
        self.events: list[Event] = []
        self.changes: list[BudgetChange] = []
        self.down: Refusal | None = None
        self.commits = 0

    async def slices(self, after_version: int = 0) -> EscrowBooks:
        """As the port says."""
        if self.down is not None:
            raise self.down
        found = [self.kept[fence] for fence in sorted(self.kept) if self._put_at.get(fence, 0) > after_version]
        return EscrowBooks(self.version, self.fence, found)

    async def put_slices(self, version: int, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> int:
        """As the port says."""
        if self.down is not None:
            raise self.down
        if version != self.version:
            raise put_since(version)
        self.version += 1
        self._put_at |= {one.fence: self.version for one in slices}
        self.commits += 1
        self.fence = max(self.fence, fence)
        self.kept |= {one.fence: one for one in slices}
        self.events += events
        return self.version

    async def forget_slices(self, fences: Sequence[int]) -> None:
        """As the port says."""
        if self.down is not None:
            raise self.down
        for fence in fences:
            self.kept.pop(fence, None)

    def budget_change_number(self) -> int:
        """As the port says."""
        return len(self.changes)

    async def change_budget(self, draft: BudgetChange, describe: Callable[[BudgetChange], Event]) -> BudgetChange:
        """As the port says, without repeated requests."""
        self.changes.append(draft)
        self.events.append(describe(draft))
        return draft

    async def budget_changes_after(self, number: int, limit: int) -> Sequence[BudgetChange]:
        """As the port says."""
        return self.changes[number : number + limit]


def fleet_budget(
    level: Level = Level.EVERYTHING, value: str = "", period: Period | Rolling = Period.DAY, **caps
) -> FleetBudget:
    """A fleet budget with these caps by metric name."""
    limit = WindowLimit(level, period, NO_CAPS._replace(**caps), soft_percent=0)
    return FleetBudget(Budget(value, limit))


async def escrow_over(
    log: MemoryEscrowLog, clock: Clock, *budgets: FleetBudget, authority: float = 60.0
) -> FleetEscrow:
    """A centre's fleet budgets over this log, as after a start."""
    escrow = FleetEscrow(budgets, authority, log, log, clock)
    await escrow.restore()
    return escrow
