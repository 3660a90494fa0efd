"""Over PostgreSQL no revocation waits for the events that sidecars have shipped: not in a queue, a line or a pool."""

import asyncio
import contextlib

import asyncpg
import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.streams import Emitter

from leasehold_broker.adapters.postgres_collector import appender, connections
from leasehold_broker.adapters.postgres_collector.schema import HEAD_LOCK, ORDINARY_LOCK
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND NOT granted"


@pytest.fixture(name="shared")
def shared_database(postgres, monkeypatch):
    """An empty schema, where whoever waits, waits for as long as a busy machine takes."""
    monkeypatch.setattr(connections, "COMMAND_SECONDS_MAX", None)
    for name in ("statement_timeout", "lock_timeout"):
        monkeypatch.setitem(connections._SESSION, name, "0")
    return PostgresEngine(postgres)


@contextlib.asynccontextmanager
async def held(shared, sql, *values):
    """Keep what a statement locks until the context ends; gives a way to see who waits at an advisory lock."""
    connection = await asyncpg.connect(shared.at.url, server_settings={"search_path": shared.at.schema})

    async def waiting(lock: int, count: int) -> None:
        while await connection.fetchval(WAITING, lock) != count:  # noqa: ASYNC110 - a session tells nobody what it does
            await asyncio.sleep(0.01)

    try:
        async with asyncio.timeout(240), connection.transaction():
            await connection.execute(sql, *values)
            yield waiting
    finally:
        await connection.close()


def a_turn_at_the_log(shared):
    """What a turn of some other replica would hold."""
    return held(shared, "SELECT pg_advisory_xact_lock($1, hashtext($2))", HEAD_LOCK, shared.at.schema)


def shipped(store, stream: str):
    """A batch of a sidecar, on its way into the log."""
    return asyncio.create_task(store.append(stream, Emitter(stream).calls(3), 1))


def revoked(store):
    """A revocation, on its way into the log."""
    draft = RevocationDraft(ByKey("k"), "leaked", "alice", "r1", 5)
    event = Event(EventType.REVOCATION_ISSUED, 5, Outcome.ALLOWED, details={"epoch": 1})
    return asyncio.create_task(store.issue(draft, lambda _entry: event))


async def test_of_all_replicas_one_turn_with_events_comes_before_a_revocation(shared):
    """It was asked for after four batches at three replicas, and one of them had asked for the head: that one alone."""
    async with (
        shared.open("a1", stream="collector-a") as one,
        shared.open("b1", stream="collector-b") as two,
        shared.open("c1", stream="collector-c") as three,
    ):
        async with a_turn_at_the_log(shared) as waiting:
            works = [shipped(one, "sidecar-1")]
            await waiting(HEAD_LOCK, 1)
            works += [shipped(one, "sidecar-2"), shipped(two, "sidecar-3"), shipped(three, "sidecar-4")]
            await waiting(ORDINARY_LOCK, 2)
            works.append(revoked(two))
            await waiting(HEAD_LOCK, 2)
        await asyncio.gather(*works)
        found = await one.page(EventFilter(), 0, 100)
    streams = list(dict.fromkeys(each.record.stream for each in found))
    assert streams[:2] == ["sidecar-1", "collector-b"]
    assert sorted(streams[2:]) == ["sidecar-2", "sidecar-3", "sidecar-4"]
    assert found[3].type == EventType.REVOCATION_ISSUED


async def test_a_queue_that_is_full_of_events_refuses_no_revocation(shared, monkeypatch):
    """One more batch is told to come back; a revocation is taken."""
    monkeypatch.setattr(appender, "QUEUE_JOBS_MAX", 1)
    async with shared.open("a1") as store:
        async with a_turn_at_the_log(shared) as waiting:
            works = [shipped(store, "sidecar-1")]
            await waiting(HEAD_LOCK, 1)
            works += [shipped(store, "sidecar-2"), revoked(store)]
            await waiting(HEAD_LOCK, 2)
            with pytest.raises(Refusal) as refused:
                await shipped(store, "sidecar-3")
            assert refused.value.reason is Reason.OVERLOADED
        await asyncio.gather(*works)
        assert store.epoch() == 1


async def test_a_revocation_needs_no_connection_that_others_hold(shared):
    """Reports of sidecars hold all the connections there are for them, and wait; it is committed, and known here."""
    async with shared.open("a1") as store:
        async with held(shared, "LOCK TABLE sidecars"):
            report = SidecarReport(KnownSidecar("sidecar-1", "prod", "1", 0, 1, 1), ())
            reports = [asyncio.create_task(store.heard([report])) for _ in range(20)]
            entry = await revoked(store)
            assert (entry.epoch, store.epoch()) == (1, 1)
            assert [each for each in reports if each.done()] == []
        await asyncio.gather(*reports)
