"""Changes of caps at a sidecar that runs alone: it numbers and keeps them itself. Implements `BudgetChanger`."""

import asyncio
from collections.abc import Mapping, Sequence

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, Amounts
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.flows.apply_budget_changes import ApplyBudgetChanges
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.budget_report import base_caps, budget_rows
from leasehold_broker.flows.change_budget import numbered
from leasehold_broker.ports.budget_changes import FleetStanding, SidecarBudgets
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.policy_source import PolicySource


class ChangeBudgetAlone:
    """Changes caps here."""

    def __init__(
        self, name: str, books: Books, apply: ApplyBudgetChanges, policies: PolicySource, clock: Clock
    ) -> None:
        """Act for the sidecar `name`."""
        self._name = name
        self._books = books
        self._apply = apply
        self._policies = policies
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    async def change(self, draft: BudgetChange) -> BudgetChange:
        """As the port says.

        Raises:
            Refusal: FIELD_INVALID when there is no such budget, or the cap would go the other way.
        """
        async with self._one_at_a_time:
            known = self._books.changes_of_request.get((draft.changed_by, draft.request_id))
            if known is not None:
                if not known.same_as(draft):
                    raise reused(draft, known)
                await self._apply.apply_budget_changes([known])  # it may still be on its way to the disk
                return known
            self._check(draft)
            change = numbered(draft, self._books.budget_change + 1)
            await self._apply.apply_budget_changes([change])
            return change

    def budgets(self) -> Sequence[SidecarBudgets]:
        """As the port says: this sidecar's, now."""
        rows = budget_rows(self._books, self._policies.current(), self._clock.now())
        return (
            SidecarBudgets(self._name, connected=True, applied_number=self._books.durable_budget_change, budgets=rows),
        )

    def fleet(self) -> Sequence[FleetStanding]:
        """As the port says: a sidecar that runs alone has no fleet."""
        return ()

    async def changes(self) -> Mapping[str, BudgetChange]:
        """As the port says."""
        return {
            f"{budget} {metric}": change
            for budget, of_budget in self._books.budget_changes.items()
            for metric, change in of_budget.items()
        }

    def _check(self, draft: BudgetChange) -> None:
        base = base_caps(self._books, self._policies.current(), draft.budget)
        if base is None:
            raise field_invalid("budget", "is not one of this sidecar; 'leasehold budget show' lists them")
        _check_way(draft, base)
        lease = self._books.leases.get(draft.budget)
        index = METRICS.index(draft.metric)
        if lease is not None and draft.direction is Direction.RAISE and lease.carved[index]:
            raise field_invalid(
                "budget", f"has its {draft.metric} carved out of {lease.parent}; raise that, and delegate anew"
            )


def reused(draft: BudgetChange, known: BudgetChange) -> Refusal:
    """The refusal of a request id that was used for something else."""
    return Refusal(
        Reason.REQUEST_ID_REUSED,
        f"request_id {draft.request_id} was used for another change ({known.name}); send a new UUID",
    )


def _check_way(draft: BudgetChange, base: Amounts) -> None:
    cap = base[METRICS.index(draft.metric)]
    if draft.direction is Direction.RAISE and cap == UNLIMITED:
        raise field_invalid("cap", f"raises nothing: {draft.metric} of this budget has no cap")
    if draft.direction is Direction.RAISE and draft.cap < cap:
        raise field_invalid("cap", f"{draft.cap} is below {cap}, what it is without changes; lower it to {draft.cap}")
    if draft.direction is Direction.LOWER and draft.cap > cap:
        raise field_invalid("cap", f"{draft.cap} is above {cap}, what it is without changes; raise it to {draft.cap}")
