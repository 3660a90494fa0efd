"""The one store of the sidecar's state. Owns group commit, the chain's numbering, the spool's limit and the outbox.

The event loop fills a transaction with everything that was asked for since the last one; a thread of its own does
nothing but COMMIT, so that only the wait for the disk happens beside the loop (a thread that also inserted would fight
the loop for the interpreter at every row). A record is numbered and chained only in the transaction that makes it
durable, so a failed commit leaves no hole; what was asked for before the waiters knew of a failure fails too, so that
no change overtakes one that it was built on. After an I/O error the truth on disk is unknown: the store refuses
everything until the process is started again and recovers.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from leasehold_broker.adapters.sqlite_state import answers, opening, rows, spool
from leasehold_broker.adapters.sqlite_state.durable import DurableRecords
from leasehold_broker.adapters.sqlite_state.opening import damaged, lock_directory, open_database, translated
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, chain
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.outbox import PendingRecord
from leasehold_broker.ports.state_store import Change, StoredState
from leasehold_broker.wire.event_body import encode_event

GROUP_MAX = 256
"""Commits that share one sync: bounds how long filling a transaction holds the loop (some 20 us each)."""
RECORD_OVERHEAD_BYTES = 160
"""What a record takes in the spool besides its body."""
PEPPER_BYTES = 32
DEFERRED_SECONDS = 0.004
"""How long a commit that nobody waits for may wait for company."""
TRIM_SECONDS = 0.25
_COMMIT, _STOP = "commit", "stop"


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bounds of the store.

    Args:
        spool_bytes_max: audit records that wait for the collector (for a sidecar that runs alone: the whole log).
        queue_max: commits that wait for the disk.
    """

    spool_bytes_max: int = 256 * 1024 * 1024
    queue_max: int = 20_000


@dataclass(slots=True)
class _Commit:
    bodies: Sequence[bytes]
    changes: Sequence[Change]
    essential: bool
    done: asyncio.Future[Any]


@dataclass(slots=True)
class _Read:
    work: Callable[[sqlite3.Connection], object]
    done: asyncio.Future[Any]


T = TypeVar("T")
_Answer = tuple[asyncio.Future[Any], object]
_Job = _Commit | _Read


