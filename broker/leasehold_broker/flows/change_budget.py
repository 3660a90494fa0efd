"""Change a cap: what operators ask of a collector, or of a sidecar that runs alone. Owns the checks and the bounds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leasehold_broker.domain.amounts import AMOUNT_MAX, METRICS, Metric
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.flows.issue_revocation import check_note, check_request_id, shown_as
from leasehold_broker.ports.budget_changes import BudgetChanger, FleetStanding, SidecarBudgets
from leasehold_broker.ports.clock import Clock

BUDGET_LENGTH_MAX = 1024
UNTIL_DAYS_MAX = 366
_DAY_MS = 86_400_000


class ChangeBudget:
    """One change for each request id."""

    def __init__(self, changer: BudgetChanger, clock: Clock) -> None:
        """Change through this changer."""
        self._changer = changer
        self._clock = clock

    async def run(
        self,
        identity: Identity,
        request_id: str,
        budget: str,
        metric: str,
        direction: Direction,
        cap: int,
        until_wall_ms: int,
        note: str,
    ) -> BudgetChange:
        """Raise or lower a cap; durable on return.

        Args:
            identity: the operator.
            request_id: UUID; the same one gives the same change.
            budget: a lease's name, or as `budgets` names it.
            metric: a `Metric`.
            direction: which way.
            cap: the new cap, in the metric's unit.
            until_wall_ms: when it ends; 0: never. A raise of anything but a lease has an end: for good is the policy's.
            note: why.

        Raises:
            Refusal: FIELD_INVALID, REQUEST_ID_REUSED, STORE_UNAVAILABLE, OVERLOADED.
        """
        now = self._clock.now().wall_ms
        check_note(note)
        check_request_id(request_id)
        if not 0 < len(budget) <= BUDGET_LENGTH_MAX or not budget.isprintable():
            raise field_invalid("budget", f"must be 1 to {BUDGET_LENGTH_MAX} printable characters")
        if metric not in METRICS:
            raise field_invalid("metric", f"must be one of {', '.join(METRICS)}")
        if not 0 <= cap <= AMOUNT_MAX:
            raise field_invalid("cap", f"must be 0 to {AMOUNT_MAX} in the metric's unit, was {cap}")
        if until_wall_ms and not now < until_wall_ms <= now + UNTIL_DAYS_MAX * _DAY_MS:
            raise field_invalid("end_time", f"must be later than now, by at most {UNTIL_DAYS_MAX} days")
        if not until_wall_ms and direction is Direction.RAISE and not budget.startswith(LEASE_PREFIX):
            raise field_invalid(
                "end_time",
                "is missing: a raise has an end (--for, --until); for good it belongs into the file with the cap",
            )
        return await self._changer.change(
            BudgetChange(
                number=0,
                budget=budget,
                metric=Metric(metric),
                direction=direction,
                cap=cap,
                until_wall_ms=until_wall_ms,
                note=note,
                changed_by=shown_as(identity.subject),
                request_id=request_id,
                create_wall_ms=now,
            )
        )

    def budgets(self) -> Sequence[SidecarBudgets]:
        """How budgets stand, by sidecar, as last reported."""
        return self._changer.budgets()

    def fleet(self) -> Sequence[FleetStanding]:
        """How budgets over all sidecars stand."""
        return self._changer.fleet()

    async def changes(self) -> Mapping[str, BudgetChange]:
        """The changes in force, by budget and metric."""
        now = self._clock.now().wall_ms
        return {key: one for key, one in (await self._changer.changes()).items() if one.in_force(now)}


def numbered(draft: BudgetChange, number: int) -> BudgetChange:
    """The draft with its number."""
    return replace(draft, number=number)
