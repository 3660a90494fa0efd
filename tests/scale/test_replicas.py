"""Several replicas over one PostgreSQL: one order, no two heads of one size, nothing lost, nothing doubled."""

import asyncio
import contextlib
import json

import asyncpg
import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.streams import Emitter, call_event

from leasehold.audit import Record
from leasehold.audit import verify as verify_by_client
from leasehold_broker.adapters.postgres_collector import PostgresAt, open_store
from leasehold_broker.adapters.postgres_collector.schema import migrate
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.merkle import Frontier, root_of
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey
from leasehold_broker.ports.revocation_issuer import RevocationDraft

STARTED = Event(EventType.COLLECTOR_STARTED, 5, Outcome.ALLOWED)


@pytest.fixture(name="shared")
def shared_database(postgres):
    """An empty schema, with partitions so small that a test outgrows several."""
    return PostgresEngine(postgres, partition_records=512)


def draft(number: int) -> RevocationDraft:
    """A responder's checked wish."""
    return RevocationDraft(ByKey(f"k{number}"), "leaked", "alice", f"r{number}", 5)


def described(entry) -> Event:
    """The event of an entry."""
    return Event(EventType.REVOCATION_ISSUED, entry.create_wall_ms, Outcome.ALLOWED, details={"epoch": entry.epoch})


async def whole(store):
    """Every record of the log, held against chain, places and tree."""
    found = []
    while page := await store.page(EventFilter(), found[-1].position if found else 0, 1000):
        found.extend(page)
    assert [one.position for one in found] == list(range(1, len(found) + 1))
    frontier = Frontier()
    for one in found:
        frontier.append([entry_hash(one.record)])
    assert store.tree_head() == TreeHead(len(found), frontier.root())
    assert frontier.root() == await store.read_tree(lambda node: root_of(len(found), node))
    records = (
        Record(
            one.position,
            one.record.stream,
            one.record.epoch,
            one.record.sequence,
            one.record.previous_digest,
            one.record.digest,
            one.record.body,
        )
        for one in found
    )
    assert verify_by_client(("", record) for record in records).holds
    return found


async def caught_up(*stores):
    """Return once every replica knows the longest log."""
    longest = max(store.last_position() for store in stores)
    async with asyncio.timeout(240):
        for store in stores:
            await store.wait_for_more(longest - 1)


async def test_replicas_that_write_at_once_make_one_log(shared):
    """Many streams through three replicas, with repeats and revocations between: one order, exact once (A2, A5)."""
    async with (
        shared.open("a1", stream="collector-a") as one,
        shared.open("b1", stream="collector-b") as two,
        shared.open("c1", stream="collector-c") as three,
    ):
        replicas = (one, two, three)

        async def ship(number: int) -> None:
            emitter = Emitter(f"sidecar-{number}")
            for batch in range(10):
                records = emitter.calls(20)
                await replicas[(number + batch) % 3].append(emitter.stream, records, batch)
                await replicas[(number + batch + 1) % 3].append(emitter.stream, records, batch)

        issued = asyncio.gather(*(replicas[number % 3].issue(draft(number), described) for number in range(9)))
        await asyncio.gather(*(ship(number) for number in range(9)))
        entries = await issued
        for replica in replicas:
            await replica.record(STARTED)
        await caught_up(*replicas)
        found = await whole(one)
        assert len(found) == 9 * 200 + 9 + 3
        assert sorted(entry.epoch for entry in entries) == list(range(1, 10))
        heads = {replica.tree_head() for replica in replicas}
        assert len(heads) == 1
        for replica in replicas:
            assert [entry.epoch for entry in await replica.after(0, 100)] == list(range(1, 10))


async def test_two_replicas_that_both_serve_one_stream_take_each_record_once(shared):
    """The same batches through both at once: each is stored once, and both acknowledge (A2, A3)."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b") as two:
        emitter = Emitter()
        for _ in range(10):
            records = emitter.calls(30)
            heads = await asyncio.gather(
                one.append("sidecar-1", records, 1),
                two.append("sidecar-1", records, 1),
                one.append("sidecar-1", records, 1),
            )
            assert {head.sequence for head in heads} == {emitter.sequence}
        await caught_up(one, two)
        assert len(await whole(two)) == 300


async def test_a_fork_through_another_replica_is_refused(shared):
    """Two copies of one sidecar, each at a replica: the first record at a place stays, the other is refused."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b") as two:
        here, there = Emitter(), Emitter()
        await one.append("sidecar-1", here.calls(2), 1)
        with pytest.raises(Refusal) as refused:
            await two.append("sidecar-1", [there.emit(call_event(8)), there.emit(call_event(9))], 1)
        assert refused.value.reason is Reason.AUDIT_CHAIN_BROKEN
        await one.append("sidecar-1", Emitter(epoch="e2").calls(1), 1)
        with pytest.raises(Refusal) as refused:
            await two.append("sidecar-1", here.calls(1), 1)
        assert refused.value.reason is Reason.AUDIT_EPOCH_FENCED


