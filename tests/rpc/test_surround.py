"""What every call is surrounded with, seen by a stock client through a real server."""

# ruff: noqa: ARG002 - handlers have the signature that they have

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from tests.fakes.rpc import METADATA, OTHER_TOKEN, TOKEN, Door, open_door

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.rpc import access
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import RpcServer, ServerLimits

SERVICE = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]
CANARY = "canary-5c1"
A_UUID = "0c276e68-c59e-4d38-84c8-ab7e23c9e301"

ENDED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
"""A client that has our settings refuses by itself; one that is faster loses its connection to the shim."""


class Handlers:
    """A door of which the tests decide what it does."""

    def __init__(self) -> None:
        """Answer empty."""
        self.calls: list[CallContext] = []
        self.running = 0
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def answer(self, request: Any, call: CallContext) -> lease_service_pb2.AcquireLeaseResponse:
        """Answer by the purpose."""
        self.calls.append(call)
        if request.purpose == "fault":
            raise ValueError(CANARY)
        if request.purpose == "hang":
            self.entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        return lease_service_pb2.AcquireLeaseResponse(lease_token=call.request_id)

    async def plain(self, request: Any, call: CallContext) -> lease_service_pb2.GetLeaseResponse:
        """Answer empty."""
        self.calls.append(call)
        return lease_service_pb2.GetLeaseResponse()

    async def stream(self, request: Any, call: CallContext) -> AsyncIterator[lease_service_pb2.WatchLeaseResponse]:
        """One message, then silence; or a fault."""
        self.running += 1
        try:
            yield lease_service_pb2.WatchLeaseResponse()
            if request.name == "fault":
                raise ValueError(CANARY)
            await asyncio.Event().wait()
        finally:
            self.running -= 1
            self.left.set()

    def serve_on(self, server: RpcServer) -> None:
        """All methods of the service."""
        server.serve(
            SERVICE,
            {
                "AcquireLease": self.answer,
                "RenewLease": self.plain,
                "ReleaseLease": self.plain,
                "GetLease": self.plain,
                "ListLeases": self.plain,
                "DelegateLease": self.plain,
                "WatchLease": self.stream,
            },
        )


@pytest.fixture
async def handlers() -> Handlers:
    """The handlers."""
    return Handlers()


@asynccontextmanager
async def _stub(address: str) -> AsyncIterator[Any]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield lease_service_pb2_grpc.LeaseServiceStub(channel)


@pytest.fixture
async def door(tmp_path: Path, handlers: Handlers) -> AsyncIterator[Door]:
    """The open door; two streams per peer."""
    async with open_door(tmp_path, handlers.serve_on, streams_max=2) as opened:
        yield opened


@pytest.fixture
async def stub(door: Door) -> AsyncIterator[Any]:
    """A stock client."""
    async with _stub(door.unix) as opened:
        yield opened


async def _refusal(pending: Any) -> tuple[grpc.StatusCode, str, Any]:
    """Code, reason and error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pending
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    if status is not None:
        assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value


def _acquire(stub: Any, metadata: Any = METADATA, timeout: float | None = 10, purpose: str = "") -> Any:
    return stub.AcquireLease(lease_service_pb2.AcquireLeaseRequest(purpose=purpose), metadata=metadata, timeout=timeout)


async def test_a_good_call_reaches_its_handler_with_verified_values(stub: Any, handlers: Handlers) -> None:
    """The handler gets identity, peer, method and time; the caller's own request id is kept and sent back."""
    wanted = str(uuid.uuid4())
    call = _acquire(stub, (*METADATA, ("leasehold-request-id", wanted)))
    answer = await call
    (seen,) = handlers.calls
    assert wanted == answer.lease_token == seen.request_id
    assert wanted == dict(await call.trailing_metadata())["leasehold-request-id"]
    assert (seen.identity.subject.subject, seen.method) == ("agent-7", "leasehold.v1.LeaseService/AcquireLease")
    assert seen.peer.uid is not None


@pytest.mark.parametrize("stated", ["x" * 36, "A" * 500, A_UUID.upper(), "{" + A_UUID + "}"])
async def test_a_request_id_that_is_no_uuid_is_replaced(stub: Any, stated: str) -> None:
    """Nothing but a canonical UUID gets into our log under the name of a request id."""
    answer = await _acquire(stub, (*METADATA, ("leasehold-request-id", stated)))
    assert stated != answer.lease_token == str(uuid.UUID(answer.lease_token))


BEARER = METADATA[1]
GOOD_KEY = METADATA[0]


