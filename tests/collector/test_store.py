"""The collector's store: what it accepts, what it refuses, and that what it says survives."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest
from tests.fakes.streams import Emitter, call_event

from leasehold_broker.adapters.sqlite_collector import CollectorStore, StoreBusyError
from leasehold_broker.domain.audit_chain import chain
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey, Everything, Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar


@pytest.fixture
async def store(tmp_path):
    """An open store in a fresh directory."""
    opened = CollectorStore(tmp_path / "collector.db", "collector", "c1")
    yield opened
    await opened.close()


def described(entry: Revocation) -> Event:
    """The event of an entry."""
    return Event(EventType.REVOCATION_ISSUED, entry.create_wall_ms, Outcome.ALLOWED, details={"epoch": entry.epoch})


def draft(request_id="r1", selector=None) -> RevocationDraft:
    """A responder's checked wish."""
    return RevocationDraft(selector or ByKey("k"), "leaked", "alice", request_id, 5)


async def test_what_was_appended_is_there_after_reopening(tmp_path):
    """Acknowledged records, positions and heads are the same in the next life of the collector (A3)."""
    records = Emitter().calls(5)
    first = CollectorStore(tmp_path / "c.db", "collector", "c1")
    await first.append("sidecar-1", records, 10)
    heads = await first.heads()
    await first.close()
    second = CollectorStore(tmp_path / "c.db", "collector", "c2")
    try:
        stored = await second.page(EventFilter(), 0, 100)
        assert records == [one.record for one in stored]
        assert [one.position for one in stored] == [1, 2, 3, 4, 5]
        assert heads == await second.heads()
        assert second.last_position() == 5
    finally:
        await second.close()


async def test_a_record_sent_twice_is_stored_once(store):
    """A repeated prefix, alone or before new records, is ignored exactly (A2)."""
    emitter = Emitter()
    records = emitter.calls(4)
    await store.append("sidecar-1", records, 1)
    await store.append("sidecar-1", records, 2)
    head = await store.append("sidecar-1", records[2:] + emitter.calls(1), 3)
    assert head.sequence == 5
    assert [one.record.sequence for one in await store.page(EventFilter(), 0, 100)] == [1, 2, 3, 4, 5]


async def test_a_gap_is_refused_and_nothing_of_the_batch_is_stored(store):
    """A missing record in the middle of a batch refuses the whole batch."""
    one, _, three = Emitter().calls(3)
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", [one, three], 1)
    assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
    assert store.last_position() == 0
    assert await store.heads() == []


async def test_a_fork_is_refused(store):
    """Another record at a stored place is refused; the first stays."""
    await store.append("sidecar-1", Emitter().calls(2), 1)
    other = Emitter()
    forked = [other.emit(call_event(9)), other.emit(call_event(10))]
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", forked, 2)
    assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
    assert "fork" in refused.value.detail


async def test_an_altered_record_is_refused(store):
    """A body that does not match its digest is refused."""
    record = replace(Emitter().calls(1)[0], body=b'{"outcome":"denied","type":"call.admitted","wall_ms":1}')
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", [record], 1)
    assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN


async def test_a_copy_is_fenced_once_a_newer_life_has_written(store):
    """An older epoch may repeat what is stored, and add nothing; also after the collector was reopened (E7)."""
    older, newer = Emitter(epoch="e1"), Emitter(epoch="e2")
    stored = older.calls(3)
    await store.append("sidecar-1", stored, 1)
    await store.append("sidecar-1", newer.calls(1), 2)
    head = await store.append("sidecar-1", stored, 3)
    assert head.epoch == "e2"
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", older.calls(1), 4)
    assert refused.value.reason is Reason.AUDIT_EPOCH_FENCED


async def test_an_older_epoch_cannot_come_back_within_one_batch(store):
    """A batch that moves to a new epoch and back is refused as fenced."""
    older, newer = Emitter(epoch="e1"), Emitter(epoch="e2")
    await store.append("sidecar-1", older.calls(1), 1)
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", newer.calls(1) + older.calls(1), 2)
    assert refused.value.reason is Reason.AUDIT_EPOCH_FENCED


