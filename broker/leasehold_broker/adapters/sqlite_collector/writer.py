"""The one thread that writes. Owns the queue, the grouping of jobs into one synced transaction, and the failures.

A job is a function of the connection. Jobs run in the order submitted, but those that are urgent before all others:
whoever ships events as fast as they are taken keeps no revocation waiting for longer than the group that is being
written. Jobs that are written together share one commit, and each learns of its result only after that is synced. A job
that raises changes nothing and disturbs no other. Whatever else goes wrong, no memory or a bug, refuses its group and
ends no thread: nobody waits for ever, and nobody is told of more than is on the disk.
On a disk that fills, jobs of the lower ranks are refused first, and a group that found no room is tried again without
them, upon the reserve.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from leasehold_broker.adapters.sqlite_collector.reserve import DiskReserve, lacks_room
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank

QUEUE_JOBS_MAX = 4096
QUEUE_URGENT_MAX = 1024
"""So many more, when they are urgent: a queue full of events refuses no revocation."""
GROUP_JOBS_MAX = 256
GROUP_RECORDS_MAX = 4000
"""Some 100 ms: so long may a revocation wait for a group of events."""
GROUP_BEHIND_MAX = 400
"""Of records in a group that somebody urgent waits for: they share its sync, and hold it up by some 10 ms."""

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
_Outcome = tuple["Future[Any]", Any, Exception | None]
FIRST, IN_ORDER, LAST = range(3)


@dataclass(slots=True)
class _Waiting:
    job: Job
    future: "Future[Any]"
    rank: WriteRank
    records: int
    urgent: bool


_Queued = tuple[int, int, _Waiting | None]
"""What comes first, and then in order; the last one is none."""


class GroupWriter:
    """Runs jobs on its own thread, many to one commit."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        committed: Callable[[], None],
        rolled_back: Callable[[sqlite3.Connection], None],
        reserve: DiskReserve,
    ) -> None:
        """Start the thread.

        Args:
            connect: opens the connection, on the thread.
            committed: called on the thread after each commit, before the results are handed out.
            rolled_back: called on the thread after anything was rolled back.
            reserve: of the disk, opened.

        Raises:
            Exception: what `connect` raises.
        """
        self._queue: queue.PriorityQueue[_Queued] = queue.PriorityQueue(QUEUE_JOBS_MAX + QUEUE_URGENT_MAX)
        self._numbers = count()
        self._connect = connect
        self._committed = committed
        self._rolled_back = rolled_back
        self._reserve = reserve
        self._closed = False
        self._closing = threading.Lock()
        """Held where it is asked whether this is closed, and while it becomes so: the last one queued is the end."""
        self._stale = False
        self.commits = 0
        self.failures = 0
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="collector-store", daemon=True)
        self._thread.start()
        started.result()

    def submit(
        self, job: Callable[[sqlite3.Connection], T], rank: WriteRank, records: int = 1, *, urgent: bool = False
    ) -> "asyncio.Future[T]":
        """Queue a job; the awaitable is done once its transaction is synced.

        Args:
            job: what is written.
            rank: how long it goes on while the disk fills.
            records: how much it is, about.
            urgent: a revocation. Reports that leases have ended wait their turn, with the events of it.

        Raises:
            Refusal: OVERLOADED when the queue is full, STORE_UNAVAILABLE once closed or (from the awaitable) when
                SQLite failed; AUDIT_DISK_LOW, at once or from the awaitable, when the disk has no room for this rank.
        """
        if rank < self._reserve.lowest():
            raise self._reserve.refusal()
        future: Future[T] = Future()
        waiting = _Waiting(job, future, rank, records, urgent)
        room = self._queue.maxsize if urgent else QUEUE_JOBS_MAX
        with self._closing:
            if self._closed:
                raise Refusal(
                    Reason.STORE_UNAVAILABLE, "the collector is stopping; try again later", retry_after_seconds=1.0
                )
            if self._queue.qsize() >= room:
                raise Refusal(
                    Reason.OVERLOADED, "the collector's writer is behind; try again shortly", retry_after_seconds=1.0
                )
            self._queue.put((FIRST if urgent else IN_ORDER, next(self._numbers), waiting))
        return asyncio.wrap_future(future)

    def close(self) -> None:
        """Finish what is queued, then end the thread. Blocks until then."""
        with self._closing:
            first, self._closed = not self._closed, True
        if first:
            self._queue.put((LAST, next(self._numbers), None))
        self._thread.join()

    def _run(self, started: "Future[None]") -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever waits for the start is told
            started.set_exception(error)
            return
        started.set_result(None)
        open_ = True
        while open_:
            group = self._group()
            open_ = None not in group
            jobs = [one for one in group if one is not None]
            try:
                self._commit(connection, [one for one in jobs if _still_wanted(one)])
            except BaseException as error:  # noqa: BLE001 - this thread must live, and its waiters be told
                self.failures += 1
                self._stale = True
                _refuse(jobs, error)
        with suppress(sqlite3.Error):  # what was promised is in the WAL, synced
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _group(self) -> list[_Waiting | None]:
        """What is written next, the urgent first; waits for something to write."""
        group = [self._queue.get()[2]]
        urgent = group[0] is not None and group[0].urgent
        records, records_max = 0, GROUP_BEHIND_MAX if urgent else GROUP_RECORDS_MAX
        while len(group) < GROUP_JOBS_MAX:
            last = group[-1]
            records += 0 if last is None or last.urgent else last.records
            if records >= records_max:
                break
            try:
                group.append(self._queue.get_nowait()[2])
            except queue.Empty:
                break
        return group

    def _commit(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        if group:
            with suppress(sqlite3.Error, OSError):  # the group itself finds out
                self._reserve.look(connection)
            group = _those_with_room(group, self._reserve.lowest(), self._reserve.refusal)
        while group:
            try:
                outcomes = self._write(connection, group)
            except sqlite3.Error as error:
                self.failures += 1
                self._stale = True
                with suppress(sqlite3.Error):  # tried again before the next group, which is refused until it succeeds
                    self._reload(connection)
                group = self._to_try_again(group, error)
                continue
            self.commits += 1
            self._committed()
            for future, result, failure in outcomes:
                if failure is None:
                    future.set_result(result)
                else:
                    future.set_exception(failure)
            return

    def _write(self, connection: sqlite3.Connection, group: list[_Waiting]) -> list[_Outcome]:
        if self._stale:
            self._reload(connection)
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [self._attempt(connection, waiting) for waiting in group]
        connection.execute("COMMIT")
        return outcomes

    def _to_try_again(self, group: list[_Waiting], error: sqlite3.Error) -> list[_Waiting]:
        """What of a group that failed may find room: smaller, or with more of it, each time. The rest is refused."""
        lowest = None
        if lacks_room(error):
            with suppress(OSError):
                lowest = self._reserve.ran_out({waiting.rank for waiting in group})
        failure = _unavailable(error)
        if lowest is not None:
            return _those_with_room(group, lowest, lambda: failure)
        for waiting in group:
            waiting.future.set_exception(failure)
        return []

    def _reload(self, connection: sqlite3.Connection) -> None:
        """Take the memory from the file again, whatever the last group left behind."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._rolled_back(connection)
        self._stale = False

    def _attempt(self, connection: sqlite3.Connection, waiting: _Waiting) -> _Outcome:
        connection.execute("SAVEPOINT job")
        try:
            result = waiting.job(connection)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - handed to the one who asked; others in the group are not disturbed
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            self._rolled_back(connection)
            return waiting.future, None, error
        connection.execute("RELEASE job")
        return waiting.future, result, None


def _those_with_room(group: list[_Waiting], lowest: WriteRank, refusal: Callable[[], Refusal]) -> list[_Waiting]:
    for waiting in group:
        if waiting.rank < lowest:
            waiting.future.set_exception(refusal())
    return [waiting for waiting in group if waiting.rank >= lowest]


def _still_wanted(waiting: _Waiting) -> bool:
    return waiting.future.set_running_or_notify_cancel()


def _refuse(jobs: list[_Waiting], error: BaseException) -> None:
    """Tell each that was not told yet: it is not known whether it was written. Who asks again finds out."""
    failure = _unavailable(error)
    for waiting in jobs:
        if not waiting.future.done():
            waiting.future.set_exception(failure)


def _unavailable(error: BaseException) -> Refusal:
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the collector cannot write its store; its operators must look at the disk",
        detail=f"{type(error).__name__}: {error}",
        retry_after_seconds=5.0,
    )
