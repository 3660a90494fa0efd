"""How lives of a stream end (A6), what follows a loss, and what is dropped with age: rules of the collector's store."""

import json
import sqlite3
from dataclasses import replace

import pytest
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter, call_event

from leasehold.audit import Record
from leasehold.audit import verify as verify_by_client
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.domain.audit_chain import ChainEnd
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import LifeState
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.recover import Recover


@pytest.fixture
async def store(engine):
    """A store of one life."""
    async with engine.open() as opened:
        yield opened


def started(previous=None):
    """The first event of a life."""
    details = {"version": "0"}
    if previous is not None:
        details |= {
            "previous_epoch": previous.epoch,
            "previous_sequence": previous.sequence,
            "previous_digest": previous.digest.hex(),
        }
    return Event(EventType.SIDECAR_STARTED, 1, Outcome.ALLOWED, details=details)


def stopped():
    """The last event of a life that stopped."""
    return Event(EventType.SIDECAR_STOPPED, 1, Outcome.ALLOWED)


def life(epoch, count=3, *, first=None, last=None):
    """One life of sidecar-1, and its records."""
    emitter = Emitter("sidecar-1", epoch)
    records = [emitter.emit(first or started()), *emitter.calls(count)]
    return emitter, [*records, *([emitter.emit(last)] if last else [])]


async def states(store, stream="sidecar-1"):
    """States of all lives of a stream, oldest first."""
    return [head.state for head in await store.heads() if head.stream == stream]


async def told(store):
    """The events of the collector's own stream, as (type, details)."""
    own = await store.page(EventFilter(stream="collector"), 0, 100)
    return [(event["type"], event["details"]) for event in (json.loads(one.record.body) for one in own)]


async def test_a_life_that_stopped_is_closed(store):
    """Its last record says so; what comes after it in the same life opens it again."""
    emitter, records = life("e1", last=stopped())
    await store.append("sidecar-1", records, 1)
    assert await states(store) == [LifeState.CLOSED]
    await store.append("sidecar-1", emitter.calls(1), 1)
    assert await states(store) == [LifeState.OPEN]
    await store.append("sidecar-1", [emitter.emit(stopped())], 1)
    await store.append("sidecar-1", life("e2")[1], 1)
    assert await states(store) == [LifeState.CLOSED, LifeState.OPEN]
    assert await told(store) == []


async def test_a_life_that_was_killed_is_closed_by_the_next(store):
    """The next life of the same spool names the last record of the one before (A6)."""
    emitter, records = life("e1")
    await store.append("sidecar-1", records, 1)
    end = ChainEnd("e1", emitter.sequence, emitter.digest)
    await store.append("sidecar-1", life("e2", first=started(end))[1], 1)
    assert await states(store) == [LifeState.CLOSED, LifeState.OPEN]
    assert await told(store) == []


@pytest.mark.parametrize("claim", ["nothing", "more", "other"])
async def test_a_tail_that_nobody_knows_is_flagged(engine, claim):
    """A new spool, a record that never came, or another digest: flagged, and an event (A6)."""
    emitter, records = life("e1")
    async with engine.open("c1") as store:
        await store.append("sidecar-1", records, 1)
        said = {
            "nothing": None,
            "more": ChainEnd("e1", emitter.sequence + 1, emitter.digest),
            "other": ChainEnd("e1", emitter.sequence, bytes(32)),
        }[claim]
        await store.append("sidecar-1", life("e2", first=started(said))[1], 1)
        assert await states(store) == [LifeState.TAIL_UNKNOWN, LifeState.OPEN]
        ((type_, details),) = await told(store)
        assert type_ == "audit.tail_unknown"
        assert (details["tail_stream"], details["tail_epoch"], details["last_sequence"]) == ("sidecar-1", "e1", 4)
    async with engine.open("c2") as again:
        assert await states(again) == [LifeState.TAIL_UNKNOWN, LifeState.OPEN]


async def test_a_cloned_sidecar_shows_and_is_fenced(store):
    """Two copies of one state directory: the second takes the stream over, the first is refused, and it is an event."""
    origin, records = life("e1", last=stopped())
    await store.append("sidecar-1", records, 1)
    end = ChainEnd("e1", origin.sequence, origin.digest)
    first, ones = life("e2-one", first=started(end))
    _, others = life("e2-other", first=started(end))
    await store.append("sidecar-1", ones, 1)
    await store.append("sidecar-1", others, 1)
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", first.calls(1), 1)
    assert refused.value.reason is Reason.AUDIT_EPOCH_FENCED
    assert "runbooks/audit.md" in refused.value.message
    assert await states(store) == [LifeState.CLOSED, LifeState.TAIL_UNKNOWN, LifeState.OPEN]
    ((type_, details),) = await told(store)
    assert (type_, details["tail_epoch"]) == ("audit.tail_unknown", "e2-one")
    # The way back of the one that is refused: an empty state directory, and so a life that knows of none before it.
    _, anew = life("e1-anew", first=started())
    await store.append("sidecar-1", anew, 1)
    assert (await states(store))[-1] is LifeState.OPEN


async def test_a_collectors_own_lives_are_whole(engine):
    """What it wrote is in this very store: a kill loses nothing of its own stream."""
    for epoch in ("c1", "c2", "c3"):
        async with engine.open(epoch) as store:
            await store.record(Event(EventType.COLLECTOR_STARTED, 1, Outcome.ALLOWED))
            found = await states(store, "collector")
    assert found == [LifeState.CLOSED, LifeState.CLOSED, LifeState.OPEN]


