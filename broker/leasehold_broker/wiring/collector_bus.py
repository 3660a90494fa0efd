"""NATS JetStream before a log in PostgreSQL: what takes records, what brings them in, what tells of revocations."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.config.collector_nats import NatsBus
from leasehold_broker.flows.commit_batches import CommitBatches
from leasehold_broker.flows.keep_batches import KeepBatches
from leasehold_broker.flows.relay_revocations import HearingLog, RelayRevocations
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.ingest_log import IngestLog
from leasehold_broker.wiring.supervision import Supervisor

RETRY_SECONDS_MAX = 5.0
"""Sidecars spool while NATS is away, and their spools are bounded: it is to be found again soon."""
INGEST_LEAD = "ingest"
"""Of the one replica that brings records into the log."""
Work = Callable[[], Awaitable[None]]


class SharedLog(HearingLog, Protocol):
    """A replica's log, as the bus knows it."""

    @property
    def stream(self) -> str:
        """Name of this replica's own stream."""
        ...

    @property
    def ingest(self) -> IngestLog:
        """Takes in what the stream keeps."""
        ...


@dataclass(frozen=True, slots=True)
class Bus:
    """Made, and not yet connected.

    Args:
        keep: takes records from sidecars.
        commit: brings them into the log; one replica does.
        relay: of revocations.
    """

    keep: KeepBatches
    commit: CommitBatches
    relay: RelayRevocations

    def works(self, led: Callable[[str, Work], Work]) -> Iterator[tuple[str, Work]]:
        """To be kept going, by name; `led` makes of a work one that a single replica does."""
        yield "ingest-stream", self.keep.run
        yield "ingest", led(INGEST_LEAD, self.commit.run)
        yield "revocation-relay", self.relay.run

    def samples(self) -> Iterator[Sample]:
        """Metrics."""
        yield Sample("collector_ingest_connected", "1 while this replica can keep batches in NATS.", self.keep.open)
        yield Sample(
            "collector_ingest_waiting", "Batches kept in NATS that the log has not taken in.", self.keep.waiting
        )
        yield Sample(
            "collector_ingest_repaired",
            "Times the stream had lost its end and was moved on.",
            self.keep.healed,
            counter=True,
        )
        yield Sample(
            "collector_ingest_taken", "Records this replica brought into the log.", self.commit.taken, counter=True
        )
        yield Sample("collector_revocations_heard", "Revocations heard through NATS.", self.relay.heard, counter=True)


@contextlib.asynccontextmanager
async def bus(
    where: NatsBus,
    store: SharedLog,
    clock: Clock,
    on_issued: Callable[[Callable[[], None]], None],
    fail: Callable[[str], None],
) -> AsyncIterator[Bus]:
    """Through this NATS.

    Args:
        where: it is.
        store: of this replica.
        clock: of this process.
        on_issued: is given what to call when there is a new revocation.
        fail: told when the stream is not this log's.

    Raises:
        RuntimeError: the libraries of the extra "nats" are not installed.
    """
    try:
        from leasehold_broker.adapters import nats_bus  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        message = f"[store.nats] needs {missing.name}: pip install 'leasehold-broker[nats]'"
        raise RuntimeError(message) from None
    at = nats_bus.NatsAt(
        where.servers,
        where.prefix,
        where.creds_file,
        where.nkey_file,
        where.ca_file,
        where.stream_bytes_max,
        where.stream_replicas,
    )
    stream, relay = nats_bus.NatsIngest(at, store.stream), nats_bus.NatsRevocations(at, store.stream)
    keep = KeepBatches(stream, store.ingest, fail)
    try:
        yield Bus(
            keep,
            CommitBatches(stream, store.ingest, clock, keep.took_in),
            RelayRevocations(relay, store, on_issued),
        )
    finally:
        await stream.close()
        await relay.close()


@contextlib.asynccontextmanager
async def kept_going(bus: Bus | None, tasks: Supervisor, led: Callable[[str, Work], Work]) -> AsyncIterator[None]:
    """Run its works while the context lasts; none without a bus."""
    async with contextlib.AsyncExitStack() as stack:
        for name, work in () if bus is None else bus.works(led):
            await stack.enter_async_context(tasks.keeping(name, work, RETRY_SECONDS_MAX))
        yield
