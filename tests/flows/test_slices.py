"""A sidecar's slices of fleet budgets, through the real flows of a call: what fits, what is refused, what dies."""

import msgspec
import pytest
from tests.fakes.core import Core, caps, plan, used
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.fleet_budget import KEEP_ALL, NO_FENCE, Applies, SliceReport, SliceTold
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.slices import GRANT_SECONDS, OVER_SECONDS, REPORT_SECONDS_MIN, SILENT_SECONDS

BUDGET = "fleet:everything|day"
COST = Metric.COST_MICRO_USD
SECONDS = 60.0
DISK = Refusal(Reason.STORE_UNAVAILABLE, "the disk is gone")


def told(fence: int = 1, granted: int = 0, **more) -> SliceTold:
    """What the centre says of the one fleet budget; by default nobody asks anything back, and there is plenty left."""
    members = {
        "budget": BUDGET,
        "metric": COST,
        "applies": Applies("everything", "", ""),
        "keep": KEEP_ALL,
        "remaining": 10**9,
        "seconds": SECONDS,
        "reset_wall_ms": 0,
    } | more
    return SliceTold(fence=fence, granted=granted, **members)


async def world(*, lower: bool = False, disk: MemoryDisk | None = None) -> Core:
    """Flows of a sidecar that takes part in fleet budgets."""
    clock = ManualClock()
    core = await Core(MemoryStateStore(disk or MemoryDisk(), clock), clock).recover()
    core.set_grant(lower_output=lower)
    return core


def tell(core: Core, *words: SliceTold) -> None:
    """The centre answers a heartbeat that was sent just now."""
    core.books.slices.take(words, core.clock.now(), core.clock.now())


def reports(core: Core) -> dict[int, SliceReport]:
    """What is said to the centre now, by fence."""
    return {one.fence: one for one in core.books.slices.reports(core.clock.now())}


async def refused(core: Core, lease) -> Refusal:
    """The refusal of a call that must not be admitted; nothing is held for it."""
    open_before = len(list(core.books.ledger.holds()))
    with pytest.raises(Refusal) as failed:
        await core.admit(lease)
    assert len(list(core.books.ledger.holds())) == open_before
    return failed.value


async def test_e3_a_call_fits_while_its_slice_lasts_and_the_next_does_not() -> None:
    """700 are held of 1000, so another 700 do not fit; what was not used is there again; nobody else was asked."""
    core = await world()
    lease = await core.lease()
    tell(core, told(granted=1000))
    admitted = await core.admit(lease)
    assert admitted.remaining_micro_usd == 300
    refusal = await refused(core, lease)
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.BUDGET_EXHAUSTED, GRANT_SECONDS)
    assert refusal.violations[0].subject == BUDGET
    await core.calls.settle(admitted.call_id, used(10, 10))
    await core.admit(lease)
    found = reports(core)
    assert found[1] == SliceReport(BUDGET, COST, 1, 1000, 0, 60, 700, 0, 0)
    assert found[NO_FENCE].need == 700


async def test_without_a_slice_nothing_fits() -> None:
    """A budget of which this sidecar has nothing refuses every call that it counts, and no other."""
    core = await world()
    lease = await core.lease()
    await core.admit(lease)
    tell(core, told(NO_FENCE))
    assert (await refused(core, lease)).reason is Reason.BUDGET_EXHAUSTED
    tell(core, told(NO_FENCE, applies=Applies("key", "", "other")))
    await core.admit(lease)
    tell(core)
    await core.admit(lease)


@pytest.mark.parametrize(
    ("applies", "counts"),
    [
        (Applies("everything", "", ""), True),
        (Applies("key", "", "key-a"), False),
        (Applies("key", "", "anthropic-prod"), True),
        (Applies("provider", "", "anthropic"), True),
        (Applies("provider", "", "openai"), False),
        (Applies("environment", "", "prod"), True),
        (Applies("environment", "", "dev"), False),
        (Applies("label", "team", "search"), False),
    ],
)
async def test_a_fleet_budget_counts_what_its_words_say(applies: Applies, counts: bool) -> None:
    """By key, provider, environment and verified label, as the budgets of the policy."""
    core = await world()
    lease = await core.lease()
    key = lease.scopes[0].key
    if applies.level == "key" and counts:
        applies = Applies("key", "", key)
    tell(core, told(NO_FENCE, applies=applies))
    if counts:
        await refused(core, lease)
    else:
        await core.admit(lease)


