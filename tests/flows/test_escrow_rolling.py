"""Fleet budgets over rolling windows: no span of the length holds more than the cap; what is unspent comes back."""

import asyncio
import random
from collections import Counter

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_escrow_log import MemoryEscrowLog, escrow_over, fleet_budget

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import FLEET_ROLLING_SECONDS_MIN, NO_FENCE, SliceReport
from leasehold_broker.domain.sync import silence_seconds
from leasehold_broker.domain.time import NANOS
from leasehold_broker.domain.windows import Rolling
from leasehold_broker.flows.escrow_windows import counted_ms
from leasehold_broker.flows.fleet_escrow import CALL_SECONDS_MAX, FleetEscrow

COST = Metric.COST_MICRO_USD
CAP = 1000
SPAN = Rolling(FLEET_ROLLING_SECONDS_MIN)
BUCKET_SECONDS = SPAN.bucket_ms // 1000
BUDGET = fleet_budget(period=SPAN, cost_micro_usd=CAP)
AUTHORITY = 20.0


class Process:
    """One life of a sidecar: it spends what it is told while that is good, and settles some calls late."""

    def __init__(self, name: str, number: int, world: "World") -> None:
        """Of this sidecar."""
        self.name, self.life, self.world = name, f"{name}/{number}", world
        self.granted: Counter[int] = Counter()
        self.returned: Counter[int] = Counter()
        self.spent: Counter[int] = Counter()
        self.held: Counter[int] = Counter()
        self.fence, self.until_ns, self.need = NO_FENCE, 0, 0

    def left(self, fence: int) -> int:
        """What a new call may hold of a slice."""
        return self.granted[fence] - self.returned[fence] - self.spent[fence] - self.held[fence]

    def talk(self) -> None:
        """It says how it stands, and is told."""
        sent = self.world.clock.now()
        for fence in self.granted:
            if fence != self.fence:
                self.returned[fence] += self.left(fence)
        self.world.escrow.heard(
            self.name,
            self.life,
            [
                SliceReport(BUDGET.name, COST, NO_FENCE, want=self.need, need=self.need),
                *(
                    SliceReport(
                        BUDGET.name, COST, one, self.granted[one], self.returned[one], self.spent[one], self.held[one]
                    )
                    for one in self.granted
                ),
            ],
        )
        (told,) = self.world.escrow.told(self.name, self.life, sent)
        self.fence = told.fence
        if told.fence:
            self.granted[told.fence] = max(self.granted[told.fence], told.granted)
            self.until_ns = sent.boot_ns + int(told.seconds * NANOS)
            self.returned[told.fence] += max(0, self.left(told.fence) - told.keep)

    def admit(self, amount: int) -> int:
        """A call: the slice that it draws on, or NO_FENCE."""
        now = self.world.clock.now()
        if self.fence and now.boot_ns < self.until_ns and self.left(self.fence) >= amount:
            self.need = 0
            self.held[self.fence] += amount
            self.world.drawn.append((now.boot_ns, amount))
            return self.fence
        self.need = amount
        return NO_FENCE

    def settle(self, fence: int, amount: int) -> None:
        """A call of a slice ends; it cost all that it held."""
        self.held[fence] -= amount
        self.spent[fence] += amount


