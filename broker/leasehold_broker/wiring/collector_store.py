"""Where a collector keeps its log: one file of its own, or a PostgreSQL that it shares with its replicas."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.config.collector_store import PostgresStore
from leasehold_broker.ports.budget_changes import BudgetChangeLog
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.escrow_log import EscrowLog
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.event_store import EventStore, RecordTaker
from leasehold_broker.ports.fleet_board import FleetBoard
from leasehold_broker.ports.log_disk import LogDisk
from leasehold_broker.ports.log_followers import LogFollowers
from leasehold_broker.ports.revocation_log import RevocationLog
from leasehold_broker.ports.rotation_log import RotationLog
from leasehold_broker.ports.sidecar_register import SidecarRegister
from leasehold_broker.ports.sink_cursors import SinkCursors
from leasehold_broker.ports.tree_log import TreeLog
from leasehold_broker.wiring.collector_bus import INGEST_LEAD, Bus, Work, bus, kept_going
from leasehold_broker.wiring.life import new_life
from leasehold_broker.wiring.supervision import Supervisor


class CollectorLog(EventStore, EventLog, TreeLog, SinkCursors, LogFollowers, RevocationLog, BudgetChangeLog, Protocol):
    """Everything that a collector keeps, whichever engine keeps it."""

    @property
    def stream(self) -> str:
        """Name of the collector's own stream."""
        ...

    @property
    def register(self) -> SidecarRegister:
        """Who is banned."""
        ...


class LogFollower(Protocol):
    """Goes through the log, its place in it kept with the log."""

    async def start(self) -> None:
        """Take up where it was."""
        ...

    async def run(self) -> None:
        """Go on until cancelled."""
        ...


async def alone(_name: str, work: Work) -> None:
    """A collector without replicas does everything itself."""
    await work()


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A log that is open.

    Args:
        log: of this collector.
        lead: does a work, named, while this replica is the one that does it.
        board: what replicas tell each other about sidecars; None without replicas.
        escrow: where slices of fleet budgets are kept.
        rotations: where rotations of keys are kept.
        disk: below the log, where it is a file.
        bus: what takes records before the log has them; None: the log takes them itself.
    """

    log: CollectorLog
    lead: Callable[[str, Work], Awaitable[None]] = alone
    board: FleetBoard | None = None
    escrow: EscrowLog | None = None
    rotations: RotationLog | None = None
    disk: LogDisk | None = None
    bus: Bus | None = None

    @property
    def shared(self) -> bool:
        """True when there may be other replicas."""
        return self.board is not None

    @property
    def signing_lead(self) -> str:
        """Whoever brings records into the log signs it as well: it need not read back what it has placed itself."""
        return "checkpoints" if self.bus is None else INGEST_LEAD

    @property
    def taker(self) -> RecordTaker:
        """Takes what sidecars send."""
        return self.log if self.bus is None else self.bus.keep

    def led(self, name: str, work: Work) -> Work:
        """A work that only one replica does at a time."""
        return partial(self.lead, name, work)

    def led_from_cursor(self, name: str, follower: LogFollower) -> Work:
        """The same for one that has started here: when it is its turn, it goes on from where the last one was."""
        if not self.shared:
            return follower.run

        async def work() -> None:
            await follower.start()
            await follower.run()

        return self.led(name, work)


@contextlib.asynccontextmanager
async def file_store(path: Path, stream: str, *, accept_gaps: bool, reserve_bytes: int = 0) -> AsyncIterator[OpenStore]:
    """A log in one file; so much of its disk is kept for revocations.

    Raises:
        StoreBusyError, ValueError, sqlite3.Error, OSError: it cannot be opened; the message says why.
    """
    store = CollectorStore(path, stream, new_life(), accept_gaps=accept_gaps, reserve_bytes=reserve_bytes)
    try:
        yield OpenStore(store, escrow=store, rotations=store.rotations, disk=store.disk)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def shared_store(
    where: PostgresStore,
    stream: str,
    clock: Clock,
    *,
    accept_gaps: bool,
    issued: Callable[[], None],
    fail: Callable[[str], None],
) -> AsyncIterator[OpenStore]:
    """A log in PostgreSQL, with NATS before it where that is configured.

    Args:
        where: it is.
        stream: this replica's own.
        clock: of this process.
        accept_gaps: let streams go on behind a hole.
        issued: told of each new revocation and change of a budget, whichever replica made it.
        fail: told when the database, or the ingest stream, is not the one that it was.

    Raises:
        RuntimeError: the libraries of the extra "scale", or "nats", are not installed.
        ValueError, Refusal: it cannot be opened; the message says why.
    """
    try:
        from leasehold_broker.adapters import postgres_collector  # noqa: PLC0415 - an extra; SQLite is the default
    except ModuleNotFoundError as missing:
        message = f"the store engine \"postgres\" needs {missing.name}: pip install 'leasehold-broker[scale]'"
        raise RuntimeError(message) from None
    at = postgres_collector.PostgresAt(where.url, where.schema, where.password_file, where.connections_max)
    opening = postgres_collector.open_store(at, stream, new_life(), accept_gaps=accept_gaps, issued=issued, fail=fail)
    async with opening as store:
        opened = OpenStore(store, store.leadership.lead, store.board, store.escrow, store.rotations)
        if where.nats is None:
            if (await store.ingest.ingest_state()).incarnation:
                message = (
                    "this log takes in what a NATS stream keeps, and [store.nats] is missing here: two ways in would "
                    "not know of each other; deploy/scale.md says how to leave NATS"
                )
                raise ValueError(message)
            yield opened
            return
        async with bus(where.nats, store, clock, store.on_issued, fail) as before:
            yield replace(opened, bus=before)


@contextlib.asynccontextmanager
async def taking(opened: OpenStore, tasks: Supervisor) -> AsyncIterator[RecordTaker]:
    """What takes records, with everything that goes on behind it."""
    async with kept_going(opened.bus, tasks, opened.led):
        yield opened.taker
