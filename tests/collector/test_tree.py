"""The tree beside the log: what is stored gives the naive root at each size, through restarts, refusals and damage."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace

import pytest
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter

from leasehold.checkpoint import Checkpoint
from leasehold.merkle import consistent, fold
from leasehold.note import VerifierKey
from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_collector.schema import prepare
from leasehold_broker.adapters.sqlite_collector.tree import TreeReader, load_edge, put_tiles
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.merkle import consistency_proof, leaf_hash, root_of
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.revocation import Everything
from leasehold_broker.domain.tiles import TILE_HASHES, TileEdge
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint
from leasehold_broker.ports.revocation_issuer import RevocationDraft

LATER = ("bans", "slices", "followers", "remembered", "rotation_requests", "rotations", "leads")
WITHOUT_KEY = "DROP INDEX idx_events_key; ALTER TABLE events DROP COLUMN key; "
WITHOUT_AFTER_5 = WITHOUT_KEY + "".join(f"DROP TABLE {table}; " for table in LATER)
"""Takes out what later versions of the schema added."""

ORIGIN = "log.example/audit"


@pytest.fixture
async def store(tmp_path):
    """A store of one life."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield store
    await store.close()


async def fill(store, emitter, count):
    """Append `count` records in batches; their leaves."""
    records = emitter.calls(count)
    for first in range(0, count, 200):
        await store.append(emitter.stream, records[first : first + 200], 1)
    return [entry_hash(record) for record in records]


async def publisher(store, folder, copies=None):
    """A publisher over this store, started."""

    async def copy(note):
        if copies is not None:
            copies.append(note)
        return ""

    key = open_checkpoint_key(folder / "key", ORIGIN)
    publish = PublishCheckpoint(store, store, key, SystemClock(), copy)
    await publish.start(None)
    return publish


async def test_a5_a_publisher_that_starts_anew_waits_for_the_head_that_is_being_made(store, tmp_path):
    """After a failed write it starts anew, also while somebody asks for a head: neither finds the other half done."""
    publish, emitter = await publisher(store, tmp_path), Emitter("s")
    for _ in range(3):
        await fill(store, emitter, 300)
        await asyncio.gather(publish.step(), publish.start(None), publish.step(), publish.start(None))
        assert publish.newest.head == store.tree_head()


def alter(folder, statement, *values):
    """What someone with the file in hand does to it."""
    connection = sqlite3.connect(folder / "c.db")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


async def test_the_store_has_the_naive_root_at_each_size(tmp_path):
    """Roots and proofs from tiles and from what has not filled one are those of all leaves; also after reopening."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    leaves = await fill(store, Emitter(), 700)
    assert store.tree_head() == TreeHead(700, fold(leaves))
    for size in (1, 2, 255, 256, 257, 511, 512, 513, 700):
        assert await store.read_tree(lambda node, size=size: root_of(size, node)) == fold(leaves[:size])
        proof = await store.read_tree(lambda node, size=size: consistency_proof(size, 700, node))
        assert consistent(size, fold(leaves[:size]), 700, fold(leaves), proof)
    with pytest.raises(ValueError, match="does not reach"):
        await store.read_tree(lambda node: root_of(701, node))
    await store.close()
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    assert again.tree_head() == TreeHead(700, fold(leaves))
    await again.close()


async def test_a_refused_batch_leaves_no_trace_in_the_tree(store):
    """A gap, a fork and a bad body change nothing: the next root is that of what was accepted."""
    emitter = Emitter()
    leaves = await fill(store, emitter, 300)
    bad = Emitter("sidecar-2")
    for records in (
        [bad.calls(2)[1]],
        [replace(emitter.calls(1)[0], digest=bytes(32))],
        [Emitter("sidecar-3").put(b"not json")],
    ):
        with pytest.raises(Refusal):
            await store.append(records[0].stream, records, 1)
    more = await fill(store, Emitter("sidecar-4"), 300)
    assert store.tree_head() == TreeHead(600, fold(leaves + more))


def test_tiles_of_three_levels():
    """Past 65,536 entries a tile of the second level is full; edge, stored tiles and naive root agree around it."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        prepare(connection)
        leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(TILE_HASHES * (TILE_HASHES + 3))]
        edge = TileEdge()
        for first in range(0, len(leaves), 1000):
            put_tiles(connection, edge.append(leaves[first : first + 1000]))
        assert edge.head() == TreeHead(len(leaves), fold(leaves))
        assert dict(connection.execute("SELECT level, count(*) FROM tiles GROUP BY level")) == {0: 259, 1: 1}
        reader = TreeReader(connection)
        for size in (65_535 - 255, 65_536, 65_536 + 256, len(leaves)):
            assert root_of(size, reader.node) == fold(leaves[:size])
        again = load_edge(connection)
        assert again.head() == edge.head()
        assert again.rows() == edge.rows()
        more = again.append(leaves[:TILE_HASHES])
        assert [(level, number) for level, number, _, _ in more] == [(0, 259)]