class World:
    """A centre with a rolling budget, and what the world alone knows: when each amount was drawn."""

    def __init__(self, clock: ManualClock, log: MemoryEscrowLog, escrow: FleetEscrow) -> None:
        """Of these."""
        self.clock, self.log, self.escrow = clock, log, escrow
        self.drawn: list[tuple[int, int]] = []
        self.processes: list[Process] = []
        self.open: list[tuple[Process, int, int]] = []

    def process(self, name: str) -> Process:
        """A new life."""
        made = Process(name, len(self.processes) + 1, self)
        self.processes.append(made)
        self.escrow.joined(name, made.life)
        return made

    async def later(self, seconds: float) -> None:
        """Time passes, and a round goes by."""
        self.clock.advance(seconds)
        await self.escrow.step()

    async def until_admitted(self, process: Process, amount: int) -> int:
        """Let it come back until it is served; the slice."""
        for _ in range(20):
            fence = process.admit(amount)
            if fence:
                return fence
            process.talk()
            await self.later(1.0)
        raise AssertionError("never served")

    async def something(self, chance: random.Random, alive: dict[str, Process]) -> None:
        """One thing happens to one of these."""
        process = alive[chance.choice(sorted(alive))]
        kinds = {"call": 40, "settle": 15, "talk": 25, "life": 2, "restart": 1, "set": 2, "time": 20}
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        if kind == "call":
            amount = chance.choice([1, 10, 60, 200])
            if fence := process.admit(amount):
                self.open.append((process, fence, amount))
        elif kind == "settle" and self.open:
            ended, fence, amount = self.open.pop(chance.randrange(len(self.open)))
            ended.settle(fence, amount)
        elif kind == "talk":
            process.talk()
            await self.escrow.step()
        elif kind == "life":
            alive[process.name] = self.process(process.name)
        elif kind == "restart":
            self.escrow = (await world(self.log, self.clock)).escrow
            for one in alive.values():
                self.escrow.joined(one.name, one.life)
        elif kind == "set":
            self.clock.wall_ms += chance.choice([-7_200_000, -5_000, 5_000])
        else:
            await self.later(chance.choice([0.5, 5.0, 30.0, 200.0]))

    def check(self) -> None:
        """E2: no span of the length that ends now holds more than the cap. E3: nobody is over what it was granted."""
        since = self.clock.boot_ns - SPAN.seconds * NANOS
        assert sum(amount for at_ns, amount in self.drawn if at_ns > since) <= CAP, "E2"
        for one in self.processes:
            for fence in one.granted:
                assert one.spent[fence] + one.held[fence] <= one.granted[fence] - one.returned[fence], "E3"


async def world(log: MemoryEscrowLog | None = None, clock: ManualClock | None = None) -> World:
    """As after a start."""
    log, clock = log or MemoryEscrowLog(), clock or ManualClock()
    return World(clock, log, await escrow_over(log, clock, BUDGET, authority=AUTHORITY))


@pytest.mark.parametrize("seed", range(25))
async def test_e2_e3_no_span_of_the_length_holds_more_than_the_cap(seed) -> None:
    """Calls, late settlements, lives that vanish, restarts, clocks that are set: whenever a span begins."""
    chance = random.Random(seed)
    found = await world()
    alive = {name: found.process(name) for name in [f"s{number}" for number in range(chance.choice([1, 3, 5]))]}
    for _ in range(400):
        await found.something(chance, alive)
        found.check()


async def test_what_is_unspent_at_the_end_of_a_bucket_goes_back_exactly() -> None:
    """After the bucket's end its slice keeps what was spent and what calls hold, and gives the rest back."""
    found = await world()
    process = found.process("a")
    first = await found.until_admitted(process, 300)
    process.settle(first, 300)
    process.need = 600
    process.talk()
    await found.later(1.0)
    process.talk()
    assert process.left(first) >= 600
    late = process.admit(50)
    assert late == first
    await found.later(BUCKET_SECONDS)
    for _ in range(3):
        process.talk()
        await found.later(1.0)
    row = found.log.kept[first]
    assert (row.granted - row.returned, row.reported) == (350, 300)
    process.settle(late, 50)
    process.talk()
    await found.later(1.0)
    row = found.log.kept[first]
    assert (row.granted - row.returned, row.reported) == (350, 350), "a charge that comes late is of its own bucket"
    second = await found.until_admitted(process, 600)
    assert second > first
    assert found.log.kept[second].window.start_ms > row.window.start_ms
    (one,) = found.escrow.standing()
    assert (one.escrow.cap, one.escrow.free + one.escrow.rights) == (CAP, CAP)
    assert one.reset_wall_ms == 0


