"""Replicas of a centre that grant from one log: the cap holds whatever they do at once, and all are served."""

import asyncio
import contextlib
import random
from collections import Counter

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_escrow_log import MemoryEscrowLog, fleet_budget

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import NO_FENCE, SliceReport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.sync import silence_seconds
from leasehold_broker.flows.fleet_escrow import CALL_SECONDS_MAX, LOOK_SECONDS, FleetEscrow

COST = Metric.COST_MICRO_USD
CAP = 1000
BUDGET = fleet_budget(cost_micro_usd=CAP)
NAME = BUDGET.name
AUTHORITY = 60.0


class SharedLog(MemoryEscrowLog):
    """A log that others may come before: each commit waits a moment first, and E1 is checked after it."""

    async def put_slices(self, version, fence, slices, events) -> int:
        """As the port says."""
        await asyncio.sleep(0)
        made = await super().put_slices(version, fence, slices, events)
        assert sum(one.granted - one.returned for one in self.kept.values()) <= CAP, "E1"
        open_ = [one.sidecar for one in self.kept.values() if one.state is SliceState.OPEN]
        assert len(open_) == len(set(open_)), "E7"
        return made


class Process:
    """One life of a sidecar that spends what it is told, and says so."""

    def __init__(self, name: str, number: int) -> None:
        """Of this sidecar."""
        self.name, self.life = name, f"{name}/{number}"
        self.granted: Counter[int] = Counter()
        self.returned: Counter[int] = Counter()
        self.spent: Counter[int] = Counter()
        self.fence = NO_FENCE
        self.need = self.want = 0

    def left(self, fence: int) -> int:
        """What it may spend of a slice."""
        return self.granted[fence] - self.returned[fence] - self.spent[fence]

    def take(self, told) -> None:
        """What it is told."""
        if self.fence != told.fence and self.fence:
            self.returned[self.fence] += self.left(self.fence)
        self.fence = told.fence
        if told.fence:
            self.granted[told.fence] = max(self.granted[told.fence], told.granted)
            self.returned[told.fence] += max(0, self.left(told.fence) - told.keep)

    def spend(self, amount: int) -> bool:
        """A call; else it needs as much."""
        if self.fence and self.left(self.fence) >= amount:
            self.spent[self.fence] += amount
            self.need = 0
            return True
        self.need = amount
        return False

    def reports(self) -> list[SliceReport]:
        """How it stands."""
        return [
            SliceReport(NAME, COST, NO_FENCE, want=max(self.want, self.need), need=self.need),
            *(
                SliceReport(NAME, COST, fence, self.granted[fence], self.returned[fence], self.spent[fence])
                for fence in self.granted
            ),
        ]


