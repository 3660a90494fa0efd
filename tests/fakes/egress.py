"""Stand-ins for the neighbours of the egress: flows, a provider, a recording origin, and a raw client."""

# ruff: noqa: ARG002 - a fake takes what its port gives, needed or not

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from tests.fakes.loop_clock import LoopClock
from tests.fakes.planted import planted

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.http_upstream_connection import UpstreamSettings
from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallOutcome, CallPlan
from leasehold_broker.domain.honeytokens import Traps
from leasehold_broker.domain.identity import Peer, Subject
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.lease import Lease, Mode
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant
from leasehold_broker.egress.limits import EgressLimits
from leasehold_broker.egress.parts import Cut, EgressParts, Target
from leasehold_broker.egress.server import EgressServer
from leasehold_broker.flows.call import Admitted
from leasehold_broker.ports.provider import Json, Provider, Route, ToldLimit, UpstreamRequest

TOKEN = "lhs_test-token"
KEY = planted("uvwxyz", "sk-test-0123456789abcdefghij-")
GUARD_SECONDS = 300.0  # the end of patience, for which a busy machine is no reason
TICK_SECONDS = 0.02


def lease() -> Lease:
    """A live lease of uid 1000 for the provider "fake"."""
    return Lease(
        name="leases/one",
        parent="",
        root="leases/one",
        depth=0,
        subject=Subject("https://idp.example", "agent"),
        scopes=(
            Scope("fake", "fake-key"),
            Scope("anthropic", "a-key"),
            Scope("bedrock", "b-key"),
            Scope("openai", "o-key"),
        ),
        caps=NO_CAPS,
        carved=(False,) * 5,
        mode=Mode.BROKERED,
        binding="uid:1000",
        create_wall_ms=0,
        ttl_seconds=600,
        expire_ns=2**62,
        expire_wall_ms=0,
        max_expire_ns=2**62,
        max_expire_wall_ms=0,
        grant="g",
        policy_version="v",
        revocation_epoch=0,
    )


class FakeCalls:
    """Admits everything with the right token, remembers every settlement; can be told to refuse, wait or cut."""

    def __init__(self) -> None:
        """No call yet."""
        self.lease = lease()
        self.key = Secret(KEY.encode())
        self.admitted: list[str] = []
        self.settled: dict[str, CallOutcome] = {}
        self.settled_twice: list[str] = []
        self.cuts: dict[str, Cut] = {}
        self.refuse_with: Refusal | None = None
        self.lowered_to: int | None = None
        self.gate: asyncio.Event | None = None
        self.admitting = asyncio.Event()
        self.changed = asyncio.Event()

    def lease_of(self, unverified_token: str | None, peer: Peer) -> Lease:
        """Only TOKEN, only uid 1000."""
        if unverified_token != TOKEN or not peer.satisfies(self.lease.binding):
            raise Refusal(Reason.LEASE_UNKNOWN, "no such lease; acquire one")
        return self.lease

    def scope_of(self, lease: Lease, provider: str) -> Scope:
        """A live lease's."""
        dead = lease.dead_reason(Instant(0, 0))
        if dead is not None:
            raise dead
        scope = lease.scope_for(provider)
        if scope is None:
            raise Refusal(Reason.SCOPE_EXCEEDED, "not in scope")
        return scope

    async def admit(self, lease: Lease, plan: CallPlan, request_id: str, cut: Cut) -> Admitted:
        """Hold nothing, say yes."""
        self.admitting.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse_with is not None:
            raise self.refuse_with
        call_id = f"call-{len(self.admitted)}"
        self.admitted.append(call_id)
        self.cuts[call_id] = cut
        return Admitted(call_id, lease, self.key, self.lowered_to, 12345, self.lowered_to is not None)

    def end(self, call_id: str, outcome: CallOutcome) -> None:
        """Remember the outcome."""
        if call_id in self.settled:
            self.settled_twice.append(call_id)
        self.settled[call_id] = outcome
        self.changed.set()

    async def outcome(self, call_id: str = "call-0") -> CallOutcome:
        """The outcome of a call, once it is settled."""
        async with asyncio.timeout(GUARD_SECONDS):
            while call_id not in self.settled:
                self.changed.clear()
                await self.changed.wait()
        return self.settled[call_id]