@pytest.mark.parametrize(
    ("metadata", "timeout", "code", "reason", "recorded"),
    [
        ((BEARER,), 10, "INVALID_ARGUMENT", "METADATA_MISSING", Reason.METADATA_MISSING),
        ((BEARER, ("leasehold", "0")), 10, "INVALID_ARGUMENT", "METADATA_MISSING", Reason.METADATA_MISSING),
        ((BEARER, GOOD_KEY, GOOD_KEY), 10, "INVALID_ARGUMENT", "METADATA_MISSING", Reason.METADATA_MISSING),
        (METADATA, None, "INVALID_ARGUMENT", "DEADLINE_MISSING", Reason.DEADLINE_MISSING),
        ((GOOD_KEY,), 10, "UNAUTHENTICATED", "IDENTITY_REJECTED", Reason.JWT_MALFORMED),
        ((GOOD_KEY, BEARER, BEARER), 10, "UNAUTHENTICATED", "IDENTITY_REJECTED", Reason.JWT_MALFORMED),
        (
            (GOOD_KEY, BEARER, ("authorization", "Bearer other")),
            10,
            "UNAUTHENTICATED",
            "IDENTITY_REJECTED",
            Reason.JWT_MALFORMED,
        ),
        ((GOOD_KEY, ("authorization", TOKEN)), 10, "UNAUTHENTICATED", "IDENTITY_REJECTED", Reason.JWT_MALFORMED),
        ((GOOD_KEY, ("authorization", "Bearer ")), 10, "UNAUTHENTICATED", "IDENTITY_REJECTED", Reason.JWT_MALFORMED),
        (
            (GOOD_KEY, ("authorization", "Basic YTpi")),
            10,
            "UNAUTHENTICATED",
            "IDENTITY_REJECTED",
            Reason.JWT_MALFORMED,
        ),
        (
            (GOOD_KEY, ("authorization", "Bearer JWT_EXPIRED")),
            10,
            "UNAUTHENTICATED",
            "IDENTITY_REJECTED",
            Reason.JWT_EXPIRED,
        ),
    ],
)
async def test_bad_manners_are_refused_and_recorded_exactly(
    stub: Any,
    door: Door,
    handlers: Handlers,
    metadata: Any,
    timeout: float | None,  # noqa: ASYNC109 - gRPC's own word
    code: str,
    reason: str,
    recorded: Reason,
) -> None:
    """Each missing or doubled thing has its public reason and its exact recorded one; the handler never runs."""
    found_code, found_reason, _ = await _refusal(_acquire(stub, metadata, timeout))
    assert (code, reason) == (found_code.name, found_reason)
    assert [recorded] == [refused.reason for refused in door.recorder.kept]
    assert not handlers.calls


async def test_identity_failures_cannot_be_told_apart(stub: Any, door: Door) -> None:
    """Whatever check failed, the answer is the same to the byte but for the request id."""
    same = str(uuid.uuid4())
    answers = set()
    reasons = ["JWT_EXPIRED", "JWT_BAD_SIGNATURE", "REPLAY_DETECTED", "KEYS_OF_ISSUER_UNAVAILABLE", "AUDIENCE_MISMATCH"]
    for reason in reasons:
        metadata = (GOOD_KEY, ("authorization", f"Bearer {reason}"), ("leasehold-request-id", same))
        code, _, error = await _refusal(_acquire(stub, metadata))
        answers.add((code, error.details(), dict(error.trailing_metadata())["grpc-status-details-bin"]))
    assert len(answers) == 1
    assert reasons == [refused.reason.value for refused in door.recorder.kept]
    assert all(refused.identity is None for refused in door.recorder.kept)


async def test_reading_needs_a_deadline_too(stub: Any, door: Door, handlers: Handlers) -> None:
    """A unary call without a deadline would be waited for by nobody knows whom; a stream has an age of its own."""
    code, reason, _ = await _refusal(stub.GetLease(lease_service_pb2.GetLeaseRequest(), metadata=METADATA))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_MISSING")
    assert [refused.reason for refused in door.recorder.kept] == [Reason.DEADLINE_MISSING]
    await stub.WatchLease(lease_service_pb2.WatchLeaseRequest(), metadata=METADATA).read()


