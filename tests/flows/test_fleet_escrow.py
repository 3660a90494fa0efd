"""Fleet budgets at the centre: who is granted what, in which order with the disk, and what time and silence end."""

import asyncio
from dataclasses import replace

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_escrow_log import MemoryEscrowLog, escrow_over, fleet_budget

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import KEEP_ALL, NO_FENCE, SliceReport
from leasehold_broker.domain.limits import Level
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.sync import silence_seconds
from leasehold_broker.domain.windows import Period, Rolling
from leasehold_broker.flows.escrow_windows import OVER_SECONDS_MIN
from leasehold_broker.flows.fleet_escrow import CALL_SECONDS_MAX, LOOK_SECONDS, FleetEscrow

COST = Metric.COST_MICRO_USD
BUDGET = fleet_budget(cost_micro_usd=1000)
NAME = BUDGET.name
AUTHORITY = 60.0
DISK_FULL = Refusal(Reason.STORE_UNAVAILABLE, "full")


def said(fence: int = NO_FENCE, **more) -> SliceReport:
    """What a sidecar says of its slice."""
    return SliceReport(NAME, COST, fence, **more)


class World:
    """A centre over a log in memory."""

    def __init__(self, clock: ManualClock, log: MemoryEscrowLog, escrow: FleetEscrow) -> None:
        """Of these."""
        self.clock = clock
        self.log = log
        self.escrow = escrow

    def told(self, name: str, life: str | None = None):
        """What the sidecar is told."""
        (one,) = self.escrow.told(name, life or f"{name}1", self.clock.now())
        return one

    async def asks(self, name: str, *reports: SliceReport, life: str | None = None):
        """The sidecar joins and reports, a round goes by: what it is told then."""
        life = life or f"{name}1"
        self.escrow.joined(name, life)
        self.escrow.heard(name, life, reports)
        await self.escrow.step()
        return self.told(name, life)

    async def asks_all(self, name: str):
        """The same life joins again: all that it is told."""
        self.escrow.joined(name, f"{name}1")
        await self.escrow.step()
        return self.escrow.told(name, f"{name}1", self.clock.now())

    async def later(self, seconds: float) -> None:
        """Time passes, and a round goes by."""
        self.clock.advance(seconds)
        await self.escrow.step()

    def events(self, kind: EventType) -> list[dict]:
        """Details of the durable events of this kind."""
        return [dict(event.details) for event in self.log.events if event.type is kind]


async def world(*budgets, log: MemoryEscrowLog | None = None, clock: ManualClock | None = None) -> World:
    """By default of one budget of 1000 a day."""
    clock, log = clock or ManualClock(), log or MemoryEscrowLog()
    return World(clock, log, await escrow_over(log, clock, *(budgets or (BUDGET,)), authority=AUTHORITY))


async def test_a_sidecar_is_told_what_is_durable_and_never_before() -> None:
    """What it is granted is in the log with its event when it is told; when the disk fails, it is told nothing."""
    found = await world()
    found.log.down = DISK_FULL
    told = await found.asks("a", said(want=100))
    assert (told.fence, told.granted, found.log.kept) == (NO_FENCE, 0, {})
    assert found.escrow.failures == 1
    found.log.down = None
    told = await found.asks("a", said(want=100))
    assert (told.fence, told.granted, told.remaining, told.seconds) == (1, 100, 1000, AUTHORITY)
    assert found.log.kept[1].granted == 100
    (event,) = found.events(EventType.BUDGET_SLICE_GRANTED)
    assert (event["sidecar"], event["fence"], event["amount"], event["free"]) == ("a", 1, 100, 900)


async def test_while_the_disk_writes_nobody_is_told() -> None:
    """Between the decision and the commit the sidecar is told what it had before."""
    found = await world()
    seen = []

    async def slow(*put):
        seen.append(found.told("a").granted)
        return await MemoryEscrowLog.put_slices(found.log, *put)

    found.log.put_slices = slow
    told = await found.asks("a", said(want=100))
    assert (seen, told.granted) == ([0], 100)
    told = await found.asks("a", said(1, granted=100), said(want=300))
    assert (seen, told.granted) == ([0, 100], 300)


