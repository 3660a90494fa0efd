"""What every escrow log promises: the one in memory, the one in a file, and the one that replicas share."""

import asyncio

import pytest
from tests.fakes.engines import PostgresEngine, SqliteEngine
from tests.fakes.memory_escrow_log import MemoryEscrowLog

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
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


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def log(request, tmp_path):
    """Each, empty."""
    if request.param == "memory":
        yield MemoryEscrowLog()
    elif request.param == "sqlite":
        async with SqliteEngine(tmp_path).open() as store:
            yield store
    else:
        async with PostgresEngine(request.getfixturevalue("postgres")).open() as store:
            yield store.escrow


async def test_what_was_put_is_found_again_and_the_last_word_counts(log):
    """Slices by fence, replaced as a whole, with the highest fence that was ever used and the version."""
    books = await log.slices()
    assert (books.version, books.fence, list(books.slices)) == (0, 0, [])
    assert await log.put_slices(0, 2, [a_slice(1), a_slice(2, sidecar="sidecar-2")], []) == 1
    last = a_slice(1, granted=150, state=SliceState.WRITTEN_OFF, written_off=120)
    assert await log.put_slices(1, 2, [last], []) == 2
    books = await log.slices()
    assert (books.version, books.fence) == (2, 2)
    assert list(books.slices) == [last, a_slice(2, sidecar="sidecar-2")]


async def test_e1_what_was_decided_upon_an_older_version_is_refused_and_leaves_nothing(log):
    """Neither its slices nor its fence nor its events: who decides anew knows what was put in between."""
    await log.put_slices(0, 1, [a_slice(1)], [])
    with pytest.raises(Refusal) as refused:
        await log.put_slices(0, 9, [a_slice(9)], [])
    assert refused.value.reason is Reason.CONCURRENT_UPDATE
    with pytest.raises(Refusal):
        await log.put_slices(2, 9, [a_slice(9)], [])
    books = await log.slices()
    assert (books.version, books.fence, list(books.slices)) == (1, 1, [a_slice(1)])


async def test_e1_of_many_that_decide_at_once_one_is_first(log):
    """All upon one version: one is stored, and the others are told."""
    await log.put_slices(0, 1, [a_slice(1)], [])
    puts = [log.put_slices(1, 1, [a_slice(1, granted=100 + n)], []) for n in range(8)]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert [one for one in outcomes if not isinstance(one, Refusal)] == [2]
    assert {one.reason for one in outcomes if isinstance(one, Refusal)} == {Reason.CONCURRENT_UPDATE}
    assert (await log.slices()).slices[0].granted == 100 + outcomes.index(2)


async def test_what_has_come_since_a_version_is_found(log):
    """At least what was put after it; nothing for who knows the newest."""
    await log.put_slices(0, 1, [a_slice(1)], [])
    await log.put_slices(1, 2, [a_slice(2)], [])
    assert a_slice(2) in (await log.slices(1)).slices
    newest = await log.slices(2)
    assert (newest.version, list(newest.slices)) == (2, [])


async def test_a_fence_is_never_used_again_even_when_its_slice_is_forgotten(log):
    """E7: the highest fence outlives its slice, and does not fall."""
    await log.put_slices(0, 7, [a_slice(7)], [])
    await log.forget_slices([7, 3])
    books = await log.slices()
    assert (books.fence, list(books.slices)) == (7, [])
    await log.put_slices(1, 5, [], [])
    assert (await log.slices()).fence == 7


async def test_slices_survive_the_process_with_their_events(engine):
    """After a restart they are as they were, and the events are in the log."""
    event = Event(EventType.BUDGET_SLICE_GRANTED, 1, Outcome.ALLOWED, details={"fence": 1})
    endless = a_slice(1, window=Window(0, 0))
    async with engine.open("c1") as store:
        await escrow_log(store).put_slices(0, 1, [endless], [event])
    async with engine.open("c2") as store:
        books = await escrow_log(store).slices()
        assert (books.version, books.fence, list(books.slices)) == (1, 1, [endless])
        assert len(await store.page(EventFilter(type="budget.slice_granted"), 0, 9)) == 1


async def test_an_event_of_a_refused_put_is_not_in_the_log(engine):
    """Slices and their events are one commit: none of both."""
    event = Event(EventType.BUDGET_SLICE_GRANTED, 1, Outcome.ALLOWED, details={"fence": 1})
    async with engine.open("c1") as store:
        with pytest.raises(Refusal):
            await escrow_log(store).put_slices(3, 1, [a_slice(1)], [event])
        assert await store.page(EventFilter(type="budget.slice_granted"), 0, 9) == []
        assert store.last_position() == 0


def escrow_log(store):
    """Of either engine."""
    return getattr(store, "escrow", store)
