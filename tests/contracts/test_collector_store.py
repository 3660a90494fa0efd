"""What every engine of the collector's log promises of records, lives, questions, the tree and followers."""

import asyncio
from dataclasses import replace

import pytest
from tests.fakes.streams import Emitter, call_event

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_chain import chain
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.centre_events import SAID_BY_CENTRE
from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.merkle import EMPTY_ROOT, root_of
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import LifeState


@pytest.fixture
async def store(engine):
    """An open store, empty."""
    async with engine.open() as opened:
        yield opened


async def test_what_was_appended_is_there_after_reopening(engine):
    """Acknowledged records, positions and heads are the same in the next life of the collector (A3)."""
    records = Emitter().calls(5)
    async with engine.open("c1") as first:
        await first.append("sidecar-1", records, 10)
        heads = await first.heads()
    async with engine.open("c2") as second:
        stored = await second.page(EventFilter(), 0, 100)
        assert records == [one.record for one in stored]
        assert [one.position for one in stored] == [1, 2, 3, 4, 5]
        assert heads == await second.heads()
        assert second.last_position() == 5


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


async def test_no_sidecar_says_what_the_centre_says(store):
    """Whoever holds a sidecar could else resolve the alarm about itself, excuse a hole, or revoke keys elsewhere."""
    emitter = Emitter()
    await store.append("sidecar-1", emitter.calls(1), 1)
    for type_ in sorted(SAID_BY_CENTRE):
        honest = Emitter()
        records = honest.calls(2)
        forged = honest.emit(Event(type_, 1, Outcome.ALLOWED, details={"epoch": 1, "key": "k", "sidecar": "sidecar-2"}))
        with pytest.raises(Refusal) as refused:
            await store.append("sidecar-1", [*records, forged], 2)
        assert (refused.value.reason, refused.value.detail) == (Reason.SIDECAR_BANNED, f"tried to say {type_}")
    assert store.last_position() == 1
    escaped = Emitter()
    first = escaped.calls(1)
    odd = escaped.put(b'{"outcome":"allowed","type":"revocation.\\u0063omplete","wall_ms":1}')
    with pytest.raises(Refusal) as refused:
        await store.append("sidecar-1", [*first, odd], 2)
    assert refused.value.reason is Reason.SIDECAR_BANNED


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


async def test_a6_a_life_that_a_copy_closed_and_that_went_on_is_flagged_once(store):
    """A copy's start names the last record that it has: the life is closed, until its holder shows that it went on."""
    original, copy = Emitter(epoch="e1"), Emitter(epoch="e2")
    (last,) = await _stored(store, original.calls(1))
    start = Event(
        EventType.SIDECAR_STARTED,
        1,
        Outcome.ALLOWED,
        details={"previous_epoch": "e1", "previous_sequence": 1, "previous_digest": last.digest.hex()},
    )
    await store.append("sidecar-1", [copy.emit(start)], 2)
    assert [head.state for head in await _lives(store, "sidecar-1")] == [LifeState.CLOSED, LifeState.OPEN]
    await store.cut_off("sidecar-1", [last], 3)
    assert [head.state for head in await _lives(store, "sidecar-1")] == [LifeState.CLOSED, LifeState.OPEN]
    more = original.calls(2)
    for _ in range(2):
        await store.cut_off("sidecar-1", more, 4)
    lives = await _lives(store, "sidecar-1")
    assert [(head.sequence, head.state) for head in lives] == [(1, LifeState.TAIL_UNKNOWN), (1, LifeState.OPEN)]
    found = await store.page(EventFilter(type=EventType.AUDIT_TAIL_UNKNOWN), 0, 10)
    assert len(found) == 1
    assert b'"tail_epoch":"e1"' in found[0].record.body
    await store.append("sidecar-1", copy.calls(1), 5)
    assert (await _lives(store, "sidecar-1"))[-1].sequence == 2


async def _stored(store, records):
    await store.append("sidecar-1", records, 1)
    return records


async def _lives(store, stream):
    return [head for head in await store.heads() if head.stream == stream]


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


