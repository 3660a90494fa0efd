"""A sidecar's link against a real collector: delivery, revocation, authority, and every way it can break."""

import asyncio
import statistics
import time
import uuid
from dataclasses import replace

import grpc
import pytest
from structlog.testing import capture_logs
from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.manual_clock import ManualClock
from tests.fakes.streams import Emitter

from leasehold.v1 import revocation_service_pb2 as pb
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.domain.revocation_progress import LiveLease
from leasehold_broker.ports.revocation_issuer import RevocationDraft


async def revoke(centre: Centre, request: str = "") -> int:
    """Revoke everything; the epoch."""
    draft = RevocationDraft(Everything(), "", "alice", request or str(uuid.uuid4()), 1)
    return (await centre.issuer.issue(draft)).epoch


async def stored_sequences(store: CollectorStore, stream: str) -> list[int]:
    """Sequences of a stream as stored, in order of position."""
    found, position = [], 0
    while page := await store.page(EventFilter(stream=stream), position, 500):
        found.extend(one.record.sequence for one in page)
        position = page[-1].position
    return found


async def test_events_arrive_in_order_and_are_trimmed(tmp_path):
    """What is committed before and while connected is stored once, in order, and forgotten by the sidecar."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        sidecar.emit(450)
        async with sidecar:
            await sidecar.outbox.empty()
            sidecar.emit(7)
            await sidecar.outbox.empty()
        assert await stored_sequences(centre.store, "sidecar-1") == list(range(1, 458))
        assert sidecar.link.counters.records_acknowledged == 457


async def test_a_restarted_collector_loses_nothing_and_doubles_nothing(tmp_path):
    """The collector is stopped in the middle of shipping and opened again, twice: each record is stored once."""
    async with asyncio.timeout(240):
        sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}")
        sidecar.emit(3000)
        async with sidecar:
            for life in ("c1", "c2"):
                async with Centre(tmp_path, life) as centre:
                    before = centre.store.last_position()
                    await eventually(lambda c=centre, b=before: c.store.last_position() > b + 300)
            sidecar.emit(100)
            async with Centre(tmp_path, "c3") as centre:
                await sidecar.outbox.empty()
                assert await stored_sequences(centre.store, "sidecar-1") == list(range(1, 3101))


async def test_a_lost_acknowledgement_is_harmless(tmp_path):
    """Records that the collector has already are recognised when they are shipped again."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        records = sidecar.emitter.calls(20)
        await centre.ingest.run("sidecar-1", records)
        sidecar.outbox.put(*records, *sidecar.emitter.calls(5))
        async with sidecar:
            await sidecar.outbox.empty()
        assert await stored_sequences(centre.store, "sidecar-1") == list(range(1, 26))


async def test_two_lives_are_shipped_in_order(tmp_path):
    """What an earlier life left in the outbox goes first, under its own epoch."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        sidecar.outbox.put(*Emitter("sidecar-1", "older").calls(3), *Emitter("sidecar-1", "newer").calls(2))
        async with sidecar:
            await sidecar.outbox.empty()
        heads = [(head.epoch, head.sequence) for head in await centre.store.heads() if head.stream == "sidecar-1"]
        assert heads == [("older", 3), ("newer", 2)]


async def test_a_fenced_copy_ships_nothing_and_loses_authority(tmp_path):
    """Once a newer life has written, the older one's records are refused and it may grant no more (E7)."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        older = Emitter("sidecar-1", "e1").calls(2)
        await centre.ingest.run("sidecar-1", older[:1])
        await centre.ingest.run("sidecar-1", Emitter("sidecar-1", "e2").calls(1))
        async with Sidecar(centre.target) as sidecar:
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
            sidecar.outbox.put(*older[1:])
            await eventually(lambda: Reason.AUDIT_EPOCH_FENCED in sidecar.link.counters.failures)
            assert sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is not None
        assert await stored_sequences(centre.store, "sidecar-1") == [1, 1]
        refusals = await centre.store.page(EventFilter(type="audit.refused"), 0, 5)
        assert b"AUDIT_EPOCH_FENCED" in refusals[0].record.body