async def test_exhausted_for_all_is_said_with_the_time_of_the_next_window() -> None:
    """When nobody has it, waiting helps only until the budget starts anew; without a window, not at all."""
    core = await world()
    lease = await core.lease()
    tell(core, told(granted=100, remaining=600, reset_wall_ms=core.clock.wall_ms + 3_600_000))
    refusal = await refused(core, lease)
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.BUDGET_EXHAUSTED, 3600.0)
    assert "for all sidecars" in refusal.message
    tell(core, told(granted=100, remaining=600))
    assert (await refused(core, lease)).retry_after_seconds is None


async def test_e9_a_window_that_ends_is_not_a_centre_that_is_silent() -> None:
    """Its slice was good for a second only; the answer was for longer: more is asked for, and soon there."""
    core = await world()
    lease = await core.lease()
    now = core.clock.now()
    core.books.slices.take((told(granted=10**6, seconds=1.0),), now, now, SECONDS)
    await core.admit(lease)
    core.clock.advance(1.5)
    refusal = await refused(core, lease)
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.BUDGET_EXHAUSTED, GRANT_SECONDS)
    core.clock.advance(SECONDS / 2)
    assert (await refused(core, lease)).reason is Reason.CENTRE_UNREACHABLE


async def test_e9_the_centre_unreachable_what_is_held_may_be_spent_and_then_no_more() -> None:
    """The slice goes on without the centre until it is used up, then until its time; each refusal says which."""
    core = await world()
    lease = await core.lease()
    tell(core, told(granted=1500))
    core.clock.advance(SECONDS / 2)
    await core.admit(lease)
    await core.admit(lease)
    refusal = await refused(core, lease)
    assert (refusal.reason, refusal.retry_after_seconds) == (Reason.CENTRE_UNREACHABLE, SILENT_SECONDS)
    assert "collector" in refusal.message
    tell(core, told(granted=10**6))
    core.clock.advance(SECONDS - 0.001)
    await core.admit(lease)
    core.clock.advance(0.001)
    assert (await refused(core, lease)).reason is Reason.CENTRE_UNREACHABLE
    tell(core, told(granted=10**6))
    await core.admit(lease)


async def test_e9_a_slice_that_had_ended_and_is_told_again_ends_again() -> None:
    """A call that was refused in between is no reason to look no more when it ends."""
    core = await world()
    lease = await core.lease()
    tell(core, told(granted=10**6))
    core.clock.advance(SECONDS)
    await refused(core, lease)
    for _ in range(2):
        tell(core, told(granted=10**6))
        await core.admit(lease)
        core.clock.advance(SECONDS)
        await refused(core, lease)


async def test_e9_words_in_answer_to_an_old_heartbeat_are_good_for_less() -> None:
    """The time of a slice runs from when the heartbeat was sent, not from when the answer came."""
    core = await world()
    lease = await core.lease()
    sent = core.clock.now()
    core.clock.advance(SECONDS - 1)
    core.books.slices.take((told(granted=10**6),), sent, core.clock.now())
    await core.admit(lease)
    core.clock.advance(1)
    await refused(core, lease)
    core.books.slices.take((told(granted=10**6),), None, core.clock.now())
    await refused(core, lease)


async def test_e5_what_is_returned_is_gone_at_once_and_said_with_every_report() -> None:
    """Asked back down to 100 while 700 are held, the rest is returned; no later word of the same total revives it."""
    core = await world()
    lease = await core.lease()
    tell(core, told(granted=2000))
    await core.admit(lease)
    tell(core, told(granted=2000, keep=100))
    await refused(core, lease)
    for _ in range(2):
        tell(core, told(granted=2000))
        await refused(core, lease)
        assert reports(core)[1].returned == 1200
    tell(core, told(granted=2600))
    await core.admit(lease)