async def test_streams_are_bounded_per_identity(
    tmp_path: Path, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many callers behind one peer, one that opens many streams leaves the others theirs."""
    path = "leasehold.v1.LeaseService/WatchLease"
    few = dict(access.METHODS) | {path: replace(access.METHODS[path], streams_max=1)}
    monkeypatch.setattr(access, "METHODS", few)
    request = lease_service_pb2.WatchLeaseRequest()
    async with open_door(tmp_path, handlers.serve_on) as door, _stub(door.unix) as stub:
        first = stub.WatchLease(request, metadata=METADATA, timeout=60)
        await first.read()
        code, reason, _ = await _refusal(stub.WatchLease(request, metadata=METADATA, timeout=60).read())
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_EXCEEDED")
        other = (GOOD_KEY, ("authorization", f"Bearer {OTHER_TOKEN}"))
        await stub.WatchLease(request, metadata=other, timeout=60).read()
        first.cancel()
        await asyncio.wait_for(handlers.left.wait(), 60)
        await stub.WatchLease(request, metadata=METADATA, timeout=60).read()


@pytest.mark.parametrize("metadata", [METADATA, (GOOD_KEY,)])
async def test_the_private_socket_refuses_who_did_not_come_through_the_shim(door: Door, metadata: Any) -> None:
    """A process that finds the private listener and connects directly is refused, with the right token too."""
    async with _stub(door.private) as direct:
        code, reason, _ = await _refusal(_acquire(direct, metadata))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REJECTED")
    assert [(refused.reason, refused.peer) for refused in door.recorder.kept] == [(Reason.PEER_MISMATCH, None)]


@pytest.mark.parametrize("size", [9_000, 17_000])
async def test_oversized_metadata_is_refused_every_time(door: Door, handlers: Handlers, size: int) -> None:
    """Soft and hard limit are the same: above it, not one call gets through by chance.

    Each call has a connection of its own: one that was ended would make the next call wait for its turn to connect.
    """
    for _ in range(8):
        async with _stub(door.unix) as stub:
            code, _, _ = await _refusal(_acquire(stub, (*METADATA, ("padding", "x" * size)), timeout=60))
        assert code in ({grpc.StatusCode.RESOURCE_EXHAUSTED} if size < 10_000 else ENDED)
    assert not handlers.calls


async def test_an_oversized_message_is_refused(stub: Any, handlers: Handlers) -> None:
    """A request above 64 KiB never reaches a handler."""
    code, _, _ = await _refusal(_acquire(stub, purpose="x" * 70_000))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not handlers.calls


async def test_an_unknown_method_is_unimplemented(door: Door) -> None:
    """What is not in the table is not there."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        call = channel.unary_unary("/leasehold.v1.LeaseService/RevealKey")
        code, _, _ = await _refusal(call(b"", metadata=METADATA, timeout=60))
        assert code == grpc.StatusCode.UNIMPLEMENTED
        for path in (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.channelz.v1.Channelz/GetServers",
            "/leasehold.v1.RevocationService/RevokeLeases",
        ):
            other = channel.stream_stream(path)
            code, _, _ = await _refusal(other(iter([b""]), metadata=METADATA, timeout=60).read())
            assert code == grpc.StatusCode.UNIMPLEMENTED


async def test_a_fault_shows_nothing_but_the_request_id(
    stub: Any, door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected exception is INTERNAL; its text is in neither answer nor log, its place is in the log."""
    code, reason, error = await _refusal(_acquire(stub, purpose="fault"))
    request_id = dict(error.trailing_metadata())["leasehold-request-id"]
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "UNSPECIFIED")
    assert request_id in error.details()
    printed = capsys.readouterr()
    logged = printed.out + printed.err
    assert CANARY not in repr(error) + logged
    assert TOKEN not in logged
    assert request_id in logged
    assert "ValueError" in logged
    assert not door.recorder.kept


async def test_a_fault_in_a_stream_is_treated_the_same(stub: Any) -> None:
    """The same surrounding holds for streams."""
    watch = stub.WatchLease(lease_service_pb2.WatchLeaseRequest(name="fault"), metadata=METADATA)
    await watch.read()
    code, _, error = await _refusal(watch.read())
    assert code == grpc.StatusCode.INTERNAL
    assert CANARY not in repr(error)


async def test_a_refusal_that_cannot_be_recorded_is_answered_with_that(stub: Any, door: Door) -> None:
    """When the audit spool is full, that is the answer: no refusal leaves without its event."""
    door.recorder.unavailable = Refusal(Reason.AUDIT_SPOOL_FULL, "the audit spool is full", retry_after_seconds=2.5)
    _, reason, error = await _refusal(_acquire(stub, (GOOD_KEY,)))
    assert reason == "AUDIT_SPOOL_FULL"
    status = rpc_status.from_call(error)
    retry = error_details_pb2.RetryInfo()
    assert status is not None
    assert status.details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)


async def test_streams_are_bounded_per_peer_and_freed_when_left(stub: Any, door: Door, handlers: Handlers) -> None:
    """A third watch of the same peer is refused; when one is cancelled, there is room again."""
    request = lease_service_pb2.WatchLeaseRequest()
    watches = [stub.WatchLease(request, metadata=METADATA) for _ in range(2)]
    for watch in watches:
        await watch.read()
    code, reason, _ = await _refusal(stub.WatchLease(request, metadata=METADATA).read())
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CONCURRENCY_EXCEEDED")
    watches[0].cancel()
    await asyncio.wait_for(handlers.left.wait(), 60)
    again = stub.WatchLease(request, metadata=METADATA)
    await again.read()
    assert handlers.running == 2
    await _acquire(stub)


async def test_a_stream_ends_with_ok_at_its_age(
    tmp_path: Path, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch is retired by the server without an error, and its handler is closed."""
    path = "leasehold.v1.LeaseService/WatchLease"
    short = dict(access.METHODS) | {path: replace(access.METHODS[path], seconds_max=0.2)}
    monkeypatch.setattr(access, "METHODS", short)
    async with open_door(tmp_path, handlers.serve_on) as door, _stub(door.unix) as stub:
        watch = stub.WatchLease(lease_service_pb2.WatchLeaseRequest(), metadata=METADATA, timeout=60)
        await watch.read()
        assert grpc.aio.EOF is await watch.read()
        assert await watch.code() == grpc.StatusCode.OK
    assert handlers.running == 0


async def test_work_is_capped_whatever_the_deadline_says(
    tmp_path: Path, handlers: Handlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller with an hour's deadline does not hold a handler for an hour."""
    path = "leasehold.v1.LeaseService/AcquireLease"
    short = dict(access.METHODS) | {path: replace(access.METHODS[path], seconds_max=0.2)}
    monkeypatch.setattr(access, "METHODS", short)
    async with open_door(tmp_path, handlers.serve_on) as door, _stub(door.unix) as stub:
        code, reason, _ = await _refusal(_acquire(stub, timeout=3600, purpose="hang"))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "OVERLOADED")
    assert handlers.left.is_set()


async def test_the_callers_deadline_cancels_the_handler(stub: Any, handlers: Handlers) -> None:
    """When the caller's deadline has passed, nobody goes on working for him."""
    code, _, _ = await _refusal(_acquire(stub, timeout=0.3, purpose="hang"))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(handlers.left.wait(), 60)


async def test_calls_are_bounded_in_all(tmp_path: Path, handlers: Handlers) -> None:
    """Beyond the maximum of concurrent calls, the server refuses at once instead of queueing."""
    limits = ServerLimits(calls_max=2)
    async with open_door(tmp_path, handlers.serve_on, limits=limits) as door, _stub(door.unix) as stub:
        hanging = [stub.WatchLease(lease_service_pb2.WatchLeaseRequest(), metadata=METADATA) for _ in range(2)]
        for watch in hanging:
            await watch.read()
        code, _, _ = await _refusal(_acquire(stub))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in hanging:
            watch.cancel()


async def test_health_needs_no_identity_and_follows_the_server(door: Door) -> None:
    """Probes ask without a token; watchers hear of the stop before the server is gone."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "leasehold.v1.LeaseService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=60)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(door.server.stop(0.5))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


async def test_health_shows_that_a_task_beside_the_doors_fails(door: Door) -> None:
    """Only the service of that name says so: calls are taken all the same, so no orchestrator ends the process."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        background = health_pb2.HealthCheckRequest(service="leasehold.background")
        serving = health_pb2.HealthCheckResponse.SERVING
        for degraded in (False, True, False):
            door.server.set_degraded(degraded=degraded)
            shown = (await health.Check(background, timeout=60)).status
            assert (shown == serving) is not degraded
            assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=60)).status == serving