async def test_e1_what_was_in_memory_when_the_disk_failed_is_as_if_it_had_not_been() -> None:
    """After a failed commit the books are those of the disk; what was reported is booked upon them, once."""
    found = await world()
    await found.asks("a", said(want=300))
    found.log.down = DISK_FULL
    await found.asks("a", said(1, granted=300, spent=100, returned=150), said(want=50))
    assert (found.log.kept[1].reported, found.log.kept[1].returned) == (0, 0)
    found.log.down = None
    await found.escrow.step()
    (running,) = found.escrow.windows
    assert (running.escrow.free, running.escrow.gone) == (850, 100)
    assert (found.log.kept[1].reported, found.log.kept[1].returned) == (100, 150)
    assert [event["amount"] for event in found.events(EventType.BUDGET_SLICE_RETURNED)] == [150]


async def test_e1_a_centre_that_starts_again_knows_every_slice() -> None:
    """Restored from the log: the same sums, the same life goes on with its slice, fences go on."""
    found = await world()
    await found.asks("a", said(want=100))
    await found.asks("b", said(need=300))
    await found.asks("b", said(2, granted=300, spent=120), said())
    again = await world(log=found.log, clock=found.clock)
    (running,) = again.escrow.windows
    assert (running.escrow.free, running.escrow.gone) == (600, 120)
    told = await again.asks("a")
    assert (told.fence, told.granted) == (1, 100)
    assert (await again.asks("c", said(want=10))).fence == 3


async def test_e7_another_life_gets_a_slice_of_its_own_and_the_old_one_is_over() -> None:
    """A crash or a copy: the right of the life before is not handed on, its return is not believed, its spending is."""
    found = await world()
    await found.asks("a", said(want=400))
    told = await found.asks("a", said(1, spent=70), said(want=100), life="a2")
    assert (told.fence, told.granted) == (2, 100)
    assert found.told("a", "a1").fence == NO_FENCE
    found.escrow.heard("a", "a1", [said(1, granted=400, returned=400)])
    found.escrow.heard("a", "a2", [said(1, returned=400, spent=70)])
    await found.escrow.step()
    assert (found.log.kept[1].state, found.log.kept[1].returned, found.log.kept[1].reported) == (
        SliceState.ENDED,
        0,
        70,
    )


async def test_e7_two_copies_that_take_turns_do_not_end_each_others_slices() -> None:
    """A life that was taken over from gets no slice while the other one is heard; when that is silent, it may again."""
    found = await world()
    await found.asks("a", said(want=100))
    assert (await found.asks("a", said(want=100), life="a2")).fence == 2
    for _ in range(3):
        assert (await found.asks("a", said(want=100), life="a1")).fence == NO_FENCE
        assert (await found.asks("a", said(2, granted=100), said(want=100), life="a2")).fence == 2
    found.clock.advance(silence_seconds(AUTHORITY) + 0.001)
    assert (await found.asks("a", said(want=100), life="a1")).fence == 3
    assert (await found.asks("a", said(want=100), life="a2")).fence == NO_FENCE
    assert (await found.asks("a", said(want=100), life="a3")).fence == 4
    assert [row.state for row in found.log.kept.values()] == [SliceState.ENDED] * 3 + [SliceState.OPEN]


async def test_e7_nobody_speaks_of_anothers_slice() -> None:
    """A fence of another sidecar, or of another budget, is refused; an unknown one means a centre that lost it."""
    found = await world()
    await found.asks("a", said(want=100))
    await found.asks("b", said(want=100))
    for report, reason in (
        (said(1, returned=100), Reason.FIELD_INVALID),
        (replace(said(2), metric=Metric.REQUESTS), Reason.FIELD_INVALID),
        (said(3), Reason.CENTRE_BEHIND),
        (said(2, granted=101), Reason.CENTRE_BEHIND),
    ):
        with pytest.raises(Refusal) as failed:
            found.escrow.heard("b", "b1", [report])
        assert failed.value.reason is reason
    (running,) = found.escrow.windows
    assert running.escrow.free == 800


