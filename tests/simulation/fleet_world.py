"""A collector and its sidecars on a virtual clock: real domain, real flows, a network and machines that misbehave.

One seed is one run. After every event the invariants are checked: E1 to E7 and E9 of fleet budgets, R1 to R4 of
revocation, with the world's own knowledge of what was really spent and when. `heal` ends all faults; then E8 must hold.
"""

import asyncio
import contextlib
import heapq
import itertools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from tests.fakes.core import FINISHED, plan, used
from tests.fakes.memory_escrow_log import fleet_budget
from tests.fakes.memory_state_store import MemoryDisk
from tests.simulation.fleet_parts import (
    AUTHORITY_SECONDS,
    TICK_SECONDS,
    CentreDisk,
    Connection,
    DriftingClock,
    OpenCall,
    SimSidecar,
    Universe,
    boot,
    copied,
    trimmed,
)

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.sync import Push, SyncMessage
from leasehold_broker.domain.time import NANOS
from leasehold_broker.domain.windows import Period
from leasehold_broker.flows import fleet_escrow
from leasehold_broker.flows.call import NOT_SENT, UNKNOWN
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.sync_sidecar import SyncSidecar

DISK_DOWN = Refusal(Reason.STORE_UNAVAILABLE, "simulated")
RESTART_SECONDS_MAX = 40.0
STALE_SECONDS = AUTHORITY_SECONDS * 1.02
"""R4: nobody is admitted on what was revoked longer ago than this, whatever the network did."""
NEEDED = (
    "admitted",
    "admitted without the centre",
    "refused: part used up",
    "refused: all used up",
    "refused: centre unreachable",
    "granted",
    "returned",
    "written off",
    "asked back",
    "taken over",
    "told after it was written off",
    "window began",
    "cap raised",
    "cap lowered",
    "revoked",
    "lease revoked",
    "sidecar crashed",
    "sidecar copied",
    "sidecar stopped in order",
    "centre crashed",
    "centre's disk failed",
    "connection broken",
    "connection stalled",
    "message lost",
    "report repeated",
    "old report repeated",
    "push repeated",
    "clock jumped",
    "last micro-USD spent",
)


class _Wake(asyncio.Event):
    """A session's wake-up that the world sees."""

    def __init__(self, awake: set[Connection], connection: Connection) -> None:
        super().__init__()
        self._awake = awake
        self._connection = connection

    def set(self) -> None:
        """As an event; and the world looks."""
        self._awake.add(self._connection)
        super().set()


@dataclass
class Settings:
    """What kind of fleet: sizes, and how hard it is treated. `fault_seconds` 0: not at all."""

    sidecars: int = 5
    cap: int = 60_000
    period: Period = Period.HOUR
    fault_seconds: float = 1.5
    calls_per_second: float = 4.0
    skew: float = 1.5
    check_every: int = 1
    worst_max: int = 1200