async def test_health_watchers_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anonymous watchers cannot fill the server; a place comes back when one leaves."""
    monkeypatch.setattr("leasehold_broker.rpc.health.WATCHERS_MAX", 1)
    async with grpc.aio.insecure_channel(door.unix) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        first = health.Watch(health_pb2.HealthCheckRequest())
        await first.read()
        code, _, _ = await _refusal(health.Watch(health_pb2.HealthCheckRequest()).read())
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_certificate_is_asked_for_over_tcp_alone(tmp_path: Path, handlers: Handlers) -> None:
    """Behind the handshake, once more: over TCP no uid stands in for a certificate; on the socket it does."""
    async with open_door(tmp_path, handlers.serve_on, certificate=True) as door:
        async with _stub(door.unix) as near:
            await _acquire(near)
        assert handlers.calls[-1].peer == Peer(os.getuid())
        async with _stub(door.tcp) as far:
            _, reason, _ = await _refusal(_acquire(far))
        assert reason == "IDENTITY_REJECTED"
        assert [(kept.reason, kept.peer, kept.detail) for kept in door.recorder.kept] == [
            (Reason.PEER_MISMATCH, Peer(os.getuid()), "no client certificate")
        ]
        assert len(handlers.calls) == 1


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path, handlers: Handlers) -> None:
    """Silent connections do not hold the places of those who have something to say."""
    async with open_door(tmp_path, handlers.serve_on, limits=ServerLimits(handshake_seconds_max=1)) as door:
        reader, writer = await asyncio.open_unix_connection(str(door.socket_path))
        await asyncio.wait_for(reader.read(), 60)
        assert reader.at_eof()
        writer.close()
