"""Revocations go through a real NATS key-value bucket: heard before the log is asked, never believed instead of it."""

import asyncio
import contextlib

import msgspec
import pytest
from tests.fakes import nats as nats_server
from tests.fakes.bus import BusEngine, kept_going
from tests.scale.test_replicas import described, draft

from leasehold_broker.adapters.nats_bus import NatsRevocations
from leasehold_broker.adapters.nats_bus.connection import open_session
from leasehold_broker.adapters.postgres_collector import open_store
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import PLAIN, ByKey, Revocation
from leasehold_broker.domain.selector_words import order_to_words
from leasehold_broker.flows.relay_revocations import RelayRevocations

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(nats_server.installed() is None, reason="no nats-server: make .venv/nats.stamp"),
]


@pytest.fixture(name="shared")
def shared_engine(postgres, nats):
    """An empty schema, an empty stream and an empty bucket."""
    return BusEngine(postgres, nats, partition_records=512)


async def at_epoch(replica, epoch: int) -> None:
    """Return once it is in force there."""
    async with asyncio.timeout(240):
        while replica.epoch() < epoch:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)


async def blinded(replica) -> None:
    """Have it ask the log no more: what it knows from now on it has heard."""
    await replica.store._follower.close()


async def test_a_revocation_is_heard_where_the_log_is_not_asked(shared):
    """An entry that another replica has committed is in force, whole, with its watchers told (R2)."""
    told = asyncio.Event()
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b", issued=told.set) as two:
        await blinded(two)
        entry = await one.issue(draft(1), described)
        await at_epoch(two, entry.epoch)
        assert told.is_set()
        assert list(await two.after(0, 10)) == [entry]


async def test_a_gap_is_never_a_delta(shared):
    """What does not follow the last known entry has all that is missing read from the log, and is not believed (R5)."""
    async with shared.open("b1", stream="b") as two:
        await blinded(two)
        async with open_store(shared.at, "a", "a1") as silent:  # commits, and has no relay
            entries = [await silent.issue(draft(number), described) for number in range(1, 4)]
        watcher = NatsRevocations(shared.bus, "watcher")
        await watcher.connect()
        await watcher.tell(entries[2])
        await watcher.close()
        await at_epoch(two, 3)
        assert list(await two.after(0, 10)) == entries
        await two.hear([Revocation(9, ByKey("made-up"), "", "mallory", 5)])
        assert two.epoch() == 3


async def test_what_was_told_while_a_replica_was_away_is_heard_by_revision(shared):
    """A watch goes on behind the last revision; one from the beginning hears everything that is kept."""
    async with shared.open("a1", stream="a") as one:
        relay = NatsRevocations(shared.bus, "watcher")
        try:
            await one.issue(draft(1), described)
            await relay.connect()
            first = await heard(relay, 1)
            await relay.close()
            await one.issue(draft(2), described)
            await one.issue(draft(3), described)
            await relay.connect()
            assert [entry.epoch for entry in first] == [1]
            assert [entry.epoch for entry in await heard(relay, 2)] == [2, 3]
            fresh = NatsRevocations(shared.bus, "fresh")
            await fresh.connect()
            assert [entry.epoch for entry in await heard(fresh, 3)] == [1, 2, 3]
            await fresh.close()
        finally:
            await relay.close()


async def heard(relay, count: int):
    """So many entries."""
    found = []
    async with asyncio.timeout(240):
        while len(found) < count:
            found += await relay.hear()
    return found


async def test_without_nats_the_log_is_asked(postgres):
    """A revocation that was issued while NATS is away is found by asking, and told as soon as NATS is back (R4)."""
    with nats_server.running() as server:
        engine = BusEngine(postgres, server)
        async with engine.open("a1", stream="a") as one, engine.open("b1", stream="b") as two:
            server.kill()
            entry = await one.issue(draft(1), described)
            await at_epoch(two, entry.epoch)
            with pytest.raises(Refusal) as refused:
                await one.relay.tell(entry)
            assert refused.value.reason is Reason.STORE_UNAVAILABLE
            server.start()
            watcher = NatsRevocations(engine.bus, "watcher")
            await watcher.connect()
            assert list(await heard(watcher, 1)) == [entry]
            await watcher.close()


async def test_a_committed_revocation_of_a_killed_replica_is_told_by_another(shared):
    """Who committed it died before it told: another replica tells it (R4)."""
    async with shared.open("a1", stream="a") as one:
        async with open_store(shared.at, "b", "b1") as silent:  # commits, and has no relay
            entry = await silent.issue(draft(1), described)
        watcher = NatsRevocations(shared.bus, "watcher")
        await watcher.connect()
        assert list(await heard(watcher, 1)) == [entry]
        await watcher.close()
        assert one.epoch() == 1


async def test_a_forged_revocation_stops_the_replica(shared):
    """Somebody else writes an entry into the bucket: in force at once, and found out at the next look at the log."""
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        failures = []
        two.store._follower._fail = failures.append
        session = await open_session(shared.bus, "forger")
        kv = await session.js.key_value(f"{shared.bus.prefix}-revocations")
        order = order_to_words(PLAIN)
        words = {
            "epoch": 1,
            "selector": {"key": "k"},
            "terms": order,
            "note": "",
            "revoked_by": "x",
            "create_wall_ms": 1,
        }
        await kv.put(f"{1:020d}", msgspec.json.encode(words))
        await kv.put(f"{2:020d}", b"no entry")
        await at_epoch(two, 1)
        await session.close()
        await one.issue(draft(1), described)
        async with asyncio.timeout(240):
            while not failures:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        assert "somebody else" in failures[0]


async def test_a_session_that_ends_begins_anew(postgres):
    """Killed and started again under two replicas: the next revocation is heard again without the log."""
    with nats_server.running() as server:
        engine = BusEngine(postgres, server)
        async with engine.open("a1", stream="a") as one, engine.open("b1", stream="b") as two:
            first = await one.issue(draft(1), described)
            await at_epoch(two, first.epoch)
            server.kill()
            server.start()
            await blinded(two)
            second = await one.issue(draft(2), described)
            await at_epoch(two, second.epoch)
            assert list(await two.after(0, 10)) == [first, second]


async def test_a_relay_that_cannot_begin_is_a_refusal(monkeypatch):
    """Nobody listens there: the supervisor shows it, and tries again."""
    from leasehold_broker.adapters.nats_bus import NatsAt, connection  # noqa: PLC0415 - beside its only use

    monkeypatch.setattr(connection, "CONNECT_SECONDS_MAX", 1.0)

    class Log:
        def epoch(self) -> int:
            return 0

    relay = RelayRevocations(NatsRevocations(NatsAt(("nats://127.0.0.1:1",)), "a"), Log(), lambda _told: None)
    with pytest.raises(Refusal) as refused:
        await relay.run()
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    task = asyncio.create_task(kept_going(relay.run))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
