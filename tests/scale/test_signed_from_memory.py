"""A replica signs what it placed itself from memory, and reads back what it did not: over a real PostgreSQL."""

import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter
from tests.scale.test_replicas import STARTED, caught_up, whole

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.flows import publish_checkpoint
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint

ORIGIN = "log.example/audit"


@pytest.fixture(name="shared")
def shared_database(postgres, monkeypatch):
    """An empty schema; little is read back at once."""
    monkeypatch.setattr(publish_checkpoint, "READ_BACK_RECORDS_MAX", 40)
    return PostgresEngine(postgres, partition_records=512)


async def publisher(store, folder):
    """A publisher over this replica, started."""

    async def nowhere(_note):
        return ""

    key = open_checkpoint_key(folder / "key", ORIGIN)
    publish = PublishCheckpoint(store, store, key, SystemClock(), nowhere)
    await publish.start(None)
    return publish


async def test_a5_the_replica_that_places_signs_without_reading_back(shared, tmp_path):
    """Whoever signs next, another replica or another life, reads everything back and finds the same."""
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        publish, emitter = await publisher(one, tmp_path), Emitter()
        for _ in range(3):
            await one.append("sidecar-1", emitter.calls(200), 1)
            await one.append("sidecar-1", emitter.calls(200), 1)
            await publish.step()
            assert publish.newest.head == one.tree_head()
        assert publish.remembered == 1200
        await one.append("sidecar-1", emitter.calls(200), 1)
        await caught_up(one, two)
        other = await publisher(two, tmp_path)
        await other.step()
        assert (other.newest.head, other.remembered) == (one.tree_head(), 0)
        await whole(two)
    async with shared.open("a2", stream="a") as again:
        later = await publisher(again, tmp_path)
        await again.append("sidecar-1", emitter.calls(200), 1)
        await later.step()
        assert (later.newest.head, later.remembered) == (again.tree_head(), 200)


async def test_a5_what_another_replica_placed_in_between_is_read_back(shared, tmp_path):
    """Two that write in turn, one that signs: its own turns are remembered, the other's are read, all are signed."""
    async with shared.open("a1", stream="a") as one, shared.open("b1", stream="b") as two:
        publish, mine, other = await publisher(one, tmp_path), Emitter("sidecar-1"), Emitter("sidecar-2")
        for _ in range(3):
            await one.append("sidecar-1", mine.calls(60), 1)
            await two.append("sidecar-2", other.calls(5), 1)
            await one.append("sidecar-1", mine.calls(60), 1)
            await two.record(STARTED)
        await caught_up(one, two)
        await publish.step()
        assert (publish.newest.head, publish.remembered) == (one.tree_head(), 360)
        await whole(two)


async def test_a5_a_log_that_was_replaced_under_a_replica_is_not_signed(shared, tmp_path, postgres):
    """Head and edge are made those of another log of the same size, and the replica goes on there: it stops."""
    async with shared.open("a1", stream="a") as one:
        publish, emitter = await publisher(one, tmp_path), Emitter()
        await one.append("sidecar-1", emitter.calls(100), 1)
        await publish.step()
        other = PostgresEngine(postgres, partition_records=512)
        async with other.open("a1", stream="a") as forged:
            await forged.append("sidecar-9", Emitter("sidecar-9").calls(100), 1)
        mine, theirs = shared.at.schema, other.at.schema
        postgres.sql(
            f"UPDATE {mine}.log_head SET root = (SELECT root FROM {theirs}.log_head); DELETE FROM {mine}.edge; "
            f"INSERT INTO {mine}.edge SELECT * FROM {theirs}.edge"
        )
        await one.append("sidecar-1", emitter.calls(100), 1)
        with pytest.raises(LogDamagedError, match="another log of 100 records"):
            await publish.step()
        assert publish.newest.head.size == 100