async def test_a_replica_whose_name_was_taken_over_writes_nothing_more(shared):
    """Two processes with one replica's name: the later life fences the earlier, in its own stream and in all others."""
    async with shared.open("a1", stream="collector") as old, shared.open("a2", stream="collector") as new:
        await old.record(STARTED)
        await new.record(STARTED)
        for attempt in (
            old.record(STARTED),
            old.append("sidecar-1", Emitter().calls(1), 1),
            old.issue(draft(1), described),
        ):
            with pytest.raises(Refusal) as refused:
                await attempt
            assert refused.value.reason is Reason.AUDIT_EPOCH_FENCED
        await new.append("sidecar-1", Emitter().calls(1), 1)
        assert [one.record.stream for one in await whole(new)] == ["collector", "collector", "sidecar-1"]


async def test_no_sidecar_writes_the_stream_of_another_replica(shared):
    """A sidecar named like any replica could forge its events: refused by every replica."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b"):
        with pytest.raises(Refusal) as refused:
            await one.append("collector-b", Emitter("collector-b").calls(1), 1)
        assert refused.value.reason is Reason.SIDECAR_BANNED


async def test_what_one_replica_issues_wakes_every_other(shared):
    """A revocation and a record are known everywhere without being asked for, in order (R5)."""
    woken = asyncio.Event()
    async with (
        shared.open("a1", stream="collector-a") as one,
        shared.open("b1", stream="collector-b", issued=woken.set) as two,
    ):
        for number in range(3):
            woken.clear()
            entry = await one.issue(draft(number), described)
            async with asyncio.timeout(240):
                while two.epoch() < entry.epoch:
                    await woken.wait()
                    woken.clear()
            assert entry == (await two.after(number, 10))[0]
        await caught_up(one, two)
        assert one.tree_head() == two.tree_head()


async def test_a_lost_notification_costs_a_poll(shared):
    """Without any notification a replica still learns of what others wrote."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b") as two:
        two._follower._on_notification = lambda *_: None
        two._follower._notified = _Deaf()
        await one.append("sidecar-1", Emitter().calls(3), 1)
        async with asyncio.timeout(240):
            await two.wait_for_more(2)


class _Deaf(asyncio.Event):
    """Is never set."""

    def set(self) -> None:
        """Not."""


