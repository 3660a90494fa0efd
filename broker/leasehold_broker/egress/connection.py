"""One connection of a caller. Owns its deadlines, and that one request is in work at a time.

Bytes that follow a request before its answer are counted, never parsed: the answer is sent, then the connection closes.
A caller that closes its sending side has gone.
"""

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import replace
from enum import Enum
from typing import Any, Protocol, cast

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.exchange import Exchange
from leasehold_broker.egress.http1 import FramingError, RequestHead, RequestReader
from leasehold_broker.egress.parts import EgressParts

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")


class Door(Protocol):
    """The server, as its connections see it."""

    parts: EgressParts
    draining: bool
    connections: "set[Connection]"

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work in a task that nobody else can cancel."""
        ...


class Phase(Enum):
    """What the connection waits for."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    BUSY = "busy"
    LINGER = "linger"


class Connection(asyncio.Protocol):
    """Reads requests, one at a time, and hands each to an exchange."""

    __slots__ = (
        "_body_from",
        "_body_reserved",
        "_caller",
        "_deadline",
        "_exchange",
        "_gone",
        "_hosts",
        "_keep_alive",
        "_limits",
        "_loop",
        "_out",
        "_out_bytes",
        "_paused",
        "_peer",
        "_peer_refusal",
        "_phase",
        "_proxied",
        "_reader",
        "_stall",
        "_surplus_bytes",
        "_transport",
        "_waited",
        "door",
    )

    def __init__(self, door: Door, hosts: frozenset[str]) -> None:
        """Serve one connection that came through a listener that takes these Host values."""
        self.door = door
        self._hosts = hosts
        self._limits = door.parts.limits
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(self._limits)
        self._phase = Phase.IDLE
        self._deadline = _NEVER
        self._stall = _NEVER
        self._body_from = 0.0
        self._body_reserved = 0
        self._caller = ""
        self._proxied = False
        self._surplus_bytes = 0
        self._keep_alive = True
        self._paused = False
        self._gone = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._waited = False
        self._peer: Peer | None = None
        self._peer_refusal: Refusal | None = None
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None

    # what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller has connected: ask the kernel who it is, once."""
        self._transport = cast("asyncio.Transport", transport)
        try:
            self._peer = peer_of(self._transport, self.door.parts)
        except Refusal as refusal:
            self._peer_refusal = refusal
        counts = self.door.parts.counts
        holder = self._holder
        full = (
            len(self.door.connections) >= self._limits.connections_max
            or counts.connections_of[holder] >= self._limits.connections_per_peer_max
        )
        if self.door.draining or full:
            counts.connections_over_limit += 1
            self._transport.abort()
            return
        counts.open_connections += 1
        counts.connections_of[holder] += 1
        self.door.connections.add(self)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes_max)
        self._deadline = self._loop.time() + self._limits.head_seconds

    def data_received(self, data: bytes) -> None:
        """Bytes from the caller."""
        if self._phase is Phase.BUSY or self._phase is Phase.LINGER:
            self._take_surplus(len(data))
            return
        self._reader.feed(data)
        try:
            self._advance()
        except FramingError as error:
            self._refuse(error.refusal, error.status)
        except Refusal as refusal:
            self._refuse(refusal)

    def eof_received(self) -> None:
        """The caller has gone, or has read our last answer."""
        if self._transport is not None:
            if self._phase is Phase.BUSY:
                self._transport.abort()
            else:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """The connection is gone."""
        self._gone = True
        self._deadline = self._stall = _NEVER
        if self in self.door.connections:
            self.door.connections.discard(self)
            self.door.parts.counts.leave(self._holder)
        self._leave()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self.door.parts.counts.open_requests -= 1
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The caller reads too slowly."""
        self._paused = True
        self._stall = self._loop.time() + self._limits.stall_seconds
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._paused = False
        self._stall = _NEVER
        if self._exchange is not None:
            self._exchange.resume()

    @property
    def _holder(self) -> str:
        """Whose connection this is; all whom nobody knows are one."""
        return "" if self._peer is None else self._peer.binding

    # what the exchange asks

    @property
    def closes(self) -> bool:
        """True when the connection is closed after this answer."""
        return not self._keep_alive or self.door.draining

    def write(self, data: bytes) -> None:
        """Send bytes to the caller."""
        if not self._gone:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(data)
            self._out_bytes += len(data)
            if self._out_bytes > self._limits.write_buffer_bytes_max:
                # One turn can bring megabytes: only what is written can be pushed back.
                self._flush()

    def _flush(self) -> None:
        """One write for everything that this turn of the loop has brought."""
        out = self._out
        if out and self._transport is not None and not self._gone:
            self._out = []
            self._out_bytes = 0
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def answered(self) -> None:
        """The answer is complete: wait for the next request, or close."""
        self._exchange = None
        self.door.parts.counts.open_requests -= 1
        self._leave()
        if self._gone or self._transport is None:
            return
        if not self.closes:
            self._reader.reset()
            self._phase = Phase.IDLE
            self._deadline = self._loop.time() + self._limits.idle_seconds
            return
        # Closing with unread bytes would reset the connection and could destroy the answer on its way.
        self._phase = Phase.LINGER
        self._deadline = self._loop.time() + self._limits.linger_seconds
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Close so that the caller sees that its answer is not complete."""
        if self._transport is not None:
            self._flush()
            self._transport.abort()

    # what the server asks

    def check(self, now: float) -> None:
        """Look at the deadlines."""
        if now > self._stall:
            self.abort()
        elif now > self._deadline:
            self._overdue()
        elif self._phase is Phase.BODY:
            elapsed = now - self._body_from
            due = (elapsed - self._limits.body_grace_seconds) * self._limits.body_bytes_per_second_min
            if self._reader.received_body_bytes < due:
                self._overdue()

    def drain(self) -> None:
        """No further request: close now when none is in work."""
        if self._phase is Phase.IDLE and self._transport is not None:
            self._transport.close()

    def cut(self, end: CallEnd, refusal: Refusal) -> None:
        """End the request in work."""
        if self._exchange is not None:
            self._exchange.cut(end, refusal)

    # reading

    def _advance(self) -> None:
        if self._phase is Phase.IDLE:
            self._phase = Phase.HEAD
            self._deadline = self._loop.time() + self._limits.head_seconds
        if self._phase is Phase.HEAD:
            head = self._reader.take_head()
            if head is None:
                return
            self._begin(head)
        body = self._reader.take_body()
        if body is None:
            return
        surplus = self._reader.pending_bytes
        self._phase = Phase.BUSY
        self._deadline = _NEVER
        if surplus:
            self._take_surplus(surplus)
        if self._exchange is not None:
            self.door.spawn(self._exchange.run(body))

    def _begin(self, head: RequestHead) -> None:
        self._keep_alive = head.keep_alive
        exchange = self._open_exchange()
        peer = self._peer
        if self._peer_refusal is not None or peer is None:
            raise self._peer_refusal or Refusal(Reason.PEER_MISMATCH, "who is calling is not known; connect again")
        if self.door.draining:
            raise Refusal(Reason.DRAINING, "this sidecar is stopping; try again in a moment")
        exchange.begin(head, peer, self._hosts)
        self._enter(peer, exchange.caller or peer)
        self._reserve_body(head)
        self._phase = Phase.BODY
        self._body_from = self._loop.time()
        self._deadline = self._body_from + self._limits.body_seconds
        if head.expects_continue and not self._reader.pending_bytes:
            self.write(CONTINUE)

    def _open_exchange(self) -> Exchange:
        if self._exchange is None:
            self._exchange = Exchange(self.door.parts, self, self._peer)
            self.door.parts.counts.open_requests += 1
        return self._exchange

    def _enter(self, peer: Peer, caller: Peer) -> None:
        """Count the request for whoever calls: behind a proxy, connections do not."""
        counts, limits = self.door.parts.counts, self._limits
        self._caller = caller.binding
        self._proxied = caller is not peer and self._caller != peer.binding
        if not self._proxied:
            return
        counts.requests_of[self._caller] += 1
        if counts.requests_of[self._caller] > limits.requests_per_caller_max:
            message = f"this caller has {limits.requests_per_caller_max} requests in work, its maximum; end one first"
            raise Refusal(Reason.CONCURRENCY_EXCEEDED, message, retry_after_seconds=1.0)

    def _reserve_body(self, head: RequestHead) -> None:
        wanted = self._limits.body_bytes_max if head.chunked else head.content_length or 0
        counts, limits = self.door.parts.counts, self._limits
        if (
            counts.body_bytes_waiting + wanted > limits.bodies_bytes_max
            or counts.body_bytes_of[self._caller] + wanted > limits.bodies_bytes_per_peer_max
        ):
            raise Refusal(Reason.OVERLOADED, "too many large requests are being read; try again in a moment")
        counts.reserve_body(self._caller, wanted)
        self._body_reserved = wanted

    def _leave(self) -> None:
        """The request is no more in work: give back what was counted for it."""
        counts = self.door.parts.counts
        if self._body_reserved:
            counts.reserve_body(self._caller, -self._body_reserved)
            self._body_reserved = 0
        if self._proxied:
            self._proxied = False
            counts.answered(self._caller)

    def _take_surplus(self, count: int) -> None:
        self._keep_alive = False
        self._surplus_bytes += count
        bound = self._limits.surplus_bytes_max if self._phase is Phase.BUSY else self._limits.body_bytes_max
        if self._surplus_bytes > bound:
            self.abort()

    # refusing

    def _refuse(self, refusal: Refusal, status: int | None = None) -> None:
        """Answer the request that is being read, and close: what follows on the connection has no sure meaning."""
        self._keep_alive = False
        self._phase = Phase.BUSY
        self._deadline = _NEVER
        exchange = self._open_exchange()
        self._reader.reset()
        self.door.spawn(exchange.refuse(refusal, status))

    def _overdue(self) -> None:
        phase, reader = self._phase, self._reader
        if phase is Phase.BODY:
            message = "the body did not come in time; send it faster, or smaller"
            self._refuse(Refusal(Reason.BODY_INVALID, message, detail="deadline"), 408)
        elif phase is Phase.HEAD and reader.pending_bytes:
            message = "the request head did not come in time"
            self._refuse(Refusal(Reason.HEADER_NOT_ALLOWED, message, detail="deadline"), 408)
        elif self._transport is not None:
            self._overstayed(self._transport)

    def _overstayed(self, transport: asyncio.Transport) -> None:
        """Nothing is in work: close; when an answer is still on its way to a slow reader, once more wait for it."""
        if self._phase is not Phase.LINGER:
            self._phase = Phase.LINGER
            self._deadline = self._loop.time() + self._limits.linger_seconds
            transport.close()
        elif transport.get_write_buffer_size() and not self._waited:
            self._waited = True
            self._deadline = self._loop.time() + self._limits.stall_seconds
        else:
            transport.abort()


def peer_of(transport: asyncio.Transport, parts: EgressParts) -> Peer:
    """The other end: what the kernel says, and the verified client certificate.

    Raises:
        Refusal: PEER_MISMATCH when neither says who it is.
    """
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    digest = hashlib.sha256(certificate).hexdigest() if certificate else ""
    try:
        peer = parts.peers.peer_of(transport.get_extra_info("socket"))
    except Refusal:
        if not digest:
            raise
        peer = Peer(None)
    if peer.uid is None and not digest:
        raise Refusal(
            Reason.PEER_MISMATCH, "who is calling is not known; use the Unix socket, loopback or a client certificate"
        )
    return replace(peer, certificate_sha256=digest)
