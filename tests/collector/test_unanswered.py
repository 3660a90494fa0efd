"""A collector that talks and does not hear: the link connects anew while its authority holds, and not for slowness.

On a virtual clock: the real link over a scripted stream, so that times are exact and nothing waits.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.fakes.centre import MemoryBudgetSink, MemoryOutbox, MemorySink
from tests.simulation.fleet.clocks import HostClock
from tests.simulation.fleet.loop import NANOS, VirtualLoop, run_virtually
from tests.simulation.fleet.streams import SimLinkSettings

from leasehold_broker.adapters.collector_link import Backoff, BudgetTie, CollectorLink
from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.ledger import Ledger
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.sync import Push
from leasehold_broker.flows.slices import Slices
from leasehold_broker.wire.sync import push_to_proto

AUTHORITY = 60.0
LIMIT = AUTHORITY * 2 / 3
HEARTBEAT_EVERY = AUTHORITY / 4
ENTRY = Revocation(1, Everything(), "", "alice", 1)


@dataclass
class Collector:
    """How it treats every new stream: it answers `late_seconds` after a heartbeat that it `hears`."""

    hears: bool = True
    talks_every: float = 0.0
    late_seconds: float = 0.0
    adds: int = 0
    entries: tuple[Revocation, ...] = ()
    streams: "list[Scripted]" = field(default_factory=list)

    def open(self, path: str, decode: Any) -> "Scripted":
        """A call of the link."""
        stream = Scripted(self, decode, syncs=path.endswith("SyncState"))
        if stream.syncs:
            self.streams.append(stream)
            if self.talks_every:
                stream.talk(self.talks_every)
        return stream


class Scripted:
    """One stream, as grpc.aio has it at the sidecar's end."""

    def __init__(self, collector: Collector, decode: Any, *, syncs: bool) -> None:
        """Opened now."""
        self.collector, self.syncs, self._decode = collector, syncs, decode
        self.opened_at = asyncio.get_running_loop().time()
        self.hears = collector.hears
        self.answers = 0
        self._talking: asyncio.Task[None] | None = None
        self._said: asyncio.Queue[bytes] = asyncio.Queue()

    async def write(self, message: Any) -> None:
        """What the sidecar says."""
        if self.hears and getattr(message, "heartbeat", 0):
            asyncio.get_running_loop().call_later(self.collector.late_seconds, self._answer, message.heartbeat)

    async def read(self) -> Any:
        """The next push."""
        return self._decode(await self._said.get())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Of AppendEvents: nothing is ever acknowledged here."""
        await asyncio.Event().wait()
        yield

    def cancel(self) -> None:
        """Let go."""
        if self._talking is not None:
            self._talking.cancel()

    def talk(self, every_seconds: float) -> None:
        """Say something so often, whether it is an answer or not."""

        async def talking() -> None:
            while True:
                await asyncio.sleep(every_seconds)
                self.push()

        self._talking = asyncio.create_task(talking())

    def push(self) -> None:
        """Say what is known."""
        entries = self.collector.entries
        history = RevocationHistory(entries).digest_at(len(entries))
        push = Push(len(entries), entries, AUTHORITY, self.answers + self.collector.adds, history=history)
        self._said.put_nowait(push_to_proto(push).SerializeToString())

    def _answer(self, heartbeat: int) -> None:
        self.answers = max(self.answers, heartbeat)
        self.push()


@dataclass
class World:
    """A link, its collector, and the time."""

    loop: VirtualLoop
    collector: Collector
    sink: MemorySink
    link: CollectorLink
    clock: HostClock

    def lapsed(self) -> bool:
        """Whether agents are refused now."""
        return self.link.authority_lapsed_seconds(self.clock.now()) is not None


Work = Callable[[World], Coroutine[Any, Any, None]]


def linked(work: Work, sink: MemorySink | None = None) -> None:
    """Run `work` beside a link."""

    async def run(loop: VirtualLoop) -> None:
        clock = HostClock(lambda: int(loop.time() * NANOS), 0, NANOS, 0)
        collector = Collector()
        settings = SimLinkSettings(
            "scripted", "sidecar-1", "test", "0.0", None, backoff=Backoff(chance=lambda: 1.0), opens=collector.open
        )
        budgets = BudgetTie(MemoryBudgetSink(), lambda: BudgetRows((), 0), Slices(Ledger()))
        link = CollectorLink(settings, MemoryOutbox(), sink or MemorySink(), list, budgets, clock)
        world = World(loop, collector, link._sink, link, clock)
        running = asyncio.create_task(link.run())
        try:
            await asyncio.sleep(1.0)
            assert not world.lapsed()
            await work(world)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtually(run)


@pytest.mark.parametrize("talks_every", [0.001, 1.0, AUTHORITY / 3])
def test_r3_a_link_that_is_not_heard_connects_anew_before_its_authority_ends(talks_every: float) -> None:
    """Whatever still comes, and however often: without a new answer for two thirds of the authority, it is left."""

    async def work(world: World) -> None:
        await asyncio.sleep(10 * HEARTBEAT_EVERY)
        (stream,) = world.collector.streams
        stream.hears = False
        stream.talk(talks_every)
        deaf_at = world.loop.time()
        while len(world.collector.streams) == 1:
            assert not world.lapsed()
            await asyncio.sleep(0.25)
        # The last new answer came at most one heartbeat before it went deaf.
        assert LIMIT - HEARTBEAT_EVERY <= world.collector.streams[1].opened_at - deaf_at <= LIMIT + 1.0
        assert world.link.counters.failures == {"HEARTBEATS_UNANSWERED": 1}
        for _ in range(400):
            assert not world.lapsed()
            await asyncio.sleep(0.25)
        assert len(world.collector.streams) == 2

    linked(work)


def test_a_collector_that_goes_deaf_for_everybody_is_asked_again_no_more_often_than_its_limit() -> None:
    """A stuck collector with a thousand links: each connects anew once in two thirds of the authority at most."""

    async def work(world: World) -> None:
        world.collector.hears, world.collector.talks_every = False, 1.0
        world.collector.streams[0].hears = False
        await asyncio.sleep(20 * LIMIT)
        opened = [stream.opened_at for stream in world.collector.streams]
        assert len(opened) > 10
        assert all(later - before >= LIMIT for before, later in itertools.pairwise(opened[1:]))
        assert world.link.counters.failures == {"HEARTBEATS_UNANSWERED": len(opened) - 2, "LINK_BROKEN": 1}

    linked(work)


@pytest.mark.parametrize(("late_seconds", "growing"), [(LIMIT - HEARTBEAT_EVERY - 1.0, 1e9), (LIMIT - 1.0, 0.1)])
def test_a_collector_that_is_slow_but_answers_is_left_alone(late_seconds: float, growing: float) -> None:
    """At once, or ever slower: its answers follow each other, and connecting anew would make it slower still."""

    async def work(world: World) -> None:
        for _ in range(2400):
            world.collector.late_seconds = min(late_seconds, growing * world.loop.time())
            await asyncio.sleep(0.25)
            assert not world.lapsed()
        assert len(world.collector.streams) == 1
        assert world.link.counters.failures == {}

    linked(work)


def test_a_collector_that_says_nothing_at_all_is_silent() -> None:
    """Counted as before, so that a dead line is told apart from one that carries one way."""

    async def work(world: World) -> None:
        world.collector.streams[0].hears = False
        await asyncio.sleep(LIMIT + 5.0)
        assert len(world.collector.streams) == 2
        assert world.link.counters.failures == {"LINK_BROKEN": 1}

    linked(work)


def test_an_answer_to_a_heartbeat_that_was_never_sent_is_none() -> None:
    """Whatever numbers its heartbeats ahead would never be missed: it is left at once, and gives no authority."""

    async def work(world: World) -> None:
        world.collector.adds = 1 << 40
        stream = world.collector.streams[0]
        stream.push()
        await asyncio.sleep(0.1)
        assert world.link.counters.failures == {"LINK_BROKEN": 1}
        await asyncio.sleep(AUTHORITY)
        assert world.lapsed()

    linked(work)


class StallingSink(MemorySink):
    """A disk that takes its time for the first entry."""

    async def apply(self, revocations: Any) -> Any:
        """Applied late."""
        await asyncio.sleep(AUTHORITY)
        return await super().apply(revocations)


def test_what_was_answered_while_the_own_disk_stalled_has_been_answered() -> None:
    """Only waiting counts against the collector: its answers lay here unread."""

    async def work(world: World) -> None:
        world.collector.entries = (ENTRY,)
        world.collector.streams[0].push()
        await asyncio.sleep(AUTHORITY + 1.0)
        assert world.sink.applied_epoch() == 1
        assert not world.lapsed()
        assert len(world.collector.streams) == 1
        assert world.link.counters.failures == {}

    linked(work, StallingSink())
