"""What hostile bytes get, over a raw socket in front of a recording origin."""

import asyncio
from dataclasses import replace

import pytest
from tests.egress.hostile import BODY, FRAMING, GOOD_CHUNKS, LINE, REQUESTS, SECOND, chunked
from tests.fakes.egress import GUARD_SECONDS, TICK_SECONDS, TOKEN, FakeProvider, ended, running, until

from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.egress.connection import Phase
from leasehold_broker.egress.limits import EgressLimits


@pytest.mark.parametrize("name", FRAMING)
async def test_a_framing_error_is_answered_once_recorded_and_closes(name):
    """Bytes that two parsers could read differently reach no upstream, are recorded, and end the connection."""
    status, payload = FRAMING[name]
    async with running() as world:
        answer = await world.exchange(payload.replace(b"HOST", world.host) + SECOND.replace(b"HOST", world.host))
        assert b"HTTP/1.1 %d " % status == answer[:13]
        assert answer.count(b"leasehold-request-id: ") == 1
        assert b"connection: close\r\n" in answer
        assert world.origin.requests == []
        assert world.calls.admitted == []
        assert len(world.refusals.recorded) == 1


@pytest.mark.parametrize("name", [name for name, (_, payload) in FRAMING.items() if len(payload) <= 2000])
async def test_a_framing_error_is_found_when_it_comes_byte_by_byte(name):
    """How the bytes are cut into packets changes nothing: no upstream request, and one refusal."""
    status, payload = FRAMING[name]
    async with running() as world:
        reader, writer = await world.connect()
        for byte in payload.replace(b"HOST", world.host):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        async with asyncio.timeout(GUARD_SECONDS):
            line = await reader.readline()
        assert b"HTTP/1.1 %d " % status == line[:13]
        assert world.origin.requests == []
        assert len(world.refusals.recorded) == 1


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_refused_request_reaches_nobody_and_is_recorded(name):
    """Each well-framed request that may not pass is recorded with its reason, and nothing goes upstream."""
    status, reason, payload = REQUESTS[name]
    async with running() as world:
        payload = payload.replace(b"HOST", world.host)
        reader, writer = await world.connect()
        writer.write(payload)
        async with asyncio.timeout(GUARD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b"HTTP/1.1 %d " % status == head[:13]
        assert b"leasehold-reason: " + reason.value.encode() in head
        assert b"leasehold-refused-by: leasehold" in head
        assert [reason] == [recorded[0] for recorded in world.refusals.recorded]
        assert world.origin.requests == []
        assert world.calls.admitted == []


async def test_a_refusal_of_the_flow_speaks_the_vendors_shape():
    """A spent budget is a 402 in the vendor's own shape that tells the SDK not to retry; the connection lives on."""
    async with running() as world:
        world.calls.refuse_with = Refusal(Reason.BUDGET_EXHAUSTED, "the lease is spent; acquire a new one")
        reader, writer = await world.connect()
        for _ in range(2):
            writer.write(world.post(extra=b""))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            assert head[:13] == b"HTTP/1.1 402 "
            assert b"x-should-retry: false" in head
            assert b"fake_error" in body
        assert world.origin.requests == []
        assert world.refusals.recorded[0] == (Reason.BUDGET_EXHAUSTED, "leases/one", "m")


async def test_waiting_helps_is_said_with_retry_after():
    """A rate limit carries Retry-After in whole seconds, rounded up, and lets the SDK retry."""
    async with running() as world:
        world.calls.refuse_with = Refusal(Reason.RATE_LIMITED, "slow down", retry_after_seconds=1.2)
        answer = await world.exchange(world.post())
        assert answer[:13] == b"HTTP/1.1 429 "
        assert b"retry-after: 2\r\n" in answer
        assert b"x-should-retry" not in answer


async def test_a_refusal_that_cannot_be_recorded_is_answered_as_that():
    """When the audit store takes no event, the caller hears 503, not the refusal that nobody wrote down."""
    async with running() as world:
        world.refusals.fail_with = Refusal(Reason.AUDIT_SPOOL_FULL, "the audit log is full; try later")
        answer = await world.exchange(world.post(b"{}"))
        assert answer[:13] == b"HTTP/1.1 503 "
        assert b"leasehold-reason: AUDIT_SPOOL_FULL" in answer


async def test_a_caller_whom_the_kernel_does_not_name_is_refused():
    """Without a uid and without a certificate nobody is served, and the public reason is the generic one."""
    async with running(uid=None) as world:
        answer = await world.exchange(world.post())
        assert answer[:13] == b"HTTP/1.1 401 "
        assert b"leasehold-reason: IDENTITY_REJECTED" in answer
        assert [recorded[0] for recorded in world.refusals.recorded] == [Reason.PEER_MISMATCH]
        assert world.origin.requests == []


ENDS = {
    Reason.LEASE_REVOKED: (LeaseState.REVOKED, Reason.LEASE_REVOKED),
    Reason.LEASE_RELEASED: (LeaseState.RELEASED, Reason.LEASE_RELEASED),
    Reason.PROCESS_ENDED: (LeaseState.RELEASED, Reason.PROCESS_ENDED),
    Reason.LEASE_EXPIRED: (LeaseState.EXPIRED, Reason.LEASE_EXPIRED),
    Reason.LEASE_FROZEN: (LeaseState.FROZEN, Reason.LEASE_FROZEN),
}


@pytest.mark.parametrize("reason", ENDS)
async def test_whose_dead_lease_was_tried_is_recorded(reason):
    """A responder sees which of the leases that ended is used still; nothing goes upstream, nothing is held."""
    async with running() as world:
        world.calls.lease = world.calls.lease.end(*ENDS[reason], Instant(0, 0))
        answer = await world.exchange(world.post())
        assert b"leasehold-reason: " + reason.value.encode() in answer
        assert world.refusals.recorded == [(reason, "leases/one", None)]
        assert world.origin.requests == []
        assert world.calls.admitted == []


async def test_whose_lease_does_not_reach_a_provider_is_recorded():
    """The lease is known though it has no scope there."""
    async with running() as world:
        world.calls.lease = replace(world.calls.lease, scopes=())
        answer = await world.exchange(world.post())
        assert b"leasehold-reason: SCOPE_EXCEEDED" in answer
        assert world.refusals.recorded == [(Reason.SCOPE_EXCEEDED, "leases/one", None)]
        assert world.origin.requests == []


async def test_the_lease_is_checked_before_the_body_is_read():
    """A caller without a lease is refused on its head alone, however large the body it announces."""
    async with running() as world:
        reader, writer = await world.connect()
        writer.write(
            LINE + b"host: " + world.host + b"\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n"
        )
        async with asyncio.timeout(GUARD_SECONDS):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")


async def test_a_head_answer_has_no_body():
    """The refusal of HEAD carries no body, so that nobody reads it as the next answer."""
    async with running() as world:
        answer = await world.exchange(REQUESTS["HEAD"][2].replace(b"HOST", world.host))
        assert answer.endswith(b"\r\n\r\n")


async def test_pipelined_requests_are_never_parsed():
    """Of two requests in one packet the first is served, the second reaches nobody, and the connection closes."""
    async with running() as world:
        answer = await world.exchange(world.post(extra=b"") + SECOND.replace(b"HOST", world.host))
        assert len(world.origin.requests) == 1
        assert answer.count(b"leasehold-request-id: ") == 1
        assert b"connection: close" in answer


async def test_too_many_bytes_after_a_request_end_the_connection():
    """A flood behind a request that waits for its answer cuts the connection and settles the call as left."""
    limits = EgressLimits(surplus_bytes_max=1000, tick_seconds=TICK_SECONDS)
    async with running(limits) as world:
        world.calls.gate = asyncio.Event()
        _, writer = await world.connect()
        writer.write(world.post(extra=b""))
        await world.calls.admitting.wait()
        writer.write(b"x" * 5000)
        await until(lambda: not world.server.connections)
        world.calls.gate.set()
        assert not (await world.calls.outcome()).sent
        assert world.origin.requests == []


async def test_connections_beyond_the_bound_are_closed_unread():
    """One connection more than allowed is closed before a byte of it is read."""
    limits = EgressLimits(connections_max=1, tick_seconds=TICK_SECONDS)
    async with running(limits) as world:
        reader, writer = await world.connect()
        writer.write(world.post(extra=b""))
        await reader.readuntil(b"\r\n\r\n")
        assert await world.exchange(world.post()) == b""
        assert world.server.parts.counts.connections_over_limit == 1


async def test_one_peer_cannot_hold_all_connections():
    """A peer's connections have a bound of their own; when one of them has gone, the next is taken."""
    limits = EgressLimits(connections_per_peer_max=1, tick_seconds=TICK_SECONDS)
    async with running(limits) as world:
        _, writer = await world.connect()
        await until(lambda: world.server.connections)
        assert await world.exchange(world.post()) == b""
        assert world.server.parts.counts.connections_over_limit == 1
        writer.close()
        await until(lambda: not world.server.connections)
        assert not world.server.parts.counts.connections_of
        assert b" 200 " in await world.exchange(world.post(extra=b"connection: close\r\n"))


@pytest.mark.parametrize("bound", ["bodies_bytes_max", "bodies_bytes_per_peer_max"])
async def test_bodies_together_have_a_bound(bound):
    """A body that would bring all waiting bodies, or those of one peer, over their bound is refused as overload."""
    limits = EgressLimits(**{bound: 100}, tick_seconds=TICK_SECONDS)
    async with running(limits) as world:
        _, slow = await world.connect()
        slow.write(world.post(b'{"model":"' + b"m" * 70 + b'"}', extra=b"")[:-40])
        await until(lambda: world.server.parts.counts.body_bytes_waiting)
        answer = await world.exchange(world.post(b'{"model":"' + b"m" * 70 + b'"}'))
        assert answer[:13] == b"HTTP/1.1 503 "
        assert b"leasehold-reason: OVERLOADED" in answer
        slow.close()
        await until(lambda: not world.server.parts.counts.body_bytes_waiting)
        assert not world.server.parts.counts.body_bytes_of
        assert b" 200 " in await world.exchange(world.post())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /fake", b"408"),
        (LINE + b"host: ", b"408"),
    ],
)
async def test_a_slow_head_is_cut_by_its_deadline(sent, status):
    """A head that does not end in time is refused, recorded and closed; nothing waits for it."""
    async with running() as world:
        reader, writer = await world.connect()
        writer.write(sent)
        await until(lambda: [one._phase for one in world.server.connections] == [Phase.HEAD])
        world.clock.push(world.server.parts.limits.head_seconds)
        answer = await ended(reader)
        assert b"HTTP/1.1 " + status == answer[:12]
        assert world.refusals.details == ["deadline"]