async def test_each_life_of_a_sidecars_store_names_the_end_of_the_one_before(tmp_path):
    """Whether its records still wait or were trimmed, after a kill or a stop; a new store names none."""
    ends = []
    expected = None
    for number in range(4):
        state = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits())
        found = await Recover(Books(), state).run(SystemClock().now(), "0")
        ends.append(found.previous)
        await state.commit([call_event(1)])
        pending = await state.pending_after(0, 1000)
        last = pending[-1].record
        assert json.loads(pending[-2].record.body)["type"] == "sidecar.started"
        if number:
            assert json.loads(pending[-2].record.body)["details"]["previous_digest"] == expected.digest.hex()
            assert found.previous == expected
        expected = ChainEnd(last.epoch, last.sequence, last.digest)
        if number % 2:
            await state.acknowledge(pending[-1].position)
            await state.trim()
        await state.close()
    assert ends[0] is None


async def holed(engine):
    """A store that was restored from an older copy: sidecar-1 is ahead of it by three records."""
    emitter, records = life("e1", 9)
    async with engine.open("c1") as store:
        await store.append("sidecar-1", records[:4], 1)
    return emitter, records


async def test_behind_a_hole_nothing_is_taken_unless_it_is_accepted(engine):
    """Closed, loudly: a gap is refused whole. With the operators' word it is an event, and the stream goes on."""
    _, records = await holed(engine)
    async with engine.open("c2") as store:
        with pytest.raises(Refusal) as refused:
            await store.append("sidecar-1", records[7:], 1)
        assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
    async with engine.open("c3", accept_gaps=True) as store:
        await store.append("sidecar-1", records[7:], 1)
        await store.append("sidecar-1", records[7:], 1)
        ((type_, details),) = await told(store)
        assert type_ == "audit.gap_accepted"
        assert (details["gap_epoch"], details["first_missing"], details["last_missing"]) == ("e1", 5, 7)
        page = await store.page(EventFilter(), 0, 100)
    assert [one.record.sequence for one in page if one.record.stream == "sidecar-1"] == [1, 2, 3, 4, 8, 9, 10]
    verdict = verify_by_client(("", of(stored)) for stored in page)
    assert verdict.holds
    assert verdict.gaps == ["stream sidecar-1, epoch e1: records 5 to 7 were lost"]
    undeclared = verify_by_client(("", of(stored)) for stored in page if stored.record.stream != "collector")
    assert not undeclared.holds


def of(stored):
    """A stored record as the client has it."""
    one = stored.record
    return Record(stored.position, one.stream, one.epoch, one.sequence, one.previous_digest, one.digest, one.body)


async def test_a_life_whose_beginning_was_lost_goes_on_once_accepted(engine):
    """The restored store never heard of the life: its hole begins at 1; what was altered is refused all the same."""
    _, records = life("e9", 5)
    async with engine.open("c1", accept_gaps=True) as store:
        with pytest.raises(Refusal):
            await store.append("sidecar-1", [replace(records[3], body=b"{}")], 1)
        await store.append("sidecar-1", records[3:], 1)
        ((_, details),) = await told(store)
        assert (details["first_missing"], details["last_missing"]) == (1, 3)


async def test_old_bodies_go_and_their_proofs_stay(tmp_path):
    """By age, up to a position, in pieces; what was dropped is not found by its content; the tree is the same."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    emitter = Emitter()
    await store.append("sidecar-1", emitter.calls(50), 1_000)
    await store.append("sidecar-1", emitter.calls(50), 2_000)
    before = store.tree_head()
    assert await store.drop_bodies(2_000, 40, 15) == 15
    assert [await store.drop_bodies(2_000, 40, 15) for _ in range(3)] == [15, 10, 0]
    assert [await store.drop_bodies(2_000, 100, 15) for _ in range(2)] == [10, 0]
    assert await store.drop_bodies(1_000, 10**9, 15) == 0
    page = await store.page(EventFilter(), 0, 200)
    assert [one.position for one in page if not one.record.body] == list(range(1, 51))
    for wanted in (EventFilter(lease="leases/a"), EventFilter(key="anthropic-prod"), EventFilter(subject="agent")):
        assert [one.position for one in await store.page(wanted, 0, 200)] == list(range(51, 101))
    verdict = verify_by_client(("", of(stored)) for stored in page)
    assert (verdict.holds, verdict.records, verdict.hash_only) == (True, 100, 50)
    await store.close()
    again = CollectorStore(tmp_path / "c.db", "collector", "c2")
    assert again.tree_head() == before
    await again.close()
    connection = sqlite3.connect(tmp_path / "c.db")
    assert connection.execute("SELECT count(*) FROM events WHERE CAST(body AS TEXT) LIKE '%leases/a%'").fetchone() == (
        50,
    )
    connection.close()


async def test_a_declared_loss_keeps_its_body(engine):
    """A check of the log needs it for as long as the log is checked."""
    _, records = await holed(engine)
    async with engine.open("c3", accept_gaps=True) as store:
        await store.append("sidecar-1", records[7:], 1)
        assert [await store.drop_bodies(2**50, 10**9, 100) for _ in range(2)] == [8, 0]
        page = await store.page(EventFilter(), 0, 100)
    assert [one.type for one in page if one.record.body] == ["audit.gap_accepted"]
    assert verify_by_client(("", of(stored)) for stored in page).holds