async def test_a_sidecar_cannot_write_anothers_stream(tmp_path):
    """Records of another stream are refused whole, and the refusal is an event."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        sidecar.outbox.put(*Emitter("sidecar-2").calls(1))
        async with sidecar:
            await eventually(lambda: Reason.SIDECAR_BANNED in sidecar.link.counters.failures)
        assert await stored_sequences(centre.store, "sidecar-2") == []
        assert len(await centre.store.page(EventFilter(type="audit.refused"), 0, 1)) == 1


async def test_an_unconfigured_identity_is_refused(tmp_path):
    """A verified token that no rule names neither syncs nor ships; the sidecar's log has the collector's own words."""
    with capture_logs() as told:
        await _unconfigured(tmp_path)
    details = {line["detail"] for line in told if line.get("reason") == Reason.SIDECAR_BANNED and "detail" in line}
    assert any(words.startswith("this identity is no sidecar of this collector") for words in details), details


async def _unconfigured(tmp_path):
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        async with Sidecar(centre.target, "sidecar-99") as sidecar:
            sidecar.emit(1)
            await eventually(lambda: sidecar.link.counters.failures.get(Reason.SIDECAR_BANNED, 0) >= 2)
            assert sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is not None
        assert centre.fleet.members == {}


async def test_a_sidecar_that_says_another_name_is_refused(tmp_path):
    """The name in Hello must be the one that the identity is configured to be."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target, "sidecar-1")
        sidecar.link._settings = replace(sidecar.settings, sidecar="sidecar-2")
        async with sidecar:
            await eventually(lambda: Reason.SIDECAR_BANNED in sidecar.link.counters.failures)
        assert centre.fleet.members == {}


async def test_revocations_are_applied_in_order_and_acknowledged(tmp_path):
    """Entries from before and during the session arrive once, in order; the collector knows what they ended."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        for _ in range(3):
            await revoke(centre)
        async with Sidecar(centre.target) as sidecar:
            await sidecar.sink.reached(3)
            epoch = await revoke(centre)
            progress = [step async for step in centre.issuer.watch(epoch)]
        assert [entry.epoch for entry in sidecar.sink.applied] == [1, 2, 3, 4]
        last = progress[-1]
        assert last.complete
        row = last.sidecars[0]
        assert (row.sidecar, row.connected, row.applied_epoch) == ("sidecar-1", True, 4)
        assert (row.leases_ended, row.calls_cut) == (2, 1)


async def test_many_missed_revocations_are_caught_up(tmp_path):
    """More entries than one push holds arrive in several, without a gap, before authority is given."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        await asyncio.gather(*(revoke(centre) for _ in range(450)))
        async with Sidecar(centre.target) as sidecar:
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
            assert sidecar.sink.applied_epoch() == 450
        assert [entry.epoch for entry in sidecar.sink.applied] == list(range(1, 451))


async def test_revocations_reach_a_sidecar_across_a_restart_of_the_collector(tmp_path):
    """What was revoked while the sidecar was away, or by an earlier life of the collector, is applied once."""
    async with asyncio.timeout(240):
        async with Sidecar(f"unix:{tmp_path / 'collector.sock'}") as sidecar:
            async with Centre(tmp_path, "c1") as centre:
                await revoke(centre)
                await sidecar.sink.reached(1)
            async with Centre(tmp_path, "c2") as centre:
                assert "sidecar-1" in centre.fleet.members
                await revoke(centre)
                await sidecar.sink.reached(2)
        assert [entry.epoch for entry in sidecar.sink.applied] == [1, 2]


async def test_a_collector_that_lost_history_gives_no_authority(tmp_path):
    """A sidecar ahead of the collector's epoch is refused, and refuses by itself (R5)."""
    (tmp_path / "older").mkdir()
    async with Centre(tmp_path / "older") as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        first = await centre.store.issue(draft(1), described)
        sidecar.sink.applied.extend([first, replace(first, epoch=2)])
        async with sidecar:
            await eventually(lambda: Reason.CENTRE_BEHIND in sidecar.link.counters.failures)
            assert sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is not None


def draft(number: int) -> RevocationDraft:
    """A checked wish."""
    return RevocationDraft(Everything(), "", "alice", f"r{number}", 1)


def described(entry):
    """The event of an entry."""
    from leasehold_broker.flows.issue_revocation import issued_event  # noqa: PLC0415 - used here only

    return issued_event(entry, draft(entry.epoch))


async def test_a_newer_session_supersedes_the_older(tmp_path):
    """Two sessions of one sidecar: the older ends with a typed answer, the newer stays."""
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        async with Sidecar(centre.target) as first:
            await eventually(lambda: centre.fleet.connected_count() == 1)
            async with Sidecar(centre.target) as second:
                await eventually(lambda: Reason.SESSION_SUPERSEDED in first.link.counters.failures)
                epoch = await revoke(centre)
                await second.sink.reached(epoch)
        assert centre.fleet.superseded >= 1


