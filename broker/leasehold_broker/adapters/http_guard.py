"""Bounds of an HTTP server whose library has none: connections, and the time and bytes of each request.

Stands between the transport and the library's protocol and passes everything through. Owns when a connection has had
enough; it is then cut without a word. Refuses to read a byte of what passes: where a request begins and ends, the
application says (`begun`, `ended`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from leasehold_broker.adapters.accept_pipe import TurnedAway
from leasehold_broker.adapters.accept_tls import owner_of
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.peer_resolver import PeerResolver


@dataclass(frozen=True, slots=True)
class HttpGuardLimits:
    """Bounds.

    Args:
        connections_max: open at once.
        connections_per_owner_max: of one user of this machine, or of one address. A proxy in front is one owner.
        head_seconds: from the connection, or the first byte of a further request, to the end of its head.
        request_seconds: from there until the application is done with it.
        idle_seconds: of a kept connection; also what a slow reader has for the rest of an answer.
        request_bytes_max: of one request, head and body, with whatever is sent behind it before it is answered.
        stream_seconds: in place of request_seconds, for an answer that the application says is a stream.
    """

    connections_max: int = 1024
    connections_per_owner_max: int = 512
    head_seconds: float = 10.0
    request_seconds: float = 20.0
    idle_seconds: float = 15.0
    request_bytes_max: int = 64 * 1024
    stream_seconds: float = 1000.0


class HttpGuard:
    """The connections of one door."""

    def __init__(self, peers: PeerResolver, limits: HttpGuardLimits | None = None) -> None:
        """None yet; `peers` asks the kernel whose a connection is."""
        self.peers = peers
        self.limits = limits or HttpGuardLimits()
        self.open: Counter[str] = Counter()
        self.turned_away = TurnedAway()
        self._by_transport: dict[asyncio.BaseTransport, _Guarded] = {}

    def around(self, build: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """The same protocols, guarded."""
        return lambda: _Guarded(self, build())

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._by_transport)

    def begun(self, transport: asyncio.BaseTransport | None) -> None:
        """The head of a request has come."""
        if transport in self._by_transport:
            self._by_transport[transport].begun()

    def streaming(self, transport: asyncio.BaseTransport | None) -> None:
        """The answer goes on for longer than a request may; it has a longer bound of its own."""
        if transport in self._by_transport:
            self._by_transport[transport].streaming()

    def ended(self, transport: asyncio.BaseTransport | None) -> None:
        """The application has its answer."""
        if transport in self._by_transport:
            self._by_transport[transport].ended()

    def admit(self, guarded: "_Guarded", transport: asyncio.BaseTransport) -> str | None:
        """Whose connection it is; None when it must be closed."""
        try:
            peer = self.peers.peer_of(transport.get_extra_info("socket"))
        except Refusal as refusal:
            self.turned_away.add("nobody knows whose", refusal.detail)
            return None
        owner = owner_of(peer, transport.get_extra_info("peername"))
        if len(self._by_transport) >= self.limits.connections_max:
            self.turned_away.add("connections_max", owner)
            return None
        if self.open[owner] >= self.limits.connections_per_owner_max:
            self.turned_away.add("connections_per_owner_max", owner)
            return None
        self.open[owner] += 1
        self._by_transport[transport] = guarded
        return owner

    def gone(self, transport: asyncio.BaseTransport, owner: str) -> None:
        """A connection is closed."""
        del self._by_transport[transport]
        self.open[owner] -= 1
        if not self.open[owner]:
            del self.open[owner]

    def close(self) -> None:
        """Tell what has not been told."""
        self.turned_away.tell()


class _Guarded(asyncio.Protocol):
    def __init__(self, guard: HttpGuard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._owner = ""
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        owner = self._guard.admit(self, transport)
        if owner is None:
            self._transport.abort()
            return
        self._owner = owner
        self._within(self._guard.limits.head_seconds)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._owner or self._transport is None or self._transport.is_closing():
            return
        self._bytes += len(data)
        if self._bytes > self._guard.limits.request_bytes_max:
            self._cut("request too long")
            return
        if self._idle:
            self._idle = False
            self._within(self._guard.limits.head_seconds)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._owner else None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._owner or self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._guard.gone(self._transport, self._owner)
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._owner:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._owner:
            self._inner.resume_writing()

    def begun(self) -> None:
        self._idle = False
        self._within(self._guard.limits.request_seconds)

    def streaming(self) -> None:
        self._within(self._guard.limits.stream_seconds)

    def ended(self) -> None:
        self._idle, self._bytes = True, 0
        self._within(self._guard.limits.idle_seconds)

    def _within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cut, "too slow")

    def _cut(self, why: str) -> None:
        self._guard.turned_away.add(why, self._owner)
        if self._transport is not None:
            self._transport.abort()