class Replicas:
    """Some replicas, the sessions that sidecars have there, and what they tell each other."""

    def __init__(self, count: int, log: SharedLog | None = None) -> None:
        """Build; `start` restores."""
        self.clock, self.log = ManualClock(), log or SharedLog()
        self.all = [self._made() for _ in range(count)]
        self.home: dict[str, tuple[int, Process]] = {}
        self.processes: list[Process] = []

    def _made(self) -> FleetEscrow:
        return FleetEscrow([BUDGET], AUTHORITY, self.log, self.log, self.clock, shared=True)

    async def start(self) -> "Replicas":
        """Know the books."""
        for one in self.all:
            await one.restore()
        return self

    async def crash(self, index: int) -> None:
        """A replica dies and comes back; its sessions are gone."""
        self.all[index] = self._made()
        self.home = {name: home for name, home in self.home.items() if home[0] != index}
        with contextlib.suppress(Refusal):  # then it reads the books with its first round
            await self.all[index].restore()

    def process(self, name: str) -> Process:
        """A new life."""
        made = Process(name, len(self.processes) + 1)
        self.processes.append(made)
        return made

    def connect(self, process: Process, index: int) -> None:
        """Its newest session is there."""
        self.home[process.name] = (index, process)
        self.all[index].joined(process.name, process.life)

    def share(self) -> None:
        """What ShareFleet does over the board: the newest session is what counts."""
        now = self.clock.now()
        for name, (index, _) in self.home.items():
            life, asks = self.all[index].holders.said_here(name)
            for other in (one for number, one in enumerate(self.all) if number != index):
                other.holders.said_elsewhere(name, life, asks, connected=True, now=now)

    def talk(self, process: Process) -> None:
        """It reports, and is told."""
        home = self.home.get(process.name)
        if home is not None and home[1] is process:
            escrow = self.all[home[0]]
            escrow.heard(process.name, process.life, process.reports())
            (told,) = escrow.told(process.name, process.life, self.clock.now())
            process.take(told)

    async def rounds(self, count: int) -> None:
        """Everybody talks, replicas tell each other and share, all at once."""
        for _ in range(count):
            for _, process in tuple(self.home.values()):
                self.talk(process)
            self.share()
            self.clock.advance(LOOK_SECONDS)
            await asyncio.gather(*(one.step() for one in self.all))

    async def something(self, chance: random.Random, names: list[str]) -> None:
        """One thing happens."""
        process, index = chance.choice(self.processes), chance.randrange(len(self.all))
        kind = chance.choices(
            ["call", "talk", "move", "life", "crash", "disk", "share", "time"], [45, 20, 7, 5, 5, 3, 5, 10]
        )[0]
        if kind == "call":
            process.spend(chance.choice([1, 7, 40, 150]))
        elif kind == "talk":
            self.talk(process)
        elif kind == "move":
            self.connect(process, index)  # also one that was thought to be gone
        elif kind == "life":
            self.connect(self.process(chance.choice(names)), index)
        elif kind == "crash":
            await self.crash(index)
        elif kind == "disk":
            self.log.down = chance.choice([None, Refusal(Reason.STORE_UNAVAILABLE, "no")])
        elif kind == "share":
            self.share()
        else:
            self.clock.advance(chance.choice([0.01, 1.0, 30.0]))
            await asyncio.gather(*(one.step() for one in self.all))

    @property
    def spent(self) -> int:
        """By whomever, as the world knows it."""
        return sum(sum(one.spent.values()) for one in self.processes)


@pytest.mark.parametrize("seed", range(30))
async def test_e1_e2_e7_hold_while_replicas_grant_at_once_die_and_sidecars_wander(seed) -> None:
    """Lives, copies, sessions that move, replicas that crash and failing commits: never more than the cap is spent."""
    chance = random.Random(seed)
    found = await Replicas(chance.choice([2, 3])).start()
    names = [f"s{number}" for number in range(chance.choice([2, 4, 6]))]
    for name in names:
        found.connect(found.process(name), chance.randrange(len(found.all)))
    for _ in range(120):
        await found.something(chance, names)
        assert found.spent <= CAP, "E2"
    found.log.down = None
    for name in names:  # faults end: everybody who asks for a part of what is left has it (E8)
        found.connect(found.process(name), chance.randrange(len(found.all)))
    await found.rounds(int(silence_seconds(AUTHORITY)) + 2)
    rights = sum(one.granted - one.returned for one in found.log.kept.values() if one.state is not SliceState.OPEN)
    share = (CAP - rights - found.spent) // (2 * len(names))
    if share > 0:
        served = set()
        for _ in range(8):
            served |= {name for name in names if found.home[name][1].spend(share)}
            await found.rounds(1)
        assert served == set(names), f"E8: {share} each of {CAP - rights}"
    assert found.spent <= CAP


async def test_two_that_grant_the_last_of_it_at_once_do_not_grant_it_twice() -> None:
    """Both decide upon the same books: one is stored, the other decides again and finds nothing left."""
    found = await Replicas(2).start()
    one, two = found.process("one"), found.process("two")
    for index, process in enumerate((one, two)):
        process.need = 700
        found.connect(process, index)
        found.talk(process)
    await asyncio.gather(*(each.step() for each in found.all))
    assert sum(each.conflicts for each in found.all) == 1
    assert sum(row.granted for row in found.log.kept.values()) <= CAP
    assert max(row.granted for row in found.log.kept.values()) >= 700
    assert sum(each.failures for each in found.all) == 0