async def test_authority_runs_from_the_heartbeat_and_lapses_in_silence(tmp_path):
    """With a clock of its own, a sidecar holds authority exactly as long as the answered heartbeat is good (R3, E9)."""
    clock = ManualClock()
    async with asyncio.timeout(240):
        sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}", clock=clock)
        assert sidecar.link.authority_lapsed_seconds(clock.now()) is not None
        async with sidecar:
            async with Centre(tmp_path, authority_seconds=60.0) as centre:
                await eventually(lambda: sidecar.link.authority_lapsed_seconds(clock.now()) is None)
                assert centre.fleet.connected_count() == 1
            clock.advance(59.9)
            assert sidecar.link.authority_lapsed_seconds(clock.now()) is None
            clock.advance(0.2)
            assert sidecar.link.authority_lapsed_seconds(clock.now()) == pytest.approx(0.1, abs=0.01)
            async with Centre(tmp_path, "c2", authority_seconds=60.0):
                await eventually(lambda: sidecar.link.authority_lapsed_seconds(clock.now()) is None)


async def test_a_silent_sidecar_completes_a_revocation_once_it_refuses_by_itself(tmp_path):
    """The watch stays open while a disconnected sidecar may hold authority, and completes when it cannot."""
    clock = ManualClock()
    async with Centre(tmp_path, clock=clock, authority_seconds=0.5) as centre, asyncio.timeout(240):
        async with Sidecar(centre.target, clock=clock):
            await eventually(lambda: centre.fleet.connected_count() == 1)
        await eventually(lambda: centre.fleet.connected_count() == 0)
        steps = centre.issuer.watch(await revoke(centre))
        first = await anext(steps)
        assert not first.complete
        clock.advance(0.5)
        assert not (await centre.issuer.progress(1)).complete
        clock.advance(0.01)
        last = await anext(steps)
        assert last.complete
        assert last.sidecars[0].lapsed
        with pytest.raises(StopAsyncIteration):
            await anext(steps)


async def test_a_restarted_collector_waits_for_sidecars_it_has_known(tmp_path):
    """After a restart nobody is connected, but a known sidecar may still hold authority: not complete at once."""
    async with asyncio.timeout(240):
        async with Centre(tmp_path, "c1") as centre, Sidecar(centre.target):
            await eventually(lambda: centre.fleet.connected_count() == 1)
        async with Centre(tmp_path, "c2", authority_seconds=60.0) as centre:
            progress = await centre.issuer.progress(await revoke(centre))
            assert not progress.complete
            assert [row.sidecar for row in progress.sidecars] == ["sidecar-1"]


async def test_a_shorter_authority_does_not_forget_what_was_given(tmp_path):
    """Restarted with a shorter authority, the collector still waits as long as the earlier one may last."""
    clock = ManualClock()
    async with asyncio.timeout(240):
        async with (
            Centre(tmp_path, "c1", clock=clock, authority_seconds=60.0) as centre,
            Sidecar(centre.target, clock=clock) as sidecar,
        ):
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(clock.now()) is None)
        async with Centre(tmp_path, "c2", clock=clock, authority_seconds=5.0) as centre:
            await revoke(centre)
            clock.advance(59)
            assert sidecar.link.authority_lapsed_seconds(clock.now()) is None
            assert not (await centre.issuer.progress(1)).complete
            clock.advance(2)
            assert sidecar.link.authority_lapsed_seconds(clock.now()) is not None
            assert (await centre.issuer.progress(1)).complete


async def test_a_session_ends_with_its_token_and_a_fresh_one_is_read(tmp_path):
    """Streams do not outlive the identity they were opened with; the link reads the token again and goes on."""
    async with Centre(tmp_path, token_seconds=0.4) as centre, asyncio.timeout(240):
        async with Sidecar(centre.target) as sidecar:
            await eventually(lambda: sidecar.tokens_read >= 6)
            sidecar.emit(3)
            await sidecar.outbox.empty()
            epoch = await revoke(centre)
            await sidecar.sink.reached(epoch)
        assert not sidecar.link.counters.failures