class SqliteStateStore:
    """Implements `StateStore` and `Outbox` on one SQLite file in a private directory."""

    def __init__(self, directory: Path, stream: str, clock: Clock, limits: StoreLimits) -> None:
        """Open or create the store.

        Args:
            directory: made private (0700) when it does not exist; refused when others can enter it.
            stream: name of this sidecar's audit stream.
            clock: for translating deadlines after a reboot.
            limits: bounds.

        Raises:
            RuntimeError: the directory is open to others, another process uses it, or the file is damaged.
        """
        self._stream = stream
        self._clock = clock
        self._limits = limits
        self._lock = lock_directory(directory)
        self._path = directory / "state.db"
        self._boot_id = opening.boot_id()
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock)
            try:
                self._connection = open_database(self._path)
                undo.callback(self._connection.close)
                self.pepper = opening.secret_meta(self._connection, "pepper", PEPPER_BYTES)
                self._previous = spool.last_record(self._connection)
                self._epoch = opening.next_epoch(self._connection)
                self._position, self._spooled_bytes = opening.measure_outbox(self._connection, RECORD_OVERHEAD_BYTES)
            except (sqlite3.Error, ValueError) as error:
                raise damaged(self._path, error) from error
            undo.pop_all()
        self._sequence = 0
        self._digest = GENESIS
        self._broken = False
        self._closing = False
        self._waiting: deque[_Job] = deque()
        self._group: list[_Job] = []
        self._found: list[_Answer] = []
        self._before = self._marks()
        # Idle, or a fill is scheduled, or the thread is committing: then nothing else touches the connection.
        self._busy = False
        self._urgent = False
        self._deferred: asyncio.TimerHandle | None = None
        # From a failed commit until everybody who waited for it has been told.
        self._failing = False
        self._written: list[PendingRecord] = []
        # What lies in an empty outbox has all been acknowledged, in an earlier life.
        self._durable = DurableRecords(self._position, shipped=not self._spooled_bytes)
        self._trimming: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commits: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_when_told, name="state-commit", daemon=True)

    @property
    def epoch(self) -> str:
        """The life of this store: new at each opening."""
        return self._epoch

    @property
    def spooled_bytes(self) -> int:
        """Bytes of audit records that wait for the collector."""
        return self._spooled_bytes

    @property
    def broken(self) -> bool:
        """True after an I/O error: everything is refused until the process is started again."""
        return self._broken

    def start(self) -> None:
        """Start the thread for this event loop; the first commit does it too."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()

    def load(self) -> StoredState:
        """The durable state. Call before the first commit."""
        now = self._clock.now()
        try:
            found = rows.read_leases(self._connection)
            old = {lease.name: translated(lease, now) for lease, _, boot_id in found if boot_id != self._boot_id}
            if old:
                rows.keep_translated(self._connection, old.values(), self._boot_id)
            return StoredState(
                [(old.get(lease.name, lease), digest) for lease, digest, _ in found],
                rows.read_accounts(self._connection),
                rows.read_holds(self._connection),
                rows.read_requests(self._connection),
                rows.read_revocations(self._connection),
                rows.read_showings(self._connection),
                self._previous,
                rows.read_key_marks(self._connection),
                rows.read_budget_changes(self._connection),
                rows.read_engine_leases(self._connection),
            )
        except (sqlite3.Error, ValueError) as error:
            raise damaged(self._path, error) from error

    def commit(
        self,
        events: Sequence[Event],
        changes: Sequence[Change] = (),
        *,
        essential: bool = False,
        deferred: bool = False,
    ) -> Awaitable[None]:
        """See `StateStore.commit`."""
        done: asyncio.Future[None] = self._running_loop().create_future()
        if self._closing:
            done.set_exception(answers.stopping())
            return done
        if self._failing:
            done.set_exception(answers.behind_a_failure())
            return done
        if len(self._waiting) >= self._limits.queue_max and not essential:
            done.set_exception(answers.overloaded())
            return done
        # Encoded here, so that an event that cannot be encoded fails at its author.
        self._ask(_Commit([encode_event(event) for event in events], changes, essential, done), urgent=not deferred)
        return done

    async def pending_after(self, position: int, limit: int) -> Sequence[PendingRecord]:
        """See `Outbox.pending_after`. A link that keeps up is answered from memory."""
        found = self._durable.after(position, limit)
        if found is not None:
            return found
        after = max(position, self._durable.acknowledged)
        return await self._read(lambda connection: rows.read_records(connection, after, limit))

    async def acknowledge(self, position: int) -> None:
        """See `Outbox.acknowledge`. Trimmed now and then: a sync for each answer would slow the calls."""
        self._durable.acknowledged = max(self._durable.acknowledged, position)
        if self._spooled_bytes > self._limits.spool_bytes_max // 2:
            await self.trim()
        elif self._trimming is None or self._trimming.done():
            self._trimming = asyncio.get_running_loop().create_task(self._trim_later())
            self._trimming.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _trim_later(self) -> None:
        await asyncio.sleep(TRIM_SECONDS)
        await self.trim()

    async def trim(self) -> None:
        """Forget what was acknowledged, now.

        Raises:
            Refusal: STORE_UNAVAILABLE; it is kept, and shipped again after a restart, which the collector notices.
        """
        upto = self._durable.acknowledged

        def work(connection: sqlite3.Connection) -> None:
            (freed,) = connection.execute(
                "SELECT coalesce(sum(length(body) + ?), 0) FROM outbox WHERE position <= ?",
                (RECORD_OVERHEAD_BYTES, upto),
            ).fetchone()
            spool.trim(connection, upto)
            self._spooled_bytes -= int(freed)

        await self._read(work)

    async def wait_for_more(self, position: int) -> None:
        """See `Outbox.wait_for_more`."""
        await self._durable.wait_after(position)

    async def close(self) -> None:
        """Finish what was asked for, stop the thread and close the file."""
        if self._trimming is not None:
            self._trimming.cancel()
        if self._durable.acknowledged and not self._broken:
            with contextlib.suppress(Refusal):
                await self.trim()
        self._closing = True
        if self._waiting and not self._busy:
            self._fill_soon(self._running_loop())
        await self._idle.wait()
        if self._loop is not None:
            self._commits.put(_STOP)
            await asyncio.to_thread(self._thread.join)
        self._connection.close()
        os.close(self._lock)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        done: asyncio.Future[object] = self._running_loop().create_future()
        if self._closing:
            raise answers.stopping()
        self._ask(_Read(work, done))
        return await done  # type: ignore[return-value] # the future carries what `work` returned

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        self.start()
        return asyncio.get_running_loop()

    def _ask(self, job: _Job, *, urgent: bool = True) -> None:
        self._waiting.append(job)
        self._urgent = self._urgent or urgent
        self._idle.clear()
        if not self._busy:
            self._go_on(asyncio.get_running_loop())

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing is being written: see to what waits."""
        if not self._waiting:
            self._idle.set()
        elif self._urgent or self._closing or len(self._waiting) >= GROUP_MAX:
            self._fill_soon(loop)
        elif self._deferred is None:
            self._deferred = loop.call_later(DEFERRED_SECONDS, self._fill_soon, loop)

    def _fill_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._deferred is not None:
            self._deferred.cancel()
            self._deferred = None
        if not self._busy:
            self._busy = True
            # Soon, not now: whatever else this turn of the loop asks for shares the transaction.
            loop.call_soon(self._fill)

    def _fill(self) -> None:
        """Put the oldest of what waits into a transaction and have it committed."""
        self._group = [self._waiting.popleft() for _ in range(min(GROUP_MAX, len(self._waiting)))]
        self._urgent = self._urgent and bool(self._waiting)
        self._before = self._marks()
        try:
            self._answers = self._transaction(self._group)
        except Exception as error:  # noqa: BLE001 - whatever it is: every waiter must be told, and the store live on
            self._finish(error)
            return
        if self._connection.in_transaction and not self._broken:  # else it is one that was refused
            self._commits.put(_COMMIT)
        else:
            self._finish(None)

    def _commit_when_told(self) -> None:
        """The thread: COMMIT, which waits for the disk, and nothing else."""
        while self._commits.get() == _COMMIT:
            failure: Exception | None = None
            try:
                self._connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - told on the loop; this thread must live
                failure = error
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the answer
                    self._loop.call_soon_threadsafe(self._finish, failure)

    def _finish(self, failure: Exception | None) -> None:
        """Tell everybody how the transaction went, and go on with what has come meanwhile."""
        told = self._answers
        if failure is not None:
            self._sequence, self._digest, self._position, self._spooled_bytes = self._before
            with contextlib.suppress(Exception):  # whatever it is, everybody is told; what is left open fails the next
                self._connection.execute("ROLLBACK")
            behind = answers.behind_a_failure()
            told = [(job.done, self._failure(failure)) for job in self._group]
            told += [(job.done, behind) for job in self._waiting]
            self._waiting.clear()
            self._urgent = False
            self._failing = True
        else:
            self._durable.add(self._written)
        for future, answer in told:
            if future.done():
                continue
            if isinstance(answer, Refusal):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._group, self._answers, self._written = [], [], []
        self._durable.wake()
        if failure is not None:
            # After the callbacks of those futures, which were queued just now: nobody commits anew unknowing.
            asyncio.get_running_loop().call_soon(self._told)
        self._busy = False
        self._go_on(asyncio.get_running_loop())

    def _told(self) -> None:
        self._failing = False

    def _marks(self) -> tuple[int, bytes, int, int]:
        return self._sequence, self._digest, self._position, self._spooled_bytes

    def _transaction(self, jobs: Sequence[_Job]) -> list[_Answer]:
        found: list[_Answer] = []
        if self._broken:
            return [(job.done, answers.disk_failed("")) for job in jobs]
        statements = rows.Statements(self._boot_id)
        records: list[ChainedRecord] = []
        self._connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            if isinstance(job, _Read):
                found.append((job.done, job.work(self._connection)))
                continue
            refused = self._spool_refusal(job)
            if refused is None:
                records.extend(self._chained(job.bodies))
                statements.add(job.changes)
            found.append((job.done, refused))
        if records:
            self._written = [PendingRecord(self._position + n, record) for n, record in enumerate(records, start=1)]
            self._position += len(records)
            rows.put_records(self._connection, self._written)
        statements.run(self._connection)
        return found

    def _chained(self, bodies: Sequence[bytes]) -> list[ChainedRecord]:
        found = []
        for body in bodies:
            record = chain(self._stream, self._epoch, self._sequence + 1, self._digest, body)
            self._sequence, self._digest = record.sequence, record.digest
            self._spooled_bytes += len(record.body) + RECORD_OVERHEAD_BYTES
            found.append(record)
        return found

    def _spool_refusal(self, job: _Commit) -> Refusal | None:
        if job.essential or not job.bodies or self._spooled_bytes < self._limits.spool_bytes_max:
            return None
        return answers.spool_full(self._spooled_bytes, self._limits.spool_bytes_max)

    def _failure(self, error: Exception) -> Refusal:
        if answers.is_full(error):
            return answers.disk_full(error)
        # After a failed write or sync the page cache may lie about the disk: only a fresh start can tell.
        self._broken = True
        return answers.disk_failed(str(error))
