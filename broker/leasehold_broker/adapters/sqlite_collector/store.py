"""The collector's store: ports event_store, event_log and revocation_log over one SQLite file.

Owns the writer's memory of stream heads, positions and the revocation epoch. What it says is synced (WAL,
synchronous=FULL): heads and epochs are published after the commit, never before.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlite_utils import Database

from leasehold_broker.adapters.log_rows import revocation, stored_record, stream_head
from leasehold_broker.adapters.sqlite_collector import escrow, rows
from leasehold_broker.adapters.sqlite_collector.disk import SqliteDisk
from leasehold_broker.adapters.sqlite_collector.file_lock import lock
from leasehold_broker.adapters.sqlite_collector.followers import read_follower, write_follower
from leasehold_broker.adapters.sqlite_collector.journal import WriterMemory
from leasehold_broker.adapters.sqlite_collector.reader import Reader
from leasehold_broker.adapters.sqlite_collector.register import SqliteRegister
from leasehold_broker.adapters.sqlite_collector.reserve import DiskReserve
from leasehold_broker.adapters.sqlite_collector.retention import drop_bodies
from leasehold_broker.adapters.sqlite_collector.rotations import SqliteRotations
from leasehold_broker.adapters.sqlite_collector.schema import prepare
from leasehold_broker.adapters.sqlite_collector.tree import TreeReader
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.merkle import EMPTY_ROOT, NodeHash
from leasehold_broker.domain.placed_turns import PlacedTurn
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.domain.write_rank import WriteRank, rank_of
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice
from leasehold_broker.ports.log_followers import FollowerState, Remembered
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport

PAGE_BYTES_MAX = 512 * 1024
"""Of bodies in one page: an answer with them stays well below a message limit of 1 MiB."""
RECENT_REVOCATIONS_MAX = 1024

T = TypeVar("T")


class CollectorStore:
    """One file, one process, one writer thread, two reader threads."""

    def __init__(
        self,
        path: Path,
        stream: str,
        epoch: str,
        *,
        accept_gaps: bool = False,
        alone: bool = False,
        reserve_bytes: int = 0,
    ) -> None:
        """Open or create the file.

        Args:
            path: of the SQLite file; its directory exists. Created readable by the owner only.
            stream: name of the collector's own stream.
            epoch: of this life of the collector: never used before.
            accept_gaps: let streams go on behind a hole, which is then an event.
            alone: this is the log of one sidecar that is its own centre.
            reserve_bytes: of its disk, kept for revocations.

        Raises:
            StoreBusyError: another collector has it open.
            ValueError: written by another version of this program.
            sqlite3.Error, OSError: not readable or writable.
        """
        self._path = path
        self._lock = lock(path)
        self._loop = asyncio.get_running_loop()
        self._grown = asyncio.Event()
        self._last_position = 0
        self._epoch = 0
        self._budget_change = 0
        self._tree_head = TreeHead(0, EMPTY_ROOT)
        self._recent: deque[Revocation] = deque(maxlen=RECENT_REVOCATIONS_MAX)
        self._history = RevocationHistory()
        self._memory = WriterMemory(stream, epoch, accept_gaps=accept_gaps, alone=alone)
        try:
            reserve = DiskReserve(path, reserve_bytes)
            reserve.open()
            self._writer = GroupWriter(self._connect, self._committed, self._memory.load, reserve)
        except BaseException:
            os.close(self._lock)
            raise
        # Two: a long question to the log must not keep a responder waiting.
        self._log = Reader(path, "collector-log")
        self._state = Reader(path, "collector-state")
        self.rotations = SqliteRotations(self._writer, self._memory, self._state)
        self.disk = SqliteDisk(self._writer, reserve)
        self.register = SqliteRegister(self._writer, self._memory, self._state)
        self._publish()

    def __repr__(self) -> str:
        """Where it is and how far."""
        return f"CollectorStore({self._path.name!r}, position={self._last_position}, epoch={self._epoch})"

    @property
    def stream(self) -> str:
        """Name of the collector's own stream: no sidecar may own it."""
        return self._memory.stream

    async def close(self) -> None:
        """Finish what is queued, sync, let go of the file."""
        await asyncio.to_thread(self._writer.close)
        await self._log.close()
        await self._state.close()
        os.close(self._lock)

    async def append(self, stream: str, records: Sequence[ChainedRecord], receive_wall_ms: int) -> StreamHead | None:
        """As the port says."""
        checked = self._memory.check(records)
        return await self._writer.submit(
            lambda connection: self._memory.append(connection, stream, checked, receive_wall_ms),
            WriteRank.EVENTS,
            len(records),
        )

    async def cut_off(self, stream: str, records: Sequence[ChainedRecord], wall_ms: int) -> None:
        """As the port says."""
        del stream
        await self._writer.submit(
            lambda connection: self._memory.cut_off(connection, records, wall_ms), WriteRank.EVENTS
        )

    async def record(self, event: Event) -> None:
        """Write an event of the collector itself into its own stream."""
        await self._writer.submit(lambda connection: self._memory.record(connection, event), rank_of(event.type))

    async def page(self, wanted: EventFilter, after_position: int, limit: int) -> Sequence[StoredRecord]:
        """As the port says; a page ends early once it holds `PAGE_BYTES_MAX` of bodies."""
        sql, parameters = rows.question(wanted, after_position, limit)

        def read(database: Database) -> list[StoredRecord]:
            found: list[StoredRecord] = []
            size = 0
            for row in database.execute(sql, parameters):
                found.append(stored_record(row))
                size += len(found[-1].record.body)
                if size >= PAGE_BYTES_MAX:
                    break
            return found

        return await self._log.ask(read)

    async def heads(self) -> Sequence[StreamHead]:
        """As the port says."""
        return await self._log.ask(lambda database: [stream_head(row) for row in database.query(rows.LIVES)])

    def last_position(self) -> int:
        """As the port says."""
        return self._last_position

    async def wait_for_more(self, position: int) -> None:
        """As the port says."""
        while self._last_position <= position:
            await self._grown.wait()

    def tree_head(self) -> TreeHead:
        """As the port says."""
        return self._tree_head

    async def read_tree(self, question: Callable[[NodeHash], T]) -> T:
        """As the port says."""
        return await self._log.ask(lambda database: question(TreeReader(database.conn).node))

    def placed_from(self, size: int) -> PlacedTurn | None:
        """As the port says. Nothing is remembered: the file is on this disk, and what it gives back is looked at."""
        del size
        return None

    async def newest_checkpoint(self) -> SignedCheckpoint | None:
        """As the port says."""

        def read(database: Database) -> SignedCheckpoint | None:
            row = database.execute(rows.NEWEST_CHECKPOINT).fetchone()
            return None if row is None else SignedCheckpoint(TreeHead(row[0], row[1]), row[2], row[3])

        return await self._state.ask(read)

    async def keep_checkpoint(self, checkpoint: SignedCheckpoint) -> None:
        """As the port says."""
        head = checkpoint.head
        row = (head.size, head.root, checkpoint.note, checkpoint.sign_wall_ms)
        await self._writer.submit(
            lambda connection: connection.execute(rows.PUT_CHECKPOINT, row), WriteRank.REVOCATIONS
        )

    async def cursor(self, sink: str) -> int | None:
        """As the port says."""

        def read(database: Database) -> int | None:
            row = database.execute(rows.CURSOR, (sink,)).fetchone()
            return None if row is None else int(row[0])

        return await self._state.ask(read)

    async def move_cursor(self, sink: str, position: int) -> None:
        """As the port says."""
        await self._writer.submit(
            lambda connection: connection.execute(rows.PUT_CURSOR, (sink, position)), WriteRank.REVOCATIONS
        )

    async def follower(self, name: str) -> FollowerState | None:
        """As the port says."""
        return await self._state.ask(lambda database: read_follower(database, name))

    async def advance(
        self,
        name: str,
        position: int,
        memory: Mapping[str, Remembered | None],
        events: Sequence[Event] = (),
        *,
        since: int | None = None,
    ) -> None:
        """As the port says."""

        def write(connection: sqlite3.Connection) -> None:
            write_follower(connection, name, position, memory, since)
            for event in events:
                self._memory.record(connection, event)

        await self._writer.submit(write, WriteRank.REVOCATIONS)

    async def drop_bodies(self, before_wall_ms: int, until_position: int, limit: int) -> int:
        """As the port says."""
        return await self._writer.submit(
            lambda connection: drop_bodies(connection, before_wall_ms, until_position, limit), WriteRank.SESSIONS
        )

    def epoch(self) -> int:
        """As the port says."""
        return self._epoch

    def history(self) -> RevocationHistory:
        """As the port says."""
        return self._history

    def when_current(self, asker: object, told: Callable[[], None]) -> None:
        """As the port says: nobody else writes here."""
        del asker
        told()

    async def issue(self, draft: RevocationDraft, describe: Callable[[Revocation], Event]) -> Revocation:
        """As the port says."""
        return (await self.issue_all([draft], lambda entry, _: describe(entry)))[0]

    async def issue_all(
        self, drafts: Sequence[RevocationDraft], describe: Callable[[Revocation, RevocationDraft], Event]
    ) -> Sequence[Revocation]:
        """As the port says."""
        return await self._writer.submit(
            lambda connection: self._memory.issue(connection, drafts, describe), WriteRank.REVOCATIONS, urgent=True
        )

    def budget_change_number(self) -> int:
        """As the port says."""
        return self._budget_change

    async def change_budget(self, draft: BudgetChange, describe: Callable[[BudgetChange], Event]) -> BudgetChange:
        """As the port says."""
        return await self._writer.submit(
            lambda connection: self._memory.change_budget(connection, draft, describe), WriteRank.REVOCATIONS
        )

    async def budget_changes_after(self, number: int, limit: int) -> Sequence[BudgetChange]:
        """As the port says."""
        if number >= self._budget_change:
            return ()
        parameters = {"number": number, "limit": limit}
        return await self._state.ask(
            lambda database: [
                rows.BUDGET_CHANGE.decode(row["body"]) for row in database.query(rows.BUDGET_CHANGES_AFTER, parameters)
            ]
        )

    async def slices(self, after_version: int = 0) -> EscrowBooks:
        """As the port says."""
        return await self._state.ask(lambda database: escrow.read_slices(database, after_version))

    async def put_slices(self, version: int, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> int:
        """As the port says."""

        def work(connection: sqlite3.Connection) -> int:
            escrow.check_version(connection, version)
            for event in events:
                self._memory.record(connection, event)
            escrow.put_slices(connection, version + 1, fence, slices)
            return version + 1

        return await self._writer.submit(work, WriteRank.EVENTS)

    async def forget_slices(self, fences: Sequence[int]) -> None:
        """As the port says."""
        await self._writer.submit(lambda connection: escrow.forget_slices(connection, fences), WriteRank.EVENTS)

    async def find(self, epoch: int) -> Revocation | None:
        """As the port says."""
        found = await self._revocations("WHERE epoch = :epoch LIMIT :limit", epoch, 1)
        return found[0] if found else None

    async def after(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says; recent entries come from memory, so that a push to many sidecars reads no disk."""
        if epoch >= self._epoch:
            return ()
        recent = self._recent
        if recent and recent[0].epoch <= epoch + 1:
            first = epoch + 1 - recent[0].epoch  # they are numbered without a gap
            return list(islice(recent, first, min(first + limit, len(recent))))
        return await self._revocations("WHERE epoch > :epoch ORDER BY epoch LIMIT :limit", epoch, limit)

    async def before(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says."""
        return await self._revocations("WHERE epoch < :epoch ORDER BY epoch DESC LIMIT :limit", epoch, limit)

    async def applied_between(
        self, first_epoch: int, last_epoch: int, sidecars: Sequence[str]
    ) -> Mapping[str, AppliedRevocation]:
        """As the port says."""
        parameters = (first_epoch, last_epoch, msgspec.json.encode(sidecars).decode())
        return await self._state.ask(
            lambda database: {
                row[0]: AppliedRevocation(*row[1:]) for row in database.execute(rows.APPLIED_BETWEEN, parameters)
            }
        )

    async def sidecars(self) -> Sequence[KnownSidecar]:
        """As the port says."""
        sql = (
            "SELECT name, environment, version, applied_epoch, last_heard_wall_ms, authority_ms FROM sidecars "
            "ORDER BY name"
        )
        return await self._state.ask(lambda database: [KnownSidecar(**row) for row in database.query(sql)])

    async def heard(self, reports: Sequence[SidecarReport]) -> None:
        """As the port says."""
        await self._writer.submit(lambda connection: self._memory.heard(connection, reports), WriteRank.REVOCATIONS)

    async def _revocations(self, condition: str, epoch: int, limit: int) -> list[Revocation]:
        sql = f"{rows.REVOCATIONS} {condition}"
        parameters = {"epoch": epoch, "limit": limit}
        return await self._state.ask(lambda database: [revocation(row) for row in database.query(sql, parameters)])

    def _connect(self) -> sqlite3.Connection:
        with contextlib.ExitStack() as undo:
            connection = undo.enter_context(contextlib.closing(sqlite3.connect(self._path, isolation_level=None)))
            prepare(connection)
            self._memory.load(connection)
            for row in Database(connection).query(f"{rows.REVOCATIONS} ORDER BY epoch"):
                entry = revocation(row)
                self._history.extend([entry])
                self._recent.append(entry)
            undo.pop_all()
        return connection

    def _committed(self) -> None:
        """On the writer's thread."""
        head, epoch, issued = self._memory.tree_head(), self._memory.epoch, self._memory.take_issued()
        self._loop.call_soon_threadsafe(self._advance, head, epoch, issued, self._memory.budget_change)

    def _advance(self, head: TreeHead, epoch: int, issued: Sequence[Revocation], budget_change: int) -> None:
        """On the loop, before any awaitable of that commit is done."""
        self._recent.extend(issued)
        self._history.extend(issued)
        self._epoch, self._budget_change = epoch, budget_change
        if head.size > self._last_position:
            self._last_position = head.size
            self._tree_head = head
            grown, self._grown = self._grown, asyncio.Event()
            grown.set()

    def _publish(self) -> None:
        self._tree_head = self._memory.tree_head()
        self._last_position, self._epoch = self._tree_head.size, self._memory.epoch
        self._budget_change = self._memory.budget_change