async def test_a_turn_that_breaks_off_leaves_nothing_and_frees_the_log(shared, postgres):
    """The appender's session is ended while it holds the head: nothing of its turn is there, and others go on."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b") as two:
        emitter = Emitter()
        await one.append("sidecar-1", emitter.calls(3), 1)
        records = emitter.calls(3)
        holding = asyncio.Event()

        async def work(turn) -> None:
            await turn.append("sidecar-1", one._appender.writer.check(records), 1)
            holding.set()
            with contextlib.suppress(asyncpg.PostgresError):
                await turn._connection.execute("SELECT pg_sleep(20)")
            await turn._connection.fetchval("SELECT 1")

        stuck = asyncio.create_task(one._appender.submit(work, {"sidecar-1": {"e1"}}, 3))
        await holding.wait()
        waits = asyncio.create_task(two.append("sidecar-2", Emitter("sidecar-2").calls(2), 1))
        async with asyncio.timeout(240):
            while not await _ended(postgres):  # noqa: ASYNC110 - a session tells nobody what it does
                await asyncio.sleep(0.02)
            with pytest.raises(Refusal) as refused:
                await stuck
            await waits
        assert refused.value.reason is Reason.STORE_UNAVAILABLE
        head = await one.append("sidecar-1", records, 1)
        assert head.sequence == 6
        await caught_up(one, two)
        assert len(await whole(one)) == 8


async def _ended(postgres) -> bool:
    """End the session that sleeps."""
    connection = await asyncpg.connect(postgres.url())
    try:
        return bool(
            await connection.fetchval(
                "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)'"
            )
        )
    finally:
        await connection.close()


async def test_no_two_checkpoints_of_one_size_differ(shared):
    """Two leaders may sign the same head; another root of the same size is refused, loudly (A5)."""
    async with shared.open("a1", stream="collector-a") as one, shared.open("b1", stream="collector-b") as two:
        await one.append("sidecar-1", Emitter().calls(3), 1)
        await caught_up(one, two)
        for store in (one, two):
            await store.keep_checkpoint(SignedCheckpoint(store.tree_head(), b"note", 1))
        with pytest.raises(Refusal, match="two histories"):
            await two.keep_checkpoint(SignedCheckpoint(TreeHead(3, bytes(32)), b"note", 1))
        assert (await two.newest_checkpoint()).head == one.tree_head()


async def test_an_altered_edge_stops_the_log(shared, postgres):
    """A database that was edited below us is found before anything is put on top of it."""
    async with shared.open("a1", stream="collector-a") as one:
        await one.append("sidecar-1", Emitter().calls(3), 1)
        postgres.sql(f"UPDATE {shared.at.schema}.edge SET hashes = sha256('') || substr(hashes, 33)")
    async with shared.open("b1", stream="collector-b") as two:
        with pytest.raises(Refusal) as refused:
            await two.append("sidecar-2", Emitter("sidecar-2").calls(1), 1)
        assert "altered" in refused.value.detail
        assert two.last_position() == 3


def duty(name: str, leads: list[str], begun: dict[str, asyncio.Event]):
    """A duty that notes who does it."""

    async def work() -> None:
        leads.append(name)
        begun[name].set()
        try:
            await asyncio.Event().wait()
        finally:
            leads.remove(name)

    return work


async def test_one_replica_leads_and_another_follows_it(shared, postgres):
    """Each duty is done by one; when its session ends it is cancelled there, and taken up again."""
    leads: list[str] = []
    begun = {"a": asyncio.Event(), "b": asyncio.Event(), "other": asyncio.Event()}
    async with (
        asyncio.timeout(240),
        shared.open("a1", stream="collector-a") as one,
        shared.open("b1", stream="collector-b") as two,
    ):
        first = asyncio.create_task(one.leadership.lead("signing", duty("a", leads, begun)))
        await begun["a"].wait()
        second = asyncio.create_task(two.leadership.lead("signing", duty("b", leads, begun)))
        third = asyncio.create_task(two.leadership.lead("sink siem", duty("other", leads, begun)))
        await begun["other"].wait()
        assert leads == ["a", "other"]
        first.cancel()
        await begun["b"].wait()
        assert sorted(leads) == ["b", "other"]
        begun["b"].clear()
        begun["other"].clear()
        held = "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
        postgres.sql(f"SELECT pg_terminate_backend(pid) FROM ({held}) l")
        await begun["b"].wait()
        await begun["other"].wait()
        assert sorted(leads) == ["b", "other"]
        for task in (second, third):
            task.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
    assert leads == []


async def test_a_duty_that_fails_tells_and_lets_another_try(shared):
    """Its fault is the caller's to see; the lead is free at once."""

    async def fails() -> None:
        raise OSError("disk")

    leads: list[str] = []
    begun = {"b": asyncio.Event()}
    async with (
        asyncio.timeout(240),
        shared.open("a1", stream="collector-a") as one,
        shared.open("b1", stream="collector-b") as two,
    ):
        with pytest.raises(OSError, match="disk"):
            await one.leadership.lead("signing", fails)
        other = asyncio.create_task(two.leadership.lead("signing", duty("b", leads, begun)))
        await begun["b"].wait()
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_replicas_that_start_together_make_the_schema_once(postgres):
    """Eight at once: one makes it, the others find it."""
    at = PostgresAt(postgres.url(), "test_together", partition_records=512)
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(
            *(stack.enter_async_context(open_store(at, f"collector-{number}", "c1")) for number in range(8))
        )
        assert postgres.sql("SELECT count(*) - max(version) FROM test_together.schema_version") == "0"
        assert postgres.sql("SELECT count(*) FROM test_together.replicas") == "8"


async def test_a_schema_of_a_newer_version_is_left_alone(shared, postgres):
    """An older program does not touch what a newer one has made."""
    async with shared.open("a1", stream="collector-a"):
        pass
    postgres.sql(f"INSERT INTO {shared.at.schema}.schema_version VALUES (99)")
    with pytest.raises(ValueError, match="version 99"):
        async with shared.open("a2", stream="collector-a"):
            pass
    connection = await asyncpg.connect(**shared.at.settings())
    with pytest.raises(ValueError, match="update it"):
        await migrate(connection, shared.at.schema)
    await connection.close()


async def test_a_server_that_is_not_there_is_told(tmp_path):
    """No server, or a wrong password: a refusal that says what failed, without the password."""
    secret = tmp_path / "password"
    secret.write_text("hunter2-hunter2\n")
    at = PostgresAt("postgresql://leasehold@127.0.0.1:1/leasehold", password_file=secret)
    with pytest.raises(Refusal) as refused:
        async with open_store(at, "collector", "c1"):
            pass
    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    assert "hunter2" not in json.dumps([refused.value.message, refused.value.detail])


async def test_a_name_that_needs_quoting_is_refused():
    """The schema's name is written into statements."""
    with pytest.raises(ValueError, match="lower-case"):
        PostgresAt("postgresql://x@h/d", schema='a"; DROP')


async def test_what_follows_records_that_were_taken_out_is_told(shared, postgres):
    """Somebody with the database cannot end a listing by taking records out: the hole shows, and what is after it."""
    async with shared.open("a1", stream="a") as store:
        await store.append("sidecar-1", Emitter().calls(40), 1)
        postgres.sql(f"DELETE FROM {shared.at.schema}.events WHERE position BETWEEN 4 AND 30")
        assert [one.position for one in await store.page(EventFilter(), 3, 5)] == [31, 32, 33, 34, 35]
        assert [one.position for one in await store.page(EventFilter(until_position=32), 3, 5)] == [31, 32]
        assert list(await store.page(EventFilter(), 40, 5)) == []