async def test_e7_the_next_life_of_a_sidecar_is_let_in_by_a_centre_that_lost_what_it_granted() -> None:
    """The way back when no newer copy is left: restarted, a sidecar holds nothing unknown and is let in."""
    found = await world()
    await found.asks("a", said(want=100))
    with pytest.raises(Refusal, match=r"fleet-budgets\.md") as failed:
        await found.asks("a", said(1, granted=150, spent=120), said(want=50))
    assert failed.value.reason is Reason.CENTRE_BEHIND
    found.escrow.left("a", "a1")
    told = await found.asks("a", said(want=50), life="a2")
    assert (told.fence, told.granted) == (2, 50)


async def test_e6_a_lost_sidecar_is_written_off_only_once_it_must_have_stopped() -> None:
    """Silence for its authority, the drift of two clocks and the longest call; then the rest counts as spent."""
    found = await world()
    await found.asks("a", said(want=400))
    await found.asks("a", said(1, granted=400, spent=100), said())
    found.escrow.left("a", "a1")
    wait = silence_seconds(AUTHORITY) + CALL_SECONDS_MAX
    await found.later(wait - 0.5)
    assert found.log.kept[1].state is SliceState.OPEN
    await found.later(LOOK_SECONDS)
    assert (found.log.kept[1].state, found.log.kept[1].written_off) == (SliceState.WRITTEN_OFF, 300)
    (event,) = found.events(EventType.BUDGET_SLICE_WRITTEN_OFF)
    assert (event["sidecar"], event["amount"], event["spent"], event["free"]) == ("a", 300, 100, 600)
    told = await found.asks("a", said(1, granted=400, spent=250, returned=150), said(want=50))
    assert (told.fence, found.log.kept[1].written_off, found.log.kept[1].returned) == (2, 150, 0)
    (running,) = found.escrow.windows
    assert running.escrow.free == 550


async def test_e6_after_a_restart_every_sidecar_counts_as_heard_just_now() -> None:
    """A centre that was down does not know who spoke last: it waits the whole time again."""
    found = await world()
    await found.asks("a", said(want=400))
    found.clock.advance(10_000)
    again = await world(log=found.log, clock=found.clock)
    await again.later(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX - 0.5)
    assert found.log.kept[1].state is SliceState.OPEN
    await again.later(1)
    assert found.log.kept[1].state is SliceState.WRITTEN_OFF


async def test_e8_a_refused_call_gets_what_an_idle_sidecar_has() -> None:
    """The idle one is asked at once to keep only what it needs; its return is granted on, in the same commit."""
    found = await world()
    await found.asks("a", said(need=900))
    await found.asks("a", said(1, granted=900), said())
    wake = asyncio.Event()
    with found.escrow.waking("a", "a1", wake):
        told = await found.asks("b", said(need=500))
        assert told.fence == NO_FENCE
        assert wake.is_set()
    keep = found.told("a").keep
    assert keep <= 500
    commits = found.log.commits
    found.escrow.heard("a", "a1", [said(1, granted=900, returned=900 - keep), said()])
    await found.escrow.step()
    assert found.told("b").granted >= 500
    assert found.log.commits == commits + 1
    assert found.told("a").keep == KEEP_ALL


async def test_e8_what_is_much_too_much_is_asked_back_without_hurry() -> None:
    """Idle: told to keep only its floor with the next answer; nobody is woken for it."""
    found = await world()
    await found.asks("a", said(want=400))
    wake = asyncio.Event()
    with found.escrow.waking("a", "a1", wake):
        told = await found.asks("a", said(1, granted=400), said())
    assert told.keep == 15
    assert not wake.is_set()


async def test_whoever_wants_nothing_keeps_a_floor() -> None:
    """A first call is not refused: a small part is granted before anybody asks for it."""
    found = await world()
    told = await found.asks("a", said())
    assert told.granted == 15


