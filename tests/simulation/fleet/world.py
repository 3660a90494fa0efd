"""One seed's world: a centre, sidecars with their agents, operators and faults on one virtual clock.

Owns true time, chance and the trace. After every turn of the loop each process that did anything is looked at; the
digest of the trace is the run: equal seeds give equal digests, to the bit.
"""

import asyncio
import gc
import hashlib
import itertools
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from tests.simulation.fleet.agents import Agents
from tests.simulation.fleet.centre import Centre
from tests.simulation.fleet.clocks import DRIFT_PPM_MAX, HostClock
from tests.simulation.fleet.disks import copy_directory
from tests.simulation.fleet.faults import Faults
from tests.simulation.fleet.invariants_audit import AuditTruth
from tests.simulation.fleet.invariants_escrow import EscrowTruth
from tests.simulation.fleet.invariants_revocation import RevocationTruth
from tests.simulation.fleet.loop import NANOS, Process, VirtualLoop
from tests.simulation.fleet.network import UP, Network
from tests.simulation.fleet.operators import Operators
from tests.simulation.fleet.settings import EAGER, Settings
from tests.simulation.fleet.sidecar import Sidecar
from tests.simulation.fleet.streams import Stream

from leasehold.note import VerifierKey
from leasehold.v1 import audit_service_pb2, sidecar_service_pb2

COLLECT_SECONDS = 120.0
RESTART_SECONDS = (0.1, 20.0)
CENTRE_DOWN_SECONDS = (0.2, 3.0, 30.0)


