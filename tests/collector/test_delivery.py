"""Delivery over the link, from the sidecar's own spool: a silent collector, a full spool, damage, two copies."""

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tests.fakes.centre import Centre, MemoryOutbox, Sidecar, eventually
from tests.fakes.manual_clock import ManualClock
from tests.fakes.rpc import SystemClock
from tests.fakes.streams import Emitter, call_event

from leasehold_broker.adapters.collector_link import CollectorLink
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import LifeState
from leasehold_broker.flows.feed_sinks import FeedSink, SinkRule
from leasehold_broker.flows.retain import DAY_MS, Retain


@asynccontextmanager
async def linked(target, outbox):
    """A link that ships this outbox."""
    sidecar = Sidecar(target)
    link = CollectorLink(sidecar.settings, outbox, sidecar.sink, lambda: (), sidecar.budget_tie, sidecar.clock)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def sequences(store, stream="sidecar-1"):
    """What the collector has of a stream, in its order."""
    found, position = [], 0
    while page := await store.page(EventFilter(stream=stream), position, 500):
        found += [one.record.sequence for one in page]
        position = page[-1].position
    return found


async def test_a_collector_that_is_away_fills_the_spool_and_then_gets_everything(tmp_path):
    """Work goes on until the bound, is refused with a typed reason, and goes on again; nothing is lost or doubled."""
    state = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits(spool_bytes_max=100_000))
    state.load()
    target, committed = f"unix:{tmp_path / 'collector.sock'}", 0
    async with asyncio.timeout(240), linked(target, state) as link:
        with pytest.raises(Refusal) as refused:  # noqa: PT012 - how many fit is not the point
            while committed < 10_000:
                await state.commit([call_event(committed)])
                committed += 1
        assert refused.value.reason is Reason.AUDIT_SPOOL_FULL
        assert link.counters.records_acknowledged == 0
        await state.commit([call_event(committed)], essential=True)
        async with Centre(tmp_path) as centre:
            await eventually(lambda: link.counters.records_acknowledged == committed + 1)
            await state.trim()
            await state.commit([call_event(committed + 1)])
            await eventually(lambda: link.counters.records_acknowledged == committed + 2)
            assert await sequences(centre.store) == list(range(1, committed + 3))
    await state.close()


async def test_damage_in_the_spool_is_found_counted_and_stops_the_sidecar(tmp_path):
    """What is good before it is delivered; the damaged record and what follows are not, and authority is gone."""
    state = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits())
    state.load()
    for number in range(300):
        await state.commit([call_event(number)])
    await state.close()
    connection = sqlite3.connect(tmp_path / "state" / "state.db")
    with connection:
        connection.execute("UPDATE outbox SET body = zeroblob(20) WHERE sequence = 250")
    connection.close()
    state = SqliteStateStore(tmp_path / "state", "sidecar-1", SystemClock(), StoreLimits())
    state.load()
    async with asyncio.timeout(240), Centre(tmp_path) as centre, linked(centre.target, state) as link:
        await eventually(lambda: link.counters.spool_damaged > 0)
        await eventually(lambda: link.authority_lapsed_seconds(SystemClock().now()) is not None)
        assert "SPOOL_DAMAGED" in link.counters.failures
        assert await sequences(centre.store) == list(range(1, 250))
    await state.close()