async def test_a_slice_that_is_not_listed_is_returned_once_its_calls_have_ended() -> None:
    """A new window: nothing is drawn on the old slice; what its calls leave over is given back, then forgotten."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000))
    call = await core.admit(lease)
    tell(core, told(2, 1000))
    assert (reports(core)[1].returned, reports(core)[1].held) == (300, 700)
    other = await core.admit(lease)
    await core.calls.settle(call.call_id, used(10, 10))
    found = reports(core)
    assert (found[1].spent, found[1].returned, found[1].held) == (60, 940, 0)
    assert (found[2].held, found[2].returned) == (700, 0)
    await core.calls.settle(other.call_id, used(0, 0))
    core.clock.advance(OVER_SECONDS)
    await core.sweep.prune(core.clock.now())
    assert 1 in reports(core), "nobody has answered its last report"
    core.books.slices.answered(tuple(found.values()))
    await core.sweep.prune(core.clock.now())
    assert sorted(reports(core)) == [NO_FENCE, 2]
    assert core.books.ledger.account(f"slice:1|{BUDGET}|{COST}") is None


async def test_a_slice_that_is_listed_again_is_what_it_was() -> None:
    """Told that it has none, and then of the same slice: spent and returned stay, and a new grant is spent once."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000))
    call = await core.admit(lease)
    await core.calls.settle(call.call_id, used(10, 10))
    tell(core, told(NO_FENCE))
    assert reports(core)[1].returned == 940
    tell(core, told(1, 1000))
    await refused(core, lease)
    tell(core, told(1, 1700))
    await core.admit(lease)
    await refused(core, lease)


async def test_e5_a_slice_that_was_forgotten_is_not_begun_anew() -> None:
    """Listed once more after its account was closed, it would be spent twice: nothing fits, until a new one comes."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000))
    call = await core.admit(lease)
    await core.calls.settle(call.call_id, used(10, 10))
    tell(core, told(2, 0))
    core.clock.advance(OVER_SECONDS)
    core.books.slices.answered(core.books.slices.reports(core.clock.now()))
    await core.sweep.prune(core.clock.now())
    tell(core, told(1, 1000))
    await refused(core, lease)
    tell(core, told(2, 700))
    await core.admit(lease)


async def test_slices_of_several_budgets_come_in_any_order() -> None:
    """Fences are counted over all budgets: a lower one that is listed after a higher one is as good."""
    core = await world()
    lease = await core.lease()
    tell(core, told(7, 1000), told(6, 1000, budget="fleet:provider:anthropic|day"))
    await core.admit(lease)
    assert {fence: one.held for fence, one in reports(core).items() if fence} == {6: 700, 7: 700}


async def test_e7_a_slice_dies_with_its_process_and_what_was_spent_is_told_by_the_next() -> None:
    """After a crash with a call open, the next life may spend nothing of it, and reports the whole hold as spent."""
    disk = MemoryDisk()
    core = await world(disk=disk)
    lease = await core.lease()
    tell(core, told(1, 2000))
    call = await core.admit(lease)
    await core.calls.settle(call.call_id, used(10, 10))
    await core.admit(lease)
    again = await world(disk=disk)
    assert reports(again) == {1: SliceReport(BUDGET, COST, 1, 0, 0, 760, 0, 0, 0)}
    tell(again, told(1, 2000))
    assert (await refused(again, again.books.leases[lease.name])).reason is Reason.BUDGET_EXHAUSTED
    again.clock.advance(OVER_SECONDS)
    again.books.slices.answered(again.books.slices.reports(again.clock.now()))
    await again.sweep.prune(again.clock.now())
    assert 1 not in reports(again)
    third = await world(disk=disk)
    assert reports(third) == {}


async def test_an_answer_is_not_cut_short_for_a_small_slice_but_for_what_the_fleet_has_left() -> None:
    """A grant that lowers outputs lowers to what all sidecars have left, and asks for the slice that the call needs."""
    core = await world(lower=True)
    lease = await core.lease()
    tell(core, told(1, 300))
    refusal = await refused(core, lease)
    assert refusal.retry_after_seconds == GRANT_SECONDS
    assert reports(core)[NO_FENCE].need == 700
    tell(core, told(1, 300, remaining=450))
    await refused(core, lease)
    tell(core, told(1, 450, remaining=450))
    admitted = await core.admit(lease)
    assert admitted.output_tokens_limit == 50


async def test_the_worst_case_is_not_lowered_below_a_lease() -> None:
    """Fleet and lease together: the smaller of what both leave."""
    core = await world(lower=True)
    lease = await core.lease(caps(cost_micro_usd=500))
    tell(core, told(1, 10_000))
    admitted = await core.admit(lease, plan(100, 100))
    assert admitted.output_tokens_limit == 60


async def test_refusals_are_told_soon_and_not_each_of_them() -> None:
    """Many refused calls are one message; where nobody has the money, the next heartbeat is soon enough."""
    core = await world()
    lease = await core.lease()
    pressed = []
    core.books.slices.press = lambda: pressed.append(1)
    tell(core, told(1, 100))
    reports(core)
    for _ in range(5):
        await refused(core, lease)
    now = core.clock.now()
    assert core.books.slices.due_seconds(now) == pytest.approx(REPORT_SECONDS_MIN)
    core.clock.advance(REPORT_SECONDS_MIN)
    assert core.books.slices.due_seconds(core.clock.now()) == 0
    assert len(pressed) == 6
    reports(core)
    tell(core, told(1, 100, remaining=100))
    await refused(core, lease)
    assert core.books.slices.due_seconds(core.clock.now()) is None


async def test_a_process_that_stops_gives_everything_back() -> None:
    """Draining: nothing is wanted, all that is not held is returned, and it is known when the centre has it."""
    core = await world()
    slices = core.books.slices
    tell(core, told(1, 1000))
    assert slices.holding
    await core.stop.run(0)
    found = slices.reports(core.clock.now())
    assert {one.fence: (one.returned, one.want, one.need) for one in found} == {1: (1000, 0, 0)}
    assert slices.holding
    slices.answered(found)
    assert not slices.holding


async def test_e5_what_the_next_life_may_charge_is_not_given_back() -> None:
    """A call has ended and its end is not durable: killed now, the next life charges the hold, which is still there."""
    disk = MemoryDisk()
    core = await world(disk=disk)
    lease = await core.lease()
    tell(core, told(1, 1000))
    call = await core.admit(lease)
    core.store.hold()
    core.calls.end(call.call_id, used(10, 10))
    tell(core, told(1, 1000, keep=0))
    assert reports(core)[1] == SliceReport(BUDGET, COST, 1, 1000, 300, 60, 0, 0, 0)
    tell(core)
    assert reports(core)[1].returned == 300, "nor once it is over"
    core.clock.advance(OVER_SECONDS)
    core.books.slices.answered(core.books.slices.reports(core.clock.now()))
    assert core.books.slices.forget(core.clock.now()) == []
    core.store.crash()
    assert reports(await world(disk=disk))[1].spent == 1000 - 300


async def test_e5_what_was_not_durable_is_given_back_once_it_is() -> None:
    """The same, and the disk answers: the rest of the hold is returned with the next report."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000))
    call = await core.admit(lease)
    core.store.down = DISK
    core.calls.end(call.call_id, used(10, 10))
    await core.stop.run(0)
    assert reports(core)[1].returned == 300
    core.books.slices.answered(core.books.slices.reports(core.clock.now()))
    assert not core.books.slices.holding, "nobody waits for a disk that has failed"
    core.store.down = None
    await core.journal.drain()
    assert core.books.slices.holding
    assert reports(core)[1].returned == 940