class FakeRefusals:
    """Remembers refusals; can fail to store them."""

    def __init__(self) -> None:
        """No refusal yet."""
        self.recorded: list[tuple[Reason, str, str | None]] = []
        self.details: list[str] = []
        self.given: list[Refusal] = []
        self.fail_with: Refusal | None = None

    async def call_refused(
        self,
        refusal: Refusal,
        peer: Peer | None,
        request_id: str,
        lease: Lease | None,
        provider: str,
        operation: str,
        model: str | None,
    ) -> None:
        """Remember reason, lease and model."""
        if self.fail_with is not None:
            raise self.fail_with
        self.recorded.append((refusal.reason, lease.name if lease else "", model))
        self.details.append(refusal.detail)
        self.given.append(refusal)


class FakePeers:
    """Everybody is uid 1000."""

    def __init__(self, uid: int | None = 1000) -> None:
        """Everybody is `uid`."""
        self.uid = uid

    def peer_of(self, connection: object) -> Peer:
        """The same for each connection."""
        return Peer(self.uid)


class FixedEntropy:
    """Not random at all."""

    def bytes(self, count: int) -> bytes:
        """The same bytes."""
        return b"\x07" * count


class FakeMeter:
    """Relays everything; final usage is in the last `usage:<n>` seen; a boundary is after a blank line."""

    def __init__(self) -> None:
        """Nothing seen."""
        self._tail = b"\n\n"
        self._usage: Usage | None = None
        self.final = False

    def feed(self, data: bytes) -> bytes:
        """Look for the usage."""
        self._tail = (self._tail + data)[-64:]
        if b"usage:" in self._tail:
            digits = self._tail.rpartition(b"usage:")[2].split(b"\n")[0].split(b'"')[0]
            self._usage = Usage(output_tokens=int(digits or b"0"))
        return data

    def finish(self) -> bytes:
        """Over."""
        self.final = True
        return b""

    @property
    def usage(self) -> Usage | None:
        """What was seen."""
        return self._usage

    @property
    def at_event_boundary(self) -> bool:
        """After a blank line."""
        return self._tail.endswith(b"\n\n")


class FakeProvider:
    """POST /v1/messages with a JSON body and GET /v1/models."""

    name = "fake"
    default_origin = "https://fake.example"
    sdk_path = ""
    probe_path = ""

    def route(self, method: str, path: str, query: str) -> Route:
        """Two routes."""
        if (method, path, query) == ("POST", "/v1/messages", ""):
            return Route("messages", "POST", None, "/v1/messages", takes_body=True)
        if (method, path, query) == ("GET", "/v1/models", ""):
            return Route("models.list", "GET", None, "/v1/models", takes_body=False)
        raise Refusal(Reason.ROUTE_NOT_ALLOWED, "not served")

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """x-api-key only."""
        return headers.get("x-api-key")

    def plan(self, route: Route, headers: Mapping[str, str], body: dict[str, Json] | None, body_bytes: int) -> CallPlan:
        """Needs a model."""
        known = {"host", "content-type", "content-length", "transfer-encoding", "connection", "expect", "user-agent"}
        for name in headers:
            if name not in known and not name.startswith("x-stainless-"):
                raise Refusal(Reason.HEADER_NOT_ALLOWED, f"header {name} is not known")
        if body is None:
            return CallPlan("fake", route.operation, None, metered=False, stream=False)
        model = body.get("model")
        if not isinstance(model, str):
            raise Refusal(Reason.BODY_INVALID, "model is missing")
        return CallPlan("fake", route.operation, model, metered=True, stream=body.get("stream") is True)

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: dict[str, Json] | None,
        output_tokens_limit: int | None,
        _kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """The body anew."""
        sent = b"" if body is None else msgspec.json.encode(body)
        return UpstreamRequest(route.method, route.upstream_path, (("content-type", "application/json"),), sent)

    def key_header(self, key: Secret, _kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """Bearer."""
        return "authorization", b"Bearer " + key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: dict[str, Json] | None, content_type: str) -> FakeMeter:
        """A fresh one."""
        return FakeMeter()

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """Reads a size out of an error; one that is "broken" breaks it."""
        if body == b"broken":
            raise RecursionError
        return ToldLimit(float(headers.get("retry-after", 0)), exhausted=len(body) == 5, refused=len(body) == 5)

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """Vendor-like."""
        return msgspec.json.encode({"fake_error": {"reason": refusal.reason.value, "message": refusal.message}})

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """Vendor-like."""
        return b"event: error\ndata: " + refusal.reason.value.encode() + b"\n\n"


