"""An appender of this replica. Owns the queue, the grouping of jobs into one turn at the log, and the failures.

Jobs run in the order submitted; those that wait together share one transaction, and each learns of its result only
after the commit. A job that is refused changes nothing and disturbs no other. Whose turn it is, PostgreSQL decides: by
the lock of the head. A replica has two appenders, so that revocations wait in no queue of events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import asyncpg

from leasehold_broker.adapters.postgres_collector.connections import FAILURES, HeadMovedError, translated, unavailable
from leasehold_broker.adapters.postgres_collector.line import Line, wait_in
from leasehold_broker.adapters.postgres_collector.schema import Partitions
from leasehold_broker.adapters.postgres_collector.turn import LogEnd, Turn, TurnSpoiledError, take_turn
from leasehold_broker.domain.log_plan import LogWriter
from leasehold_broker.domain.placed_turns import PlacedTurn, PlacedTurns
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.tiles import TileEdge

QUEUE_JOBS_MAX = 4096
GROUP_RECORDS_MAX = 20_000
STOP_SECONDS_MAX = 30.0

T = TypeVar("T")
_NO_STREAMS: Mapping[str, set[str]] = MappingProxyType({})
_NEVER_TAKEN = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
    OverflowError,
)


@dataclass(slots=True, eq=False)
class _Waiting:
    work: Callable[[Turn], Awaitable[Any]]
    streams: Mapping[str, set[str]]
    records: int
    future: "asyncio.Future[Any]"


class _JobFailedError(Exception):
    """A job of the group cannot be stored for what it holds."""


class Appender:
    """Runs jobs on one connection at a time, many to one commit."""

    def __init__(
        self,
        line: Line,
        pool: Any,
        writer: LogWriter,
        partitions: Partitions,
        channel: str,
        placed: PlacedTurns,
        advanced: Callable[[LogEnd], Awaitable[None]],
    ) -> None:
        """Start.

        Args:
            line: where its turns wait.
            pool: to take a connection from for each turn; there is always one.
            writer: this replica.
            partitions: of the log.
            channel: on which replicas are told of what was committed.
            placed: told of each turn.
            advanced: told after each commit, before the results are handed out.
        """
        self._line = line
        self._pool = pool
        self.writer = writer
        self._partitions = partitions
        self._channel = channel
        self._advanced = advanced
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue(QUEUE_JOBS_MAX)
        self._edge: TileEdge | None = None
        self._placed = placed
        self._closed = False
        self._task = asyncio.create_task(self._run(), name=f"log-appender-{line.name.lower()}")

    async def submit(
        self, work: Callable[[Turn], Awaitable[T]], streams: Mapping[str, set[str]] = _NO_STREAMS, records: int = 0
    ) -> T:
        """Have `work` done in a turn that knows these streams; returns once its transaction is committed.

        Args:
            work: what is done.
            streams: that it writes, each with the epochs that come.
            records: how many it writes.

        Raises:
            Refusal: OVERLOADED when the queue is full, STORE_UNAVAILABLE once closed or when PostgreSQL failed: it is
                then not known whether the work was committed. Whoever sends it again finds out.
        """
        if self._closed:
            raise _stopping()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(work, streams, records, future))
        except asyncio.QueueFull:
            raise Refusal(
                Reason.OVERLOADED, "the collector's writer is behind; try again shortly", retry_after_seconds=1.0
            ) from None
        return await future

    async def close(self) -> None:
        """Finish what is queued."""
        if not self._closed:
            self._closed = True
            await self._queue.put(None)
        await asyncio.wait([self._task], timeout=STOP_SECONDS_MAX)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        group: list[_Waiting | None] = []
        open_ = True
        try:
            while open_:
                group = [await self._queue.get()]
                records = 0
                while records < GROUP_RECORDS_MAX and not self._queue.empty():
                    group.append(self._queue.get_nowait())
                    records += 0 if group[-1] is None else group[-1].records
                open_ = None not in group
                await self._commit([one for one in group if one is not None and not one.future.done()])
        finally:  # ended before its time, it tells whoever waits: nobody else would
            self._closed = True
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            for one in group:
                if one is not None and not one.future.done():
                    one.future.set_exception(_stopping())

    async def _commit(self, group: list[_Waiting]) -> None:
        """One transaction for the group; for each of it alone when one of them cannot be stored."""
        if not group:
            return
        try:
            outcomes = await self._attempt(group)
        except _JobFailedError as failed:
            if len(group) == 1:
                outcomes = [(None, unavailable(failed.__cause__ or failed, "store this in"))]
            else:
                for one in group:
                    await self._commit([one])
                return
        except asyncio.CancelledError as given_up:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            outcomes = [(None, unavailable(given_up, "write"))] * len(group)  # by a library, not by who ends this task
        except Exception as error:  # noqa: BLE001 - whatever it is: the next group must find an appender
            outcomes = [(None, unavailable(error, "write"))] * len(group)
        _tell(group, outcomes)

    async def _attempt(self, group: Sequence[_Waiting]) -> list[tuple[Any, Exception | None]]:
        streams: dict[str, set[str]] = {}
        for one in group:
            for stream, epochs in one.streams.items():
                streams.setdefault(stream, set()).update(epochs)
        edge, self._edge = self._edge, None  # what a turn that fails leaves behind is not used again
        async with self._pool.acquire() as connection:
            for _ in range(2):
                done = await self._turn(connection, edge, streams, group)
                if done is not None:
                    break
                edge = None
            else:
                message = "the log outgrew its partitions while they were made"
                raise HeadMovedError(message)
        outcomes, end = done
        await self._advanced(end)
        return outcomes

    async def _turn(
        self, connection: Any, edge: TileEdge | None, streams: Mapping[str, set[str]], group: Sequence[_Waiting]
    ) -> tuple[list[tuple[Any, Exception | None]], LogEnd] | None:
        """None when partitions had to be made first."""
        outcomes: list[tuple[Any, Exception | None]] = []
        transaction = connection.transaction()
        await transaction.start()
        try:
            await wait_in(self._line, connection)
            turn, edge = await take_turn(connection, self.writer, edge, streams)
            for one in group:
                try:
                    outcomes.append((await one.work(turn), None))
                except (*FAILURES, TurnSpoiledError):
                    raise
                except Exception as error:  # noqa: BLE001 - handed to the one who asked; others are not disturbed
                    outcomes.append((None, error))
            if not self._partitions.has_room(turn.position):
                await transaction.rollback()
                await self._partitions.ready(connection, turn.position)
                return None
            end = await _stored(turn, self._channel)
        except BaseException:
            if not connection.is_closed():
                await _quietly(transaction.rollback())
            raise
        await transaction.commit()
        self._edge = edge
        if end.head.size > turn.found.head.size:
            self._placed.note(PlacedTurn(turn.found.head, end.head, edge.peaks()))
        await self._partitions.ready(connection, end.head.size)
        return outcomes, end


def _tell(group: Sequence[_Waiting], outcomes: Sequence[tuple[Any, Exception | None]]) -> None:
    for one, (result, failure) in zip(group, outcomes, strict=True):
        if one.future.done():
            continue
        if failure is None:
            one.future.set_result(result)
        else:
            one.future.set_exception(failure)


def _stopping() -> Refusal:
    return Refusal(Reason.STORE_UNAVAILABLE, "the collector is stopping; try again later", retry_after_seconds=1.0)


async def _stored(turn: Turn, channel: str) -> LogEnd:
    """Write the turn.

    Raises:
        _JobFailedError: PostgreSQL will never take what one of the jobs holds.
    """
    try:
        return await turn.store(channel)
    except _NEVER_TAKEN as error:
        raise _JobFailedError from error


async def _quietly(rollback: Awaitable[None]) -> None:
    try:
        with translated():
            await rollback
    except Refusal:
        return  # the connection is gone, and with it the transaction
