"""Batches go through a real NATS JetStream: acknowledged when it keeps them, decided before, in the log soon after."""

import asyncio
import contextlib
import shutil
from dataclasses import replace

import pytest
from tests.fakes import nats as nats_server
from tests.fakes import postgres as postgres_server
from tests.fakes.bus import BusEngine
from tests.fakes.streams import Emitter, call_event
from tests.scale.test_replicas import whole

from leasehold_broker.adapters.nats_bus import NatsIngest, NatsRevocations
from leasehold_broker.adapters.nats_bus.batches import decode_batch, encode_batch
from leasehold_broker.adapters.nats_bus.connection import open_session
from leasehold_broker.adapters.nats_bus.reader import PENDING_BYTES_MAX, Reader
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.checked_record import check_records
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.ingest_stream import IngestMovedError
from leasehold_broker.wire.event_body import checked_columns

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(nats_server.installed() is None, reason="no nats-server: make .venv/nats.stamp"),
]


@pytest.fixture(name="shared")
def shared_engine(postgres, nats):
    """An empty schema and an empty stream."""
    return BusEngine(postgres, nats, partition_records=512)


async def refused(doing) -> Refusal:
    """The refusal that this ends with."""
    with pytest.raises(Refusal) as caught:
        await doing
    return caught.value


async def sequences(replica, stream: str) -> list[int]:
    """Of a stream's records, in the log's order."""
    found = []
    while page := await replica.page(EventFilter(stream=stream), found[-1].position if found else 0, 1000):
        found.extend(page)
    return [one.record.sequence for one in found]


@pytest.mark.parametrize("kind", [NatsIngest, NatsRevocations])
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_who_is_cancelled_while_a_session_ends_is_cancelled(shared, kind, turns):
    """A replica that stops while its session begins anew stops: it does not go on with the next session for ever."""
    adapter = kind(shared.bus, "a")
    await adapter.connect()
    again = asyncio.create_task(adapter.connect())
    for _ in range(turns):
        await asyncio.sleep(0)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    await adapter.close()


