"""Budgets at every level and over every span, through the real flows: who draws on what, when it is free again."""

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from tests.fakes.core import GRANT, KEY, OPENAI_KEY, PEER, PRICE, Core, fresh_id, identity, plan, request, used
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.limits import Budget, Level, Raise, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.windows import Period, Rolling

MINUTE_MS = 60_000


def limit(level: Level, span: Period | Rolling, **more) -> WindowLimit:
    """Caps by metric name, and members of the limit."""
    named = {name: more.pop(name) for name in tuple(more) if name in NO_CAPS._fields}
    return WindowLimit(level, span, NO_CAPS._replace(**named), **more)


async def world(*budgets: Budget, windows: tuple[WindowLimit, ...] = (), **grant) -> Core:
    """Flows with these budgets; nothing is lowered unless the grant says so."""
    clock = ManualClock()
    core = await Core(MemoryStateStore(MemoryDisk(), clock), clock).recover()
    core.prices.prices["openai", "gpt"] = replace(PRICE, model="gpt")
    core.policies.policy = Policy("p", (replace(GRANT, windows=windows, **{"lower_output": False} | grant),), budgets)
    return core


async def capped(core: Core, **named: int):
    """A lease with these caps of its own."""
    wanted = request(NO_CAPS._replace(**named))
    return (await core.acquire.run(identity(), PEER, wanted, fresh_id(), validate_only=False)).lease


async def lease_of(core: Core, subject: str = "agent-1", **labels: str):
    """A lease at both providers of a subject with these verified labels."""
    caller = identity(subject)
    caller = Identity(Subject(caller.subject.issuer, subject, dict(caller.subject.labels) | labels), {}, "", 2**50)
    wanted = request(scopes=(Scope("anthropic"), Scope("openai")))
    return (await core.acquire.run(caller, PEER, wanted, fresh_id(), validate_only=False)).lease


async def refused(core: Core, lease, wanted=None) -> Refusal:
    """Why this call is refused."""
    with pytest.raises(Refusal) as caught:
        await core.admit(lease, wanted)
    return caught.value


async def spend(core: Core, lease, wanted=None) -> None:
    """One call at its worst case: 700 micro-USD by default."""
    admitted = await core.admit(lease, wanted)
    await core.calls.settle(admitted.call_id, used(100, 100))


OPENAI = plan(provider="openai", model="gpt")


@pytest.mark.parametrize(
    ("budget", "others_fit"),
    [
        (Budget(KEY.name, limit(Level.KEY, Period.DAY, requests=1)), True),
        (Budget("anthropic", limit(Level.PROVIDER, Period.DAY, requests=1)), True),
        (Budget("search", limit(Level.LABEL, Period.DAY, requests=1, label="team")), False),
        (Budget("prod", limit(Level.ENVIRONMENT, Period.DAY, requests=1)), False),
        (Budget("", limit(Level.EVERYTHING, Period.DAY, requests=1)), False),
        (Budget("", limit(Level.EVERYTHING, Rolling(3600), requests=1)), False),
        (Budget(OPENAI_KEY.name, limit(Level.KEY, Period.DAY, requests=1)), None),
        (Budget("staging", limit(Level.ENVIRONMENT, Period.DAY, requests=1)), None),
        (Budget("ads", limit(Level.LABEL, Period.DAY, requests=1, label="team")), None),
    ],
    ids=lambda value: f"{value.on}/{value.limit.span}" if isinstance(value, Budget) else "",
)
async def test_a_budget_is_shared_by_all_that_it_names(budget, others_fit):
    """The second subject finds spent what the first has spent, and the other provider only where it is named too."""
    core = await world(budget)
    first, second = await lease_of(core, team="search"), await lease_of(core, "agent-2", team="search")
    await core.admit(first)
    if others_fit is None:
        await core.admit(second)
        return
    refusal = await refused(core, second)
    assert (refusal.reason, refusal.violations[0].subject) == (Reason.BUDGET_EXHAUSTED, budget.limit.name)
    if others_fit:
        await core.admit(second, OPENAI)
    else:
        assert (await refused(core, second, OPENAI)).reason is Reason.BUDGET_EXHAUSTED


async def test_each_value_of_a_label_has_its_own_window_and_those_without_it_share_one():
    """A team's subjects share a window; another team has its own; who has no team does not escape."""
    core = await world(windows=(limit(Level.LABEL, Period.DAY, requests=1, label="team"),))
    await core.admit(await lease_of(core, "agent-1", team="search"))
    await refused(core, await lease_of(core, "agent-2", team="search"))
    await core.admit(await lease_of(core, "agent-3", team="ads"))
    await core.admit(await lease_of(core, "agent-4"))
    assert (await refused(core, await lease_of(core, "agent-5"))).violations[0].subject == "label:team/day"


