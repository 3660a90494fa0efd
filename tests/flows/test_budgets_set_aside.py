"""A sidecar whose centre has lost changes of caps: the numbers are given up, and what was lowered stays lowered."""

from dataclasses import replace

import pytest
from tests.fakes.asking import logged, restarted
from tests.fakes.core import Core

from leasehold_broker.domain.amounts import NO_CAPS, Metric
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetChangeHistory, Direction, changed_caps
from leasehold_broker.wire.budgets import change_from_proto, change_to_proto

RAISE, LOWER = Direction.RAISE, Direction.LOWER
BASE = NO_CAPS._replace(cost_micro_usd=1000)


def change(number: int, way: Direction, cap: int, budget: str = "b", until: int = 0) -> BudgetChange:
    """One of an operator."""
    return BudgetChange(number, budget, Metric.COST_MICRO_USD, way, cap, until, "why", "alice", f"r{number}-{cap}", 1)


def cap(core: Core, budget: str = "b", wall_ms: int = 5) -> int:
    """What is in force of a budget that is 1000 without changes."""
    return changed_caps(BASE, core.books.changes_of(budget), wall_ms).cost_micro_usd


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ([(LOWER, 300)], 300),
        ([(RAISE, 5000)], 800),
        ([(LOWER, 300), (RAISE, 5000)], 800),
        ([(RAISE, 5000), (LOWER, 300)], 300),
        ([(LOWER, 300), (LOWER, 500)], 300),
    ],
)
async def test_what_was_lowered_stays_lowered_and_what_was_raised_does_not(core: Core, lost, expected) -> None:
    """Of the lost ones; what both sides agree on is as it was; all of it over a restart."""
    await core.apply_budgets.apply_budget_changes([change(1, LOWER, 800)])
    await core.apply_budgets.apply_budget_changes([change(n, way, amount) for n, (way, amount) in enumerate(lost, 2)])
    await core.apply_budgets.set_aside_budget_changes(1)
    for again in (core, await restarted(core)):
        assert cap(again) == expected
        assert again.apply_budgets.applied_budget_change() == 1
        assert again.apply_budgets.budget_history_digest() == BudgetChangeHistory([change(1, LOWER, 800)]).digest_at(1)
    assert len(logged(core, "budget.change_set_aside")) == len(lost)


async def test_the_same_cap_changed_anew_is_the_last_word(core: Core) -> None:
    """Under a number that was lost; another budget's change takes nothing away; also after a restart."""
    await core.apply_budgets.apply_budget_changes([change(1, LOWER, 300), change(2, LOWER, 200, "other")])
    await core.apply_budgets.set_aside_budget_changes(0)
    assert core.apply_budgets.applied_budget_change() == 0
    await core.apply_budgets.apply_budget_changes([change(1, RAISE, 2000, "third")])
    assert (cap(core), cap(core, "other"), cap(core, "third")) == (300, 200, 2000)
    await core.apply_budgets.apply_budget_changes([change(2, LOWER, 600)])
    for again in (core, await restarted(core)):
        assert (cap(again), cap(again, "other")) == (600, 200)
        assert again.apply_budgets.applied_budget_change() == 2


async def test_a_lowering_that_was_to_end_ends_though_it_is_lost(core: Core) -> None:
    """Its end is its own word; twice set aside is as once."""
    await core.apply_budgets.apply_budget_changes([change(1, LOWER, 300, until=100)])
    for _ in range(2):
        await core.apply_budgets.set_aside_budget_changes(0)
    assert (cap(core, wall_ms=99), cap(core, wall_ms=100)) == (300, 1000)


async def test_a_number_means_what_it_says(core: Core) -> None:
    """By content: what another collector issued under the same number is not had here."""
    mine = change(1, LOWER, 300)
    await core.apply_budgets.apply_budget_changes([mine])
    assert core.apply_budgets.has_budget_change(mine)
    assert not core.apply_budgets.has_budget_change(replace(mine, cap=301))
    assert not core.apply_budgets.has_budget_change(replace(mine, number=2))
    assert BudgetChangeHistory([mine]).digest_at(1) != BudgetChangeHistory([replace(mine, note="other")]).digest_at(1)
    sent = change_to_proto(mine).SerializeToString()
    assert change_from_proto(type(change_to_proto(mine)).FromString(sent)) == mine
