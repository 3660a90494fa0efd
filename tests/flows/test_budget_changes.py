"""Operators change caps: in force from the next call on, durable, repeatable, and over when they say so."""

from dataclasses import replace

import pytest
from tests.fakes.core import GRANT, KEY, PEER, Core, caps, fresh_id, identity, plan, used

from leasehold_broker.domain.amounts import NO_CAPS, Metric
from leasehold_broker.domain.budget_changes import BudgetChange, Direction, next_changes
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.windows import Period, Rolling
from leasehold_broker.flows.budget_report import budget_rows

OPERATOR = Identity(Subject("local", "uid:0"), {}, "", 2**50)
KEY_DAY = f"on:key:{KEY.name}|day"
RAISE, LOWER = Direction.RAISE, Direction.LOWER
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def budgets(core: Core) -> None:
    """A day's cap on the key and a rolling one on the provider, each of one call; refused rather than lowered."""
    day = Budget(KEY.name, WindowLimit(Level.KEY, Period.DAY, NO_CAPS._replace(cost_micro_usd=700)))
    hour = Budget("anthropic", WindowLimit(Level.PROVIDER, Rolling(3600), NO_CAPS._replace(requests=5)))
    grant = replace(GRANT, lower_output=False)
    core.policies.policy = replace(core.policies.policy, grants=(grant,), budgets=(day, hour))


def change(core: Core, budget: str, way: Direction, cap: int, **more):
    """Ask for a change of money by an operator."""
    wanted = {"request_id": fresh_id(), "metric": "cost_micro_usd", "until_wall_ms": 0, "note": "n"} | more
    return core.budgets.run(OPERATOR, budget=budget, direction=way, cap=cap, **wanted)


async def refused(work) -> Refusal:
    """The refusal that this must end in."""
    with pytest.raises(Refusal) as found:
        await work
    return found.value