async def until(holds: Callable[[], object]) -> None:
    """Wait until `holds()` is true."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not holds():  # noqa: ASYNC110 - what is waited for happens inside the door, which tells nobody
            await asyncio.sleep(0.005)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything until the egress closes; nothing when it breaks off."""
    async with asyncio.timeout(GUARD_SECONDS):
        try:
            return await reader.read(-1)
        except ConnectionError:
            return b""


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def json_answer(body: bytes = b'{"ok":true,"usage:7":0}', status: str = "200 OK", headers: bytes = b"") -> Answer:
    """An answer with a length."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (status.encode(), len(body), headers, body)
        )
        await writer.drain()

    return answer


class Origin:
    """A recording HTTP server: counts requests and connections, keeps what it got, answers as told."""

    def __init__(self) -> None:
        """Answer 200 to everything."""
        self.answer: Answer = json_answer()
        self.requests: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.lost = asyncio.Event()
        self.arrived = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                self.heads.append(head)
                self.requests.append(await reader.readexactly(length))
                self.arrived.set()
                await self.answer(reader, writer)
                if writer.is_closing():
                    break
        self.lost.set()
        writer.close()


@dataclass
class World:
    """A running egress with all its neighbours."""

    calls: FakeCalls
    refusals: FakeRefusals
    origin: Origin
    server: EgressServer
    upstream: HttpUpstream
    port: int
    clock: LoopClock
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def host(self) -> bytes:
        """The Host value of our listener."""
        return b"127.0.0.1:%d" % self.port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(writer)
        return reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Send bytes, read until the egress closes (needs a request that closes)."""
        reader, writer = await self.connect()
        writer.write(data)
        return await ended(reader)

    def post(self, body: bytes = b'{"model":"m"}', extra: bytes = b"connection: close\r\n") -> bytes:
        """A good request; `extra` is whole header lines."""
        return (
            b"POST /fake/v1/messages HTTP/1.1\r\nhost: %b\r\nx-api-key: %b\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n%b\r\n%b" % (self.host, TOKEN.encode(), len(body), extra, body)
        )


async def drained(world: World) -> None:
    """Drain it, with no wait for what would be cut at the end of its time."""
    draining = asyncio.create_task(world.server.drain())
    while not draining.done():
        await asyncio.wait({draining}, timeout=0.01)
        world.clock.push(world.server.parts.limits.drain_seconds)
    await draining


@contextlib.asynccontextmanager
async def running(
    limits: EgressLimits | None = None,
    settings: UpstreamSettings | None = None,
    providers: Mapping[str, Provider] | None = None,
    uid: int | None = 1000,
    traps: Traps | None = None,
) -> AsyncIterator[World]:
    """An egress on loopback over a recording origin."""
    calls, refusals, origin = FakeCalls(), FakeRefusals(), Origin()
    await origin.start()
    upstream = HttpUpstream(
        [UpstreamOrigin(origin.url, allow_private=True)], settings or UpstreamSettings(tick_seconds=TICK_SECONDS)
    )
    targets = {name: Target(provider, origin.url) for name, provider in (providers or {"fake": FakeProvider()}).items()}
    chosen = limits or EgressLimits(tick_seconds=TICK_SECONDS)
    server = EgressServer(
        EgressParts(
            calls,
            refusals,
            targets,
            upstream,
            FakePeers(uid),
            FixedEntropy(),
            limits=chosen,
            sprung_by=(traps or Traps()).sprung_by,
        )
    )
    port = await server.listen_tcp("127.0.0.1", 0)
    world = World(calls, refusals, origin, server, upstream, port, LoopClock())
    try:
        yield world
    finally:
        for writer in world.clients:
            writer.close()
        await drained(world)
        await upstream.close()
        await origin.stop()
        assert calls.settled_twice == []
        assert set(calls.settled) == set(calls.admitted)
        assert server.parts.counts.open_requests == 0
        assert server.parts.counts.body_bytes_waiting == 0
