"""Replicas behind a real NATS JetStream, for tests: an engine of the log like the others, and what runs beside it."""

import asyncio
import contextlib

from tests.fakes.engines import PostgresEngine
from tests.fakes.nats import NatsServer
from tests.fakes.rpc import SystemClock

from leasehold_broker.adapters.nats_bus import NatsAt, NatsIngest, NatsRevocations
from leasehold_broker.adapters.postgres_collector import open_store
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.commit_batches import CommitBatches
from leasehold_broker.flows.keep_batches import KeepBatches
from leasehold_broker.flows.relay_revocations import RelayRevocations

RETRY_SECONDS = 0.1


async def kept_going(work) -> None:
    """What a supervisor does: tried again after a refusal, for ever."""
    while True:
        with contextlib.suppress(Refusal):
            await work()
        await asyncio.sleep(RETRY_SECONDS)


class BusReplica:
    """A replica's store that takes records through NATS; everything else is the store's own.

    Questions to the log are about what is committed. So that tests can ask right after they have sent, `append` here
    waits until the log has what was kept; `keep` is what a sidecar gets.
    """

    def __init__(self, store, at: NatsAt, *, commits: bool = True) -> None:
        """Nothing runs yet.

        Args:
            store: of the replica, in PostgreSQL.
            at: the NATS.
            commits: whether it brings what is kept into the log, when it leads.
        """
        self.store = store
        self.failures: list[str] = []
        self.ingest_stream = NatsIngest(at, store.stream)
        self.keep = KeepBatches(self.ingest_stream, store.ingest, self.failures.append)
        self.commit = CommitBatches(self.ingest_stream, store.ingest, SystemClock(), self.keep.took_in)
        self.relay = NatsRevocations(at, store.stream)
        self.revocations = RelayRevocations(self.relay, store, store.on_issued)
        self._commits = commits

    def __getattr__(self, name):
        """Whatever else a store can do."""
        return getattr(self.store, name)

    @contextlib.asynccontextmanager
    async def running(self):
        """While it lasts."""
        works = [self.keep.run, self.revocations.run]
        if self._commits:
            works.append(lambda: self.store.leadership.lead("ingest", self.commit.run))
        tasks = [asyncio.create_task(kept_going(work)) for work in works]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.ingest_stream.close()
            await self.relay.close()

    async def opened(self) -> None:
        """Return once it can take records."""
        while not self.keep.open:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)

    async def opened_anew(self) -> None:
        """Return once a session that a killed server ended is followed by another."""
        sessions = self.keep.sessions
        async with asyncio.timeout(240):
            while not (self.keep.open and self.keep.sessions > sessions):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)

    async def append(self, stream, records, receive_wall_ms):
        """Keep, and wait for the log."""
        head = await self.keep.append(stream, records, receive_wall_ms)
        await self.settled()
        return head

    async def settled(self) -> None:
        """Return once the log has what this replica kept, and this replica knows of it."""
        while True:
            with contextlib.suppress(Refusal):  # the log is away, or behind: for as long as it is
                await self.keep.committed(self.keep.kept_last)
                break
        await self.store._follower.refresh()


class BusEngine(PostgresEngine):
    """Over a fresh schema and a fresh stream."""

    name = "nats"

    def __init__(self, server, bus: NatsServer, *, bytes_max: int = 1 << 28, **settings) -> None:
        """On these servers."""
        super().__init__(server, **settings)
        self.bus = NatsAt((bus.url_of_user,), self.at.schema.replace("_", "-"), bytes_max=bytes_max)

    @contextlib.asynccontextmanager
    async def open(self, epoch="c1", *, stream="collector", accept_gaps=False, issued=lambda: None, commits=True):
        """One life of one replica."""
        opening = open_store(self.at, stream, epoch, accept_gaps=accept_gaps, issued=issued)
        async with opening as store, BusReplica(store, self.bus, commits=commits).running() as replica:
            async with asyncio.timeout(240):
                await replica.opened()
            yield replica
