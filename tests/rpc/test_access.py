"""The access table: every method of every proto is in it, and nothing is served that is not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from tests.fakes.rpc import KeptRefusals, surroundings

from leasehold.v1 import (
    audit_service_pb2,
    budget_service_pb2,
    fleet_service_pb2,
    key_service_pb2,
    lease_service_pb2,
    revocation_service_pb2,
    sidecar_service_pb2,
)
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.time import Instant
from leasehold_broker.rpc.access import (
    METHODS,
    Access,
    AccessTableError,
    Audit,
    Deadline,
    Disclosure,
    Idempotency,
    Plane,
    methods_of,
    row_wrong,
)
from leasehold_broker.rpc.caller import CallContext, Shown
from leasehold_broker.rpc.server import RpcServer

MODULES = (
    health_pb2,
    audit_service_pb2,
    budget_service_pb2,
    key_service_pb2,
    fleet_service_pb2,
    lease_service_pb2,
    revocation_service_pb2,
    sidecar_service_pb2,
)
LEASES = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]
NAMES = [method.name for method in LEASES.methods]
_REFLECTION = descriptor_pb2.FileDescriptorProto(
    name="reflection.proto",
    package="grpc.reflection.v1",
    message_type=[descriptor_pb2.DescriptorProto(name="Question")],
    service=[
        descriptor_pb2.ServiceDescriptorProto(
            name="ServerReflection",
            method=[
                descriptor_pb2.MethodDescriptorProto(
                    name="ServerReflectionInfo",
                    input_type=".grpc.reflection.v1.Question",
                    output_type=".grpc.reflection.v1.Question",
                )
            ],
        )
    ],
)
"""A service as an eager hand might add it."""


async def _unary(request: Any, call: CallContext) -> Any:
    return request


async def _stream(request: Any, call: CallContext) -> AsyncIterator[Any]:
    yield request


def _handlers() -> dict[str, Any]:
    return {name: _stream if name == "WatchLease" else _unary for name in NAMES}


def _server() -> RpcServer:
    return RpcServer(surroundings(KeptRefusals(), lambda _: Peer(0)))


def test_every_method_of_every_proto_is_classified_and_nothing_else() -> None:
    """A method that is added to a proto must be classified before anything can be served."""
    defined = {
        f"{service.full_name}/{method.name}"
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert defined == set(METHODS)


def test_reading_methods_do_not_mutate() -> None:
    """By its name, every Get, List and Watch is a reader, and nothing else is."""
    for path, method in METHODS.items():
        reader = path.partition("/")[2].startswith(("Get", "List", "Watch", "Check"))
        assert reader is not method.mutating, path


@pytest.mark.parametrize("name", NAMES)
async def test_a_forgotten_handler_stops_the_start(name: str) -> None:
    """Each method without a handler is an error that names it."""
    handlers = _handlers()
    del handlers[name]
    with pytest.raises(AccessTableError, match=f"LeaseService/{name}: missing in the handlers"):
        _server().serve(LEASES, handlers)


async def test_a_handler_without_a_method_stops_the_start() -> None:
    """A handler for something that the proto does not know is an error."""
    with pytest.raises(AccessTableError, match="RevealKey: missing in the proto"):
        _server().serve(LEASES, _handlers() | {"RevealKey": _unary})


def test_a_method_without_a_row_stops_the_start() -> None:
    """A method that the table does not know is an error."""
    with pytest.raises(AccessTableError, match="NewMethod: missing in the proto"):
        methods_of(LEASES, [*NAMES, "NewMethod"])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_REFLECTION)  # type: ignore[no-untyped-call] # the stubs lag behind
    reflection = pool.FindServiceByName("grpc.reflection.v1.ServerReflection")
    with pytest.raises(AccessTableError, match="ServerReflectionInfo: missing in the access table"):
        methods_of(reflection, ["ServerReflectionInfo"])


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("AcquireLease", {"idempotency": Idempotency.REPEATABLE}, "its request has a request_id"),
        ("ReleaseLease", {"idempotency": Idempotency.REQUEST_ID}, "its request has no request_id"),
        ("GetLease", {"idempotency": Idempotency.REPEATABLE}, "audit class is refusals"),
        ("RenewLease", {"audit": Audit.REFUSALS}, "audit class is refusals"),
        ("ListLeases", {"audit": Audit.EFFECT}, "audit class is effect"),
        ("GetLease", {"access": Access.ANYONE}, "access class anyone is not for the plane agents"),
        ("GetLease", {"plane": Plane.HEALTH}, "access class workload is not for the plane health"),
        ("WatchLease", {"seconds_max": 0.0}, "no bound in time"),
        ("WatchLease", {"deadline": Deadline.REQUIRED}, "asks for age"),
        ("WatchLease", {"streams_max": 0}, "0 streams"),
        ("GetLease", {"deadline": Deadline.FREE}, "asks for required"),
        ("GetLease", {"streams_max": 1}, "1 streams"),
        ("DelegateLease", {"disclosure": Disclosure.STATE}, "its answer holds lease_token"),
        ("RenewLease", {"disclosure": Disclosure.LEASE_TOKEN}, "its answer holds state"),
    ],
)
def test_a_row_that_its_method_belies_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any], why: str
) -> None:
    """What a row says of idempotency, audit, access, time and disclosure is held against the messages of the proto."""
    path = f"{LEASES.full_name}/{name}"
    monkeypatch.setitem(METHODS, path, replace(METHODS[path], **changes))  # type: ignore[arg-type] # a dict within
    with pytest.raises(AccessTableError, match=f"{name}: .*{why}"):
        methods_of(LEASES, NAMES)


def test_reading_the_audit_log_is_classified_as_such() -> None:
    """A method whose answer holds audit records anywhere cannot be classified as one that shows state."""
    for service in audit_service_pb2.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            row = METHODS[f"{service.full_name}/{method.name}"]
            assert (row.disclosure is Disclosure.AUDIT_RECORDS) is (row.audit is Audit.READ)
            if row.disclosure is Disclosure.AUDIT_RECORDS:
                wrong = row_wrong(replace(row, disclosure=Disclosure.STATE), method)
                assert wrong == "disclosure is state, but its answer holds audit_records"


async def test_agents_and_operators_are_not_served_by_one_server() -> None:
    """What governs agents is never on a socket that agents can reach, whatever the wiring does."""

    async def nobody(shown: Shown, now: Instant) -> Identity:
        raise NotImplementedError

    around = replace(surroundings(KeptRefusals(), lambda _: Peer(0)), authenticate=dict.fromkeys(Access, nobody))
    server = RpcServer(around)
    server.serve(LEASES, _handlers())
    revocations = revocation_service_pb2.DESCRIPTOR.services_by_name["RevocationService"]
    with pytest.raises(AccessTableError, match="one server must not serve agents and operators"):
        server.serve(revocations, {m.name: _stream if m.server_streaming else _unary for m in revocations.methods})


async def test_an_unauthenticated_class_stops_the_start() -> None:
    """A service whose callers nobody can authenticate is not served."""
    revocations = revocation_service_pb2.DESCRIPTOR.services_by_name["RevocationService"]
    handlers = {m.name: _stream if m.server_streaming else _unary for m in revocations.methods}
    with pytest.raises(AccessTableError, match="nobody authenticates access class operator"):
        _server().serve(revocations, handlers)


async def test_audited_reading_needs_a_recorder() -> None:
    """A service whose readings are events is not served without somebody who writes them."""

    async def nobody(shown: Shown, now: Instant) -> Identity:
        raise NotImplementedError

    around = replace(surroundings(KeptRefusals(), lambda _: Peer(0)), authenticate={Access.OPERATOR: nobody})
    audit = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]
    with pytest.raises(AccessTableError, match="nobody records them"):
        RpcServer(around).serve(audit, {m.name: _stream if m.server_streaming else _unary for m in audit.methods})


async def test_a_stream_handler_of_the_wrong_kind_stops_the_start() -> None:
    """A unary handler where the proto has a stream is an error."""
    with pytest.raises(AccessTableError, match="WatchLease: stream in the proto"):
        _server().serve(LEASES, _handlers() | {"WatchLease": _unary})
