"""Sinks fed from the log: each at its own pace, at least once, through failures and restarts; required ones hold up."""

import asyncio
import contextlib

import pytest
from tests.fakes.centre import Centre, Sidecar, eventually
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.feed_sinks import FeedSink, RequiredSinks, SinkRule
from leasehold_broker.ports.event_sink import SinkFailedError


class RememberingSink:
    """Implements the port; takes what comes, unless told to fail or to hang."""

    def __init__(self):
        """Takes everything."""
        self.taken = []
        self.failures = 0
        self.open = asyncio.Event()
        self.open.set()

    async def deliver(self, records):
        """As the port says."""
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise SinkFailedError("told to")
        self.taken += [stored.position for stored in records]

    async def close(self):
        """As the port says."""


@pytest.fixture
async def store(tmp_path):
    """A store of one life."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def fed(store, sink, name="siem", *, required=False, lag=100, types=(), from_start=True, told=lambda *_: None):
    """A feed that runs."""
    rule = SinkRule(name, required, lag, types, from_start, retry_first_seconds=0.01)
    feed = FeedSink(rule, sink, store, store, told)
    await feed.start()
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_sink_gets_everything_in_order_across_restarts(store):
    """It goes on where it was, from its cursor in the store."""
    emitter, sink = Emitter(), RememberingSink()
    async with asyncio.timeout(240):
        for _ in range(3):
            async with fed(store, sink) as feed:
                await store.append("sidecar-1", emitter.calls(200), 1)
                await store.append("sidecar-1", emitter.calls(50), 1)
                await eventually(lambda feed=feed: feed.lag_records() == 0)
    assert sink.taken == list(range(1, 751))


async def test_a_defect_of_ours_shows_as_a_sink_that_fails(store):
    """Whoever keeps it running begins it anew; meanwhile it is told, and it is over with the next batch that goes."""
    told = []

    class Broken(RememberingSink):
        async def deliver(self, records):
            if not told:
                raise NotImplementedError
            await super().deliver(records)

    await store.append("sidecar-1", Emitter().calls(5), 1)
    sink = Broken()
    rule = SinkRule("siem", required=False, lag_records_max=100, from_start=True)
    feed = FeedSink(rule, sink, store, store, lambda *what: told.append(what))
    await feed.start()
    with pytest.raises(NotImplementedError):
        await feed.run()
    assert (feed.state.failing, feed.state.failures, told) == (
        "NotImplementedError",
        1,
        [("siem", "NotImplementedError")],
    )
    task = asyncio.create_task(feed.run())
    async with asyncio.timeout(240):
        await eventually(lambda: feed.lag_records() == 0 and not feed.state.failing)
    task.cancel()
    await asyncio.wait([task])
    assert sink.taken == [1, 2, 3, 4, 5]


async def test_a_batch_that_failed_is_sent_again(store):
    """Nothing is skipped; failures are counted, and told once, as is their end."""
    sink, told = RememberingSink(), []
    sink.failures = 3
    await store.append("sidecar-1", Emitter().calls(5), 1)
    async with asyncio.timeout(240), fed(store, sink, told=lambda *what: told.append(what)) as feed:
        await eventually(lambda: feed.lag_records() == 0)
        assert (feed.state.failures, feed.state.failing, feed.state.delivered) == (3, "", 5)
    assert told == [("siem", "told to"), ("siem", "")]
    assert sink.taken == [1, 2, 3, 4, 5]


async def test_a_batch_whose_cursor_was_not_written_comes_twice(store, monkeypatch):
    """Killed between delivery and the cursor: at least once, never less."""
    sink = RememberingSink()
    await store.append("sidecar-1", Emitter().calls(2), 1)
    feed = FeedSink(SinkRule("siem", required=False, lag_records_max=9, from_start=True), sink, store, store)
    await feed.start()

    async def killed(*_):
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(store, "move_cursor", killed)
        with pytest.raises(asyncio.CancelledError):
            await feed.run()
    async with asyncio.timeout(240), fed(store, sink) as again:
        await eventually(lambda: again.lag_records() == 0)
    assert sink.taken == [1, 2, 1, 2]


async def test_a_stuck_sink_holds_up_no_other(store):
    """One hangs, one fails for ever; the third has everything."""
    stuck, failing, good = RememberingSink(), RememberingSink(), RememberingSink()
    stuck.open.clear()
    failing.failures = 10**9
    async with (
        asyncio.timeout(240),
        fed(store, stuck, "stuck") as one,
        fed(store, failing, "failing") as two,
        fed(store, good, "good") as three,
    ):
        await store.append("sidecar-1", Emitter().calls(200), 1)
        await eventually(lambda: three.lag_records() == 0)
        assert (one.lag_records(), two.lag_records()) == (200, 200)
    assert len(good.taken) == 200


async def test_types_choose_and_a_new_sink_begins_where_it_is_told(store):
    """A prefix of types, from now on or from the oldest event."""
    emitter = Emitter()
    bodies = [b'{"outcome":"allowed","type":"%b","wall_ms":1}' % name for name in (b"lease.acquired", b"call.settled")]
    await store.append("sidecar-1", [emitter.put(body) for body in bodies], 1)
    late, chosen = RememberingSink(), RememberingSink()
    async with (
        asyncio.timeout(240),
        fed(store, late, "late", from_start=False) as one,
        fed(store, chosen, "chosen", types=("lease.",)) as two,
    ):
        await store.append("sidecar-1", [emitter.put(body) for body in bodies], 1)
        await eventually(lambda: one.lag_records() == 0 and two.lag_records() == 0)
    assert late.taken == [3, 4]
    assert chosen.taken == [1, 3]


async def test_a_required_sink_that_lags_stops_the_log(store):
    """Beyond its bound the log takes no more, with a reason that names the sink; a best-effort one never stops it."""
    sink = RememberingSink()
    sink.failures = 10**9
    await store.append("sidecar-1", Emitter().calls(10), 1)
    async with (
        fed(store, sink, "siem", required=True, lag=10) as needed,
        fed(store, sink, "other", required=False, lag=1) as best_effort,
    ):
        required = RequiredSinks([needed, best_effort])
        required.check()
        await store.append("sidecar-2", Emitter("sidecar-2").calls(1), 1)
        await eventually(lambda: needed.state.failing)
        with pytest.raises(Refusal, match="required sink 'siem' lacks 11 events") as refused:
            required.check()
        assert (refused.value.reason, refused.value.detail) == (Reason.AUDIT_SINK_BEHIND, "told to")
        sink.failures = 0
        await eventually(lambda: needed.lag_records() == 0)
        required.check()


async def test_events_wait_at_the_sidecar_while_a_required_sink_lags(tmp_path):
    """Nothing is acknowledged or stored of what was refused; all arrives once the sink has caught up (A3)."""
    behind = True

    def may_take():
        if behind:
            raise Refusal(Reason.AUDIT_SINK_BEHIND, "the required sink 'siem' lacks events", retry_after_seconds=0.1)

    async with asyncio.timeout(240), Centre(tmp_path, may_take=may_take) as centre, Sidecar(centre.target) as sidecar:
        sidecar.emit(5)
        await eventually(lambda: Reason.AUDIT_SINK_BEHIND in sidecar.link.counters.failures)
        assert len(sidecar.outbox.kept) == 5
        assert sidecar.link.counters.records_acknowledged == 0
        behind = False
        await sidecar.outbox.empty()
        heads = {head.stream: head.sequence for head in await centre.store.heads()}
        assert heads["sidecar-1"] == 5
        assert centre.records.refusals[Reason.AUDIT_SINK_BEHIND] > 0
