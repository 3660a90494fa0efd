"""A flood of refusals: each is audited before it is answered, and the spool grows with time, not with the flood."""

import asyncio
import json

from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows import refusals
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.refusals import EACH_PER_SECOND, RecordRefusal

FLOOD = 500
PEER = Peer(uid=1000)
NO = Refusal(Reason.LEASE_UNKNOWN, "no")


async def flood(recorder, peer, count):
    """`count` refusals of one kind, all at once."""
    await asyncio.gather(*(recorder.call_refused(NO, peer, "", None, "anthropic", "", None) for _ in range(count)))


async def test_a_flood_is_folded_and_every_refusal_is_counted(monkeypatch):
    """Beyond its allowance a peer's refusals share events, whose counts add up to all of them."""
    monkeypatch.setattr(refusals, "FOLD_SECONDS", 0.01)
    clock = ManualClock()
    store = MemoryStateStore(MemoryDisk(), clock)
    recorder = RecordRefusal(Books(), store, clock)

    await flood(recorder, PEER, FLOOD)

    found = await store.pending_after(0, 10_000)
    details = [json.loads(pending.record.body)["details"] for pending in found]
    assert len(details) == 2 * EACH_PER_SECOND + 1
    assert sum(one.get("count", 1) for one in details) == FLOOD


async def test_another_peer_is_not_slowed_by_a_flood(monkeypatch):
    """The allowance is each peer's own: the neighbour's refusal has an event of its own, at once."""
    monkeypatch.setattr(refusals, "FOLD_SECONDS", 0.01)
    clock = ManualClock()
    store = MemoryStateStore(MemoryDisk(), clock)
    recorder = RecordRefusal(Books(), store, clock)
    await flood(recorder, PEER, FLOOD)

    await flood(recorder, Peer(uid=2000), 1)

    last = json.loads((await store.pending_after(0, 10_000))[-1].record.body)["details"]
    assert last["peer"] == "uid:2000"
    assert "count" not in last


async def test_the_allowance_comes_back_with_time(monkeypatch):
    """A second later the peer's refusals have events of their own again."""
    monkeypatch.setattr(refusals, "FOLD_SECONDS", 0.01)
    clock = ManualClock()
    store = MemoryStateStore(MemoryDisk(), clock)
    recorder = RecordRefusal(Books(), store, clock)
    await flood(recorder, PEER, FLOOD)
    before = len(await store.pending_after(0, 10_000))

    clock.advance(1.0)
    await flood(recorder, PEER, 3)

    assert len(await store.pending_after(0, 10_000)) == before + 3