async def test_a_new_window_is_a_new_grant() -> None:
    """At midnight the old slice is over, the demand goes on, and what comes back late is the old window's."""
    clock = ManualClock(wall_ms=86_400_000 * 20_000 - 10_000)
    found = await world(clock=clock)
    told = await found.asks("a", said(want=400))
    assert (told.seconds, told.reset_wall_ms) == (10.0, 86_400_000 * 20_000)
    await found.later(10)
    told = found.told("a")
    assert (told.fence, told.granted, told.remaining) == (2, 400, 1000)
    await found.asks("a", said(1, granted=400, spent=150, returned=250), said(2, granted=400))
    old, new = list(found.escrow.windows)
    assert (old.escrow.free, old.escrow.gone, new.escrow.free) == (850, 150, 600)


async def test_a_wall_clock_that_is_set_back_finds_what_was_granted() -> None:
    """Forward a day and back again: the first window is still there, its slice is listed again."""
    found = await world()
    await found.asks("a", said(want=400))
    wall = found.clock.wall_ms
    found.clock.wall_ms += 86_400_000
    await found.asks("a", said(want=400))
    assert found.told("a").fence == 2
    found.clock.wall_ms = wall
    await found.asks("a", said(1, granted=400))
    assert (found.told("a").fence, found.told("a").granted) == (1, 400)


async def test_e6_who_is_expelled_is_written_off_at_once_and_frees_nothing() -> None:
    """What it has not accounted for counts as spent in every window; what it says later moves it to spent, no more."""
    found = await world()
    await found.asks("a", said(need=300))
    await found.asks("a", said(1, granted=300, spent=100, held=50), said(need=300))
    free = 1000 - found.log.kept[1].granted
    found.escrow.expelled("a")
    await found.escrow.step()
    row = found.log.kept[1]
    assert (row.state, row.written_off) == (SliceState.WRITTEN_OFF, row.granted - 100)
    (event,) = found.events(EventType.BUDGET_SLICE_WRITTEN_OFF)
    assert (event["sidecar"], event["amount"], event["free"]) == ("a", row.granted - 100, free)
    assert (found.told("a").fence, found.told("a").remaining) == (NO_FENCE, free)
    found.escrow.heard("a", "a1", [said(1, granted=300, spent=150), said(need=200)])  # its stream is not cut yet
    await found.escrow.step()
    assert found.log.kept[1].reported == 100
    told = await found.asks("a", said(1, granted=300, returned=100, spent=160), said(need=200))  # it was readmitted
    row = found.log.kept[1]
    assert (row.reported, row.returned, row.written_off) == (160, 0, row.granted - 160)
    assert told.fence == 2
    assert told.granted <= free


async def test_e6_an_expelled_sidecar_is_written_off_though_the_disk_failed_first() -> None:
    """A commit that fails is made again; nobody else's slice is touched."""
    found = await world()
    await found.asks("a", said(need=300))
    await found.asks("b", said(need=200))
    found.log.down = DISK_FULL
    found.escrow.expelled("a")
    await found.escrow.step()
    assert found.log.kept[1].state is SliceState.OPEN
    found.log.down = None
    await found.escrow.step()
    assert [found.log.kept[fence].state for fence in (1, 2)] == [SliceState.WRITTEN_OFF, SliceState.OPEN]


async def test_windows_that_were_over_long_ago_are_forgotten() -> None:
    """Once all of it is accounted for and a day has passed; their fences are not used again."""
    found = await world(fleet_budget(period=Period.MINUTE, cost_micro_usd=1000))
    name = fleet_budget(period=Period.MINUTE).name
    ask = SliceReport(name, COST, NO_FENCE, want=100)
    await found.asks("a", ask)
    found.escrow.left("a", "a1")
    await found.later(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX + 60)
    assert found.log.kept[1].state is SliceState.WRITTEN_OFF
    await found.later(OVER_SECONDS_MIN - 3600)
    assert 1 in found.log.kept
    await found.later(3600)
    assert 1 not in found.log.kept
    assert (await found.asks("b", ask)).fence == 2
    found.escrow.heard("b", "b1", [SliceReport(name, COST, 1, spent=5)])


def change(cap: int, direction: Direction = Direction.LOWER, until_wall_ms: int = 0) -> BudgetChange:
    """An operator's."""
    return BudgetChange(1, NAME, COST, direction, cap, until_wall_ms, "", "alice", "r", 0)


