"""Heads over what a process placed itself: signed without reading it back, and never over anything else."""

import sqlite3
from dataclasses import replace

import pytest
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter

from leasehold.merkle import fold
from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.merkle import Frontier
from leasehold_broker.domain.placed_turns import TURNS_MAX, PlacedTurn, PlacedTurns
from leasehold_broker.flows import publish_checkpoint
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint

ORIGIN = "log.example/audit"
MUCH = 40
"""Records at once that are not all read back, in these tests."""


class RememberingLog:
    """A log that remembers what was appended through it, and counts what is read back of it."""

    def __init__(self, folder) -> None:
        """Over a new file."""
        self.store = CollectorStore(folder / "c.db", "collector", "c1")
        self.turns = PlacedTurns()
        self.emitter = Emitter()
        self.leaves: list[bytes] = []
        self.read: list[int] = []

    def __getattr__(self, name):
        """Everything else is the store's."""
        return getattr(self.store, name)

    async def put(self, count, *, remembered=True):
        """Append records in one turn."""
        records = self.emitter.calls(count)
        before = self.store.tree_head()
        await self.store.append(self.emitter.stream, records, 1)
        self.leaves += [entry_hash(record) for record in records]
        frontier = Frontier()
        frontier.append(self.leaves)
        if remembered:
            self.turns.note(PlacedTurn(before, self.store.tree_head(), list(frontier._peaks)))

    def placed_from(self, size):
        """As the port says."""
        return self.turns.first_from(size)

    async def page(self, wanted: EventFilter, after_position, limit):
        """As the port says."""
        found = await self.store.page(wanted, after_position, limit)
        self.read += [one.position for one in found]
        return found


@pytest.fixture(name="log")
async def _log(tmp_path, monkeypatch):
    """A log, with little that is read back at once."""
    monkeypatch.setattr(publish_checkpoint, "READ_BACK_RECORDS_MAX", MUCH)
    log = RememberingLog(tmp_path)
    yield log
    await log.store.close()


@pytest.fixture(name="publish")
async def _publish(log, tmp_path):
    """A publisher over it, started."""

    async def nowhere(_note):
        return ""

    publish = PublishCheckpoint(log, log, open_checkpoint_key(tmp_path / "key", ORIGIN), SystemClock(), nowhere)
    await publish.start(None)
    return publish


def alter(folder, statement, *values):
    """What someone with the file in hand does to it."""
    connection = sqlite3.connect(folder / "c.db")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


async def test_a5_what_was_placed_here_is_signed_without_reading_it_back(log, publish):
    """Two turns one after the other, in two checkpoints: the roots are the naive ones, nothing was read."""
    for _ in range(2):
        await log.put(150)
        await log.put(150)
        await publish.step()
        assert publish.newest.head == TreeHead(len(log.leaves), fold(log.leaves))
    assert log.read == []
    assert publish.remembered == 600


async def test_a5_what_others_placed_in_between_is_read_back(log, publish):
    """Before, between and behind the remembered turns: these records and no others are read, and all are signed."""
    await log.put(3, remembered=False)
    await log.put(60)
    await log.put(2, remembered=False)
    await log.put(60)
    await log.put(4, remembered=False)
    await publish.step()
    assert log.read == [1, 2, 3, 64, 65, 126, 127, 128, 129]
    assert publish.newest.head == TreeHead(129, fold(log.leaves))


async def test_few_records_are_read_back_whoever_placed_them(log, publish, tmp_path):
    """While little comes, a head never speaks for bytes that the disk does not have, whatever is remembered."""
    await log.put(MUCH)
    await publish.step()
    assert log.read == list(range(1, MUCH + 1))
    await log.put(MUCH)
    alter(tmp_path, "UPDATE events SET body = CAST(replace(body, '1200', '1100') AS BLOB) WHERE position = 44")
    with pytest.raises(LogDamagedError, match="record 44 does not read back"):
        await publish.step()