async def test_a_raise_lets_in_what_was_refused_and_ends_by_itself(core: Core) -> None:
    """A second call of the day waits for a raise; when the raise is over, the cap is what it was."""
    lease = await core.lease()
    await core.calls.settle((await core.admit(lease)).call_id, used(100, 100))
    assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED
    await change(core, KEY_DAY, RAISE, 2000, until_wall_ms=core.clock.wall_ms + HOUR_MS // 2)
    await core.calls.settle((await core.admit(lease)).call_id, used(100, 100))
    core.clock.advance(1800)
    refusal = await refused(core.admit(lease))
    assert "key/day has 0 of 700" in refusal.message


async def test_a_lowered_cap_keeps_what_is_held_and_lets_nothing_new_in(core: Core) -> None:
    """A call in flight goes on and is charged; the next one finds the lower cap (B1)."""
    lease = await core.lease(caps(cost_micro_usd=10_000))
    core.policies.policy = replace(core.policies.policy, budgets=())
    call = await core.admit(lease)
    await change(core, lease.name, LOWER, 100)
    assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED
    await core.calls.settle(call.call_id, used(100, 100))
    assert core.account(lease).settled.cost_micro_usd == 600
    await change(core, lease.name, RAISE, 10_000)
    await core.admit(lease)


async def test_retry_after_knows_when_a_lowering_ends(core: Core) -> None:
    """Who meets a cap that is lowered for ten minutes is told to come back in ten minutes, not tomorrow."""
    lease = await core.lease()
    await change(core, KEY_DAY, LOWER, 0, until_wall_ms=core.clock.wall_ms + 600_000)
    assert (await refused(core.admit(lease))).retry_after_seconds == 600
    core.clock.advance(600)
    await core.admit(lease)


async def test_a_change_survives_a_restart_and_a_repeat_of_it_is_the_same(core: Core) -> None:
    """The same request id gives the same change, before and after a crash; another change under it is refused."""
    lease = await core.lease()
    until = core.clock.wall_ms + HOUR_MS
    asked = {"request_id": fresh_id(), "until_wall_ms": until}
    first = await change(core, KEY_DAY, RAISE, 1400, **asked)
    later = await change(core, KEY_DAY, RAISE, 2100, until_wall_ms=until)
    assert await change(core, KEY_DAY, RAISE, 1400, **asked) == first
    assert (first.number, later.number) == (1, 2)
    again = await Core(type(core.store)(core.store.disk, core.clock), core.clock, core.policies.policy).recover()
    assert await change(again, KEY_DAY, RAISE, 1400, **asked) == first
    reused = await refused(change(again, KEY_DAY, RAISE, 1500, **asked))
    assert reused.reason == Reason.REQUEST_ID_REUSED
    for _ in range(3):
        await again.calls.settle((await again.admit(lease)).call_id, used(100, 100))
    assert "key/day has 300 of 2100" in (await refused(again.admit(lease))).message


@pytest.mark.parametrize(
    ("budget", "way", "cap", "more", "words"),
    [
        ("leases/none", LOWER, 1, {}, "not one of this sidecar"),
        ("on:key:other|day", LOWER, 1, {}, "not one of this sidecar"),
        (KEY_DAY, RAISE, 900, {}, "a raise has an end (--for, --until)"),
        (KEY_DAY, RAISE, 600, {"until_wall_ms": 60_000}, "below 700"),
        (KEY_DAY, LOWER, 800, {}, "above 700"),
        (KEY_DAY, RAISE, 900, {"until_wall_ms": -1}, "later than now"),
        (KEY_DAY, RAISE, 900, {"until_wall_ms": 400 * 86_400_000}, "at most 366 days"),
        (KEY_DAY, RAISE, 10**16, {"until_wall_ms": 60_000}, "must be 0 to"),
        (KEY_DAY, RAISE, 900, {"metric": "money"}, "must be one of cost_micro_usd"),
        (KEY_DAY, RAISE, 900, {"until_wall_ms": 60_000, "metric": "requests"}, "has no cap"),
        (KEY_DAY, LOWER, 1, {"request_id": "7"}, "must be a UUID"),
        ("", LOWER, 1, {}, "must be 1 to 1024"),
    ],
)
async def test_what_would_do_nothing_or_something_else_is_refused(
    core: Core, budget: str, way: Direction, cap: int, more: dict, words: str
) -> None:
    """An unknown budget, a raise without an end, a cap that goes the other way: nothing is changed or written."""
    if "until_wall_ms" in more:
        more = more | {"until_wall_ms": core.clock.wall_ms + more["until_wall_ms"]}
    written = core.store.commits
    refusal = await refused(change(core, budget, way, cap, **more))
    assert (refusal.reason, words in refusal.message) == (Reason.FIELD_INVALID, True)
    assert (core.books.budget_changes, core.store.commits) == ({}, written)


async def test_a_carved_cap_is_not_raised_past_its_parent(core: Core) -> None:
    """B14: what a child may spend is held at its parent; raising the child alone would be a promise without cover."""
    parent = await core.lease(caps(cost_micro_usd=1000))
    child = await core.child(parent, caps(cost_micro_usd=400))
    refusal = await refused(change(core, child.name, RAISE, 900))
    assert "carved out of" in refusal.message
    await change(core, child.name, LOWER, 10)
    await core.release.run(identity(), PEER, child.name)
    assert core.account(parent).held.cost_micro_usd == 0


async def test_the_log_says_who_changed_what_and_until_when(core: Core) -> None:
    """One event with number, budget, cap, end, operator and note, in the commit that makes the change durable."""
    until = core.clock.wall_ms + HOUR_MS
    made = await change(core, KEY_DAY, RAISE, 900, until_wall_ms=until, note="incident 7")
    (event,) = [event for _, _, event in core.store.disk.events if event.type == "budget.changed"]
    assert event.request_id == made.request_id
    assert event.details == {
        "change": 1,
        "budget": KEY_DAY,
        "metric": "cost_micro_usd",
        "direction": "raise",
        "cap": 900,
        "changed_by": "uid:0 (local)",
        "note": "incident 7",
        "until_wall_ms": until,
    }
    assert core.store.disk.budget_changes == {1: made}


async def test_a_disk_that_fails_leaves_the_change_in_force_and_says_so(core: Core) -> None:
    """A lowering takes effect in memory at once, and is written, once, as soon as the disk answers."""
    lease = await core.lease()
    core.store.down = Refusal(Reason.STORE_UNAVAILABLE, "disk")
    asked = {"request_id": fresh_id()}
    assert (await refused(change(core, KEY_DAY, LOWER, 0, **asked))).reason == Reason.STORE_UNAVAILABLE
    core.store.down = None
    made = await change(core, KEY_DAY, LOWER, 0, **asked)
    assert core.store.disk.budget_changes == {1: made}
    assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED


async def test_the_report_sums_windows_and_names_what_is_changed(core: Core) -> None:
    """Settled and held by budget, the caps in force, when each starts anew, leases too; restored buckets count."""
    lease = await core.lease(caps(cost_micro_usd=5000))
    await core.calls.settle((await core.admit(lease)).call_id, used(100, 20))
    await core.admit(lease, plan(10, 10))
    await change(core, KEY_DAY, RAISE, 900, until_wall_ms=core.clock.wall_ms + HOUR_MS)
    rows = {(row.budget, row.metric): row for row in core.budgets.budgets()[0].budgets.rows}
    day = rows[KEY_DAY, Metric.COST_MICRO_USD]
    assert (day.cap, day.settled, day.held, day.changed) == (900, 200, 70, True)
    assert day.reset_wall_ms > core.clock.wall_ms
    assert rows["on:provider:anthropic|rolling-3600s", Metric.REQUESTS].settled == 1
    assert rows[lease.name, Metric.COST_MICRO_USD].held == 70
    again = await Core(type(core.store)(core.store.disk, core.clock), core.clock, core.policies.policy).recover()
    restored = {
        (row.budget, row.metric): row for row in budget_rows(again.books, core.policies.policy, core.clock.now()).rows
    }
    assert restored["on:provider:anthropic|rolling-3600s", Metric.REQUESTS].settled == 2
    assert restored[KEY_DAY, Metric.COST_MICRO_USD].settled == 270


def test_changes_follow_without_a_gap() -> None:
    """What is applied is passed over; a hole, disorder, nothing of more, or a centre that has lost some is an error."""
    made = [
        BudgetChange(number, "leases/a", Metric.REQUESTS, LOWER, 1, 0, "", "a", str(number), 0)
        for number in range(1, 6)
    ]
    assert next_changes(2, 5, made) == tuple(made[2:])
    for applied, newest, offered in ((1, 5, made[2:]), (0, 5, made[::-1]), (3, 2, []), (3, 4, []), (0, 3, made)):
        with pytest.raises(ValueError, match=r"budget change|lost history"):
            next_changes(applied, newest, offered)
