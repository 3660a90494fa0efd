"""The writer's thread outlives whatever goes wrong in it: each waiter is told, of nothing that is not on the disk."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leasehold_broker.adapters.sqlite_collector.reserve import DiskReserve
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter, Job
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank

FAULTS = (MemoryError, sqlite3.ProgrammingError, RuntimeError, SystemExit)
BEFORE_COMMIT = ("BEGIN IMMEDIATE", "SAVEPOINT job", "ROLLBACK TO job", "RELEASE job", "COMMIT")


class Failing:
    """A connection that fails once, at one statement, from when it is told to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Nothing fails yet."""
        self._connection = connection
        self.fault: BaseException | None = None
        self.at = ""

    def execute(self, sql: str, *arguments: Any) -> Any:
        """As the connection does."""
        if sql == self.at and self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return self._connection.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:
        """As the connection's."""
        return getattr(self._connection, name)


class Bench:
    """A writer over one table, whose hooks and connection may be told to fail."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        self._path = path
        self.connection: Failing | None = None
        self.after_commit: list[Callable[[], None]] = []
        self.after_rollback: list[Callable[[], None]] = []
        reserve = DiskReserve(path, 0)
        reserve.open()
        self.writer = GroupWriter(self._connect, self._committed, self._rolled_back, reserve)

    def _connect(self) -> Any:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY)")
        self.connection = Failing(connection)
        return self.connection

    def _committed(self) -> None:
        if self.after_commit:
            self.after_commit.pop(0)()

    def _rolled_back(self, _: Any) -> None:
        if self.after_rollback:
            self.after_rollback.pop(0)()

    def put(self, number: int) -> Any:
        """Write a number."""
        return self.writer.submit(self.putting(number), WriteRank.EVENTS)

    @staticmethod
    def putting(number: int) -> Job:
        """A job that writes this number; 0 is refused by the job itself."""

        def job(connection: Any) -> int:
            if not number:
                message = "a job of its own mind"
                raise ValueError(message)
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
            return number

        return job

    async def group(self, numbers: list[int], begin: Callable[[], None]) -> list[Any]:
        """Write these in one group; `begin` is called on the thread after the commit before it."""
        self.after_commit.insert(0, begin)
        return await self.together([self.putting(number) for number in numbers])

    async def together(self, jobs: list[Job]) -> list[Any]:
        """How each of these ended, written in one group of their own: one before them holds the thread meanwhile."""
        begun, go_on = threading.Event(), threading.Event()

        def held(_: Any) -> bool:
            begun.set()
            return go_on.wait(120)

        first = self.writer.submit(held, WriteRank.EVENTS)
        assert await asyncio.to_thread(begun.wait, 120)
        rest = [self.writer.submit(job, WriteRank.EVENTS) for job in jobs]
        go_on.set()
        async with asyncio.timeout(120):
            assert await first
            return await asyncio.gather(*rest, return_exceptions=True)

    def stored(self) -> set[int]:
        """What another process finds in the file."""
        connection = sqlite3.connect(self._path)
        try:
            return {row[0] for row in connection.execute("SELECT number FROM numbers")}
        finally:
            connection.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A fresh one, closed at the end: a thread that has died or hangs would be noticed here."""
    made = Bench(tmp_path / "numbers.db")
    yield made
    made.writer.close()
    assert not made.writer._thread.is_alive()


def reasons(ends: list[Any]) -> list[Reason | None]:
    """Why each was refused."""
    return [end.reason if isinstance(end, Refusal) else None for end in ends]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("at", BEFORE_COMMIT)
async def test_b6_a_group_that_fails_in_any_way_is_refused_and_none_of_it_is_stored(
    bench: Bench, at: str, fault: type[BaseException]
) -> None:
    """At any statement: no memory, a misused library, a bug, an exit. The next group is written."""

    def begin() -> None:
        bench.connection.at, bench.connection.fault = at, fault("planted")

    ends = await bench.group([1, 0, 3], begin)
    assert bench.connection.fault is None
    assert reasons(ends) == [Reason.STORE_UNAVAILABLE] * 3
    assert bench.stored() == set()
    assert bench.writer.failures == 1
    async with asyncio.timeout(120):
        assert await bench.put(5) == 5
    assert bench.stored() == {5}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_group_whose_memory_cannot_be_taken_again_is_refused(bench: Bench, fault: type[BaseException]) -> None:
    """A job is rolled back and what follows fails, twice: all of the group are refused until it succeeds."""

    def fails() -> None:
        raise fault

    # Of the database's own faults, it is tried again at once, too.
    bench.after_rollback = [fails] * (3 if issubclass(fault, sqlite3.Error) else 2)
    assert reasons(await bench.group([1, 0, 3], lambda: None)) == [Reason.STORE_UNAVAILABLE] * 3
    async with asyncio.timeout(120):
        with pytest.raises(Refusal, match="cannot write"):
            await bench.put(4)
        assert await bench.put(5) == 5
    assert bench.stored() == {5}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_fails_after_the_commit_is_not_told_as_durable_and_ends_nothing(
    bench: Bench, fault: type[BaseException]
) -> None:
    """Memory may lag behind the file: nobody is told more than memory knows, which is taken from the file again."""
    reloaded: list[int] = []

    def fails() -> None:
        raise fault

    bench.after_commit = [fails]
    assert reasons(await bench.group([1, 2], lambda: None)) == [Reason.STORE_UNAVAILABLE] * 2
    bench.after_rollback = [lambda: reloaded.append(1)]
    async with asyncio.timeout(120):
        assert await bench.put(3) == 3
    assert reloaded == [1]
    assert bench.stored() == {1, 2, 3}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_job_that_fails_by_itself_disturbs_no_other(bench: Bench, fault: type[BaseException]) -> None:
    """Unless it is an exit, or of the database: then its group is refused."""

    def job(_: Any) -> None:
        raise fault

    ends = await bench.together([job, bench.putting(7)])
    if fault in {MemoryError, RuntimeError}:
        assert isinstance(ends[0], fault)
        assert ends[1] == 7
    else:
        assert reasons(ends) == [Reason.STORE_UNAVAILABLE] * 2
    assert bench.stored() == ({7} if ends[1] == 7 else set())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_fails_in_any_way_is_told(tmp_path: Path, fault: type[BaseException]) -> None:
    """Whoever opens the store does not wait for a thread that has gone."""

    def fails() -> sqlite3.Connection:
        raise fault

    reserve = DiskReserve(tmp_path / "numbers.db", 0)
    reserve.open()
    with pytest.raises(fault):
        GroupWriter(fails, lambda: None, lambda _: None, reserve)


async def test_what_comes_after_the_end_is_refused(tmp_path: Path) -> None:
    """What was queued before is written; nothing is queued behind the end, where nobody would find it."""
    bench = Bench(tmp_path / "numbers.db")
    before = bench.put(1)
    await asyncio.to_thread(bench.writer.close)
    with pytest.raises(Refusal, match="stopping"):
        bench.put(2)
    async with asyncio.timeout(120):
        assert await before == 1
    assert bench.stored() == {1}