async def test_after_damage_a_new_state_directory_is_a_new_life_with_a_flag(tmp_path):
    """The operators move the damaged directory away: the next life goes on, and the lost tail shows (A6)."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        async with Sidecar(centre.target, epoch="e1") as sidecar:
            sidecar.emit(3)
            await sidecar.outbox.empty()
        async with Sidecar(centre.target, epoch="e2") as sidecar:
            sidecar.emit(2)
            await sidecar.outbox.empty()
        states = [head.state for head in await centre.store.heads() if head.stream == "sidecar-1"]
        assert states == [LifeState.TAIL_UNKNOWN, LifeState.OPEN]
        own = await centre.store.page(EventFilter(type="audit.tail_unknown"), 0, 10)
        assert json.loads(own[0].record.body)["details"]["last_sequence"] == 3


@pytest.mark.parametrize("wrong", ["body", "digest", "order"])
async def test_a_record_that_is_not_what_was_written_is_never_sent(tmp_path, wrong):
    """Each way in which a record can be damaged is seen before it leaves."""
    good = Emitter().calls(4)
    bad = {
        "body": replace(good[2], body=b"{}"),
        "digest": replace(good[2], digest=bytes(32)),
        "order": good[3],
    }[wrong]
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        outbox = MemoryOutbox()
        outbox.put(good[0], good[1], bad)
        async with linked(centre.target, outbox) as link:
            await eventually(lambda: link.counters.spool_damaged > 0)
        assert await sequences(centre.store) == [1, 2]
        assert not any(reason in link.counters.failures for reason in (Reason.AUDIT_CHAIN_BROKEN, "LINK_BROKEN"))


async def test_two_sessions_that_ship_one_stream_store_it_once(tmp_path):
    """An old connection and a new one of one process: whatever the interleaving, each is stored once (A2)."""
    records = Emitter().calls(1500)
    async with asyncio.timeout(240), Centre(tmp_path) as centre:
        outboxes = [MemoryOutbox(), MemoryOutbox()]
        for outbox in outboxes:
            outbox.put(*records)
        async with linked(centre.target, outboxes[0]), linked(centre.target, outboxes[1]):
            await asyncio.gather(*(outbox.empty() for outbox in outboxes))
        assert await sequences(centre.store) == list(range(1, 1501))


async def test_a_collector_restored_from_an_older_copy_goes_on_once_gaps_are_accepted(tmp_path):
    """Closed first, and loudly; with the operators' word the hole is an event and the rest arrives."""
    emitter = Emitter()
    outbox = MemoryOutbox()
    kept = CollectorStore(tmp_path / "collector.db", "collector", "c0")
    await kept.append("sidecar-1", emitter.calls(5), 1)
    await kept.close()
    emitter.calls(10)
    outbox.put(*emitter.calls(3))
    async with asyncio.timeout(240):
        async with Centre(tmp_path, "c1") as centre, linked(centre.target, outbox) as link:
            await eventually(lambda: Reason.AUDIT_CHAIN_BROKEN in link.counters.failures)
            assert len(outbox.kept) == 3
        async with Centre(tmp_path, "c2", accept_gaps=True) as centre, linked(centre.target, outbox):
            await outbox.empty()
            assert await sequences(centre.store) == [1, 2, 3, 4, 5, 16, 17, 18]
            (told,) = await centre.store.page(EventFilter(type="audit.gap_accepted"), 0, 10)
            details = json.loads(told.record.body)["details"]
            assert (details["first_missing"], details["last_missing"]) == (6, 15)


class Nowhere:
    """A sink that takes nothing."""

    async def deliver(self, _records):
        """Never returns."""
        await asyncio.Event().wait()

    async def close(self):
        """As the port says."""


async def test_content_is_dropped_only_when_it_is_signed_and_delivered(tmp_path):
    """Not before a checkpoint covers it, not while a required sink lacks it, never when the clock has jumped."""
    clock = ManualClock()
    jumps = []
    async with asyncio.timeout(240), Centre(tmp_path, clock=clock) as centre:
        store = centre.store
        await store.append("sidecar-1", Emitter().calls(20), clock.now().wall_ms)
        await centre.publish.step()
        needed = FeedSink(SinkRule("siem", required=True, lag_records_max=9), Nowhere(), store, store)
        needed.state.position = 15
        retain = Retain(store, store, clock, centre.publish, [needed], jumps.append)
        assert await retain.run(1) == 0
        clock.advance(2 * DAY_MS / 1000)
        await store.append("sidecar-2", Emitter("sidecar-2").calls(5), clock.now().wall_ms)
        assert await retain.run(1) == 15
        needed.state.position = 10**6
        assert await retain.run(1) == 5
        assert await retain.run(1) == 0
        (one, two) = await store.page(EventFilter(type="audit.bodies_dropped"), 0, 10)
        assert [json.loads(stored.record.body)["details"]["count"] for stored in (one, two)] == [15, 5]
        clock.wall_ms += 400 * DAY_MS
        assert await retain.run(1) == 0
        assert jumps == [400 * DAY_MS]
