"""Whole replicas with their doors: a revocation issued at one reaches the sidecars of all, and is counted at each."""

import asyncio
import contextlib
import uuid
from dataclasses import replace

import grpc
import pytest
from tests.fakes.centre import ORIGIN, Operator, Sidecar, eventually
from tests.fakes.engines import PostgresEngine
from tests.fakes.replicas import Replica, shared_key
from tests.fakes.streams import Emitter

from leasehold.checkpoint import Checkpoint
from leasehold.note import VerifierKey
from leasehold.v1 import audit_service_pb2, fleet_service_pb2, revocation_service_pb2
from leasehold_broker.adapters.checkpoint_key import CheckpointKeyError, open_checkpoint_key
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.revocation import BySidecar
from leasehold_broker.flows.publish_checkpoint import LogDamagedError


@pytest.fixture(name="built")
def replicas_of_one_log(postgres, tmp_path):
    """Makes replicas that share a log and a key."""
    at = PostgresEngine(postgres).at
    key = shared_key(tmp_path, ORIGIN)

    def build(name: str, epoch: str = "1", **settings) -> Replica:
        return Replica(tmp_path / name, at, f"collector-{name}", f"{name}{epoch}", key=key, **settings)

    return build


def wish(**selector) -> revocation_service_pb2.RevokeLeasesRequest:
    """Revoke, with a fresh id."""
    request = revocation_service_pb2.RevokeLeasesRequest(request_id=str(uuid.uuid4()), note="leaked")
    request.selector.CopyFrom(revocation_service_pb2.RevocationSelector(**selector))
    return request


async def test_a_revocation_at_one_replica_reaches_every_sidecar_and_is_counted_at_each(built):
    """Pushed to the sidecars of both, acknowledged by both, complete at both (R2)."""
    async with (
        asyncio.timeout(240),
        built("a") as a,
        built("b") as b,
        Sidecar(a.centre.target, "sidecar-1") as one,
        Sidecar(b.centre.target, "sidecar-2") as two,
        Operator(a.centre.target, "alice/responder") as alice,
        Operator(b.centre.target, "bob/auditor") as bob,
    ):
        await eventually(lambda: len(a.centre.fleet.members) == 2 == len(b.centre.fleet.members))
        answer = await alice.revocations.RevokeLeases(wish(everything=True), **alice.how)
        assert len(answer.progress.sidecars) == 2
        await one.sink.reached(1)
        await two.sink.reached(1)
        for operator in (alice, bob):
            request = revocation_service_pb2.WatchRevocationRequest(name=answer.progress.entry.name)
            last = None
            async for seen in operator.revocations.WatchRevocation(request, **operator.how):
                last = seen.progress
            assert last.complete
            assert [(row.sidecar, row.applied_epoch, row.leases_ended) for row in last.sidecars] == [
                ("sidecar-1", 1, 2),
                ("sidecar-2", 1, 2),
            ]


async def test_events_of_all_replicas_are_in_one_signed_log(built):
    """Every replica serves the same checkpoints and proofs, whichever of them signs (A5)."""
    async with asyncio.timeout(240), built("a") as a, built("b") as b:
        async with (
            Sidecar(a.centre.target, "sidecar-1") as one,
            Sidecar(b.centre.target, "sidecar-2", epoch="e2") as two,
        ):
            one.emit(300)
            two.emit(300)
            await one.outbox.empty()
            await two.outbox.empty()
        size = max(a.centre.store.last_position(), b.centre.store.last_position())
        assert size >= 600
        for replica in (a, b):
            await eventually(
                lambda replica=replica: (
                    replica.centre.publish.newest is not None and replica.centre.publish.newest.head.size >= size
                )
            )
            async with Operator(replica.centre.target, "bob/auditor") as bob:
                proof = await bob.audit.GetInclusionProof(
                    audit_service_pb2.GetInclusionProofRequest(position=317), **bob.how
                )
                assert proof.event.position == 317
                key = VerifierKey.of_text(replica.centre.prove.verifier_key)
                assert Checkpoint.of_note(proof.checkpoint.note, key).size >= size
        assert a.centre.failures == b.centre.failures == []


async def test_when_the_signing_replica_goes_another_signs(built):
    """The lead passes on; what came since is signed by the one that is left."""
    async with asyncio.timeout(240), built("b") as b:
        async with built("a") as a, Sidecar(a.centre.target, "sidecar-1") as one:
            one.emit(10)
            await one.outbox.empty()
        async with Sidecar(b.centre.target, "sidecar-1") as again:
            again.emitter = one.emitter
            again.emit(10)
            await again.outbox.empty()
            await eventually(
                lambda: (
                    b.centre.publish.newest is not None
                    and b.centre.publish.newest.head.size == b.centre.store.last_position()
                )
            )
        page = await b.centre.store.page(EventFilter(stream="sidecar-1"), 0, 100)
        assert [stored.record.sequence for stored in page] == list(range(1, 21))


async def test_replicas_sign_with_one_key(built, tmp_path, postgres):
    """Without the key, or with another one, a replica does not start: two keys would make two logs."""
    async with asyncio.timeout(240), built("a") as a:
        await a.centre.records.lifecycle("collector.started", "0")
        await eventually(lambda: a.centre.publish.newest is not None)
        missing = built("b")
        (tmp_path / "b" / "checkpoint.key").unlink()
        with pytest.raises(CheckpointKeyError, match="--make-checkpoint-key"):
            await missing.__aenter__()
        await missing.__aexit__()
        other = built("c")
        (tmp_path / "c" / "checkpoint.key").unlink()
        open_checkpoint_key(tmp_path / "c" / "checkpoint.key", ORIGIN)
        with pytest.raises(LogDamagedError, match="one key"):
            await other.__aenter__()
        await other.__aexit__()
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "b" / "checkpoint.key").unlink()


