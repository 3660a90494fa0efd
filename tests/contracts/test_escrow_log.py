"""What every escrow log promises, asked of the one in memory and of the one on disk."""

from contextlib import aclosing

import pytest
from tests.fakes.memory_escrow_log import MemoryEscrowLog

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.windows import Window
from leasehold_broker.ports.escrow_log import StoredSlice


def a_slice(fence: int, **more) -> StoredSlice:
    """A slice of a day."""
    members = {
        "budget": "fleet:everything|day",
        "metric": Metric.COST_MICRO_USD,
        "window": Window(0, 86_400_000),
        "sidecar": "sidecar-1",
        "life": "life-1",
        "granted": 100,
        "returned": 10,
        "reported": 20,
        "written_off": 0,
        "state": SliceState.OPEN,
    } | more
    return StoredSlice(fence=fence, **members)


@pytest.fixture(params=["memory", "sqlite"])
async def log(request, tmp_path):
    """Both."""
    if request.param == "memory":
        yield MemoryEscrowLog()
        return
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield store
    await store.close()


async def test_what_was_put_is_found_again_and_the_last_word_counts(log):
    """Slices by fence, replaced as a whole, with the highest fence that was ever used."""
    assert await log.slices() == (0, [])
    await log.put_slices(2, [a_slice(1), a_slice(2, sidecar="sidecar-2")], [])
    await log.put_slices(2, [a_slice(1, granted=150, state=SliceState.WRITTEN_OFF, written_off=120)], [])
    fence, found = await log.slices()
    assert fence == 2
    assert found == [
        a_slice(1, granted=150, state=SliceState.WRITTEN_OFF, written_off=120),
        a_slice(2, sidecar="sidecar-2"),
    ]


async def test_a_fence_is_never_used_again_even_when_its_slice_is_forgotten(log):
    """E7: the highest fence outlives its slice, and does not fall."""
    await log.put_slices(7, [a_slice(7)], [])
    await log.forget_slices([7, 3])
    assert await log.slices() == (7, [])
    await log.put_slices(5, [], [])
    assert await log.slices() == (7, [])


async def test_slices_survive_the_process_with_their_events(tmp_path):
    """On disk: after a restart they are as they were, and the events are in the log."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    event = Event(EventType.BUDGET_SLICE_GRANTED, 1, Outcome.ALLOWED, details={"fence": 1})
    await store.put_slices(1, [a_slice(1, window=Window(0, 0))], [event])
    await store.close()
    async with aclosing(Closing(CollectorStore(tmp_path / "c.db", "collector", "c2"))) as again:
        assert await again.store.slices() == (1, [a_slice(1, window=Window(0, 0))])
        assert len(await again.store.page(EventFilter(type="budget.slice_granted"), 0, 9)) == 1


class Closing:
    """A store with the word that `aclosing` knows."""

    def __init__(self, store: CollectorStore) -> None:
        """Of this store."""
        self.store = store

    async def aclose(self) -> None:
        """Close."""
        await self.store.close()