async def test_who_is_cancelled_while_a_reader_ends_is_cancelled(shared):
    """The same, of a reader that the server pushes to."""
    adapter = NatsIngest(shared.bus, "a")
    await adapter.connect()
    session = adapter._open()
    reader = Reader(session, f"{shared.bus.prefix}-ingest", f"{shared.bus.prefix}-ingest.*")
    assert not await reader.read(0, 1, 1)
    closing = asyncio.create_task(reader.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await adapter.close()


async def test_one_sidecar_may_come_through_any_replica(shared):
    """Batch after batch through another replica: one chain, in order, each record once (A2)."""
    emitter = Emitter()
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        for _ in range(3):
            for replica in (one, two):
                records = emitter.calls(7)
                head = await replica.keep.append("sidecar-1", records, 1)
                assert (head.sequence, head.digest) == (records[-1].sequence, records[-1].digest)
        await two.settled()
        assert await sequences(two, "sidecar-1") == list(range(1, 43))
        await whole(two)


async def test_of_two_copies_at_two_replicas_one_is_first(shared):
    """A cloned sidecar that ships at the same time elsewhere is a fork, and nothing of it is acknowledged (A2)."""
    base = Emitter()
    start = base.calls(3)
    left, right = Emitter(), Emitter()
    for copy in (left, right):
        copy.sequence, copy.digest = base.sequence, base.digest
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        await one.append("sidecar-1", start, 1)
        results = await asyncio.gather(
            one.keep.append("sidecar-1", [left.emit(call_event(100))], 1),
            two.keep.append("sidecar-1", [right.emit(call_event(200))], 1),
            return_exceptions=True,
        )
        (told,) = [one for one in results if isinstance(one, Refusal)]
        assert told.reason is Reason.AUDIT_CHAIN_BROKEN
        assert "fork" in told.detail
        await one.settled()
        await two.settled()
        assert await sequences(one, "sidecar-1") == [1, 2, 3, 4]


async def test_an_older_life_is_fenced_at_every_replica(shared):
    """Once a newer life has written through one replica, the older adds nothing through another (E7)."""
    older, newer = Emitter(epoch="e1"), Emitter(epoch="e2")
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        await two.keep.append("sidecar-1", older.calls(2), 1)
        await one.keep.append("sidecar-1", newer.calls(2), 1)
        for replica in (one, two):
            told = await refused(replica.keep.append("sidecar-1", older.calls(1), 1))
            assert told.reason is Reason.AUDIT_EPOCH_FENCED


async def test_what_is_sent_again_is_kept_once(shared):
    """A repeated batch, alone and before new records, at either replica (A2)."""
    emitter = Emitter()
    records = emitter.calls(5)
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        await one.keep.append("sidecar-1", records, 1)
        for replica in (two, one):
            head = await replica.keep.append("sidecar-1", records, 1)
            assert head.sequence == 5
        head = await two.keep.append("sidecar-1", records[2:] + emitter.calls(1), 1)
        assert head.sequence == 6
        await two.settled()
        assert await sequences(two, "sidecar-1") == [1, 2, 3, 4, 5, 6]


async def test_the_server_knows_a_batch_again_whose_predecessor_it_has_forgotten(shared):
    """Within its window the message's id alone keeps a repeated batch out."""
    async with shared.open("a1", stream="a") as one:
        checked = one.store.ingest.check(Emitter().calls(3))
        place = await one.ingest_stream.keep("sidecar-1", checked, 1, 0)
        await one.keep.committed(place)
        await one.ingest_stream.forget(place)
        assert await one.ingest_stream.last("sidecar-1") is None
        with pytest.raises(IngestMovedError):
            await one.ingest_stream.keep("sidecar-1", checked, 1, 0)


async def test_a_batch_larger_than_a_message_is_kept_in_parts(shared):
    """Two hundred records of the largest size come through."""
    emitter = Emitter()
    large = [emitter.emit(call_event(number, lease="l" * 20_000)) for number in range(60)]
    async with shared.open("a1", stream="a") as one:
        head = await one.append("sidecar-1", large, 1)
        assert head.sequence == 60
        assert await sequences(one, "sidecar-1") == list(range(1, 61))


async def test_what_the_log_has_is_taken_in_once(shared):
    """A committer that was replaced while it was at it changes nothing, and says so."""
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b", commits=False) as two:
        await one.append("sidecar-1", Emitter().calls(3), 1)
        batches = await two.ingest_stream.read(0)
        assert [len(batch.records) for batch in batches] == [3]
        inspected = [two.store.ingest.inspect(batch) for batch in batches]
        told = await refused(two.store.ingest.take_in(0, inspected))
        assert told.reason is Reason.CONCURRENT_UPDATE
        assert await sequences(one, "sidecar-1") == [1, 2, 3]


async def test_a_forged_batch_is_put_aside(shared, postgres):
    """What somebody else wrote into the stream stops its sidecar, with an event, and nobody else (A5)."""
    emitter, forger = Emitter(), Emitter()
    async with shared.open("a1", stream="a") as one:
        await one.append("sidecar-1", emitter.calls(2), 1)
        session = await open_session(shared.bus, "forger")
        subject = one.ingest_stream._subject("sidecar-1")
        forged = encode_batch("sidecar-1", check_records(forger.calls(9)[8:], checked_columns), 1)
        await session.js.publish(subject, forged)
        await session.js.publish(subject, b"no batch")
        await session.close()
        await one.append("sidecar-2", Emitter("sidecar-2").calls(2), 1)
        told = await refused(one.keep.append("sidecar-1", emitter.calls(1), 1))
        assert "put aside" in told.message
        assert told.reason is Reason.AUDIT_CHAIN_BROKEN
        await one.append("sidecar-2", Emitter("sidecar-2", "e2").calls(2), 1)
        assert await sequences(one, "sidecar-1") == [1, 2]
        events = await one.page(EventFilter(type=EventType.AUDIT_REFUSED.value), 0, 10)
        assert len(events) == 2
        aside = postgres.sql(f"SELECT stream, reason FROM {shared.at.schema}.ingest_refused ORDER BY sequence")
        assert aside.split() == ["sidecar-1|AUDIT_CHAIN_BROKEN", "sidecar-1|BODY_INVALID"]
        await whole(one)


@pytest.mark.parametrize("wrong", [{"sequence": -1}, {"sequence": 2**63}, {"wall_ms": 2**63}, {"wall_ms": -1}])
def test_a_batch_with_numbers_that_no_log_can_keep_is_none(wrong):
    """Whoever may write into the stream holds nobody up with them: such a batch is put aside like any other forgery."""
    good, forged = check_records(Emitter().calls(2), checked_columns)
    assert decode_batch(encode_batch("sidecar-1", [good], 1))[1] == [good]
    with pytest.raises(ValueError, match="no log can keep"):
        decode_batch(encode_batch("sidecar-1", [good, forged._replace(**wrong)], 1))
    with pytest.raises(ValueError, match="no time"):
        decode_batch(encode_batch("sidecar-1", [good], 2**63))


async def test_a_batch_with_such_numbers_holds_nobody_up(shared, postgres):
    """It is put aside, and what comes behind it is in the log."""
    async with shared.open("a1", stream="a") as one:
        session = await open_session(shared.bus, "forger")
        (record,) = check_records(Emitter("sidecar-3").calls(1), checked_columns)
        forged = encode_batch("sidecar-3", [record._replace(wall_ms=2**63)], 1)
        await session.js.publish(one.ingest_stream._subject("sidecar-3"), forged)
        await session.close()
        await one.append("sidecar-2", Emitter("sidecar-2").calls(1), 1)
        assert await sequences(one, "sidecar-2") == [1]
        aside = postgres.sql(f"SELECT stream, reason FROM {shared.at.schema}.ingest_refused")
        assert aside == "sidecar-3|BODY_INVALID"


async def test_an_altered_batch_is_put_aside(shared):
    """A body that was changed in the stream is found before it is in the log."""
    async with shared.open("a1", stream="a") as one:
        session = await open_session(shared.bus, "forger")
        records = check_records(Emitter("sidecar-3").calls(1), checked_columns)
        message = encode_batch("sidecar-3", records, 1).replace(b"request-1", b"request-7")
        assert decode_batch(message)[1][0].digest == records[0].digest
        await session.js.publish(one.ingest_stream._subject("sidecar-3"), message)
        await session.close()
        await one.append("sidecar-2", Emitter("sidecar-2").calls(1), 1)
        assert await sequences(one, "sidecar-3") == []
        (event,) = await one.page(EventFilter(type=EventType.AUDIT_REFUSED.value), 0, 10)
        assert b"altered" in event.record.body


async def test_a_collectors_own_stream_is_refused(shared):
    """No sidecar may have the name of a replica."""
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b"):
        told = await refused(one.keep.append("b", Emitter("b").calls(1), 1))
        assert told.reason is Reason.SIDECAR_BANNED


async def test_a_full_stream_refuses_and_loses_nothing(postgres, nats):
    """While nobody takes in, the stream fills up to its bound; then OVERLOADED, and all of it goes on later (A3)."""
    engine = BusEngine(postgres, nats, bytes_max=200_000)
    emitter = Emitter()
    async with engine.open("a1", stream="a", commits=False) as one:
        kept, waiting = 0, []
        told = None
        for _ in range(50):
            waiting = waiting or emitter.calls(50)
            try:
                kept = (await one.keep.append("sidecar-1", waiting, 1)).sequence
            except Refusal as refusal:
                told = refusal
                break
            waiting = []
        assert told is not None
        assert told.reason is Reason.OVERLOADED
        assert told.retry_after_seconds
        assert kept >= 50
        async with engine.open("b1", stream="b") as two:
            await two.settled()
            await one.keep.committed(one.keep.kept_last)
            assert await sequences(two, "sidecar-1") == list(range(1, kept + 1))
            await one.ingest_stream.forget(one.keep.kept_last)
            assert (await one.keep.append("sidecar-1", waiting, 1)).sequence == kept + 50


async def test_another_stream_in_its_place_stops_the_replica(shared):
    """A stream that was deleted and made anew is not taken for the one that this log takes in."""
    async with shared.open("a1", stream="a") as one:
        await one.append("sidecar-1", Emitter().calls(1), 1)
        session = await open_session(shared.bus, "operator")
        await session.js.delete_stream(f"{shared.bus.prefix}-ingest")
        await session.close()
        await one.ingest_stream.close()
        async with asyncio.timeout(240):
            while not one.failures:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        assert "not the one" in one.failures[0]
        told = await refused(one.keep.append("sidecar-2", Emitter("sidecar-2").calls(1), 1))
        assert told.reason is Reason.STORE_UNAVAILABLE


class Shipper:
    """A sidecar that ships batch after batch through whichever replica takes it."""

    def __init__(self, stream: str, *replicas) -> None:
        """Nothing is shipped yet."""
        self.stream = stream
        self._replicas = list(replicas)
        self._emitter = Emitter(stream)
        self.acknowledged = 0
        self.reasons: set[Reason] = set()

    async def run(self, over: asyncio.Event) -> None:
        """Until the kills are over, and a while longer."""
        while not (over.is_set() and self.acknowledged >= 200):
            records = self._emitter.calls(20)
            while True:
                try:
                    head = await self._replicas[0].keep.append(self.stream, records, 1)
                except Refusal as refusal:
                    self.reasons.add(refusal.reason)
                    self._replicas.reverse()
                    await asyncio.sleep(0.05)
                    continue
                assert head.sequence == records[-1].sequence
                self.acknowledged = head.sequence
                break

    async def beyond(self, sequence: int) -> None:
        """Return once more than this is acknowledged."""
        while self.acknowledged <= sequence:  # noqa: ASYNC110 - a test's own counter
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def shipping(left, right):
    """Two sidecars ship while it lasts; afterwards everything acknowledged is in the log, once."""
    shippers = [Shipper("sidecar-1", left, right), Shipper("sidecar-2", right, left)]
    over = asyncio.Event()
    async with asyncio.timeout(240), asyncio.TaskGroup() as group:
        for shipper in shippers:
            group.create_task(shipper.run(over))
        await asyncio.gather(*(shipper.beyond(40) for shipper in shippers))
        yield shippers
        await asyncio.gather(*(shipper.beyond(shipper.acknowledged) for shipper in shippers))
        over.set()
    for replica in (left, right):
        await replica.settled()
    for shipper in shippers:
        assert await sequences(left, shipper.stream) == list(range(1, shipper.acknowledged + 1))
        assert shipper.reasons <= {Reason.STORE_UNAVAILABLE, Reason.OVERLOADED}
    await whole(left)


@pytest.mark.parametrize("sync_interval", ["always", "2m"])
async def test_killed_servers_lose_nothing_that_was_acknowledged(postgres, sync_interval):
    """Kill -9 of nats-server under load, again and again: nothing acknowledged is lost, nothing is doubled (A3)."""
    with nats_server.running(sync_interval=sync_interval) as server:
        engine = BusEngine(postgres, server)
        async with engine.open("a1", stream="a") as left, engine.open("b1", stream="b") as right:
            async with shipping(left, right) as shippers:
                for _ in range(3):
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.1)
                    await asyncio.to_thread(server.start)
                    await asyncio.gather(*(shipper.beyond(shipper.acknowledged) for shipper in shippers))
            assert not left.failures + right.failures