class World:
    """See the module."""

    def __init__(self, seed: int, settings: Settings, loop: VirtualLoop, folder: Path) -> None:
        """Draw it; `folder` holds every disk."""
        self.seed = seed
        self.settings = settings
        self.loop = loop
        self.folder = folder
        self.chance = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.steps = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._requests = itertools.count(1)
        self._directories = itertools.count(1)
        self.policy = EAGER
        self.limits = settings.limits
        self.second = bool(settings.requests_cap) and self.chance.random() < 0.5
        self.names = [f"sidecar-{n}" for n in range(settings.sidecars)]
        self.network = Network(loop, self.chance, self.seen)
        self.streams: dict[Stream, None] = {}
        self.failures: list[BaseException] = []
        self.audit = AuditTruth(self.seen, self.trace, loop.time, self._own_event, self._emitted)
        self.escrow = EscrowTruth(self, self.seen)
        self.revocations = RevocationTruth(self, self.seen)
        self.agents = Agents(self)
        self.operators = Operators(self)
        self.centre = Centre(self, folder / "centre", self._clock(), self.chance)
        self.audit.key = VerifierKey.of_text(self.centre.key.verifier_key)
        self.sidecars: list[Sidecar] = []
        self.directories: dict[str, Path] = {}
        self.kept_copies: dict[str, Path] = {}
        self.disturbed = self.audit.disturbed
        """Names whose disk was copied or put back: what their logs say together is more than one history."""
        self.mending = False
        self.healed = False
        self.told: Callable[[World], None] = lambda _: None
        """Called now and then, also while it heals."""
        self._sent: dict[Stream, dict[int, int]] = {}
        self._touched: dict[Sidecar, None] = {}
        self._running: dict[Process, Sidecar] = {}
        self._outside = Process("the world", self.failures)
        self.faults = Faults(self)
        for host in self.names:
            path = self.network.path(host)
            path.delay_seconds = settings.delay_seconds
            path.lose, path.repeat, path.swap = settings.lose, settings.repeat, settings.swap

    def budgets(self) -> list[Any]:
        """In the centre's file now."""
        return [self.settings.main_budget, *([self.settings.second_budget] if self.second else [])]

    # Time, chance, trace.

    def now_ns(self) -> int:
        """True time."""
        return int(self.loop.time() * NANOS)

    def request_id(self) -> str:
        """A UUID that nobody used before."""
        return str(uuid.UUID(int=(self.seed << 64 | next(self._requests)) & (2**128 - 1), version=4))

    def _clock(self) -> HostClock:
        rate = self.chance.choice([-DRIFT_PPM_MAX, DRIFT_PPM_MAX, self.chance.randint(-DRIFT_PPM_MAX, DRIFT_PPM_MAX)])
        return HostClock(self.now_ns, rate, self.chance.randint(1, 10**6) * NANOS, self.chance.choice([0, -2000, 3000]))

    def trace(self, *what: object) -> None:
        """What happened; all of it is the run."""
        self._digest.update(repr((self.now_ns(), *what)).encode())

    def digest(self) -> str:
        """Of everything until now."""
        return self._digest.hexdigest()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Something outside of all processes."""
        self._outside.spawn(work, "world")

    # Steps.

    async def begin(self) -> None:
        """Everything up."""
        self.loop.set_exception_handler(self._callback_failed)
        self.loop.after_each_turn(self._look)
        assert await self.centre.start()
        for name in self.names:
            self.directories[name] = self.folder / f"d{next(self._directories)}"
            self.directories[name].mkdir(mode=0o700)
            self.start_sidecar(name)
        if self.settings.fault_seconds:
            self.spawn(self.faults.run())
            self.spawn(self.operators.run())
        self.spawn(self._prove())
        self.spawn(self._collect())

    def _callback_failed(self, _: object, context: dict[str, Any]) -> None:
        if "handle" in context and "exception" in context:
            self.failures.append(context["exception"])

    def _look(self, ran: Iterable[Process]) -> None:
        """After a step: whatever it has touched; and everything, now and then."""
        self.steps += 1
        touched, self._touched = self._touched, {}
        for process in ran:
            if process in self._running:
                touched[self._running[process]] = None
        for one in touched:
            self._look_at(one, at_all=False)
        up = self.centre.up
        if up and self.centre.escrow._lost:
            self.escrow.centre.forget()  # a commit failed: it starts anew from what is durable
        elif up:
            self.escrow.centre.look()
        if self.steps % self.settings.complete_every == 0:
            self.look_at_all()
            self.told(self)
        if self.failures:
            raise self.failures[0]

    def _look_at(self, one: Sidecar, *, at_all: bool) -> None:
        if one.alive:
            self.revocations.look(one, at_all=at_all)
            self.escrow.look(one)

    def look_at_all(self) -> None:
        """Whatever was touched or not."""
        for one in self.sidecars:
            self._look_at(one, at_all=True)
        if self.centre.up and not self.centre.escrow._lost:
            self.escrow.centre.complete(self.centre.escrow.windows)

    @staticmethod
    async def _collect() -> None:
        """Garbage is collected at times of the world, so that what it ends, ends then."""
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            gc.collect()

    async def _prove(self) -> None:
        while True:
            await asyncio.sleep(self.settings.prove_seconds)
            if self.centre.up and self.centre.publish.newest is not None:
                proving = self.centre.process.spawn(self.audit.prove(self.centre), "proofs")
                await asyncio.wait([proving])

    def touched(self, sidecar: Sidecar) -> None:
        """It did something."""
        self._touched[sidecar] = None

    # Messages, as the world sees them pass.

    def writing(self, stream: Stream, message: Any) -> None:
        """A sidecar sends."""
        if stream.method.label == "sync":
            self._sent.setdefault(stream, {})[message.heartbeat] = self.now_ns()
            self.escrow.said(message.slices.reports)

    def answering(self, stream: Stream, answer: Any) -> None:
        """The centre answers."""
        if stream.method.label == "audit":
            assert isinstance(answer, audit_service_pb2.AppendEventsResponse)
            self.audit.acknowledged(stream.name, answer.epoch, answer.committed_sequence)

    def arrived(self, stream: Stream, direction: str, what: bytes) -> None:
        """A message has arrived at its end."""
        self.trace(stream.host, stream.method.label, direction, what)
        if direction == UP:
            return
        one = self._running.get(stream.process)
        if one is None:
            return
        self.touched(one)
        if stream.method.label == "sync":
            push = sidecar_service_pb2.SyncStateResponse.FromString(what)
            sent_ns = self._sent.get(stream, {}).get(push.answers)
            authority = push.authority_ttl.ToTimedelta().total_seconds()
            self.revocations.pushed(stream.process, sent_ns, push, authority)
            self.seen["asked back"] += any(told.HasField("keep") for told in push.slices.slices)

    def collector_committed(self) -> None:
        """The centre's disk has something new."""
        if hasattr(self.centre, "escrow") and self.centre.up:
            self.escrow.caps(self.centre.escrow.windows)
        self.audit.collector_committed()
        if not self.audit.looking_away:
            self.revocations.collector_committed(self.centre.store._writer._connection)

    def _own_event(self, body: bytes) -> None:
        self.escrow.record(body)

    def _emitted(self, stream: str, epoch: str, event: dict[str, Any]) -> None:
        self.escrow.emitted(stream, epoch, event)

    # Processes come and go.

    def start_sidecar(self, name: str) -> None:
        """Start the process over its directory, unless one runs."""
        if any(one.name == name and not one.rogue for one in self.sidecars):
            return
        self._started(Sidecar(self, name, self.directories[name], self._clock(), self.chance, rogue=False))

    def start_copy(self, one: Sidecar) -> Sidecar:
        """A copy of its directory, as another host would run it."""
        directory = self.folder / f"d{next(self._directories)}"
        copy_directory(one.directory, directory)
        self._told_twice(one.name)
        return self._started(Sidecar(self, one.name, directory, self._clock(), self.chance, rogue=True))

    def put_back(self, one: Sidecar, kept: Path) -> None:
        """Its directory is again what it was."""
        directory = self.folder / f"d{next(self._directories)}"
        copy_directory(kept, directory)
        self._told_twice(one.name)
        self.audit.put_back(one.name)
        self.directories[one.name] = directory

    def begin_anew(self, name: str) -> None:
        """As the runbook says of a sidecar whose copy has run: its directory is moved away."""
        for one in [each for each in self.sidecars if each.name == name]:
            one.kill()
        self.directories[name] = self.folder / f"d{next(self._directories)}"
        self.directories[name].mkdir(mode=0o700)
        self.start_sidecar(name)

    def _told_twice(self, name: str) -> None:
        self.disturbed.add(name)
        self.escrow.copied |= {fence for fence, holder in self.escrow.holder.items() if holder == name}

    def _started(self, one: Sidecar) -> Sidecar:
        index = int(one.name.partition("-")[2])
        one.weight = max(0.02, 1 / (index + 1) ** self.settings.skew)
        one.worst = 20 + 2 * self.chance.randint(0, self.settings.worst_max // 2)
        self.sidecars.append(one)
        self._running[one.process] = one
        one.begin()
        return one

    def sidecar_ready(self, one: Sidecar) -> None:
        """It has recovered."""
        self.touched(one)
        self.seen["sidecar started"] += 1

    def sidecar_gone(self, one: Sidecar) -> None:
        """A process died: its connections break, and it is started again."""
        self.sidecars.remove(one)
        self._running.pop(one.process, None)
        self.trace("gone", one.host)
        for stream in [each for each in self.streams if each.process is one.process]:
            stream.cancel()
        if not one.rogue:
            self.loop.call_later(self.chance.uniform(*RESTART_SECONDS), self.start_sidecar, one.name)

    def centre_gone(self) -> None:
        """The centre died: connections to it are reset, where the network lets the word through."""
        self.trace("centre gone")
        self.escrow.centre.forget()
        for stream in tuple(self.streams):
            if stream.centre is not None:
                self.loop.call_later(self.chance.uniform(0.001, 0.1), stream.reset)
        if not self.mending:
            self.bring_centre_back(self.chance.choice(CENTRE_DOWN_SECONDS))

    def bring_centre_back(self, seconds: float) -> None:
        """Start it again after a while, and again until it serves."""
        self.spawn(self._centre_back(seconds))

    async def _centre_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        while self.mending:  # noqa: ASYNC110 - its end is not told
            await asyncio.sleep(1.0)
        if self.centre.process is None or self.centre.process.dead:
            await self.centre.start()  # a start that fails is a death: it is brought back again

    def close(self) -> None:
        """Let go of every disk."""
        for one in tuple(self.sidecars):
            one.kill()
        self.mending = True
        if self.centre.process is not None and not self.centre.process.dead:
            self.centre.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