async def test_a_body_that_is_no_event_is_refused(store):
    """A well-chained record whose body is not an event is not stored, and the stream can go on."""
    emitter = Emitter()
    good = emitter.calls(1)
    bad = chain("sidecar-1", "e1", 2, good[0].digest, b'{"hello":1}')
    await store.append("sidecar-1", good, 1)
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", [bad], 1)
    assert refused.value.reason is Reason.BODY_INVALID
    assert (await store.append("sidecar-1", emitter.calls(1), 2)).sequence == 2


async def test_a_refused_job_does_not_disturb_its_group(store):
    """Batches that wait together for one commit stand or fall alone."""
    good, bad, other = Emitter("a"), Emitter("b"), Emitter("c")
    gap = bad.calls(2)[1:]
    results = await asyncio.gather(
        store.append("a", good.calls(3), 1),
        store.append("b", gap, 1),
        store.append("c", other.calls(3), 1),
        store.append("a", good.calls(1), 1),
        return_exceptions=True,
    )
    assert [results[0].sequence, results[2].sequence, results[3].sequence] == [3, 3, 4]
    assert results[1].reason is Reason.AUDIT_CHAIN_BROKEN
    assert list(range(1, 8)) == [one.position for one in await store.page(EventFilter(), 0, 100)]


async def test_a_revocation_and_its_event_are_one(store):
    """Epochs count by one; a repeated request gives the same entry and no second event."""
    first = await store.issue(draft("r1"), described)
    again = await store.issue(draft("r1"), described)
    second = await store.issue(draft("r2", Everything()), described)
    assert (first.epoch, again.epoch, second.epoch) == (1, 1, 2)
    assert first == again
    assert [first, second] == list(await store.after(0, 10))
    assert [second, first] == list(await store.before(99, 10))
    assert len(await store.page(EventFilter(type="revocation.issued"), 0, 10)) == 2
    assert store.epoch() == 2


async def test_a_request_id_is_not_reused_for_another_selector(store):
    """The same id with another selector is refused and changes nothing."""
    await store.issue(draft("r1"), described)
    with pytest.raises(Refusal) as refused:
        await store.issue(draft("r1", Everything()), described)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert store.epoch() == 1


async def test_a_failed_event_takes_its_revocation_back(store):
    """When the event cannot be written, the entry does not exist either."""

    def fails(_entry: Revocation) -> Event:
        raise Refusal(Reason.STORE_UNAVAILABLE, "no")

    with pytest.raises(Refusal):
        await store.issue(draft(), fails)
    assert await store.find(1) is None
    assert (await store.issue(draft(), described)).epoch == 1


async def test_revocations_and_acknowledgements_survive(tmp_path):
    """Entries, what they ended and who acknowledged them are there after reopening (R1)."""
    first = CollectorStore(tmp_path / "c.db", "collector", "c1")
    entry = await first.issue(draft(), described)
    await first.heard(KnownSidecar("s1", "prod", "1", 1, 77), [AppliedRevocation(1, 3, 2)])
    await first.heard(KnownSidecar("s1", "prod", "1", 0, 78), [])
    await first.close()
    second = CollectorStore(tmp_path / "c.db", "collector", "c2")
    try:
        assert entry == await second.find(1)
        assert {"s1": AppliedRevocation(1, 3, 2)} == await second.applied_at(1)
        assert [KnownSidecar("s1", "prod", "1", 1, 78)] == list(await second.sidecars())
        assert [entry] == list(await second.after(0, 10))
    finally:
        await second.close()


async def test_the_collectors_own_stream_starts_anew_in_each_life(tmp_path):
    """Own events are chained under the life's own epoch."""
    event = Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED)
    for life in ("c1", "c2"):
        opened = CollectorStore(tmp_path / "c.db", "collector", life)
        await opened.record(event)
        await opened.record(event)
        heads = await opened.heads()
        await opened.close()
    assert [(head.epoch, head.sequence) for head in heads] == [("c1", 2), ("c2", 2)]


