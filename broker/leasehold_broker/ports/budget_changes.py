"""The ports of operators' changes of caps: who issues and keeps them, and where they take effect."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetRows
from leasehold_broker.domain.escrow import Escrow
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.fleet_budget import FleetBudget


@dataclass(frozen=True, slots=True)
class SidecarBudgets:
    """What one sidecar last reported of its budgets, and which changes it has applied."""

    sidecar: str
    connected: bool
    applied_number: int
    budgets: BudgetRows


@dataclass(frozen=True, slots=True)
class FleetStanding:
    """How one fleet budget stands in one metric, in its running window. `changed`: an operator's change is in force."""

    budget: FleetBudget
    metric: Metric
    escrow: Escrow
    reset_wall_ms: int
    changed: bool


class BudgetChangeLog(Protocol):
    """Changes by number, durable."""

    def budget_change_number(self) -> int:
        """Number of the newest durable change; 0 when there is none."""
        ...

    async def change_budget(self, draft: BudgetChange, describe: Callable[[BudgetChange], Event]) -> BudgetChange:
        """Give the draft the next number and make it durable with its event.

        Returns:
            The change; the earlier one when the same operator repeats a request id with the same change (no new event).

        Raises:
            Refusal: REQUEST_ID_REUSED, STORE_UNAVAILABLE, OVERLOADED.
        """
        ...

    async def budget_changes_after(self, number: int, limit: int) -> Sequence[BudgetChange]:
        """Changes above `number`, in order, at most `limit`."""
        ...


class BudgetChanger(Protocol):
    """Behind the budget service: a collector with its sidecars, or a sidecar that runs alone."""

    async def change(self, draft: BudgetChange) -> BudgetChange:
        """Make the change durable, then start its effect.

        Raises:
            Refusal: REQUEST_ID_REUSED, STORE_UNAVAILABLE.
        """
        ...

    def budgets(self) -> Sequence[SidecarBudgets]:
        """How budgets stand, by sidecar, as last reported."""
        ...

    def fleet(self) -> Sequence[FleetStanding]:
        """How budgets over all sidecars stand; none at a sidecar that runs alone."""
        ...

    async def changes(self) -> Mapping[str, BudgetChange]:
        """The changes that count, by budget and metric ("<budget> <metric>")."""
        ...


class BudgetChangeSink(Protocol):
    """Applies changes at a sidecar. The link hands them over in order of their numbers, without a gap."""

    def applied_budget_change(self) -> int:
        """Highest number that is durable here; falls only when changes are set aside."""
        ...

    def budget_history_digest(self) -> bytes:
        """Of the changes up to the highest durable one (see domain/numbered_history.py)."""
        ...

    def has_budget_change(self, change: BudgetChange) -> bool:
        """True when its number means just this here."""
        ...

    async def set_aside_budget_changes(self, above: int) -> None:
        """The centre has lost the changes above this number: they are no longer counted here; durable on return.

        Caps that they lowered stay lowered, until the same cap is changed anew. What they raised is as it was before.

        Raises:
            Refusal: STORE_UNAVAILABLE; do it again.
        """
        ...

    async def apply_budget_changes(self, changes: Sequence[BudgetChange]) -> None:
        """Put changes in force; returns once they are durable.

        Raises:
            Refusal: STORE_UNAVAILABLE; offer them again.
        """
        ...