async def test_a_slow_body_is_cut_by_its_deadline_and_by_its_progress():
    """A body that comes too slowly is refused, by the total time or by the bytes per second."""
    for limits in (
        EgressLimits(body_seconds=100, body_grace_seconds=1000, tick_seconds=TICK_SECONDS),
        EgressLimits(body_grace_seconds=100, body_bytes_per_second_min=10**6, tick_seconds=TICK_SECONDS),
    ):
        async with running(limits) as world:
            reader, writer = await world.connect()
            writer.write(world.post()[:-3])
            await until(lambda world=world: [one._phase for one in world.server.connections] == [Phase.BODY])
            world.clock.push(101)
            answer = await ended(reader)
            assert answer[:13] == b"HTTP/1.1 408 "
            assert world.origin.requests == []


async def test_an_idle_connection_is_closed_silently():
    """A connection on which nothing comes is closed without an answer and without an event."""
    async with running() as world:
        reader, _ = await world.connect()
        await until(lambda: world.server.connections)
        world.clock.push(world.server.parts.limits.head_seconds)
        assert await ended(reader) == b""
        assert world.refusals.recorded == []


async def test_continue_is_sent_only_to_a_caller_with_a_lease():
    """Expect: 100-continue gets its 100 after the lease was checked; without a lease the refusal comes at once."""
    async with running() as world:
        reader, writer = await world.connect()
        request = world.post(extra=b"expect: 100-continue\r\n")
        writer.write(request[: -len(BODY)])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        answer = await world.exchange(request[: -len(BODY)].replace(TOKEN.encode(), b"other"))
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_chunked_body_is_taken():
    """A well-formed chunked body is read whole, and goes upstream with a length."""
    async with running() as world:
        payload = chunked(GOOD_CHUNKS, b"connection: close\r\ntransfer-encoding: chunked\r\n").replace(
            b"HOST", world.host
        )
        answer = await world.exchange(payload)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert world.origin.requests == [BODY]
        assert b"content-length: 13" in world.origin.heads[0]


def test_the_fake_provider_is_a_provider():
    """The stand-in satisfies the port (checked by its use as a target)."""
    assert FakeProvider().name == "fake"