async def test_open_calls_are_capped_across_leases_and_leave_nothing_behind():
    """A total of open calls refuses the next one for a second, and is forgotten when none is open."""
    core = await world(Budget("", limit(Level.EVERYTHING, Period.TOTAL, concurrency=1)))
    first, second = await lease_of(core), await lease_of(core, "agent-2")
    admitted = await core.admit(first)
    refusal = await refused(core, second)
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.CONCURRENCY_EXCEEDED, 1.0)
    await core.calls.settle(admitted.call_id, used(1, 1))
    await core.sweep.prune(core.clock.now())
    assert not [account for account in core.books.ledger.accounts() if account.id.startswith("window:")]
    await core.admit(second)


async def test_a_rate_is_not_doubled_at_the_edge_of_two_minutes():
    """Two a minute: after two in the last second of one minute, the next is admitted a minute later, not a second."""
    core = await world(windows=(limit(Level.SUBJECT, Rolling(60), requests=2),))
    core.clock.wall_ms += 59_000 - core.clock.wall_ms % MINUTE_MS
    lease = await lease_of(core)
    await spend(core, lease)
    await spend(core, lease)
    core.clock.advance(2)
    refusal = await refused(core, lease)
    assert (refusal.reason, 57 < refusal.retry_after_seconds <= 59) == (Reason.RATE_LIMITED, True)
    core.clock.advance(refusal.retry_after_seconds)
    await core.admit(lease)


async def test_b1_setting_the_wall_clock_opens_no_rolling_window():
    """Set forwards or back by years: what was spent in the last minute counts, and is free when that has passed."""
    core = await world(windows=(limit(Level.SUBJECT, Rolling(60), requests=1),))
    lease = await lease_of(core)
    await spend(core, lease)
    for jump in (10**11, -3 * 10**11, 2 * 10**11):
        core.clock.wall_ms += jump
        await core.sweep.prune(core.clock.now())
        refusal = await refused(core, lease)
    core.clock.boot_ns += round(refusal.retry_after_seconds * 1000) * 1_000_000
    await core.admit(lease)


async def test_b1_a_restart_finds_what_a_rolling_window_holds():
    """A new process counts the buckets of the one before it, also when the wall clock went back between them."""
    core = await world(windows=(limit(Level.SUBJECT, Rolling(60), requests=1),))
    lease = await lease_of(core)
    await spend(core, lease)
    policy, disk = core.policies.policy, core.store.disk
    core.clock.wall_ms -= 10**10
    core = await Core(MemoryStateStore(disk, core.clock), core.clock, policy).recover()
    refusal = await refused(core, core.now_lease(lease))
    core.clock.advance(refusal.retry_after_seconds)
    await core.admit(core.now_lease(lease))


async def test_a_closed_window_that_a_stray_clock_returns_to_is_opened_again():
    """What is remembered of a lease's budgets never names an account that is gone."""
    core = await world(windows=(limit(Level.SUBJECT, Period.MINUTE, requests=9),))
    lease = await lease_of(core)
    await spend(core, lease)
    core.clock.wall_ms += 10 * MINUTE_MS
    await core.sweep.prune(core.clock.now())
    core.clock.wall_ms -= 10 * MINUTE_MS
    await spend(core, lease)


async def test_b13_a_local_day_ends_at_local_midnight():
    """In Berlin on 25 October 2026 the day has 25 hours: the cap holds for all of them, and is free after."""
    berlin = ZoneInfo("Europe/Berlin")
    core = await world(windows=(limit(Level.SUBJECT, Period.DAY, requests=1, zone=berlin),))
    core.clock.wall_ms = int(datetime(2026, 10, 24, 22, 0, 1, tzinfo=UTC).timestamp() * 1000)
    lease = await lease_of(core)
    await spend(core, lease)
    refusal = await refused(core, lease)
    assert refusal.retry_after_seconds == 25 * 3600 - 1
    core.clock.wall_ms += 25 * 3600 * 1000 - 1001
    assert (await refused(core, lease)).retry_after_seconds == 0.001
    core.clock.wall_ms += 1
    await core.admit(lease)