async def test_a_cap_is_raised_and_lowered_while_slices_are_out() -> None:
    """Lowered below what is out: nothing is granted, and everybody is asked back; raised: it goes on at once."""
    found = await world()
    await found.asks("a", said(need=800))
    await found.asks("a", said(1, granted=800, spent=100), said(want=300))
    found.log.changes.append(change(500))
    await found.later(LOOK_SECONDS)
    told = found.told("a")
    assert (told.remaining, told.keep) == (400, 200)
    assert (await found.asks("b", said(need=100))).fence == NO_FENCE
    await found.asks("a", said(1, granted=800, spent=100, returned=500), said(want=200))
    assert found.told("b").granted >= 100
    found.log.changes.append(replace(change(5000, Direction.RAISE), number=2, until_wall_ms=found.clock.wall_ms + 5000))
    await found.later(LOOK_SECONDS)
    assert found.told("a").remaining == 4900
    await found.later(5)
    assert found.told("a").remaining == 900


async def test_budgets_are_apart() -> None:
    """Each budget and metric has slices of its own; what is no longer configured grants nothing, and is kept."""
    both = (BUDGET, fleet_budget(Level.KEY, "prod", cost_micro_usd=50, requests=10))
    found = await world(*both)
    found.escrow.joined("a", "a1")
    found.escrow.heard(
        "a",
        "a1",
        [
            said(need=100),
            SliceReport(both[1].name, COST, 0, need=40),
            SliceReport(both[1].name, Metric.REQUESTS, 0, need=3),
        ],
    )
    await found.escrow.step()
    granted = {(one.budget, one.metric): one.granted for one in found.escrow.told("a", "a1", found.clock.now())}
    assert granted[NAME, COST] >= 100
    assert granted[both[1].name, COST] >= 40
    assert granted[both[1].name, Metric.REQUESTS] >= 3
    less = await world(log=found.log, clock=found.clock)
    assert len(await less.asks_all("a")) == 1
    again = await world(*both, log=found.log, clock=found.clock)
    assert {one.granted for one in await again.asks_all("a")} == set(granted.values())


async def test_without_fleet_budgets_nothing_is_said_of_them() -> None:
    """A collector that has none tells so, and does nothing."""
    clock, log = ManualClock(), MemoryEscrowLog()
    escrow = await escrow_over(log, clock)
    escrow.joined("a", "a1")
    escrow.heard("a", "a1", [said(want=1)])
    await escrow.step()
    assert escrow.told("a", "a1", clock.now()) is None
    assert log.commits == 0


async def test_it_runs_by_itself() -> None:
    """A report is answered without waiting for the next look."""
    found = await world()
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        task = group.create_task(found.escrow.run())
        wake = asyncio.Event()
        found.escrow.joined("a", "a1")
        with found.escrow.waking("a", "a1", wake):
            found.escrow.heard("a", "a1", [said(want=10)])
            await wake.wait()
        task.cancel()
    assert found.told("a").granted >= 10


async def drained_by(found: World, name: str) -> int:
    """It asks for all there is and says that it spent it, again and again, in new lives too: what it had in all."""
    had = 0
    for life in range(3):
        spent = fence = 0
        for _ in range(20):
            reports = [said(want=10_000)] + ([said(fence, spent=spent, granted=spent)] if fence else [])
            told = await found.asks(name, *reports, life=f"{name}{life}")
            fence, spent = told.fence, told.granted
        had += spent
        await found.later(1.0)
    return had


async def test_a_hostile_sidecar_takes_no_more_than_its_share_in_all_its_lives() -> None:
    """Spent, as it says, or lost with a life: it counts; the rest is for others, and it is told that it has none."""
    found = await world(replace(BUDGET, sidecar_percent_max=30))
    assert await drained_by(found, "m") == 300
    assert found.told("m", "m2").remaining == 0
    others = [await found.asks(name, said(need=300)) for name in ("a", "b")]
    assert [told.granted for told in others] == [300, 300]
    assert (await found.asks("a", said(others[0].fence, granted=300, spent=300), said(need=1))).granted == 300
    assert found.told("a").remaining == 0