async def test_a_log_from_before_the_tree_gets_one(tmp_path):
    """A store of schema 1 is taken in with all its records."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    leaves = await fill(store, Emitter(), 600)
    await store.close()
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.executescript(
        "DROP TABLE tiles; DROP TABLE checkpoints; DROP TABLE sink_cursors; DROP TABLE budget_changes; "
        f"{WITHOUT_AFTER_5}"
        "DROP TABLE marks; ALTER TABLE lives DROP COLUMN state; ALTER TABLE revocations DROP COLUMN terms; "
        "PRAGMA user_version=1;"
    )
    connection.close()
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    assert again.tree_head() == TreeHead(600, fold(leaves))
    assert await again.read_tree(lambda node: root_of(512, node)) == fold(leaves[:512])
    await again.close()


@pytest.mark.parametrize("terms", [True, False])
async def test_a_store_of_version_5_is_taken_in_with_or_without_terms(tmp_path, terms):
    """That version was written by two programs, of which one had given revocations their terms."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    await fill(store, Emitter(), 3)
    await store.close()
    connection = sqlite3.connect(tmp_path / "c.db")
    without = "" if terms else "ALTER TABLE revocations DROP COLUMN terms; "
    connection.executescript(f"{WITHOUT_AFTER_5}{without}PRAGMA user_version=5;")
    connection.close()
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    draft = RevocationDraft(Everything(), "", "alice", "r", 1)
    issued = await again.issue(draft, lambda made: issued_event(made, draft))
    assert await again.find(1) == issued
    await again.advance("alerts/a", 3, {"k": {"n": 1}, "gone": None})
    assert (await again.follower("alerts/a")).memory == {"k": {"n": 1}}
    await again.close()


@pytest.mark.parametrize("beat", [True, False])
async def test_a_store_of_version_10_is_taken_in_and_its_keys_are_found(tmp_path, beat):
    """That version was written by two programs too; its events had their keys in a table beside them."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    await fill(store, Emitter(), 3)
    await store.close()
    connection = sqlite3.connect(tmp_path / "c.db")
    earlier = "" if beat else "ALTER TABLE leads RENAME COLUMN beat TO until_wall_ms; "
    connection.executescript(
        "INSERT INTO event_keys (key, position) SELECT key, position FROM events WHERE position < 3; "
        f"{WITHOUT_KEY}{earlier}PRAGMA user_version=10;"
    )
    connection.close()
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    assert [one.position for one in await again.page(EventFilter(key="anthropic-prod"), 0, 9)] == [1, 2]
    assert await again.rotations.take_lead("replica", 5.0, SystemClock().now()) is not None
    await again.close()


async def test_each_head_continues_the_one_before(store, tmp_path):
    """Checkpoints are signed once for whatever has come, grow, and are consistent; none without news (A5)."""
    copies = []
    publish = await publisher(store, tmp_path, copies)
    key = VerifierKey.of_text(open_checkpoint_key(tmp_path / "key", ORIGIN).verifier_key)
    await publish.step()
    assert copies == []
    emitter = Emitter()
    leaves = []
    for count in (1, 300, 50):
        leaves += await fill(store, emitter, count)
        await publish.step()
        await publish.step()
    heads = [Checkpoint.of_note(note, key) for note in copies]
    assert [(head.size, head.root) for head in heads] == [(size, fold(leaves[:size])) for size in (1, 301, 351)]
    again = await publisher(store, tmp_path, copies)
    assert again.newest == publish.newest
    await again.step()
    await fill(store, emitter, 1)
    await again.step()
    assert [Checkpoint.of_note(note, key).size for note in copies] == [1, 301, 351, 352]


async def test_steps_at_once_take_turns(store, tmp_path):
    """Two callers, one of them the clock's: the log is gone through once, and signed once."""
    copies = []
    publish = await publisher(store, tmp_path, copies)
    await fill(store, Emitter(), 3000)
    await asyncio.gather(*(publish.step() for _ in range(5)))
    assert (len(copies), publish.newest.head) == (1, store.tree_head())


async def test_bytes_that_read_back_otherwise_are_never_signed(store, tmp_path):
    """The disk gives another body, or a whole other record: no head is published over it."""
    publish = await publisher(store, tmp_path)
    await fill(store, Emitter(), 5)
    alter(tmp_path, "UPDATE events SET body = CAST(replace(body, '1200', '1100') AS BLOB) WHERE position = 4")
    with pytest.raises(LogDamagedError, match="record 4 does not read back"):
        await publish.step()
    assert publish.newest is None


async def test_a_whole_other_record_is_never_signed(store, tmp_path):
    """A record with a good digest of its own is still not the one that was accepted."""
    publish = await publisher(store, tmp_path)
    emitter = Emitter()
    await fill(store, emitter, 5)
    forged = Emitter("sidecar-1", "e1").put(b'{"outcome":"allowed","type":"call.admitted","wall_ms":7}')
    alter(tmp_path, "UPDATE events SET body = ?, digest = ? WHERE position = 1", forged.body, forged.digest)
    with pytest.raises(LogDamagedError, match="not the one that was accepted"):
        await publish.step()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE events SET digest = zeroblob(32) WHERE position = 3", "another root at 5"),
        ("UPDATE checkpoints SET root = zeroblob(32)", "another root at 5"),
        ("DELETE FROM events WHERE position = 5", "covers 5 records and this log has 4"),
    ],
)
async def test_a_log_that_was_altered_while_closed_does_not_start(tmp_path, statement, said):
    """What a published head speaks for must still be there at the next start."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    publish = await publisher(store, tmp_path)
    await fill(store, Emitter(), 5)
    await publish.step()
    await store.close()
    alter(tmp_path, statement)
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    with pytest.raises(LogDamagedError, match=said):
        await publisher(again, tmp_path)
    await again.close()


async def test_an_older_copy_of_the_store_does_not_start_beside_a_newer_checkpoint(store, tmp_path):
    """Restored from a backup: the copy of the checkpoint that was kept elsewhere is ahead, or differs."""
    publish = await publisher(store, tmp_path)
    await fill(store, Emitter(), 5)
    await publish.step()
    older = PublishCheckpoint(store, store, open_checkpoint_key(tmp_path / "key", ORIGIN), SystemClock(), None)
    with pytest.raises(LogDamagedError, match="older copy"):
        await older.start(TreeHead(6, bytes(32)))
    with pytest.raises(LogDamagedError, match="another root at 4"):
        await older.start(TreeHead(4, bytes(32)))
    await older.start(publish.newest.head)
