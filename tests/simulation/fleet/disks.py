"""The real stores on a virtual clock: their threads' work is done on the loop, after the time that a disk takes.

Owns what a disk may do to a process: be slow, be full, fail, or be cut off between two writes by the process's death.
SQLite itself is real, in files. What became durable is told to the world the moment it did.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from tests.simulation.fleet.loop import Process, VirtualLoop

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_collector import store as collector_store
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter, _Waiting
from leasehold_broker.adapters.sqlite_state import opening
from leasehold_broker.adapters.sqlite_state.store import SqliteStateStore, StoreLimits
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.outbox import PendingRecord

SYNC_SECONDS_MAX = 0.004
GONE = Refusal(Reason.STORE_UNAVAILABLE, "the process is dead")


@dataclass
class Disk:
    """How a host's disk behaves. `dies_in`: commits until its process is killed; `dies_after`: once it is durable."""

    chance: Random
    full: bool = False
    failing: bool = False
    dies_in: int = 0
    dies_after: bool = False
    kill: Callable[[], None] = field(default=lambda: None)

    def sync_seconds(self) -> float:
        """How long a commit takes."""
        return self.chance.uniform(0.0002, SYNC_SECONDS_MAX)

    def fault(self) -> sqlite3.Error | None:
        """What a commit meets."""
        if self.full:
            error: sqlite3.Error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            return error
        return sqlite3.OperationalError("disk I/O error") if self.failing else None

    def death(self, *, after: bool) -> bool:
        """Kill the process here if this is the moment."""
        if self.dies_in and after == self.dies_after:
            self.dies_in -= 1
            if not self.dies_in:
                self.kill()
                return True
        return False


class SimStateStore(SqliteStateStore):
    """A sidecar's store, whose thread is a timer."""

    def __init__(
        self,
        directory: Path,
        stream: str,
        clock: Clock,
        limits: StoreLimits,
        process: Process,
        disk: Disk,
        durable: Callable[[Sequence[PendingRecord]], None],
    ) -> None:
        """Open as the process does; `durable` is told of records as they become it."""
        super().__init__(directory, stream, clock, limits)
        self.process = process
        self._disk = disk
        self._became_durable = durable
        self._commits = self  # type: ignore[assignment] # what the store tells its thread, it tells us
        self._thread = self  # type: ignore[assignment]
        self.acked_position = 0

    def start(self) -> None:
        """As the store does; as its thread, nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def join(self) -> None:
        """As its thread: has ended."""

    def put(self, word: str) -> None:
        """As its thread: commit, in the time of a disk."""
        if word == "commit" and self._loop is not None and not self.process.dead:
            self._loop.call_later(self._disk.sync_seconds(), self._commit_now)

    def _commit_now(self) -> None:
        if self.process.dead or self._disk.death(after=False) or self._loop is None:
            return
        failure: Exception | None = self._disk.fault()
        if failure is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                failure = error
            else:
                self._became_durable(self._written)
                if self._disk.death(after=True):
                    return
        self._loop.call_soon(self._finish_alive, failure)

    def _finish_alive(self, failure: Exception | None) -> None:
        if not self.process.dead:
            self._finish(failure)

    def _fill(self) -> None:
        if not self.process.dead:
            super()._fill()

    def cut_off(self) -> None:
        """What a kill leaves: whatever was committed."""
        self._closing = True
        self._connection.close()
        with suppress(OSError):
            os.close(self._lock)


class SimWriter(GroupWriter):
    """A collector's writer, whose thread is a timer."""

    def __init__(  # noqa: D107 - as the writer's
        self, connect: Any, committed: Any, rolled_back: Any, reserve: Any
    ) -> None:
        self._connect, self._committed, self._rolled_back, self._reserve = connect, committed, rolled_back, reserve
        self._closed = False
        self._stale = False
        self.commits = 0
        self.failures = 0
        self._jobs: list[_Waiting] = []
        self._armed = False
        self._loop: VirtualLoop = _OPENING.loop
        self._process: Process = _OPENING.process
        self._disk: Disk = _OPENING.disk
        self._durable: Callable[[], None] = _OPENING.durable
        self._connection = _Faulty(connect(), self._disk)

    def submit(self, job: Any, rank: WriteRank, records: int = 1, *, urgent: bool = False) -> Any:
        """Queue a job."""
        if self._closed or self._process.dead:
            raise GONE
        future: Future[Any] = Future()
        self._jobs.append(_Waiting(job, future, rank, records, urgent))
        if not self._armed:
            self._armed = True
            self._loop.call_later(self._disk.sync_seconds(), self._commit_now)
        return asyncio.wrap_future(future)

    def _commit_now(self) -> None:
        self._armed = False
        if self._process.dead or self._disk.death(after=False):
            return
        group, self._jobs = sorted(self._jobs, key=lambda one: not one.urgent), []
        wanted = [one for one in group if one.future.set_running_or_notify_cancel()]
        self._told = []
        commits = self.commits
        later = [replace(one, future=_Later(self, one.future)) for one in wanted]  # type: ignore[arg-type]
        self._commit(self._connection, later)  # type: ignore[arg-type]
        if commits < self.commits:
            self._durable()
            if self._disk.death(after=True):
                return
        for tell in self._told:
            tell()

    def close(self) -> None:
        """Let go of the file."""
        if not self._closed:
            self._closed = True
            self._connection.close()