async def test_b1_caps_lowered_and_raised_by_a_reload_bind_the_next_call():
    """Lowered below what is held, nothing remains, and nothing negative; raised, the next call fits."""
    day = limit(Level.SUBJECT, Period.DAY, requests=3)
    core = await world(windows=(day,))
    lease = await lease_of(core)
    open_calls = [await core.admit(lease) for _ in range(3)]
    core.policies.policy = replace(
        core.policies.policy, grants=(replace(GRANT, windows=(replace(day, caps=NO_CAPS._replace(requests=1)),)),)
    )
    await refused(core, lease)
    (row,) = [row for row in core.read.usage(core.now_lease(lease)) if row.budget == "subject/day"]
    assert (row.cap, row.held, row.remaining) == (1, 3, 0)
    for call in open_calls:
        await core.calls.settle(call.call_id, used(1, 1))
    await refused(core, lease)
    core.policies.policy = replace(
        core.policies.policy, grants=(replace(GRANT, windows=(replace(day, caps=NO_CAPS._replace(requests=4)),)),)
    )
    await core.admit(lease)
    await refused(core, lease)


async def test_a_raise_is_in_force_from_its_beginning_to_its_end_and_not_longer():
    """The same lease, without any reload: refused, admitted while it lasts, refused after."""
    core = await world()
    now = core.clock.wall_ms
    raised = Raise(now + 10_000, now + 20_000, NO_CAPS._replace(requests=3))
    core.policies.policy = replace(
        core.policies.policy, budgets=(Budget("", limit(Level.EVERYTHING, Period.TOTAL, requests=1, raises=(raised,))),)
    )
    lease = await lease_of(core)
    await spend(core, lease)
    assert (await refused(core, lease)).retry_after_seconds == 10
    core.clock.advance(10)
    await spend(core, lease)
    core.clock.advance(10)
    assert (await refused(core, lease)).retry_after_seconds is None


def warnings(core: Core):
    """The thresholds that were crossed, by what the events say."""
    found = [event.details for _, _, event in core.store.disk.events if event.type.value == "budget.threshold"]
    return [(one["account"].split("|")[0].split(":")[1], one["metric"], one["cap"], one["settled"]) for one in found]


async def test_a_soft_limit_warns_once_and_refuses_nothing():
    """At half of three requests one event, whatever comes after; a soft cap is passed without a refusal."""
    soft = limit(Level.EVERYTHING, Period.DAY, requests=3, soft_percent=50, hard=False)
    core = await world(Budget("", soft))
    lease = await lease_of(core)
    for spent, expected in ((1, 0), (2, 1), (3, 1), (4, 1), (5, 1)):
        await spend(core, lease)
        assert len(warnings(core)) == expected, spent
    assert warnings(core) == [("on", "requests", 3, 2)]
    assert core.books.counters.thresholds_crossed == {"requests": 1}


async def test_every_level_warns_for_itself_and_a_rolling_window_once_in_its_length():
    """The calendar window and the rolling one each warn; the rolling one again when its length has passed."""
    windows = (limit(Level.SUBJECT, Period.YEAR, requests=10), limit(Level.SUBJECT, Rolling(60), requests=5))
    core = await world(windows=windows)
    lease = await capped(core, requests=30)
    for wait in (0, 0, 0, 0, 0, 30, 0, 0, 0, 61, 0, 0, 0):
        core.clock.advance(wait)
        try:
            await spend(core, lease)
        except Refusal:
            continue
    caps = [cap for _, _, cap, _ in warnings(core)]
    assert caps.count(5) == 2
    assert caps.count(10) <= 1
    assert (30 in caps) is False


async def test_a_limit_is_lowered_to_what_fits_and_the_event_says_so():
    """1000 micro-USD pay for 100 tokens in and 160 out; a call of 500 out is made smaller, or refused by policy."""
    for lower in (True, False):
        core = await world(lower_output=lower)
        lease = await capped(core, cost_micro_usd=1000)
        if not lower:
            assert (await refused(core, lease, plan(100, 500))).reason is Reason.BUDGET_EXHAUSTED
            continue
        admitted = await core.admit(lease, plan(100, 500, output_tokens_floor=16))
        assert (admitted.output_tokens_limit, admitted.output_lowered, admitted.remaining_micro_usd) == (160, True, 0)
        (details,) = [event.details for _, _, event in core.store.disk.events if event.type.value == "call.admitted"]
        assert (details["output_tokens_limit"], details["output_lowered"]) == (160, True)
        assert core.books.counters.outputs_lowered == 1


@pytest.mark.parametrize(("cap", "limit_placed"), [(279, None), (280, 16), (281, 16), (285, 17)])
async def test_no_limit_is_lowered_below_the_floor(cap, limit_placed):
    """100 input tokens cost 200, 16 of output 80: with less the call is refused."""
    core = await world(lower_output=True)
    lease = await capped(core, cost_micro_usd=cap)
    wanted = plan(100, 500, output_tokens_floor=16)
    if limit_placed is None:
        refusal = await refused(core, lease, wanted)
        assert "this call could need 280" in refusal.message
    else:
        assert (await core.admit(lease, wanted)).output_tokens_limit == limit_placed
