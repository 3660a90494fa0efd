"""Retention drops whole partitions of the log in PostgreSQL, and everything that proves the log stays."""

import asyncpg
import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.streams import Emitter, call_event
from tests.scale.test_replicas import whole

from leasehold_broker.domain.audit_chain import GENESIS, misplaced
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.merkle import inclusion_proof, root_of
from leasehold_broker.domain.reasons import Reason, Refusal

PARTITION = 256
OLD, YOUNG, BEFORE = 1_000, 9_000, 5_000


@pytest.fixture(name="shared")
def shared_database(postgres):
    """An empty schema of small partitions."""
    return PostgresEngine(postgres, partition_records=PARTITION)


async def tables(shared) -> dict[str, int]:
    """The log's partitions, and which table each is."""
    connection = await asyncpg.connect(**shared.at.settings())
    try:
        rows = await connection.fetch(
            "SELECT c.relname, c.oid::bigint AS oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relname LIKE 'event%'"
        )
        return {row["relname"]: row["oid"] for row in rows}
    finally:
        await connection.close()


async def drop_all(store, until: int, limit: int = 100) -> int:
    """As the retention flow does: until nothing is left."""
    total = 0
    while True:
        dropped = await store.drop_bodies(BEFORE, until, limit)
        total += dropped
        if dropped < limit:
            return total


async def filled(store, count: int = 700, young: int = 100) -> list:
    """Streams of old records, and a few young ones behind them."""
    emitters = [Emitter(f"sidecar-{number}") for number in range(2)]
    sent = []
    for first in range(0, count, 50):
        records = emitters[first // 50 % 2].calls(50)
        await store.append(records[0].stream, records, OLD)
        sent.append(records)
    for _ in range(young // 50):
        records = emitters[0].calls(50)
        await store.append(records[0].stream, records, YOUNG)
        sent.append(records)
    return sent


async def test_whole_partitions_go_and_proofs_stay(shared):
    """Old partitions are other tables now, without bodies; chain, places, root and inclusion are the same (A2, A5)."""
    async with shared.open("a1", stream="a") as store:
        await filled(store)
        before = await tables(shared)
        head = store.tree_head()
        links = [(one.position, entry_hash(one.record)) for one in await whole(store)]
        assert await drop_all(store, 800) == 700
        after = await tables(shared)
        assert set(before) == set(after)
        replaced = {name for name in before if before[name] != after[name]}
        assert replaced == {f"{table}_{start:015d}" for table in ("events", "event_keys") for start in (0, PARTITION)}
        found = await whole(store)
        assert store.tree_head() == head
        assert [(one.position, entry_hash(one.record)) for one in found] == links
        assert [one.position for one in found if one.record.body] == list(range(701, 801))
        ends = {}
        for one in found:
            sequence, digest = ends.get(one.record.stream, (0, GENESIS))
            assert misplaced(one.record, sequence + 1, digest) is None
            ends[one.record.stream] = (one.record.sequence, one.record.digest)
        proof = await store.read_tree(lambda node: inclusion_proof(9, 800, node))
        assert len(proof) == 10
        assert await store.read_tree(lambda node: root_of(800, node)) == head.root
        assert await store.page(EventFilter(key="anthropic-prod", until_position=700), 0, 10) == []
        assert len(await store.page(EventFilter(key="anthropic-prod"), 700, 1000)) == 100


async def test_what_was_dropped_is_still_known_as_sent(shared):
    """A repeat of a record whose partition went is a repeat, and another in its place is a fork (A2)."""
    async with shared.open("a1", stream="a") as store:
        sent = await filled(store)
        await drop_all(store, 800)
        head = await store.append("sidecar-0", sent[0], 2)
        assert head.sequence == 450
        with pytest.raises(Refusal) as refused:
            await store.append("sidecar-0", [Emitter("sidecar-0").emit(call_event(999))], 2)
        assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
        assert len(await whole(store)) == 800


async def test_another_replica_goes_on_where_one_stopped(shared):
    """Stopped in the middle of a partition, it is finished by another, and the log goes on in between."""
    async with shared.open("a1", stream="a") as one:
        await filled(one)
        assert await one.drop_bodies(BEFORE, 800, 100) == 100
        assert await one.drop_bodies(BEFORE, 800, 100) == 100
        assert all(stored.record.body for stored in await one.page(EventFilter(), 0, 10))
    async with shared.open("b1", stream="b") as two:
        await two.append("sidecar-9", Emitter("sidecar-9").calls(5), YOUNG)
        assert await drop_all(two, 800) == 500
        found = await whole(two)
        assert [one.position for one in found if one.record.body] == list(range(701, 806))


async def test_a_declared_gap_keeps_its_body(shared):
    """A check of the log needs it."""
    emitter = Emitter()
    async with shared.open("a1", stream="a", accept_gaps=True) as store:
        await store.append("sidecar-1", emitter.calls(3), OLD)
        emitter.calls(4)
        for _ in range(6):
            await store.append("sidecar-1", emitter.calls(50), OLD)
        await drop_all(store, store.last_position())
        kept = [one for one in await whole(store) if one.record.body]
        assert [one.type for one in kept] == [EventType.AUDIT_GAP_ACCEPTED.value]


async def test_a_young_record_among_old_ones_ends_it(shared):
    """Where the clock was set back, nothing behind the first young record goes."""
    emitter = Emitter()
    async with shared.open("a1", stream="a") as store:
        for receive_wall_ms in (OLD, OLD, YOUNG, OLD, OLD, OLD):
            await store.append("sidecar-1", emitter.calls(60), receive_wall_ms)
        assert await drop_all(store, 360) == 120
        assert [one.position for one in await whole(store) if not one.record.body] == list(range(1, 121))
        assert not any(name.endswith("_kept") for name in await tables(shared))


async def test_a_reader_that_does_not_end_postpones_it(shared):
    """The change of a partition waits for nobody long: it is refused, nothing is lost, and it is done later."""
    async with shared.open("a1", stream="a") as store:
        await filled(store)
        reader = await asyncpg.connect(**shared.at.settings())
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetchval("SELECT count(*) FROM events")
        with pytest.raises(Refusal) as refused:
            await drop_all(store, 800)
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        assert len(await whole(store)) == 800
        await transaction.rollback()
        await reader.close()
        await drop_all(store, 800)
        assert [one.position for one in await whole(store) if one.record.body] == list(range(701, 801))
