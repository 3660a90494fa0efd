"""The accept shim: gRPC's server does not say who connects, so we accept for it, ask the kernel, and pipe the bytes.

Owns the public listeners, the join of kernel-verified peers to gRPC's name of the connection, and the pipe. Refuses to
interpret the bytes.

A Unix socket is always plain: its peers are known by the kernel (decisions/0052). Where TCP speaks TLS, it ends here
(`accept_tls`): the frames of every connection can be seen and bounded, and a certificate is part of the peer from the
start.

Each connection is piped to gRPC's private listener (an abstract Unix socket) from a fresh abstract name of 128 random
bits; gRPC reports that name as `context.peer()`, and `peer_of` turns it back into the peer. A process that finds the
private listener and connects to it by itself has no such name, and its calls are refused.
"""

import asyncio
import hashlib
import os
import secrets
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from leasehold_broker.adapters.accept_pipe import Front, Pipe, TurnedAway
from leasehold_broker.adapters.accept_tls import BACKLOG, Shakers, TlsListener, owner_of
from leasehold_broker.adapters.refusal_brake import RefusalBrake
from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.peer_resolver import PeerResolver

CLOSE_TURNS_MAX = 100
"""Of the loop, at the end: an aborted connection is closed in a few."""
GRPC_ABSTRACT = "unix-abstract:"
_CREDENTIALS = struct.Struct("=iII")
_log = structlog.get_logger("leasehold.accept")


@dataclass(frozen=True, slots=True)
class ShimLimits:
    """Bounds of the shim. Where one is reached, the oldest connection that has shown no identity yet gives way.

    Args:
        unix_connections_max: open at once through Unix sockets; where none gives way, more are closed at accept.
        tcp_connections_max: the same over TCP, counted by itself: strangers cannot take this machine's share. A fleet
            of sidecars has a connection each.
        connections_per_peer_max: of one uid, or of one remote address.
        watch_seconds: how often the public path is checked.
    """

    unix_connections_max: int = 256
    tcp_connections_max: int = 2048
    connections_per_peer_max: int = 128
    watch_seconds: float = 3.0


class PublicListener(Protocol):
    """A listening Unix socket at a path that may be taken over behind our back."""

    @property
    def listener(self) -> socket.socket:
        """The socket."""
        ...

    def replaced(self) -> bool:
        """True when the path no longer leads to the socket."""
        ...

    def close(self) -> None:
        """Stop listening and tidy up."""
        ...


def private_name() -> str:
    """A fresh name for gRPC's private listener; its address is `GRPC_ABSTRACT + name`."""
    return f"leasehold-{secrets.token_hex(16)}"


