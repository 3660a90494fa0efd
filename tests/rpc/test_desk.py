"""Operators' methods without gRPC: the same table, roles and events as with it."""

# ruff: noqa: ARG002 - signatures are the ports'

import contextlib
import os

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.rpc import SystemEntropy

from leasehold.v1 import audit_service_pb2 as audit
from leasehold.v1 import fleet_service_pb2 as fleet
from leasehold.v1 import lease_service_pb2 as lease
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.rpc.access import AccessTableError
from leasehold_broker.rpc.desk import CALLS_OF_ONE_MAX, Desk

FLEET = fleet.DESCRIPTOR.services_by_name["FleetService"]
AUDIT = audit.DESCRIPTOR.services_by_name["AuditService"]
LIST = "leasehold.v1.FleetService/ListSidecars"
READ = "leasehold.v1.AuditService/ListEvents"
WATCH = "leasehold.v1.AuditService/WatchEvents"
HERE = Peer(os.getuid())


class World:
    """A desk with two services, whose handlers note what they are asked."""

    def __init__(self) -> None:
        """Everybody has a role."""
        self.clock = ManualClock()
        self.asked, self.refused, self.read = [], [], []
        self.allowed = True
        self.fault: Refusal | None = None
        self.desk = Desk(self.allow, self, self, self.clock, SystemEntropy())
        self.desk.serve(FLEET, {method.name: self.answer for method in FLEET.methods})
        self.desk.serve(
            AUDIT, {method.name: self.watch if method.server_streaming else self.answer for method in AUDIT.methods}
        )

    def allow(self, identity) -> None:
        """A role, or not."""
        if not self.allowed:
            raise Refusal(Reason.OPERATOR_NOT_ALLOWED, "no role")

    async def answer(self, request, call):
        """A handler."""
        self.asked.append(call)
        if self.fault is not None:
            raise self.fault
        return fleet.ListSidecarsResponse()

    async def watch(self, request, call):
        """A handler of a stream."""
        self.asked.append(call)
        while True:
            yield audit.WatchEventsResponse()

    async def rpc_refused(self, method, refusal, identity, peer, request_id) -> None:
        """The recorder."""
        self.refused.append((method, refusal.reason, identity, peer, request_id))

    async def rpc_read(self, method, identity, peer, request_id) -> None:
        """The recorder of readings."""
        assert not self.asked
        self.read.append((method, identity.subject.subject, request_id))

    def identity(self, seconds=60):
        """Somebody."""
        return Identity(Subject("https://i", "ada"), {}, "", self.clock.now().wall_ms + seconds * 1000)


@pytest.fixture
def world():
    """One."""
    return World()


async def test_a_call_is_as_over_grpc(world):
    """The handler is told who, by which method, and a request id of its own."""
    identity = world.identity()
    await world.desk.call(LIST, fleet.ListSidecarsRequest(), identity, HERE)
    (call,) = world.asked
    assert (call.method, call.identity, call.peer) == (LIST, identity, HERE)
    assert len(call.request_id) == 36
    assert world.refused == world.read == []


async def test_reading_the_log_is_an_event_before_it_is_read(world):
    """As the access table says."""
    await world.desk.call(READ, audit.ListEventsRequest(), world.identity(), HERE)
    assert world.read == [(READ, "ada", world.asked[0].request_id)]


@pytest.mark.parametrize(
    ("path", "spoil", "reason"),
    [
        (LIST, {"allowed": False}, Reason.OPERATOR_NOT_ALLOWED),
        (READ, {"allowed": False}, Reason.OPERATOR_NOT_ALLOWED),
        (LIST, {"seconds": 0}, Reason.JWT_EXPIRED),
        ("leasehold.v1.LeaseService/AcquireLease", {}, Reason.ROUTE_NOT_ALLOWED),
        (LIST, {"fault": Refusal(Reason.FIELD_INVALID, "no")}, Reason.FIELD_INVALID),
    ],
)
async def test_a_refusal_is_an_event(world, path, spoil, reason):
    """Whoever it is, by whichever method; nothing was read, and but for the handler's own nothing asked."""
    identity = world.identity(spoil.get("seconds", 60))
    world.allowed, world.fault = spoil.get("allowed", True), spoil.get("fault")
    with pytest.raises(Refusal) as caught:
        await world.desk.call(path, fleet.ListSidecarsRequest(), identity, HERE)
    assert caught.value.reason is reason
    ((method, told, who, peer, _),) = world.refused
    assert (method, told, who, peer) == (path, reason, identity, HERE)
    assert world.read == []
    assert bool(world.asked) is (reason is Reason.FIELD_INVALID)


async def test_a_stream_ends_with_its_age(world):
    """Fifteen minutes, as the table says; its opening is a reading."""
    answers = 0
    async for _ in world.desk.watch(WATCH, audit.WatchEventsRequest(), world.identity(3600), HERE):
        answers += 1
        world.clock.advance(300)
    assert answers == 3
    assert len(world.read) == 1


async def test_streams_of_one_are_bounded(world):
    """One more than the table has is refused, and said."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(32):
            world.asked.clear()
            watching = world.desk.watch(WATCH, audit.WatchEventsRequest(), world.identity(), HERE)
            await stack.enter_async_context(contextlib.aclosing(watching))
            await anext(watching)
        more = world.desk.watch(WATCH, audit.WatchEventsRequest(), world.identity(), HERE)
        with pytest.raises(Refusal):
            await anext(more)
    assert world.refused[0][1] is Reason.CONCURRENCY_EXCEEDED
    assert CALLS_OF_ONE_MAX == 32


def test_a_desk_is_for_operators_alone(world):
    """What agents call is not served beside it."""
    service = lease.DESCRIPTOR.services_by_name["LeaseService"]
    handlers = {method.name: world.watch if method.server_streaming else world.answer for method in service.methods}
    with pytest.raises(AccessTableError, match="is not for operators"):
        world.desk.serve(service, handlers)