async def test_without_a_share_one_may_take_it_all() -> None:
    """Off unless it is stated: skewed demand is honest, mostly."""
    found = await world()
    assert await drained_by(found, "m") >= 990


async def test_a_need_above_the_share_is_refused_at_once_and_asks_nobody_to_give_back() -> None:
    """It would be of no use: whoever holds something keeps it."""
    found = await world(replace(BUDGET, sidecar_percent_max=50))
    await found.asks("a", said(want=400))
    told = await found.asks("b", said(need=501))
    assert told.granted <= 500
    assert told.remaining <= 500
    assert found.told("a").keep == KEEP_ALL
    assert (await found.asks("b", said(told.fence, granted=told.granted), said(need=500))).granted == 500


async def test_a_cap_that_is_lowered_below_what_is_out_is_asked_back_at_once() -> None:
    """Also where nobody has twice what he should: whoever has more is woken, and with it nothing is out too much."""
    found = await world()
    for fence, name in enumerate(("a", "b", "c"), start=1):
        await found.asks(name, said(need=300))
        await found.asks(name, said(fence, granted=300), said(want=300))
    wake = asyncio.Event()
    found.log.changes.append(change(800))
    with found.escrow.waking("a", "a1", wake):
        found.escrow.cap_changed()
        await found.escrow.step()
        assert wake.is_set()
    keeps = [found.told(name).keep for name in ("a", "b", "c")]
    assert keeps == [200, 200, 200]
    for fence, name in enumerate(("a", "b", "c"), start=1):
        await found.asks(name, said(fence, granted=300, returned=100), said(want=200))
    assert found.told("a").keep == KEEP_ALL


async def test_a_share_follows_the_cap_that_an_operator_sets() -> None:
    """Raised, more may be granted; lowered, what was granted stays and nothing more comes."""
    found = await world(replace(BUDGET, sidecar_percent_max=10))
    told = await found.asks("a", said(need=100))
    assert told.granted == 100
    found.log.changes.append(BudgetChange(1, NAME, COST, Direction.RAISE, 2000, 0, "", "ops", "r1", 1))
    told = await found.asks("a", said(told.fence, granted=100, spent=100), said(need=100))
    assert told.granted == 200
    found.log.changes.append(BudgetChange(2, NAME, COST, Direction.LOWER, 500, 0, "", "ops", "r2", 1))
    told = await found.asks("a", said(told.fence, granted=200, spent=200), said(need=1))
    assert (told.granted, told.remaining) == (200, 0)


async def test_a_share_of_a_rolling_budget_is_over_all_that_counts() -> None:
    """A new bucket begins nothing anew for who has had its share in the ones before."""
    rolling = fleet_budget(period=Rolling(3600), cost_micro_usd=1000)
    found = await world(replace(rolling, sidecar_percent_max=30))

    def of(fence: int = NO_FENCE, **more) -> SliceReport:
        return replace(said(fence, **more), budget=rolling.name)

    told = await found.asks("m", of(need=200))
    await found.asks("m", of(told.fence, granted=200, spent=200))
    await found.later(60.0)
    told = await found.asks("m", of(need=200))
    assert told.granted < 100
    assert told.remaining == 100
    assert (await found.asks("m", of(need=100))).granted == 100
    assert (await found.asks("a", of(need=300))).granted == 300


async def test_an_outlying_share_is_told_once_a_window() -> None:
    """By name and amount, whether or not there is a limit; after a restart once more at most."""
    found = await world()
    for name in ("a", "b", "c", "d"):
        await found.asks(name, said(need=20))
    assert found.events(EventType.BUDGET_SHARE_OUTLYING) == []
    told = await found.asks("m", said(need=500))
    for spent in (100, 200, 300):
        await found.asks("m", said(told.fence, granted=500, spent=spent))
    await found.later(1.0)
    (event,) = found.events(EventType.BUDGET_SHARE_OUTLYING)
    assert (event["budget"], event["sidecar"], event["amount"]) == (NAME, "m", 500)