async def test_e5_a_grant_that_failed_may_be_on_the_disk_until_something_is_written_after_it() -> None:
    """Its hold is kept: a disk that failed may have it; a write that succeeds says that it was rolled back."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000))
    core.store.down = DISK
    assert (await refused(core, lease)).reason is Reason.STORE_UNAVAILABLE
    tell(core, told(1, 1000, keep=0))
    assert reports(core)[1].returned == 300
    core.store.down = None
    await core.lease()
    tell(core, told(1, 1000, keep=0))
    assert reports(core)[1].returned == 1000


async def test_an_admitted_call_says_which_slice_it_drew_on() -> None:
    """The audit event names the slice by its fence, so that the log alone tells who spent what of it (A7)."""
    core = await world()
    lease = await core.lease()
    tell(core, told(41, 1000))
    await core.admit(lease)
    (event,) = [event for _, _, event in core.store.disk.events if event.type == "call.admitted"]
    assert f"slice:41|{BUDGET}|{COST}" in msgspec.json.encode(event.details).decode()


async def test_a_holder_sees_its_sidecars_part() -> None:
    """GetLease shows the slice as a budget of its own, with when it starts anew."""
    core = await world()
    lease = await core.lease()
    tell(core, told(1, 1000, reset_wall_ms=123))
    await core.admit(lease)
    rows = {row.budget: row for row in core.read.usage(core.now_lease(lease))}
    assert (rows[BUDGET].cap, rows[BUDGET].held, rows[BUDGET].remaining) == (1000, 700, 300)
    assert rows[BUDGET].reset_wall_ms == 123