async def test_e8_what_a_sidecar_of_one_replica_has_is_asked_back_for_a_call_that_waits_at_another() -> None:
    """It wants what it has, though nobody waits for it there: a need at the other replica comes first."""
    found = await Replicas(2).start()
    rich, poor = found.process("rich"), found.process("poor")
    rich.need = 900
    found.connect(rich, 0)
    await found.rounds(2)
    rich.need, rich.want = 0, 500
    found.connect(poor, 1)
    await found.rounds(2)
    assert rich.left(rich.fence) >= 850
    assert not poor.spend(300)
    await found.rounds(6)
    assert poor.spend(300)
    assert rich.left(rich.fence) >= 350


async def test_e5_reports_that_a_conflict_came_before_are_booked_once() -> None:
    """A return and what was spent outlive the round that failed, with one event."""
    found = await Replicas(2).start()
    one, two = found.process("one"), found.process("two")
    one.need = two.need = 300
    found.connect(one, 0)
    found.connect(two, 1)
    await found.rounds(2)
    assert one.spend(250)
    assert two.spend(250)
    for process in (one, two):
        found.talk(process)
        process.returned[process.fence] += process.left(process.fence)
        found.talk(process)
    await asyncio.gather(*(each.step() for each in found.all))
    assert sum(each.conflicts for each in found.all) >= 1
    for process in (one, two):
        row = found.log.kept[process.fence]
        assert (row.reported, row.returned) == (250, process.returned[process.fence])
    returned = [dict(event.details) for event in found.log.events if event.type is EventType.BUDGET_SLICE_RETURNED]
    assert sum(event["amount"] for event in returned) == one.returned[one.fence] + two.returned[two.fence]


async def test_a_slice_that_another_replica_granted_a_moment_ago_is_no_lost_history() -> None:
    """Its sidecar connects here and tells of it: the books are read first. What is not found then was lost."""
    found = await Replicas(2).start()
    process = found.process("one")
    process.need = 300
    found.connect(process, 0)
    found.talk(process)
    await found.all[0].step()
    found.talk(process)
    assert process.granted[process.fence] >= 300
    found.connect(process, 1)
    found.all[1].heard(process.name, process.life, process.reports())
    await found.all[1].step()
    found.all[1].heard(process.name, process.life, process.reports())
    (told,) = found.all[1].told(process.name, process.life, found.clock.now())
    assert told.fence == process.fence
    found.log.kept.clear()
    found.log.fence = found.log.version = 0
    await found.crash(1)
    found.connect(process, 1)
    reasons = []
    for _ in range(4):
        try:
            found.all[1].heard(process.name, process.life, process.reports())
        except Refusal as refusal:
            reasons.append(refusal.reason)
        await found.all[1].step()
    assert set(reasons) == {Reason.CENTRE_BEHIND}


async def test_e6_a_slice_is_not_written_off_while_another_replica_hears_its_holder() -> None:
    """Heard there counts here; silent everywhere, it is written off by one of them, once."""
    found = await Replicas(2).start()
    process = found.process("one")
    process.need = 300
    found.connect(process, 0)
    await found.rounds(2)
    fence = process.fence
    await found.rounds(int(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX) // 10)
    for _ in range(12):
        found.talk(process)
        found.share()
        found.clock.advance(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX - 100)
        await found.all[1].step()
    assert found.log.kept[fence].state is SliceState.OPEN
    found.home.clear()
    found.clock.advance(silence_seconds(AUTHORITY) + CALL_SECONDS_MAX)
    await asyncio.gather(*(each.step() for each in found.all))
    assert found.log.kept[fence].state is SliceState.WRITTEN_OFF
    written = [event for event in found.log.events if event.type is EventType.BUDGET_SLICE_WRITTEN_OFF]
    assert len(written) == 1


async def test_who_is_connected_to_a_replica_that_died_is_asked_for_no_longer_than_it_acts() -> None:
    """Its last wish does not keep others from what is free for ever."""
    found = await Replicas(2).start()
    gone, here = found.process("gone"), found.process("here")
    gone.need = 1000
    found.connect(gone, 0)
    found.talk(gone)
    found.share()
    del found.home["gone"]
    found.connect(here, 1)
    assert not here.spend(900)
    found.talk(here)
    await found.all[1].step()
    assert not here.spend(900)
    found.clock.advance(silence_seconds(AUTHORITY))
    for _ in range(3):
        found.talk(here)
        await found.all[1].step()
    found.talk(here)
    assert here.spend(900)