async def test_a_sidecar_that_one_replica_bans_is_cut_at_another(built):
    """Its session is with b; a bans it; it is revoked, cut, and let in by neither; readmitted at b, it is at a too."""
    async with asyncio.timeout(240), built("a") as a, built("b") as b, Sidecar(b.centre.target, "sidecar-1") as one:
        await eventually(lambda: one.link.authority_lapsed_seconds(one.clock.now()) is None)
        async with Operator(a.centre.target, "alice/responder") as alice:
            await alice.fleet.BanSidecar(fleet_service_pb2.BanSidecarRequest(sidecar="sidecar-1"), **alice.how)
        async with Operator(b.centre.target, "dora/responder") as dora:  # who may ask before b has heard of it
            request = fleet_service_pb2.BanSidecarRequest(sidecar="sidecar-1", note="again")
            answer = await dora.fleet.BanSidecar(request, **dora.how)
        assert answer.sidecar.ban.banned_by == "alice (https://issuer.test)"
        assert b.centre.store.epoch() == 1
        await eventually(lambda: one.link.authority_lapsed_seconds(one.clock.now()) is not None)
        assert [entry.selector for entry in one.sink.applied] == [BySidecar("sidecar-1")]
        await eventually(lambda: one.link.counters.failures.get("SIDECAR_BANNED", 0) >= 2)
        async with Operator(b.centre.target, "alice/responder") as alice:
            request = fleet_service_pb2.ReadmitSidecarRequest(sidecar="sidecar-1")
            await alice.fleet.ReadmitSidecar(request, **alice.how)
        async with Sidecar(a.centre.target, "sidecar-1", epoch="e2") as again:
            await eventually(lambda: again.link.authority_lapsed_seconds(again.clock.now()) is None)


async def test_a_sidecar_that_one_replica_evicts_is_forgotten_at_another(built):
    """Both wait for it no more, and go on sharing their fleet; what another stream claims forgets nobody."""
    async with asyncio.timeout(120), built("a", authority_seconds=3.0) as a, built("b", authority_seconds=3.0) as b:
        async with (
            Sidecar(b.centre.target, "sidecar-1") as one,
            Sidecar(b.centre.target, "sidecar-2", epoch="e2") as two,
        ):
            for each in (one, two):
                await eventually(lambda each=each: each.link.authority_lapsed_seconds(each.clock.now()) is None)
            await eventually(lambda: {"sidecar-1", "sidecar-2"} <= a.centre.fleet.members.keys())
        claimed = Event(EventType.SIDECAR_EVICTED, 5, Outcome.ALLOWED, details={"sidecar": "sidecar-2"})
        with pytest.raises(Refusal, match="is for the collector to say"):
            await a.centre.store.append("sidecar-3", [Emitter(stream="sidecar-3").emit(claimed)], 5)
        async with Operator(a.centre.target, "alice/responder") as alice:
            request = fleet_service_pb2.EvictSidecarRequest(sidecar="sidecar-1")

            async def evicted():
                with contextlib.suppress(grpc.aio.AioRpcError):  # it may still hold authority
                    await alice.fleet.EvictSidecar(request, **alice.how)
                return "sidecar-1" not in a.centre.fleet.members

            while not await evicted():  # noqa: ASYNC110 - authority ends with time
                await asyncio.sleep(0.1)
        await eventually(lambda: "sidecar-1" not in b.centre.fleet.members)
        assert "sidecar-2" in b.centre.fleet.members
        async with Sidecar(b.centre.target, "sidecar-3", epoch="e3"):  # the fleet is shared still
            await eventually(lambda: "sidecar-3" in a.centre.fleet.members)


class _Relay:
    """Between a replica and its database: a network that swallows everything, on demand."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.heal()

    def swallow(self) -> None:
        self._flows.clear()

    def heal(self) -> None:
        """What was cut stays cut: new connections flow."""
        self._flows.set()
        for writer in self._open:
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(back_reader, writer))
        self._open -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
        writer.close()


async def test_a_replica_that_is_cut_off_from_the_log_gives_no_authority(postgres, tmp_path):
    """Its sidecars' heartbeats go unanswered: it cannot know what was revoked elsewhere; healed, they hear it (R3)."""
    at = PostgresEngine(postgres).at
    key = shared_key(tmp_path, ORIGIN)
    async with asyncio.timeout(120), _Relay(postgres.port) as relay:
        through = replace(at, url=at.url.replace(f":{postgres.port}/", f":{relay.port}/"))
        async with (
            Replica(tmp_path / "a", at, "collector-a", "a1", key=key, authority_seconds=3.0) as a,
            Replica(tmp_path / "b", through, "collector-b", "b1", key=key, authority_seconds=3.0) as b,
            Sidecar(b.centre.target, "sidecar-1") as one,
            Operator(a.centre.target, "alice/responder") as alice,
        ):
            await eventually(lambda: one.link.authority_lapsed_seconds(one.clock.now()) is None)
            await eventually(lambda: "sidecar-1" in a.centre.fleet.members)
            relay.swallow()
            await alice.revocations.RevokeLeases(wish(everything=True), **alice.how)
            await eventually(lambda: one.link.authority_lapsed_seconds(one.clock.now()) is not None)
            assert one.sink.applied == []
            relay.heal()
            await one.sink.reached(1)
            await eventually(lambda: one.link.authority_lapsed_seconds(one.clock.now()) is None)