async def test_live_leases_are_reported_for_dry_runs(tmp_path):
    """A dry run at the collector names the live leases that match, and changes nothing."""
    child = LiveLease("leases/b", "leases/a", "leases/a", "i", "s", "test", ("k2",), ("openai",))
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        sidecar.leases = [LiveLease("leases/a", "", "leases/a", "i", "s", "test", ("k1",), ("openai",)), child]
        async with sidecar, Operator(centre.target, "alice/responder") as alice:
            await eventually(lambda: centre.fleet.members and centre.fleet.members["sidecar-1"].live.total == 2)
            request = pb.RevokeLeasesRequest(
                request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(lease="leases/a"), validate_only=True
            )
            answer = await alice.revocations.RevokeLeases(request, **alice.how)
            assert list(answer.matching_leases) == ["leases/a", "leases/b"]
            request.selector.key = "k2"
            answer = await alice.revocations.RevokeLeases(request, **alice.how)
            assert list(answer.matching_leases) == ["leases/b"]
            request.selector.subject.subject = "*"
            request.selector.subject.issuer = "i"
            sidecar.leases.append(LiveLease("leases/c", "", "leases/c", "i", "t", "test", ("k1",), ("openai",)))
            await eventually(lambda: centre.fleet.members["sidecar-1"].live.total == 3)
            answer = await alice.revocations.RevokeLeases(request, **alice.how)
            found = [(each.sidecar, each.issuer, each.subject, each.leases) for each in answer.holders]
            assert found == [("sidecar-1", "i", "s", 2), ("sidecar-1", "i", "t", 1)]
            assert not answer.HasField("progress")
        assert centre.store.epoch() == 0
        assert len(await centre.store.page(EventFilter(type="revocation.validated"), 0, 9)) == 3


async def test_fifty_sidecars_hear_of_a_revocation(tmp_path, capsys):
    """Every connected sidecar applies and acknowledges; the latency is printed, not asserted."""
    async with Centre(tmp_path, sidecars=50, authority_seconds=30.0) as centre, asyncio.timeout(240):
        sidecars = [Sidecar(centre.target, f"sidecar-{n}") for n in range(1, 51)]
        async with asyncio.TaskGroup() as group:
            links = [group.create_task(sidecar.link.run()) for sidecar in sidecars]
            await eventually(lambda: centre.fleet.connected_count() == 50)
            began = time.perf_counter()
            heard: list[float] = []

            async def hears(sidecar: Sidecar, epoch: int) -> None:
                await sidecar.sink.reached(epoch)
                heard.append(time.perf_counter() - began)

            waiting = [group.create_task(hears(sidecar, 1)) for sidecar in sidecars]
            epoch = await revoke(centre)
            await asyncio.gather(*waiting)
            last = [step async for step in centre.issuer.watch(epoch)][-1]
            acknowledged = time.perf_counter() - began
            for link in links:
                link.cancel()
        assert last.complete
        assert [row.applied_epoch for row in last.sidecars] == [1] * 50
        with capsys.disabled():
            print(  # noqa: T201 - the figure is the point
                f"\n50 sidecars: median {statistics.median(heard) * 1000:.1f} ms, last {max(heard) * 1000:.1f} ms, "
                f"all acknowledged {acknowledged * 1000:.1f} ms"
            )


async def test_a_gap_is_never_applied():
    """A push that skips, runs backwards, or tells of an epoch alone, breaks the session before it is applied (R5)."""
    from leasehold_broker.domain.sync import Push, next_entries  # noqa: PLC0415 - used here only

    def entry(epoch: int) -> Revocation:
        return Revocation(epoch, Everything(), "", "a", 1)

    assert next_entries(1, Push(3, (entry(1), entry(2), entry(3)), 1.0, 1)) == (entry(2), entry(3))
    for applied, push in (
        (1, Push(3, (entry(3),), 1.0, 1)),
        (0, Push(2, (entry(2), entry(1)), 1.0, 1)),
        (0, Push(1, (entry(1), entry(2)), 1.0, 1)),
        (5, Push(4, (), 1.0, 1)),
        (4, Push(5, (), 1.0, 1)),
    ):
        with pytest.raises(ValueError, match="epoch"):
            next_entries(applied, push)


async def test_a_wrong_token_is_refused_without_telling_why(tmp_path):
    """The caller of a bad token learns nothing but that it was not accepted; the event says which check failed."""
    async with Centre(tmp_path) as centre, Operator(centre.target, "bad") as nobody, asyncio.timeout(240):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await nobody.revocations.ListRevocations(pb.ListRevocationsRequest(), **nobody.how)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        events = await centre.store.page(EventFilter(type="identity.refused"), 0, 9)
        assert b"JWT_BAD_SIGNATURE" in events[0].record.body