class AcceptShim:
    """Accepts, asks, pipes."""

    def __init__(
        self,
        peers: PeerResolver,
        name: str,
        on_refused: Callable[[Refusal], None],
        limits: ShimLimits | None = None,
        *,
        http2: bool = False,
        tls: Callable[[], ssl.SSLContext] | None = None,
        spiffe_id_of: Callable[[bytes], str] = lambda _certificate: "",
    ) -> None:
        """Prepare; nothing is accepted yet.

        Args:
            peers: asks the kernel.
            name: of the private listener, from `private_name`; it must listen before the first `listen_*`.
            on_refused: called for each connection that is closed because nobody can say whose it is.
            limits: bounds.
            http2: that is what is piped: its header blocks are bounded.
            tls: the context for the next handshake over TCP; None for no TLS.
            spiffe_id_of: the SPIFFE ID of a verified certificate (DER); "" when it is no X.509-SVID.
        """
        self.http2 = http2
        self._tls = tls
        self._spiffe_id_of = spiffe_id_of
        self._tls_listeners: list[TlsListener] = []
        self._resolver = peers
        self._private = "\0" + name
        self._on_refused = on_refused
        self._limits = limits or ShimLimits()
        self._peers: dict[str, Peer] = {}
        self._pipes: dict[str, Pipe] = {}
        self._fronts: set[Front] = set()
        self._open: Counter[str] = Counter()
        self._through: Counter[Transport] = Counter()
        self._unproven: dict[str, str] = {}
        """Names of connections without an accepted call so far, oldest first, with their owners."""
        self.brake = RefusalBrake()
        self.turned_away = TurnedAway()
        self._servers: list[asyncio.Server] = []
        self._publics: list[PublicListener] = []
        self._watches: dict[PublicListener, asyncio.TimerHandle] = {}

    def peer_of(self, transport_name: str) -> Peer | None:
        """The peer behind gRPC's `context.peer()`; None when that connection did not come through us."""
        return self._peers.get(transport_name)

    def descriptor_of(self, transport_name: str) -> int | None:
        """The descriptor of a connection's public socket, for asking the kernel more; None once it has closed."""
        pipe = self._pipes.get(transport_name.removeprefix(GRPC_ABSTRACT))
        return None if pipe is None else pipe.descriptor()

    def refused(self, transport_name: str) -> None:
        """A call on this connection was refused; whoever is behind it is slowed down when that happens too often."""
        peer = self._peers.get(transport_name)
        if peer is not None:
            self.brake.refused(peer.share)

    def proven(self, transport_name: str) -> None:
        """A call on this connection showed an identity: it gives way to nobody any more."""
        self._unproven.pop(transport_name.removeprefix(GRPC_ABSTRACT), None)

    @property
    def connection_count(self) -> int:
        """Connections that are open now."""
        return len(self._pipes)

    async def listen_unix(self, public: PublicListener, on_replaced: Callable[[], None]) -> None:
        """Accept from a public Unix socket, which we close at the end.

        Args:
            public: already listening.
            on_replaced: called once when the path no longer leads to it: somebody has taken our place.
        """
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(self._accepted, sock=public.listener))
        self._publics.append(public)
        self._watch(public, on_replaced)

    async def listen_tcp(self, host: str, port: int) -> int:
        """Accept on TCP; returns the port. Whether an address is acceptable is decided in configuration."""
        if self._tls is None:
            server = await asyncio.get_running_loop().create_server(self._accepted, host, port)
            self._servers.append(server)
            bound: int = server.sockets[0].getsockname()[1]
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
            bound = listener.getsockname()[1]
            self._accept_tls(self._tls, listener)
        return bound

    def _accept_tls(self, context: Callable[[], ssl.SSLContext], listener: socket.socket) -> None:
        shakers = Shakers(self._resolver, self.brake, self.turned_away, self._on_refused, self._no_place)
        accepting = TlsListener(context, shakers, self._accepted)
        accepting.start(listener)
        self._tls_listeners.append(accepting)

    def stop_accepting(self) -> None:
        """Take no more connections; open ones go on. Public paths are given up."""
        for watch in self._watches.values():
            watch.cancel()
        self._watches.clear()
        self.turned_away.tell()
        for server in self._servers:
            server.close()
        for accepting in self._tls_listeners:
            accepting.close()
        self._servers.clear()
        for public in self._publics:
            public.close()
        self._publics.clear()

    async def close(self) -> None:
        """Stop accepting and close every connection. Stop the gRPC server first, so that answers are out."""
        self.stop_accepting()
        joining = [pipe.joining for pipe in self._pipes.values() if pipe.joining is not None]
        for pipe in list(self._pipes.values()):
            pipe.abort()
        for front in self._fronts:
            # Some may still wait for the other side's last word of TLS.
            if front.transport is not None:
                front.transport.abort()
        await asyncio.gather(*joining, *(listener.wait_closed() for listener in self._tls_listeners))
        for _ in range(CLOSE_TURNS_MAX):
            if not self._fronts:
                break
            await asyncio.sleep(0)

    def _watch(self, public: PublicListener, on_replaced: Callable[[], None]) -> None:
        if public.replaced():
            _log.error("public socket replaced: new connections no longer reach this broker")
            on_replaced()
            return
        again = asyncio.get_running_loop().call_later(self._limits.watch_seconds, self._watch, public, on_replaced)
        self._watches[public] = again

    def _accepted(self) -> "Front":
        return Front(self)

    def admit(self, front: "Front", transport: asyncio.Transport) -> "Pipe | None":
        """A new connection: its pipe, or None when it must be closed."""
        try:
            peer = self._resolver.peer_of(transport.get_extra_info("socket"))
        except Refusal as refusal:
            self._on_refused(refusal)
            return None
        owner = owner_of(peer, transport.get_extra_info("peername"))
        if self._no_place(peer.transport, owner):
            return None
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            if tls.selected_alpn_protocol() != "h2":
                self.turned_away.add("no HTTP/2 over TLS", owner)
                return None
            certificate: bytes | None = tls.getpeercert(binary_form=True)
            if certificate is not None:
                digest = hashlib.sha256(certificate).hexdigest()
                peer = replace(peer, certificate_sha256=digest, spiffe_id=self._spiffe_id_of(certificate))
        self._make_place(peer.transport, owner)
        name = f"leasehold-peer-{secrets.token_hex(16)}"
        back = self._connect(name)
        if back is None:
            return None
        self._open[owner] += 1
        self._through[peer.transport] += 1
        peer = replace(peer, connection=GRPC_ABSTRACT + name)
        self._peers[peer.connection] = peer
        pipe = Pipe(front, lambda: self._ended(name, owner))
        front.holder = peer.share
        self._pipes[name] = pipe
        self._unproven[name] = owner
        self._fronts.add(front)
        pipe.join(asyncio.get_running_loop(), back)
        return pipe

    def gone(self, front: "Front") -> None:
        """A connection is closed to its end."""
        self._fronts.discard(front)

    def _bounds(self, through: Transport, owner: str) -> Iterator[tuple[str, str]]:
        """Each bound that is reached: its name, and who would give way; "" for nobody."""
        limits = self._limits
        most = limits.unix_connections_max if through is Transport.UNIX else limits.tcp_connections_max
        if self._open[owner] >= limits.connections_per_peer_max:
            yield "connections_per_peer_max", next((name for name, one in self._unproven.items() if one == owner), "")
        if self._through[through] >= most:
            names = (name for name in self._unproven if self._peers[GRPC_ABSTRACT + name].transport is through)
            yield f"{through}_connections_max", next(names, "")

    def _no_place(self, through: Transport, owner: str) -> bool:
        """Whether `owner`, or all who come this way, have as many connections as they may, and none gives way."""
        for why, yielding in self._bounds(through, owner):
            if not yielding:
                self.turned_away.add(why, owner)
                return True
        return False

    def _make_place(self, through: Transport, owner: str) -> None:
        """Drop who gives way, once a newcomer is through with its handshake."""
        for why, yielding in self._bounds(through, owner):
            if yielding in self._pipes:
                self.turned_away.add(f"{why}, gave way", self._unproven[yielding])
                self._pipes[yielding].abort()

    def _connect(self, name: str) -> socket.socket | None:
        back = socket.socket(socket.AF_UNIX)
        back.settimeout(0)
        try:
            back.bind("\0" + name)
            # Connecting to a Unix socket is immediate, or refused when the listener's backlog is full.
            back.connect(self._private)
            pid = _CREDENTIALS.unpack(back.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
        except OSError as fault:
            self.turned_away.add(f"private listener unreachable: {type(fault).__name__}", "")
            back.close()
            return None
        if pid != os.getpid():
            _log.error("private listener belongs to another process")
            back.close()
            return None
        return back

    def _ended(self, name: str, owner: str) -> None:
        # The entry goes before the socket is closed and its name is free again.
        self._through[self._peers.pop(GRPC_ABSTRACT + name).transport] -= 1
        del self._pipes[name]
        self._unproven.pop(name, None)
        self._open[owner] -= 1
        if not self._open[owner]:
            del self._open[owner]