async def test_questions_are_answered_by_every_filter(store):
    """Each filter selects what it names, and only that."""
    emitter = Emitter()
    records = [
        emitter.emit(call_event(1, lease="leases/a", key="k1", subject="s1")),
        emitter.emit(call_event(2, lease="leases/b", key="k2", subject="s2")),
        emitter.emit(
            Event(
                EventType.LEASE_ACQUIRED,
                1_700_000_000_003,
                Outcome.DENIED,
                details={"scopes": [{"key": "k1"}, {"key": "k2"}]},
            )
        ),
    ]
    await store.append("sidecar-1", records, 1)
    await store.append("other", Emitter("other").calls(1), 1)

    async def found(**wanted) -> list[int]:
        return [one.position for one in await store.page(EventFilter(**wanted), 0, 10)]

    assert await found(stream="sidecar-1") == [1, 2, 3]
    assert await found(type="call.admitted") == [1, 2, 4]
    assert await found(type="lease.") == [3]
    assert await found(lease="leases/b") == [2]
    assert await found(subject="s1") == [1]
    assert await found(key="k1") == [1, 3]
    assert await found(outcome="denied") == [3]
    assert await found(start_wall_ms=1_700_000_000_002, stream="sidecar-1") == [2, 3]
    assert await found(end_wall_ms=1_700_000_000_002) == [1, 4]
    assert await found(key="k1' OR '1'='1") == []


async def test_nobody_writes_the_collectors_own_stream(store):
    """A sidecar with the collector's name could forge its events: refused, and the real ones go on."""
    with pytest.raises(Refusal) as refused:
        await store.append("collector", Emitter("collector", "c9").calls(1), 1)
    assert refused.value.reason is Reason.SIDECAR_BANNED
    await store.record(Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED))
    assert store.last_position() == 1


async def test_a_second_collector_is_kept_out(store, tmp_path):
    """Two processes on one file would fork the collector's chain: the second is refused."""
    with pytest.raises(StoreBusyError, match="another process"):
        CollectorStore(tmp_path / "collector.db", "collector", "c9")


async def test_the_file_is_private(store, tmp_path):
    """Events name subjects and leases: only the owner may read the file."""
    assert (tmp_path / "collector.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_of_another_version_is_refused(tmp_path):
    """A schema this program does not know is left alone."""
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ValueError, match="version 99"):
        CollectorStore(tmp_path / "c.db", "collector", "c1")


async def test_a_full_disk_refuses_and_recovers(store):
    """When SQLite cannot write, callers are refused, nothing is half stored, and later batches go through."""
    emitter = Emitter()
    batch = emitter.calls(200)
    await store._writer.submit(lambda connection: connection.execute("PRAGMA max_page_count=1").fetchone() and None)
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", batch, 1)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    await store._writer.submit(
        lambda connection: connection.execute("PRAGMA max_page_count=1073741823").fetchone() and None
    )
    assert (await store.append("sidecar-1", batch, 2)).sequence == 200
    assert store.last_position() == 200


async def test_the_writer_outlives_a_disk_that_fails_twice(store):
    """A failure of the commit and of reloading afterwards refuse callers; the next group finds the store whole."""
    emitter = Emitter()
    await store.append("sidecar-1", emitter.calls(2), 1)
    load, failures = store._writer._rolled_back, []

    def fails_once(connection: sqlite3.Connection) -> None:
        if not failures:
            failures.append(1)
            message = "disk I/O error"
            raise sqlite3.OperationalError(message)
        load(connection)

    def breaks(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM no_such_table")

    store._writer._rolled_back = fails_once
    with pytest.raises(Refusal) as refused:
        await store._writer.submit(breaks)
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert (await store.append("sidecar-1", emitter.calls(1), 2)).sequence == 3
    assert failures == [1]