async def test_what_was_spent_counts_for_the_length_and_then_no_more() -> None:
    """All of it is spent; a bucket before its time nothing is there, soon after all of it."""
    found = await world()
    process = found.process("a")
    process.settle(await found.until_admitted(process, 1000), 1000)
    process.need = 1000
    for _ in range(SPAN.seconds // BUCKET_SECONDS - 1):
        process.talk()
        await found.later(BUCKET_SECONDS)
        assert not process.admit(1)
        found.check()
    for _ in range(4):
        process.talk()
        await found.later(BUCKET_SECONDS)
    assert await found.until_admitted(process, 1000)
    found.check()


async def test_e2_what_was_spent_at_the_end_of_a_bucket_counts_as_long_as_any() -> None:
    """The last second of a bucket is not the first of it: for the whole length after it nothing is there."""
    found = await world()
    process = found.process("a")
    process.need = CAP
    process.talk()
    await found.later(1.0)
    into_ms = found.clock.wall_ms % SPAN.bucket_ms
    await found.later((SPAN.bucket_ms - into_ms) / 1000 - 3)
    process.talk()
    assert process.left(process.fence) >= CAP - 10
    spent = process.admit(CAP - 10)
    assert spent
    process.settle(spent, CAP - 10)
    process.need = CAP // 2
    for _ in range(SPAN.seconds // 10 - 1):
        process.talk()
        await found.later(10.0)
        process.talk()
        assert not process.admit(CAP // 2)
        found.check()
    assert await found.until_admitted(process, 1)


async def test_what_a_lost_sidecar_had_comes_back_with_its_bucket() -> None:
    """It vanishes with all of it: written off, and free again when the bucket counts no more."""
    found = await world()
    gone = found.process("gone")
    gone.need = CAP
    gone.talk()
    await found.later(1.0)
    found.escrow.left("gone", gone.life)
    other = found.process("other")
    assert not other.admit(500)
    for _ in range(int(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX) // 60 + 2):
        other.talk()
        await found.later(60.0)
    (row,) = [one for one in found.log.kept.values() if one.sidecar == "gone"]
    assert (row.state, row.written_off) == (SliceState.WRITTEN_OFF, row.granted)
    assert not other.admit(500)
    await found.later(counted_ms(SPAN) / 1000)
    assert await found.until_admitted(other, 500)


async def test_a_cap_that_is_lowered_counts_what_all_buckets_have() -> None:
    """An operator lowers it below what is out: nothing more is granted before enough has rolled out."""
    found = await world()
    process = found.process("a")
    process.settle(await found.until_admitted(process, 400), 400)
    found.log.changes.append(BudgetChange(1, BUDGET.name, COST, Direction.LOWER, 450, 0, "", "alice", "r", 0))
    await found.later(BUCKET_SECONDS)
    process.talk()
    await found.later(1.0)
    process.talk()
    assert not process.admit(100)
    assert await found.until_admitted(process, 20)
    (one,) = found.escrow.standing()
    assert (one.escrow.cap, one.changed) == (450, True)


async def test_buckets_that_count_no_more_are_forgotten_and_the_rest_outlives_a_restart() -> None:
    """The store holds what counts; after a restart with a clock set back, time goes on from the newest bucket."""
    found = await world()
    process = found.process("a")
    first = await found.until_admitted(process, 700)
    process.settle(first, 700)
    process.talk()
    await found.later(1.0)
    found.clock.wall_ms -= 86_400_000
    again = await world(found.log, found.clock)
    other = again.process("b")
    other.need = 400
    for _ in range(3):
        other.talk()
        await again.later(1.0)
    assert not other.admit(400), "what was spent before the clock was set counts"
    assert await again.until_admitted(other, 100)
    again.escrow.left("b", other.life)
    await again.later(counted_ms(SPAN) / 1000 + silence_seconds(AUTHORITY) + CALL_SECONDS_MAX)
    await again.later(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX + counted_ms(SPAN) / 1000)
    await again.later(1.0)
    assert first not in found.log.kept
    kinds = Counter(event.type for event in found.log.events)
    assert kinds[EventType.BUDGET_SLICE_WRITTEN_OFF] >= 1


async def test_two_buckets_share_the_cap_though_both_grant() -> None:
    """E1 over buckets: whatever each granted and did not get back, the sum stays within the cap."""
    found = await world()
    processes = [found.process(f"s{number}") for number in range(4)]
    for turn in range(12):
        for process in processes:
            process.need = 350
            process.talk()
        await asyncio.gather(found.escrow.step())
        for process in processes:
            process.talk()
            if fence := process.admit(100 + turn):
                process.settle(fence, 100 + turn)
        await found.later(BUCKET_SECONDS / 2)
        rights = sum(one.granted - one.returned for one in found.log.kept.values())
        assert rights <= CAP, "E1"
        found.check()