async def test_a5_reading_back_goes_on_where_memory_ended(log, publish):
    """Much, then little, then much: each head continues the one before."""
    for count in (100, 7, 100, 7):
        await log.put(count)
        await publish.step()
        assert publish.newest.head == TreeHead(len(log.leaves), fold(log.leaves))
    assert log.read == [*range(101, 108), *range(208, 215)]


async def test_a5_a_memory_that_began_at_another_log_is_never_signed(log, publish):
    """A turn that went on from another head of the same size, as over a log that somebody replaced: it stops."""
    await log.put(2, remembered=False)
    await log.put(100)
    turn = log.turns.first_from(0)
    log.turns = PlacedTurns()
    log.turns.note(replace(turn, before=TreeHead(2, bytes(32))))
    with pytest.raises(LogDamagedError, match="another log of 2 records"):
        await publish.step()
    assert publish.newest is None


async def test_a5_a_memory_of_another_end_is_never_signed(log, publish):
    """What is remembered, and what the log's head says, must be the same."""
    await log.put(100)
    turn = log.turns.first_from(0)
    log.turns = PlacedTurns()
    log.turns.note(replace(turn, peaks=[bytes(32) for _ in turn.peaks]))
    with pytest.raises(LogDamagedError, match="not the one that was accepted"):
        await publish.step()
    assert publish.newest is None


async def test_a5_a_tree_that_the_store_lost_is_never_signed(log, publish, tmp_path):
    """The tree that proofs are made of must come to the root that is signed."""
    await log.put(300)
    alter(tmp_path, "UPDATE tiles SET hashes = zeroblob(length(hashes)) WHERE level = 0 AND number = 0")
    alter(tmp_path, "UPDATE tiles SET root = zeroblob(32) WHERE level = 0 AND number = 0")
    with pytest.raises(LogDamagedError, match="the tree that the log keeps"):
        await publish.step()
    assert publish.newest is None


async def test_a5_a_store_that_says_something_else_later_contradicts_the_signed_head(log, publish, tmp_path):
    """A body altered before it was signed: the head covers what was accepted, and what is read does not match it."""
    await log.put(256)
    alter(tmp_path, "UPDATE events SET body = CAST(replace(body, '1200', '1100') AS BLOB) WHERE position = 44")
    forged = Emitter().put(b'{"outcome":"allowed","type":"call.admitted","wall_ms":7}')
    alter(tmp_path, "UPDATE events SET body = ?, digest = ? WHERE position = 1", forged.body, forged.digest)
    await publish.step()
    assert publish.newest.head == TreeHead(256, fold(log.leaves))
    found = [one.record for one in await log.store.page(EventFilter(), 0, 256)]
    wrong = [at for at, record in enumerate(found, 1) if entry_hash(record) != log.leaves[at - 1]]
    assert wrong == [1]
    original = Emitter().calls(44)[43]
    assert found[43].body != original.body
    assert found[43].digest == original.digest  # which the leaf has, and which is not that of this body


def head(size: int) -> TreeHead:
    """Some head."""
    return TreeHead(size, size.to_bytes(32))


def test_turns_are_found_by_where_they_began_and_only_the_newest_are_remembered():
    """The first from a size on; of too many the oldest go; another log's go all."""
    turns = PlacedTurns()
    assert turns.first_from(0) is None
    for size in range(0, 20 * TURNS_MAX, 10):
        turns.note(PlacedTurn(head(size), head(size + 5), []))
    last = 20 * TURNS_MAX - 10
    assert turns.first_from(last - 10).before == head(last - 10)
    assert turns.first_from(last - 14).before == head(last - 10)
    assert turns.first_from(last).before == head(last)
    assert turns.first_from(last + 1) is None
    assert turns.first_from(0).before.size >= last - 2 * TURNS_MAX * 10
    assert turns.first_from(last - (TURNS_MAX - 1) * 10).before == head(last - (TURNS_MAX - 1) * 10)
    turns.note(PlacedTurn(head(3), head(4), []))
    assert turns.first_from(0).before == head(3)
    assert turns.first_from(4) is None