class _Later:
    """A result that is handed out only once the process has survived the commit."""

    def __init__(self, writer: SimWriter, future: Any) -> None:
        self._writer, self._future = writer, future

    def set_result(self, result: Any) -> None:
        self._writer._told.append(lambda: self._future.set_result(result))

    def set_exception(self, failure: Exception) -> None:
        self._writer._told.append(lambda: self._future.set_exception(failure))


class _Faulty:
    """A connection whose COMMIT meets the disk."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk) -> None:
        self._connection, self._disk = connection, disk

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT" and (fault := self._disk.fault()) is not None:
            raise fault
        return self._connection.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@dataclass
class _Opening:
    loop: Any = None
    process: Any = None
    disk: Any = None
    durable: Any = None


_OPENING = _Opening()


def open_collector_store(
    path: Path, life: str, loop: VirtualLoop, process: Process, disk: Disk, durable: Callable[[], None]
) -> CollectorStore:
    """The collector's store, with a timer for its thread; `durable` is told after each commit, before anybody else."""
    _OPENING.loop, _OPENING.process, _OPENING.disk, _OPENING.durable = loop, process, disk, durable
    with patch.object(collector_store, "GroupWriter", SimWriter):
        return CollectorStore(path, "centre", life)


def cut_off_collector(store: CollectorStore) -> None:
    """What a kill leaves."""
    store._writer.close()
    for reader in (store._log, store._state):
        if reader._database is not None:
            reader._database.conn.close()
    os.close(store._lock)


def copy_directory(source: Path, target: Path) -> None:
    """A copy as it is on the disk now, the locks left out."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    for name in sorted(each.name for each in source.iterdir()):
        if not name.endswith(("lock", "-shm")):
            shutil.copyfile(source / name, target / name)


def forget_revocations(path: Path, kept: int) -> None:
    """Leave the first `kept` entries in a collector's file that nobody has open."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM revocations WHERE epoch > ?", (kept,))
        connection.execute("DELETE FROM applied WHERE epoch > ?", (kept,))
        connection.execute("UPDATE sidecars SET applied_epoch = min(applied_epoch, ?)", (kept,))
    connection.close()


class _Secrets:
    """The opening's own randomness: names of lives, pepper."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def token_hex(self, size: int) -> str:
        return self._chance.randbytes(size).hex()

    def token_bytes(self, size: int) -> bytes:
        return self._chance.randbytes(size)


@contextmanager
def told_chance(chance: Random) -> Iterator[None]:
    """Stores draw their names from the seed while this lasts."""
    with (
        patch.object(opening, "secrets", _Secrets(chance)),
        patch.object(opening, "boot_id", lambda: "simulated"),
    ):
        yield
