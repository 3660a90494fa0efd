"""The appender of a replica, whatever becomes of its connections: each waiter is told. No server is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from leasehold_broker.adapters.postgres_collector import appender as appender_module
from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.line import Line
from leasehold_broker.domain.placed_turns import PlacedTurns
from leasehold_broker.domain.reasons import Reason


class Pool:
    """Hands out no connection: it hangs, or gives up."""

    def __init__(self, *faults: BaseException) -> None:
        """What comes of the first attempts; then it hangs."""
        self._faults = list(faults)
        self.asked = asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """As the pool does."""
        self.asked.set()
        if self._faults:
            raise self._faults.pop(0)
        await asyncio.Event().wait()
        yield


async def work(_: Any) -> None:
    """Never comes to its turn."""


def appender(pool: Any) -> Appender:
    """Of no log: nothing here comes as far as that."""

    async def advanced(_: Any) -> None:
        raise AssertionError

    nothing: Any = None
    return Appender(Line.ORDINARY, pool, nothing, nothing, "channel", PlacedTurns(), advanced)


async def test_an_appender_that_is_ended_tells_who_is_in_its_turn_and_who_waits(monkeypatch):
    """PostgreSQL hangs and the collector stops: all are refused, and who comes later too."""
    monkeypatch.setattr(appender_module, "STOP_SECONDS_MAX", 0.01)
    pool = Pool()
    ending = appender(pool)
    async with asyncio.timeout(120):
        first = asyncio.create_task(ending.submit(work))
        await pool.asked.wait()
        behind = asyncio.create_task(ending.submit(work))
        while ending._queue.empty():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        await ending.close()
        ends = await asyncio.gather(first, behind, ending.submit(work), return_exceptions=True)
    assert [end.reason for end in ends] == [Reason.STORE_UNAVAILABLE] * 3


async def test_an_attempt_that_a_library_gives_up_ends_no_appender(monkeypatch):
    """Nobody has asked for that cancellation: those in the turn are refused, and the next turn is taken."""
    monkeypatch.setattr(appender_module, "STOP_SECONDS_MAX", 0.01)
    pool = Pool(asyncio.CancelledError(), MemoryError())
    going_on = appender(pool)
    async with asyncio.timeout(120):
        ends = [(await asyncio.gather(going_on.submit(work), return_exceptions=True))[0] for _ in range(2)]
        assert [end.reason for end in ends] == [Reason.STORE_UNAVAILABLE] * 2
        pool.asked.clear()
        third = asyncio.create_task(going_on.submit(work))
        await pool.asked.wait()
        await going_on.close()
        assert isinstance((await asyncio.gather(third, return_exceptions=True))[0], BaseException)