class FleetWorld:
    """One seed."""

    def __init__(self, seed: int, settings: Settings) -> None:
        """Draw the world."""
        self.settings = settings
        self.chance = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.universe = Universe()
        self.budget = fleet_budget(period=settings.period, cost_micro_usd=settings.cap)
        self.disk = CentreDisk()
        self.centre_clock = DriftingClock(self.universe, 0, 5 * NANOS, 0)
        self.centre_up = False
        self.escrow: FleetEscrow
        self.sync: SyncSidecar
        self.sidecars: list[SimSidecar] = []
        self.disks: dict[str, MemoryDisk] = {}
        self.drawn: defaultdict[int, int] = defaultdict(int)
        """Omniscient: really spent or held, by fence, by whatever process."""
        self.copied_fences: set[int] = set()
        self.cap_most: dict[int, int] = {}
        self.revoked_ns: dict[int, int] = {}
        self.crossed = 0
        self.calls_during = 0
        self.faulty = settings.fault_seconds > 0
        self.calling = True
        self._lives = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[int, int, object, tuple[object, ...]]] = []
        self._awake: set[Connection] = set()
        self._contexts: dict[Connection, contextlib.ExitStack] = {}
        self._stepping = False
        self._epochs: dict[str, int] = {}
        self._reports: list[tuple[Connection, SyncMessage]] = []
        self.admitted_since: dict[str, int] = {}
        self.refused_since: dict[str, int] = {}
        self.kinds = [kind for kind in self._faults() if self.chance.random() < 0.8] or list(self._faults())

    # Time.

    def at(self, seconds: float, what, *arguments: object) -> None:
        """Do this so much later."""
        heapq.heappush(
            self._events, (self.universe.ns + max(1, int(seconds * NANOS)), next(self._order), what, arguments)
        )

    async def run(self, seconds: float) -> None:
        """Let so much time pass."""
        until = self.universe.ns + int(seconds * NANOS)
        count = 0
        while self._events and self._events[0][0] <= until:
            self.universe.ns, _, what, arguments = heapq.heappop(self._events)
            await what(*arguments)
            await self._flush()
            count += 1
            if count % self.settings.check_every == 0:
                self.check()
        self.universe.ns = until

    async def begin(self) -> None:
        """Everything up."""
        await self._centre_start()
        for n in range(self.settings.sidecars):
            name = f"sidecar-{n}"
            self.disks[name] = MemoryDisk()
            await self._sidecar_start(name, self.disks[name])
        self.at(0.001, self._look)
        if self.faulty:
            self.at(self.settings.fault_seconds, self._fault)

    # The centre.

    async def _centre_start(self) -> None:
        self.fleet = Fleet(AUTHORITY_SECONDS)
        self.escrow = FleetEscrow([self.budget], AUTHORITY_SECONDS, self.disk, self.disk, self.centre_clock, 15.0)
        try:
            await self.escrow.restore()
        except Refusal:
            self.at(1.0, self._centre_start)
            return
        self.sync = SyncSidecar(self.fleet, self.escrow, self.disk, self.disk, self.centre_clock)
        self.centre_up = True

    async def _look(self) -> None:
        if self.centre_up:
            await self._step()
        self.at(fleet_escrow.LOOK_SECONDS, self._look)

    async def _step(self) -> None:
        self._stepping = False
        if not self.centre_up:
            return
        self.escrow._stir.clear()
        open_ = {fence for fence, row in self.disk.kept.items() if row.state is not SliceState.WRITTEN_OFF}
        await self.escrow.step()
        for running in self.escrow.windows:
            start = running.window.start_ms
            self.cap_most[start] = max(self.cap_most.get(start, self.settings.cap), running.escrow.cap)
        for fence in open_:
            row = self.disk.kept.get(fence)
            if row is not None and row.state is SliceState.WRITTEN_OFF:
                self.seen["written off"] += 1
                for one in self.sidecars:
                    assert one.cap_of(fence) == 0, (
                        f"E6, E9: slice {fence} was written off while {one.name} may spend it"
                    )

    async def _flush(self) -> None:
        """Push to every session that was woken, and let the centre share what was reported."""
        if self.centre_up and self.escrow._stir.is_set() and not self._stepping:
            self._stepping = True
            self.at(fleet_escrow.GATHER_SECONDS, self._step)
        while self._awake:
            connection = min(self._awake, key=lambda one: (one.sidecar.name, one.sidecar.life))
            self._awake.discard(connection)
            session = connection.session
            if session is None or not connection.open or not self.centre_up:
                continue
            session._wake.clear()
            try:
                session._check()
                push = await session._next()
            except Refusal:
                self._break(connection)
                continue
            self._send(connection, push)

    # The network.

    def _delay_ns(self, connection: Connection, at_ns: int) -> int:
        delay = int(self.chance.expovariate(1 / 0.03) * NANOS) + NANOS // 1000
        return max(self.universe.ns + delay, at_ns + 1, connection.stalled_until_ns)

    def _send(self, connection: Connection, push: Push) -> None:
        connection.down_at_ns = self._delay_ns(connection, connection.down_at_ns)
        self.at((connection.down_at_ns - self.universe.ns) / NANOS, self._arrives_down, connection, push)

    def _say(self, connection: Connection, message: SyncMessage) -> None:
        self.crossed += 1
        connection.up_at_ns = self._delay_ns(connection, connection.up_at_ns)
        self.at((connection.up_at_ns - self.universe.ns) / NANOS, self._arrives_up, connection, message)

    async def _arrives_up(self, connection: Connection, message: SyncMessage) -> None:
        if not connection.open:
            self.seen["message lost"] += 1
            return
        if not self.centre_up:
            self._break(connection)
            return
        try:
            if message.hello is not None:
                self._note(connection, message)
                await self._session(connection, message)
            elif connection.session is not None:
                self._note(connection, message)
                await connection.session.heard(message)
        except Refusal as refusal:
            if refusal.reason is Reason.CENTRE_BEHIND:
                raise
            self._break(connection)

    async def _session(self, connection: Connection, message: SyncMessage) -> None:
        session = await self.sync.open(connection.sidecar.name, message, 10**6)
        wake = session._wake = _Wake(self._awake, connection)
        stack = self._contexts[connection] = contextlib.ExitStack()
        stack.enter_context(self.fleet.session_wakes(wake))
        stack.enter_context(self.escrow.waking(connection.sidecar.name, message.hello.life, wake))
        connection.session = session
        wake.set()

    def _note(self, connection: Connection, message: SyncMessage) -> None:
        for one in message.slices:
            row = self.disk.kept.get(one.fence)
            if row is not None and row.state is SliceState.WRITTEN_OFF and one.spent > row.reported:
                self.seen["told after it was written off"] += 1
        self._reports = [*self._reports[-20:], (connection, message)]

    async def _arrives_down(self, connection: Connection, push: Push) -> None:
        sidecar = connection.sidecar
        if not connection.open or not sidecar.alive:
            self.seen["message lost"] += 1
            return
        if any(one.keep < 10**12 for one in push.slices or ()):
            self.seen["asked back"] += 1
        try:
            await sidecar.take(push)
        except (ValueError, Refusal):
            self._break(connection)
        await self._pressed(sidecar)

    def _break(self, connection: Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        self.seen["connection broken"] += 1
        self._awake.discard(connection)
        stack = self._contexts.pop(connection, None)
        if stack is not None:
            stack.close()
        if connection.session is not None and self.centre_up:
            connection.session.close()
        if connection.sidecar.alive:
            self.at(self.chance.uniform(0.05, 2.0), self._connect, connection.sidecar)

    # Sidecars.

    async def _sidecar_start(self, name: str, disk: MemoryDisk, *, rogue: bool = False) -> None:
        if not rogue and any(one.name == name and one.alive and not one.rogue for one in self.sidecars):
            return
        clock = DriftingClock(
            self.universe,
            self.chance.randint(-4900, 4900),
            self.chance.randint(1, 10**6) * NANOS,
            self.chance.choice([0, 0, -2000, 3000]),
        )
        found = await boot(name, disk, clock, f"{name}/{next(self._lives)}")
        found.rogue = rogue
        index = int(name.partition("-")[2])
        found.weight = 1 / (index + 1) ** self.settings.skew
        found.worst = 20 + 2 * self.chance.randint(0, self.settings.worst_max // 2)
        self.sidecars.append(found)
        await self._connect(found)
        self.at(self.chance.uniform(0, TICK_SECONDS), self._tick, found)
        self.at(self.chance.uniform(0, 1.0), self._call, found)

    async def _connect(self, sidecar: SimSidecar) -> None:
        if not sidecar.alive or (sidecar.connection is not None and sidecar.connection.open):
            return
        sidecar.connection = Connection(sidecar)
        self._say(sidecar.connection, sidecar.message(hello=True))

    async def _tick(self, sidecar: SimSidecar) -> None:
        if not sidecar.alive:
            return
        await self._speak(sidecar)
        await sidecar.core.sweep.run(sidecar.clock.now())
        if self.chance.random() < 0.05:
            await sidecar.core.sweep.prune(sidecar.clock.now())
            trimmed(sidecar.core.store.disk)
        self.at(TICK_SECONDS, self._tick, sidecar)

    async def _pressed(self, sidecar: SimSidecar) -> None:
        if sidecar.alive and sidecar.pressed:
            sidecar.pressed = False
            due = sidecar.core.books.slices.due_seconds(sidecar.clock.now())
            if due is not None:
                self.at(due, self._speak, sidecar)

    async def _speak(self, sidecar: SimSidecar) -> None:
        connection = sidecar.connection
        if sidecar.alive and connection is not None and connection.open:
            message = sidecar.message(hello=False)
            if message is not None:
                self._say(connection, message)

    async def _call(self, sidecar: SimSidecar) -> None:
        if not sidecar.alive:
            return
        rate = self.settings.calls_per_second * sidecar.weight
        self.at(self.chance.expovariate(rate), self._call, sidecar)
        if not self.calling:
            return
        crossed = self.crossed
        await self._admit(sidecar)
        self.calls_during += self.crossed - crossed
        await self._pressed(sidecar)

    async def _admit(self, sidecar: SimSidecar) -> None:
        core = sidecar.core
        try:
            lease = core.books.leases.get(sidecar.lease)
            if lease is None or lease.ended:
                self.seen["lease revoked"] += lease is not None and lease.state is LeaseState.REVOKED
                lease = await core.lease(ttl_seconds=3600)
                sidecar.lease = lease.name
            worst = self._worst(sidecar)
            admitted = await core.admit(lease, plan((worst - 10) // 2, 2))
        except Refusal as refusal:
            self._refused(sidecar, refusal)
            return
        self._admitted(sidecar, lease, admitted.call_id)

    def _worst(self, sidecar: SimSidecar) -> int:
        if self.chance.random() < 0.2:
            return 20 + 2 * self.chance.randint(0, 20)
        return sidecar.worst

    def _refused(self, sidecar: SimSidecar, refusal: Refusal) -> None:
        self.refused_since[sidecar.name] = self.refused_since.get(sidecar.name, 0) + 1
        if refusal.reason is Reason.BUDGET_EXHAUSTED:
            kind = "all" if "for all sidecars" in refusal.message else "part"
            self.seen[f"refused: {kind} used up"] += 1
            if kind == "part":
                assert refusal.retry_after_seconds == 1.0
        elif refusal.reason is Reason.CENTRE_UNREACHABLE:
            self.seen["refused: centre unreachable"] += 1
            assert refusal.retry_after_seconds
        else:
            assert refusal.reason in {Reason.LEASE_EXPIRED, Reason.STORE_UNAVAILABLE}, str(refusal)

    def _admitted(self, sidecar: SimSidecar, lease, call_id: str) -> None:
        self.seen["admitted"] += 1
        self.admitted_since[sidecar.name] = self.admitted_since.get(sidecar.name, 0) + 1
        if not self.centre_up or not sidecar.connection.open:
            self.seen["admitted without the centre"] += 1
        for epoch, at_ns in self.revoked_ns.items():
            if epoch > lease.revocation_epoch:
                late = (self.universe.ns - at_ns) / NANOS
                assert late <= STALE_SECONDS, f"R4: admitted {late:.1f} s after revocation {epoch}"
        assert lease.revocation_epoch >= sidecar.core.revocations.applied_epoch(), "R2"
        fence, held = sidecar.fence_of(call_id)
        assert fence, "a call that the fleet budget counts drew on no slice"
        self.drawn[fence] += held
        call = OpenCall(call_id, fence, held, 0)
        sidecar.calls[call_id] = call
        self.at(self.chance.expovariate(1 / 1.5), self._settle, sidecar, call)
        self._e2(fence)

    async def _settle(self, sidecar: SimSidecar, call: OpenCall) -> None:
        if not sidecar.alive or call.id not in sidecar.calls:
            return
        del sidecar.calls[call.id]
        draw = self.chance.random()
        outcome: CallOutcome = NOT_SENT if draw < 0.05 else UNKNOWN
        if draw > 0.1:
            tokens = (call.held - 10) // 2
            outcome = used(self.chance.randint(0, tokens), 2) if draw < 0.8 else replace(
                FINISHED, end=CallEnd.FINISHED, usage=None, usage_final=False
            )  # fmt: skip
        settled = await sidecar.core.calls.settle(call.id, outcome)
        self.drawn[call.fence] -= call.held - settled.charged.cost_micro_usd

    # What must always hold.

    def _e2(self, fence: int) -> None:
        window = self.disk.kept[fence].window
        drawn = sum(amount for one, amount in self.drawn.items() if self.disk.kept[one].window == window)
        most = self.cap_most.setdefault(window.start_ms, self.settings.cap)
        assert drawn <= most, f"E2: {drawn} of {most} are drawn"
        if drawn == most:
            self.seen["last micro-USD spent"] += 1

    def check(self) -> None:
        """The invariants, from the books of all."""
        if self.centre_up and not self.escrow._lost:
            for running in self.escrow.windows:
                slices = list(running.escrow.slices.values())
                rights = sum(one.granted - one.returned for one in slices)
                assert running.escrow.free == running.escrow.cap - rights, "E1"
                gone = sum(min(one.reported, one.granted - one.returned) + one.written_off for one in slices)
                assert running.escrow.gone == gone, "E1"
                open_ = [one.sidecar for one in slices if one.state is SliceState.OPEN]
                self.seen["taken over"] += any(one.state is SliceState.ENDED for one in slices)
                assert len(open_) == len(set(open_)), "E7: two slices of one sidecar are open"
                for one in slices:
                    if one.fence not in self.copied_fences:
                        assert one.reported <= self.drawn[one.fence], f"E4: {one}"
        for sidecar in self.sidecars:
            slices = sidecar.core.books.slices
            for known in slices._known.values():
                if known.own is not None:
                    settled, held = slices._stand_of(known)
                    assert settled + held <= known.own.right, f"E3: {sidecar.name} {known.own}"
            epoch = sidecar.core.revocations.applied_epoch()
            assert epoch >= self._epochs.get(sidecar.life, 0), "R1"
            self._epochs[sidecar.life] = epoch

    # What goes wrong.

    def _faults(self) -> dict[str, object]:
        return {
            "break": self._fault_break,
            "stall": self._fault_stall,
            "crash": self._fault_crash,
            "stop": self._fault_stop,
            "copy": self._fault_copy,
            "centre": self._fault_centre,
            "disk": self._fault_disk,
            "repeat": self._fault_repeat,
            "push": self._fault_push,
            "jump": self._fault_jump,
            "cap": self._fault_cap,
            "revoke": self._fault_revoke,
        }

    async def _fault(self) -> None:
        if not self.faulty:
            return
        self.at(self.chance.expovariate(1 / self.settings.fault_seconds), self._fault)
        await self._faults()[self.chance.choice(self.kinds)]()

    def _some(self) -> SimSidecar | None:
        alive = [one for one in self.sidecars if one.alive]
        return self.chance.choice(alive) if alive else None

    async def _fault_break(self) -> None:
        one = self._some()
        if one is not None and one.connection is not None:
            self._break(one.connection)

    async def _fault_stall(self) -> None:
        """A partition that nobody notices at once: nothing arrives, either way, for a while."""
        one = self._some()
        if one is not None and one.connection is not None:
            seconds = self.chance.choice([0.5, 5.0, 15.0, 45.0])
            one.connection.stalled_until_ns = self.universe.ns + int(seconds * NANOS)
            self.seen["connection stalled"] += 1
            if seconds > AUTHORITY_SECONDS:  # the link gives up
                self.at(AUTHORITY_SECONDS * 2 / 3, self._give_up, one.connection)

    async def _give_up(self, connection: Connection) -> None:
        self._break(connection)

    def _kill(self, one: SimSidecar) -> None:
        one.alive = False
        one.calls.clear()  # what they hold counts as spent: the provider may have charged it
        if one.connection is not None:
            self._break(one.connection)
        self.sidecars.remove(one)

    async def _fault_crash(self) -> None:
        one = self._some()
        if one is not None:
            self.seen["sidecar crashed"] += 1
            self._kill(one)
            if not one.rogue:
                seconds = self.chance.uniform(0.1, RESTART_SECONDS_MAX)
                self.at(seconds, self._sidecar_start, one.name, one.core.store.disk)

    async def _fault_stop(self) -> None:
        """Stopped in order: everything is settled and given back, and said once more before it goes."""
        one = self._some()
        if one is None or one.rogue:
            return
        self.seen["sidecar stopped in order"] += 1
        for call in tuple(one.calls.values()):
            await self._settle(one, call)
        one.core.books.slices.stop()
        await self._speak(one)
        self.at(0.3, self._stopped, one)

    async def _stopped(self, one: SimSidecar) -> None:
        if one.alive:
            for call in tuple(one.calls.values()):
                await self._settle(one, call)
            self._kill(one)
            self.at(self.chance.uniform(0.1, 5.0), self._sidecar_start, one.name, one.core.store.disk)

    async def _fault_copy(self) -> None:
        """A copy of a disk is started somewhere, and runs beside the original for a while."""
        one = self._some()
        if one is None or sum(each.rogue for each in self.sidecars) >= 2:
            return
        self.seen["sidecar copied"] += 1
        disk = copied(one.core.store.disk)
        self.copied_fences |= {fence for fence, row in self.disk.kept.items() if row.sidecar == one.name}
        await self._sidecar_start(one.name, disk, rogue=True)
        self.at(self.chance.uniform(1.0, 60.0), self._copy_ends, self.sidecars[-1])

    async def _copy_ends(self, one: SimSidecar) -> None:
        if one.alive:
            self._kill(one)

    async def _fault_centre(self) -> None:
        if not self.centre_up:
            return
        self.seen["centre crashed"] += 1
        self.centre_up = False
        for connection in tuple(self._contexts):
            self._break(connection)
        self._awake.clear()
        self.at(self.chance.choice([0.2, 3.0, 40.0]), self._centre_start)

    async def _fault_disk(self) -> None:
        if self.disk.down is None:
            self.seen["centre's disk failed"] += 1
            self.disk.down = DISK_DOWN
            self.at(self.chance.uniform(0.05, 3.0), self._disk_back)

    async def _disk_back(self) -> None:
        self.disk.down = None

    async def _fault_repeat(self) -> None:
        """What a sidecar said arrives once more: at its session, or long after, out of order."""
        if not self._reports or not self.centre_up:
            return
        connection, message = self.chance.choice(self._reports)
        if connection.session is not None and connection.open:
            self.seen["report repeated"] += 1
            await connection.session.heard(message)
        else:
            self.seen["old report repeated"] += 1
            with contextlib.suppress(Refusal):
                self.escrow.heard(connection.sidecar.name, connection.sidecar.life, message.slices)

    async def _fault_push(self) -> None:
        """What the centre said arrives once more."""
        one = self._some()
        if one is not None and one.pushes:
            self.seen["push repeated"] += 1
            push = self.chance.choice(one.pushes)
            one.core.books.slices.take(push.slices or (), one.authority.sent_at(push.answers), one.clock.now())

    async def _fault_jump(self) -> None:
        """The wall clock of a machine is set: nobody's intervals may follow."""
        self.seen["clock jumped"] += 1
        one = self._some()
        clock = self.centre_clock if one is None or self.chance.random() < 0.5 else one.clock
        clock.wall_off_ms += self.chance.choice([-3_600_000, -5000, 5000, 3_600_000])

    async def _fault_cap(self) -> None:
        """An operator changes the cap, for good or for a while."""
        if not self.centre_up:
            return
        raises = self.chance.random() < 0.5
        self.seen["cap raised" if raises else "cap lowered"] += 1
        cap = self.settings.cap * self.chance.choice([2, 3] if raises else [0, 1, 2]) // (1 if raises else 4)
        until = self.centre_clock.now().wall_ms + self.chance.choice([5_000, 60_000])
        direction = Direction.RAISE if raises else Direction.LOWER
        number = len(self.disk.changes) + 1
        self.disk.changes.append(
            BudgetChange(number, self.budget.name, Metric.COST_MICRO_USD, direction, cap, until, "", "alice", "r", 0)
        )
        self.fleet.issued()

    async def _fault_revoke(self) -> None:
        if self.centre_up:
            self.seen["revoked"] += 1
            self.revoked_ns[self.disk.revoke().epoch] = self.universe.ns
            self.fleet.issued()

    # The end of all faults.

    async def heal(self) -> None:
        """Everything works again: E8 must hold within seconds; then calls end, and the books of all agree."""
        self.faulty = False
        self.disk.down = None
        for one in [each for each in self.sidecars if each.rogue]:
            self._kill(one)
        await self.run(AUTHORITY_SECONDS + RESTART_SECONDS_MAX + 10)
        alive = {one.name for one in self.sidecars if one.alive}
        assert len(alive) == self.settings.sidecars, "somebody is not back"
        self.admitted_since.clear()
        self.refused_since.clear()
        await self.run(15.0)
        now = self.centre_clock.now().wall_ms
        (running,) = self.escrow.windows.all_running(now).values()
        for one in self.sidecars:
            asked = self.refused_since.get(one.name, 0)
            known = list(one.core.books.slices._known.values())
            if any(each.told.fence and each.own is None for each in known):
                self.seen["set back to a slice that was forgotten"] += 1  # the price of a clock that was set back
            elif asked > 3 and not self.admitted_since.get(one.name):
                assert running.escrow.pool < self.settings.worst_max + 20, f"E8: {one.name} gets nothing"
        self.calling = False
        await self.run(AUTHORITY_SECONDS + 30)
        for one in self.sidecars:
            assert not one.calls
            assert not [hold for hold in one.core.books.ledger.holds() if not hold.id.startswith("carve")], "B9"
        self._agree()

    def _agree(self) -> None:
        """What the centre has in its books of open slices is what was really spent; the events alone give the rows."""
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        kinds = {
            EventType.BUDGET_SLICE_GRANTED: 0,
            EventType.BUDGET_SLICE_RETURNED: 1,
            EventType.BUDGET_SLICE_WRITTEN_OFF: 2,
        }
        for event in self.disk.events:
            details = dict(event.details)
            if event.type in kinds:
                sums[details["fence"]][kinds[event.type]] += details["amount"]
        for fence, row in self.disk.kept.items():
            granted, returned, written_off = sums[fence]
            assert (granted, returned) == (row.granted, row.returned), f"A7: slice {fence}"
            assert written_off >= row.written_off
            self.seen["granted"] += bool(granted)
            self.seen["returned"] += bool(returned)
            alive = {one.life for one in self.sidecars}
            if row.state is SliceState.OPEN and row.life in alive and fence not in self.copied_fences:
                assert row.reported == self.drawn[fence], f"slice {fence}: {row.reported} of {self.drawn[fence]}"
        self.seen["window began"] += len({row.window for row in self.disk.kept.values()}) - 1