async def test_the_collectors_own_stream_starts_anew_in_each_life(engine):
    """Own events are chained under the life's own epoch."""
    event = Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED)
    for life in ("c1", "c2"):
        async with engine.open(life) as opened:
            await opened.record(event)
            await opened.record(event)
            heads = await opened.heads()
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
    assert await found(key="k1", type="call.admitted") == [1]
    assert [one.position for one in await store.page(EventFilter(key="k2"), 0, 1)] == [2]
    assert [one.position for one in await store.page(EventFilter(key="k2"), 2, 1)] == [3]
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


@pytest.mark.parametrize("text", ["a\0b", "x" * 40_000, "\U0001f511" * 600])
async def test_odd_words_in_an_event_stop_nobody(store, text):
    """What an index could not hold is stored whole, read back whole, and does not hold up other streams."""
    emitter, other = Emitter(), Emitter("sidecar-2")
    odd = emitter.emit(call_event(1, lease=text, key=text, subject=text))
    await asyncio.gather(
        store.append("sidecar-1", [odd, *emitter.calls(1)], 1), store.append("sidecar-2", other.calls(2), 1)
    )
    stored = await store.page(EventFilter(stream="sidecar-1"), 0, 10)
    assert odd == stored[0].record
    assert store.last_position() == 4
    assert len(await store.page(EventFilter(subject="agent"), 0, 10)) == 3
    assert len(await store.page(EventFilter(subject="a\0"), 0, 10)) == 0


async def test_a_long_answer_comes_in_pages(store):
    """A page ends early when its bodies are large; the next one goes on behind it."""
    emitter = Emitter()
    large = [emitter.emit(call_event(number, lease="l" * 60_000)) for number in range(20)]
    await store.append("sidecar-1", large, 1)
    first = await store.page(EventFilter(), 0, 20)
    assert 0 < len(first) < 20
    second = await store.page(EventFilter(), first[-1].position, 20)
    assert first[-1].position + 1 == second[0].position


async def test_who_waits_for_more_is_woken(store):
    """The tail of the log returns once something is behind its position, and not before."""
    waiting = asyncio.create_task(store.wait_for_more(1))
    await store.append("sidecar-1", Emitter().calls(1), 1)
    await asyncio.sleep(0)
    assert not waiting.done()
    await store.append("sidecar-2", Emitter("sidecar-2").calls(1), 1)
    async with asyncio.timeout(240):
        await waiting


async def test_the_tree_covers_what_is_stored(engine):
    """Head and nodes agree at sizes around a full tile, and after reopening (A5)."""
    emitter = Emitter()
    heads = []
    async with engine.open("c1") as store:
        assert store.tree_head() == TreeHead(0, EMPTY_ROOT)
        for count in (200, 55, 1, 1, 400):
            await store.append("sidecar-1", emitter.calls(count), 1)
            heads.append(store.tree_head())
        assert [head.size for head in heads] == [200, 255, 256, 257, 657]
        for head in heads:
            assert head.root == await store.read_tree(lambda node, head=head: root_of(head.size, node))
        with pytest.raises(ValueError, match="does not reach"):
            await store.read_tree(lambda node: root_of(1024, node))
    async with engine.open("c2") as again:
        assert heads[-1] == again.tree_head()
        await again.append("sidecar-1", emitter.calls(200), 1)
        size = again.tree_head().size
        assert again.tree_head().root == await again.read_tree(lambda node: root_of(size, node))
        assert heads[-1].root == await again.read_tree(lambda node: root_of(657, node))


async def test_the_newest_checkpoint_is_kept(store):
    """None at first; then the largest."""
    assert await store.newest_checkpoint() is None
    one, two = (SignedCheckpoint(TreeHead(size, bytes([size] * 32)), b"note", 7) for size in (3, 5))
    await store.keep_checkpoint(one)
    await store.keep_checkpoint(two)
    assert two == await store.newest_checkpoint()


async def test_each_sink_has_a_place_of_its_own(store):
    """None before the first; moved, and moved again."""
    assert await store.cursor("siem") is None
    await store.move_cursor("siem", 3)
    await store.move_cursor("otel", 1)
    await store.move_cursor("siem", 5)
    assert [await store.cursor("siem"), await store.cursor("otel")] == [5, 1]


