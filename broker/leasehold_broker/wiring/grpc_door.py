"""Puts a gRPC door together: accept shim, kernel peers, private listener, server."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from leasehold_broker.adapters.accept_shim import GRPC_ABSTRACT, AcceptShim, ShimLimits, private_name
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.x509_svid import spiffe_id_of
from leasehold_broker.config.doors import Listen, Tls
from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.rpc.access import Access
from leasehold_broker.rpc.caller import Authenticate, CallerOf, ReadRecorder, Recorder
from leasehold_broker.rpc.occupancy import Occupancy
from leasehold_broker.rpc.server import RpcServer, ServerLimits
from leasehold_broker.rpc.surround import Certificates, Surroundings
from leasehold_broker.wiring.public_sockets import public_socket, server_tls

CALLS_PER_PEER_MAX = 256
STREAMS_PER_PEER_MAX = 64
STOP_GRACE_SECONDS = 1.0


class GrpcDoor:
    """A gRPC server behind its shim. Services are added between construction and `start`."""

    def __init__(
        self,
        listen: Listen,
        peers: KernelPeers,
        authenticate: Mapping[Access, Authenticate],
        recorder: Recorder,
        clock: Clock,
        entropy: Entropy,
        on_refused: Callable[[Refusal], None],
        read_recorder: ReadRecorder | None = None,
        limits: ServerLimits | None = None,
        crowd: ShimLimits | None = None,
        sprung_by: Callable[[list[str]], Honeytoken | None] = lambda _credentials: None,
        caller_of: CallerOf | None = None,
    ) -> None:
        """Build it; nothing listens yet.

        `on_refused` is told connections that nobody can name, `sprung_by` what refused callers present; `caller_of` is
        asked who calls through a peer.

        Raises:
            RuntimeError: the certificates cannot be used.
        """
        self._listen = listen
        self._name = private_name()
        self._tls = None if listen.tls is None else server_tls(listen.tls)
        self._shim = AcceptShim(
            peers,
            self._name,
            on_refused,
            crowd,
            http2=True,
            tls=None if self._tls is None else self._tls.context,
            spiffe_id_of=spiffe_id_of,
        )
        self.server = RpcServer(
            Surroundings(
                peer_of=self._shim.peer_of,
                caller_of=caller_of or _itself,
                authenticate=authenticate,
                recorder=recorder,
                clock=clock,
                entropy=entropy,
                calls=Occupancy("calls", CALLS_PER_PEER_MAX),
                streams=Occupancy("streams", STREAMS_PER_PEER_MAX),
                read_recorder=read_recorder,
                certificates=_certificates(listen.tls),
                sprung_by=sprung_by,
                refused=self._shim.refused,
                admitted=self._shim.proven,
            ),
            limits,
        )
        self.port = 0

    def descriptor_of(self, connection: str) -> int | None:
        """The public socket of a connection by its name (`Peer.connection`); None once it has closed."""
        return self._shim.descriptor_of(connection)

    @property
    def connection_count(self) -> int:
        """Open connections."""
        return self._shim.connection_count

    async def start(self, on_replaced: Callable[[], None]) -> None:
        """Listen and serve; `on_replaced` is called when somebody takes over the public socket's path.

        Raises:
            ListenError: the socket cannot be published safely.
            OSError, RuntimeError: an address cannot be bound.
        """
        self.server.listen(GRPC_ABSTRACT + self._name)
        await self.server.start()
        if self._listen.socket is not None:
            public = await public_socket(self._listen.socket, self._listen.socket_gid)
            await self._shim.listen_unix(public, on_replaced)
        if self._listen.host:
            self.port = await self._shim.listen_tcp(self._listen.host, self._listen.port)

    async def follow_certificates(self) -> None:
        """Take new versions of the certificates, until cancelled; without TLS there are none."""
        await (asyncio.Event().wait() if self._tls is None else self._tls.watch())

    def announce_stop(self) -> None:
        """Say in the health service that nothing new should come; calls are still answered."""
        self.server.announce_stop()

    def show_degraded(self, degraded: bool) -> None:
        """Say in the health service whether a task beside the doors fails."""
        self.server.set_degraded(degraded=degraded)

    async def stop(self) -> None:
        """Take no more connections, let open calls end within a short grace, close."""
        self._shim.stop_accepting()
        await self.server.stop(STOP_GRACE_SECONDS)
        await self._shim.close()


def _itself(peer: Peer, _certificates: Sequence[str]) -> Peer:
    """Nobody is a proxy."""
    return peer


def _certificates(tls: Tls | None) -> Certificates:
    if tls is None:
        return Certificates.NONE
    return Certificates.NEEDED if tls.client_ca else Certificates.NOT_ASKED
