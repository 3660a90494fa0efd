"""Envoy in front of the egress: whose call it is, and what of Envoy's headers goes on."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from tests.egress.test_listeners import Seen, lost
from tests.fakes.centre import eventually
from tests.fakes.egress import running

from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.trusted_proxy import TrustedProxy
from leasehold_broker.egress.parts import EgressCounts
from leasehold_broker.egress.server import EgressServer

AGENT, DIGEST = "spiffe://prod.example/agent", "ab" * 32
SAID = f"x-forwarded-client-cert: Hash={DIGEST};URI={AGENT}\r\n"
OF_ENVOY = "x-forwarded-proto: https\r\nx-envoy-expected-rq-timeout-ms: 0\r\n"


@contextlib.asynccontextmanager
async def behind(tmp_path, proxy, **limits):
    """A way to send headers to an egress on a Unix socket, and what it saw; `proxy` gets this process's uid."""
    kernel = KernelPeers()
    async with running() as world:
        seen = Seen(world.calls)
        own = (tmp_path / ".").stat().st_uid
        parts = replace(world.server.parts, calls=seen, peers=kernel, proxy=proxy and proxy(own), counts=EgressCounts())
        parts = replace(parts, limits=replace(parts.limits, **limits))
        server = EgressServer(parts)
        path = tmp_path / "private" / "egress.sock"
        await server.listen_unix(PublicSocket(SocketPlace(path)), lost)

        async def send(headers, until=b""):
            reader, writer = await asyncio.open_unix_connection(str(path))
            extra = f"connection: close\r\n{headers}".encode()
            request = world.post(extra=extra).replace(world.host, b"localhost")
            writer.write(request.partition(until)[0] + until if until else request)
            try:
                return await reader.read()
            finally:
                writer.close()

        send.counts = parts.counts
        try:
            yield world, seen, send
        finally:
            if world.calls.gate is not None:
                # Also where the test has failed: what is held would keep the drain waiting.
                world.calls.gate.set()
            await server.drain()
            kernel.close()


async def test_a_call_is_that_of_the_certificate_that_envoy_tells(tmp_path):
    """The lease is looked up for the agent's certificate, and Envoy's headers reach no provider's gate."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, frozenset({AGENT}))) as (world, seen, send):
        answer = await send(SAID + OF_ENVOY)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert seen.peers == [Peer(None, DIGEST, AGENT)]
    assert len(world.calls.admitted) == 1


@pytest.mark.parametrize(
    "said", ["", SAID.replace(AGENT, f"{AGENT}-2"), SAID.replace(DIGEST, "cd"), SAID.replace(";", ",")]
)
async def test_a_call_of_nobody_is_refused_before_its_lease(tmp_path, said):
    """Envoy said nothing of use: nothing is looked up, held or sent, and the refusal says why in the log."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, frozenset({AGENT}))) as (world, seen, send):
        answer = await send(said)
        recorded = world.refusals.recorded

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert [reason for reason, *_ in recorded] == [Reason.PEER_MISMATCH]
    assert (seen.peers, world.calls.admitted) == ([], [])


async def test_a_certificate_is_refused_where_envoy_has_no_callers(tmp_path):
    """What would be somebody else's identity is not passed over."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, frozenset())) as (world, seen, send):
        forged, plain = await send(SAID), await send(OF_ENVOY)

    assert forged.startswith(b"HTTP/1.1 401 ")
    assert plain.startswith(b"HTTP/1.1 200 ")
    assert len(seen.peers) == len(world.calls.admitted) == 1


@pytest.mark.parametrize("proxy", [None, lambda uid: TrustedProxy(uid + 1, frozenset({AGENT}))])
@pytest.mark.parametrize("said", [SAID, OF_ENVOY])
async def test_from_anyone_else_these_headers_are_unknown(tmp_path, proxy, said):
    """Another user's word is not taken: the header is refused as any that no SDK sends, and names nobody."""
    async with behind(tmp_path, proxy) as (world, seen, send):
        answer = await send(said)
        recorded = world.refusals.recorded

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert [reason for reason, *_ in recorded] == [Reason.HEADER_NOT_ALLOWED]
    assert {peer.certificate_sha256 for peer in seen.peers} == {""}
    assert world.calls.admitted == []


OTHER = SAID.replace(AGENT, f"{AGENT}-2").replace(DIGEST, "cd" * 32)
TWO = frozenset({AGENT, f"{AGENT}-2"})


async def test_one_caller_cannot_take_all_places_of_the_proxy(tmp_path):
    """Behind the proxy requests are counted by caller: one more is refused, another's is served, then there is room."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, TWO), requests_per_caller_max=2) as (world, _, send):
        world.calls.gate = asyncio.Event()
        held = [asyncio.create_task(send(SAID)) for _ in range(2)]
        await eventually(lambda: send.counts.requests_of[f"cert:{DIGEST}"] == 2)
        third = await send(SAID)
        other = asyncio.create_task(send(OTHER))
        await eventually(lambda: send.counts.requests_of[f"cert:{'cd' * 32}"] == 1)
        world.calls.gate.set()
        answers = [await each for each in (*held, other)]
        last = await send(SAID)

    assert third.startswith(b"HTTP/1.1 429 ")
    assert [reason for reason, *_ in world.refusals.recorded] == [Reason.CONCURRENCY_EXCEEDED]
    assert [each[:13] for each in (*answers, last)] == [b"HTTP/1.1 200 "] * 4
    assert not send.counts.requests_of


async def test_one_caller_s_slow_bodies_leave_room_for_another_s(tmp_path):
    """Body bytes behind the proxy are counted by caller too, and given back when a connection breaks."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, TWO), bodies_bytes_per_peer_max=20) as (world, _, send):
        slow = asyncio.create_task(send(SAID, until=b"\r\n\r\n"))
        await eventually(lambda: send.counts.body_bytes_of[f"cert:{DIGEST}"] > 0)
        second, other = await send(SAID), await send(OTHER)
        slow.cancel()
        await eventually(lambda: not send.counts.requests_of)

    assert second.startswith(b"HTTP/1.1 503 ")
    assert [reason for reason, *_ in world.refusals.recorded] == [Reason.OVERLOADED]
    assert other.startswith(b"HTTP/1.1 200 ")
    assert (send.counts.body_bytes_of, send.counts.body_bytes_waiting) == ({}, 0)


async def test_the_only_caller_of_a_proxy_has_all_its_places(tmp_path):
    """Where all who come through are one caller, connections are counted, as without a proxy."""
    async with behind(tmp_path, lambda uid: TrustedProxy(uid, frozenset()), requests_per_caller_max=1) as served:
        world, _, send = served
        world.calls.gate = asyncio.Event()
        held = [asyncio.create_task(send("")) for _ in range(2)]
        await eventually(lambda: send.counts.open_requests == 2)
        world.calls.gate.set()
        answers = [await each for each in held]

    assert [each[:13] for each in answers] == [b"HTTP/1.1 200 "] * 2