async def test_both_servers_killed_lose_nothing_that_was_acknowledged():
    """NATS and PostgreSQL die at the same moment and come back in either order (A3)."""
    with nats_server.running() as server, postgres_server.cluster() as database:
        database.start()
        engine = BusEngine(database.server, server)
        async with (
            engine.open("a1", stream="a") as left,
            engine.open("b1", stream="b") as right,
            shipping(left, right) as shippers,
        ):
            for first, second in ((database.start, server.start), (server.start, database.start)):
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(database.crash)
                await asyncio.to_thread(first)
                await asyncio.to_thread(second)
                await asyncio.gather(*(shipper.beyond(shipper.acknowledged) for shipper in shippers))


async def test_a_stream_that_lost_its_end_is_moved_on(postgres, tmp_path):
    """An older copy of the server's files: what the log had stays, no place comes twice, a hole is named (A4, A6)."""
    with nats_server.running() as server:
        engine = BusEngine(postgres, server)
        emitter, other = Emitter(), Emitter("sidecar-2")
        async with engine.open("a1", stream="a") as one:
            await one.append("sidecar-1", emitter.calls(3), 1)
            server.stop()
            shutil.copytree(server.folder / "data", tmp_path / "older")
            server.start()
            await one.opened_anew()
            await one.append("sidecar-1", emitter.calls(3), 1)
            await one.append("sidecar-2", other.calls(3), 1)
        async with engine.open("a2", stream="a", commits=False) as one:
            await one.keep.append("sidecar-2", other.calls(3), 1)  # acknowledged, and not in the log
            server.kill()
            shutil.rmtree(server.folder / "data")
            shutil.copytree(tmp_path / "older", server.folder / "data")
            server.start()
            await one.opened_anew()
            assert one.keep.healed == 1
        async with engine.open("a3", stream="a") as one:
            head = await one.append("sidecar-1", emitter.calls(2), 1)
            assert head.sequence == 8
            assert await sequences(one, "sidecar-1") == list(range(1, 9))
            told = await refused(one.keep.append("sidecar-2", other.calls(1), 1))
            assert told.reason is Reason.AUDIT_CHAIN_BROKEN
            await whole(one)


