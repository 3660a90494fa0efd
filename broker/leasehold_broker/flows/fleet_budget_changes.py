"""Changes of caps at the collector: kept there, pushed to every sidecar. Implements `BudgetChanger`."""

from collections.abc import Mapping, Sequence

from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import FLEET_PREFIX
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.flows.apply_budget_changes import change_event
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.ports.budget_changes import BudgetChangeLog, FleetStanding, SidecarBudgets

CHANGES_READ_MAX = 100_000
PAGE = 1000


class FleetBudgetChanges:
    """Changes caps of every sidecar that has such a budget, and of budgets over all sidecars."""

    def __init__(self, fleet: Fleet, escrow: FleetEscrow, log: BudgetChangeLog) -> None:
        """Push to this fleet from this log."""
        self._fleet = fleet
        self._escrow = escrow
        self._log = log

    async def change(self, draft: BudgetChange) -> BudgetChange:
        """As the port says; every connected sidecar is woken before this returns.

        Raises:
            Refusal: FIELD_INVALID when every sidecar has reported in full and none has such a budget over time.
        """
        if not self._may_exist(draft.budget):
            raise field_invalid("budget", "is reported by no sidecar; 'leasehold budget show' lists them")
        change = await self._log.change_budget(
            draft, lambda made: change_event(EventType.BUDGET_CHANGE_ISSUED, made, made.create_wall_ms)
        )
        self._fleet.issued()
        self._escrow.cap_changed()
        return change

    def budgets(self) -> Sequence[SidecarBudgets]:
        """As the port says."""
        return [
            SidecarBudgets(name, member.connected, member.applied_budget_change, member.budgets)
            for name, member in sorted(self._fleet.members.items())
        ]

    def fleet(self) -> Sequence[FleetStanding]:
        """As the port says."""
        return self._escrow.standing()

    async def changes(self) -> Mapping[str, BudgetChange]:
        """As the port says."""
        found: dict[str, BudgetChange] = {}
        number = 0
        for _ in range(CHANGES_READ_MAX // PAGE):
            page = await self._log.budget_changes_after(number, PAGE)
            if not page:
                break
            found |= {f"{one.budget} {one.metric}": one for one in page}
            number = page[-1].number
        return found

    def _may_exist(self, budget: str) -> bool:
        members = self._fleet.members.values()
        if budget.startswith(FLEET_PREFIX):
            return any(budget == one.name for one in self._escrow.windows.budgets)
        if budget.startswith(LEASE_PREFIX):
            return True  # it may be so young that no sidecar has reported it yet
        return any(
            member.budgets.total > len(member.budgets.rows) or any(row.budget == budget for row in member.budgets.rows)
            for member in members
        )
