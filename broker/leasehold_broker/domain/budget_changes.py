"""Changes of caps by operators: a raise or a lower of one metric of one budget, for a while or for good.

Owns their words and what they make of a cap. Each states the cap that is wanted, not a difference, so that applying it
twice is applying it once: a raise never lowers and a lower never raises. Of two for the same budget and metric the
later one counts alone. Refuses to know which budgets there are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from leasehold_broker.domain.amounts import METRICS, Amounts, Metric
from leasehold_broker.domain.numbered_history import NumberedHistory


class Direction(StrEnum):
    """Which way a cap may go."""

    RAISE = "raise"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """One change.

    Args:
        number: counted by whoever issues, from 1, without gaps.
        budget: a lease's name, or a budget as `budget_name` calls it.
        metric: what is capped.
        direction: which way.
        cap: the new cap, in the metric's unit.
        until_wall_ms: when the change ends; 0 when it does not.
        note: why.
        changed_by: the operator, as shown.
        request_id: UUID; the same one by the same operator is the same change.
        create_wall_ms: when it was asked for.
    """

    number: int
    budget: str
    metric: Metric
    direction: Direction
    cap: int
    until_wall_ms: int
    note: str
    changed_by: str
    request_id: str
    create_wall_ms: int

    @property
    def name(self) -> str:
        """As shown: "budgetChanges/7"."""
        return f"budgetChanges/{self.number}"

    def in_force(self, wall_ms: int) -> bool:
        """True until its end."""
        return not self.until_wall_ms or wall_ms < self.until_wall_ms

    def same_as(self, other: "BudgetChange") -> bool:
        """True when both ask for the same."""
        return (self.budget, self.metric, self.direction, self.cap) == (
            other.budget,
            other.metric,
            other.direction,
            other.cap,
        )


class BudgetChangeHistory(NumberedHistory[BudgetChange]):
    """Digests of changes 1 to n."""

    what = "budget change"

    def read(self, entry: BudgetChange) -> tuple[int, Mapping[str, object]]:
        """As the parent says."""
        return entry.number, asdict(entry)


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """How one budget stands in one metric at one sidecar, for operators.

    Args:
        budget: what to name in a change.
        metric: what is counted.
        cap: in force now; UNLIMITED for none.
        settled, held: now.
        reset_wall_ms: when it starts anew; 0: never.
        hard: False: the cap is only warned of.
        changed: a change is in force.
    """

    budget: str
    metric: Metric
    cap: int
    settled: int
    held: int
    reset_wall_ms: int
    hard: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class BudgetRows:
    """What a sidecar reports; `total` may be more than are listed."""

    rows: tuple[BudgetRow, ...]
    total: int


def changed_caps(caps: Amounts, changes: Iterable[BudgetChange], wall_ms: int) -> Amounts:
    """The caps with these changes of one budget, at most one for each metric, as far as they are in force."""
    found = list(caps)
    for change in changes:
        if change.in_force(wall_ms):
            index = METRICS.index(change.metric)
            choose = max if change.direction is Direction.RAISE else min
            found[index] = choose(found[index], change.cap)
    return Amounts(*found)


def ends_after(changes: Iterable[BudgetChange], wall_ms: int) -> list[int]:
    """Later moments at which one of these ends."""
    return [change.until_wall_ms for change in changes if change.until_wall_ms > wall_ms]


def next_changes(applied: int, newest: int, changes: Sequence[BudgetChange]) -> tuple[BudgetChange, ...]:
    """Those that follow what is applied; repeated ones are left out.

    Raises:
        ValueError: a gap, disorder, nothing where more is due, a centre that is behind: none of it may be applied.
    """
    if newest < applied:
        message = f"the centre knows {newest} budget changes, {applied} are applied here: it lost history"
        raise ValueError(message)
    if not changes and newest > applied:
        message = f"the centre knows {newest} budget changes, and what follows {applied} did not come"
        raise ValueError(message)
    fresh = tuple(change for change in changes if change.number > applied)
    for due, change in enumerate(fresh, applied + 1):
        if change.number != due or change.number > newest:
            message = f"budget change {change.number} where {due} was due"
            raise ValueError(message)
    return fresh
