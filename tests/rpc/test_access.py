"""The access table: every method of every proto is in it, and nothing is served that is not."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.rpc import KeptRefusals, surroundings

from leasehold.v1 import audit_service_pb2, lease_service_pb2, revocation_service_pb2, sidecar_service_pb2
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.time import Instant
from leasehold_broker.rpc.access import METHODS, Access, AccessTableError, methods_of
from leasehold_broker.rpc.caller import CallContext, Shown
from leasehold_broker.rpc.server import RpcServer

MODULES = (audit_service_pb2, lease_service_pb2, revocation_service_pb2, sidecar_service_pb2)
LEASES = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]
NAMES = [method.name for method in LEASES.methods]


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
        reader = path.partition("/")[2].startswith(("Get", "List", "Watch"))
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
    with pytest.raises(AccessTableError, match="NewMethod: missing in the access table"):
        methods_of(LEASES.full_name, [*NAMES, "NewMethod"], [*NAMES, "NewMethod"])


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