def change(request_id="q1", cap=900) -> BudgetChange:
    """A treasurer's checked wish."""
    return BudgetChange(
        0, "on:key:k|day", Metric.COST_MICRO_USD, Direction.RAISE, cap, 0, "why", "alice", request_id, 5
    )


def changed(made: BudgetChange) -> Event:
    """The event of a change."""
    return Event(EventType.BUDGET_CHANGE_ISSUED, made.create_wall_ms, Outcome.ALLOWED, details={"change": made.number})


async def test_changes_of_budgets_are_numbered_and_kept(engine):
    """Numbers count by one; a repeated request is the same change with no second event; an id is not reused."""
    async with engine.open("c1") as first:
        one = await first.change_budget(change(), changed)
        assert one == await first.change_budget(change(), changed)
        two = await first.change_budget(change("q2", 1000), changed)
        with pytest.raises(Refusal) as refused:
            await first.change_budget(change("q2", 1001), changed)
        assert refused.value.reason is Reason.REQUEST_ID_REUSED
    async with engine.open("c2") as second:
        assert (one.number, two.number, second.budget_change_number()) == (1, 2, 2)
        assert [one, two] == list(await second.budget_changes_after(0, 10))
        assert [two] == list(await second.budget_changes_after(1, 10))
        assert len(await second.page(EventFilter(type="budget."), 0, 10)) == 2


async def test_old_bodies_are_dropped_and_the_tree_stays(store):
    """Only what is old, covered and before the limit loses its content, each record once; places and roots stay."""
    emitter = Emitter()
    await store.append("sidecar-1", emitter.calls(5), 10)
    await store.append("sidecar-1", emitter.calls(5), 20)
    head = store.tree_head()
    assert [await store.drop_bodies(20, 4, 3) for _ in range(3)] == [3, 1, 0]
    assert await store.drop_bodies(20, 10, 100) == 1
    assert await store.drop_bodies(20, 10, 100) == 0
    stored = await store.page(EventFilter(), 0, 20)
    assert [bool(one.record.body) for one in stored] == [False] * 5 + [True] * 5
    assert [one.position for one in await store.page(EventFilter(key="anthropic-prod"), 0, 20)] == [6, 7, 8, 9, 10]
    assert head.root == await store.read_tree(lambda node: root_of(10, node))


async def test_what_a_follower_remembers_moves_with_its_place(engine):
    """Place, memory and events are one; a key is replaced and forgotten; another follower has its own."""
    alarm = Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED)
    async with engine.open("c1") as first:
        assert await first.follower("alerts") is None
        await first.advance("alerts", 3, {"a": {"n": 1}, "b": {"n": 2}}, [alarm, alarm])
        await first.advance("alerts", 5, {"a": None, "b": {"n": 3, "why": "x"}})
        await first.advance("other", 1, {})
    async with engine.open("c2") as second:
        state = await second.follower("alerts")
        assert (state.position, dict(state.memory)) == (5, {"b": {"n": 3, "why": "x"}})
        assert (await second.follower("other")).memory == {}
        assert second.last_position() == 2


async def test_a_place_that_another_has_moved_is_not_moved_back(engine):
    """Of two that follow as one, the later finds the place elsewhere: nothing is noted, and no event recorded."""
    alarm = Event(EventType.FINDING_ODD_HOUR, 5, Outcome.ALLOWED)
    async with engine.open("c1") as store:
        await store.advance("anomalies", 3, {})
        await store.advance("anomalies", 5, {"a": {"n": 1}}, [alarm], since=3)
        for events in ([alarm], []):
            with pytest.raises(Refusal) as refused:
                await store.advance("anomalies", 9, {"a": {"n": 2}}, events, since=3)
            assert refused.value.reason is Reason.CONCURRENT_UPDATE
        state = await store.follower("anomalies")
        assert (state.position, state.memory) == (5, {"a": {"n": 1}})
        assert [one.type for one in await store.page(EventFilter(), 0, 9)] == ["finding.odd_hour"]