async def test_while_postgresql_is_away_what_goes_on_is_acknowledged(nats):
    """What follows what is kept needs no log; what does not is refused, and all of it is in the log later (A3)."""
    with postgres_server.cluster() as database:
        database.start()
        engine = BusEngine(database.server, nats)
        emitter = Emitter()
        async with engine.open("a1", stream="a") as one:
            await one.append("sidecar-1", emitter.calls(3), 1)
            database.crash()
            assert (await one.keep.append("sidecar-1", emitter.calls(3), 1)).sequence == 6
            told = await refused(one.keep.append("sidecar-2", Emitter("sidecar-2").calls(1), 1))
            assert told.reason is Reason.STORE_UNAVAILABLE
            database.start()
            async with asyncio.timeout(120):
                await one.settled()
            assert await sequences(one, "sidecar-1") == [1, 2, 3, 4, 5, 6]


async def test_another_bound_is_given_to_the_stream_that_is_there(postgres, nats):
    """A changed setting changes the stream, which stays the one that the log takes in."""
    engine = BusEngine(postgres, nats, bytes_max=1 << 22)
    emitter = Emitter()
    async with engine.open("a1", stream="a") as one:
        await one.append("sidecar-1", emitter.calls(3), 1)
    engine.bus = replace(engine.bus, bytes_max=1 << 23)
    async with engine.open("a2", stream="a") as one:
        assert (await one.append("sidecar-1", emitter.calls(3), 1)).sequence == 6
        assert not one.failures
        session = await open_session(engine.bus, "operator")
        info = await session.js.stream_info(f"{engine.bus.prefix}-ingest")
        assert info.config.max_bytes == 1 << 23
        await session.close()


async def test_a_reader_that_lags_is_sent_no_more_than_it_holds(shared):
    """A stream larger than the reader's memory is read once: the server waits for it, and nothing is sent in vain."""
    ingest = NatsIngest(shared.bus, "a")
    await ingest.connect()
    try:
        for stream in (f"sidecar-{number}" for number in range(150)):
            (record,) = check_records(Emitter(stream).calls(1), checked_columns)
            await ingest.keep(stream, [record._replace(body=bytes(PENDING_BYTES_MAX // 100))], 1, 0)
        place = 0
        while place < 150:
            found = await ingest.read(place)
            place = found[-1].sequence if found else place
            await asyncio.sleep(0.2)  # what the server sends ahead comes meanwhile
        # The server counts what it sends to one reader: anew when a reader had to begin anew.
        assert ingest._reader._counted == 150
    finally:
        await ingest.close()
