"""A whole gRPC door for tests: real server, real shim, real kernel; only identity and flows are in memory."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from leasehold_broker.adapters.accept_shim import GRPC_ABSTRACT, AcceptShim, ShimLimits, private_name
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.adapters.x509_svid import spiffe_id_of
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.proof import UnverifiedProof
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.rpc.access import Access
from leasehold_broker.rpc.caller import workload
from leasehold_broker.rpc.occupancy import Occupancy
from leasehold_broker.rpc.server import RpcServer, ServerLimits
from leasehold_broker.rpc.surround import Certificates, Surroundings

TOKEN = "good-workload-token"
OTHER_TOKEN = "good-workload-token-of-another"
METADATA = (("leasehold", "1"), ("authorization", f"Bearer {TOKEN}"))
ISSUER = "https://issuer.test"


class SystemClock:
    """The real clocks."""

    def now(self) -> Instant:
        """Now."""
        return Instant(time.time_ns() // 1_000_000, time.clock_gettime_ns(time.CLOCK_BOOTTIME))


class SystemEntropy:
    """The real randomness."""

    def bytes(self, count: int) -> bytes:
        """Random bytes."""
        return os.urandom(count)


class FewTokens:
    """An identity verifier that knows two tokens; any other is refused with the reason it spells."""

    async def verify(
        self,
        unverified_token: str,
        peer: Peer,  # noqa: ARG002 - the port's
        now: Instant,
        unverified_proof: UnverifiedProof | None = None,  # noqa: ARG002 - the port's
    ) -> Identity:
        """The identity of `TOKEN` is agent-7, that of `OTHER_TOKEN` agent-8."""
        subject = {TOKEN: "agent-7", OTHER_TOKEN: "agent-8"}.get(unverified_token)
        if subject is None:
            reason = Reason(unverified_token) if unverified_token in set(Reason) else Reason.JWT_BAD_SIGNATURE
            raise Refusal(reason, f"sentence of {reason}", detail=f"detail of {reason}")
        return Identity(Subject(ISSUER, subject, {"environment": "test"}), {}, "", now.wall_ms + 60_000)


@dataclass(frozen=True)
class Refused:
    """One recorded refusal."""

    method: str
    reason: Reason
    detail: str
    identity: Identity | None
    peer: Peer | None
    request_id: str


@dataclass
class KeptRefusals:
    """A recorder in memory; `unavailable` makes it refuse, as a full spool does."""

    kept: list[Refused] = field(default_factory=list)
    unavailable: Refusal | None = None

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """Keep it."""
        if self.unavailable is not None:
            raise self.unavailable
        self.kept.append(Refused(method, refusal.reason, refusal.detail, identity, peer, request_id))

    async def rpc_read(self, method: str, identity: Identity, peer: Peer, request_id: str) -> None:
        """Keep nothing."""


@dataclass
class Door:
    """A door that is open: its addresses and what it has recorded."""

    unix: str
    tcp: str
    private: str
    server: RpcServer
    shim: AcceptShim
    recorder: KeptRefusals
    closed_at_accept: list[Refusal]
    replaced: asyncio.Event
    socket_path: Path


def surroundings(
    recorder: KeptRefusals, peer_of: Callable[[str], Peer | None], *, streams_max: int = 8, certificate: bool = False
) -> Surroundings:
    """Surroundings in which workloads are told by `FewTokens`."""
    return Surroundings(
        peer_of,
        {Access.WORKLOAD: workload(FewTokens())},
        recorder,
        SystemClock(),
        SystemEntropy(),
        Occupancy("calls", 64),
        Occupancy("streams", streams_max),
        certificates=Certificates.NEEDED if certificate else Certificates.NONE,
    )


@asynccontextmanager
async def open_door(
    folder: Path,
    prepare: Callable[[RpcServer], None],
    *,
    limits: ServerLimits | None = None,
    shim_limits: ShimLimits | None = None,
    streams_max: int = 8,
    tls: Callable[[], ssl.SSLContext] | None = None,
    braked: bool = False,
    certificate: bool = False,
) -> AsyncIterator[Door]:
    """Serve what `prepare` adds, on a public Unix socket and on loopback TCP, until the block ends.

    `certificate`: it is asked for over TCP, as it always is with `tls`.
    `braked`: whoever is refused too often waits; here attackers and good clients are one user, so mostly they must not.
    """
    recorder, refused, replaced = KeptRefusals(), list[Refusal](), asyncio.Event()
    name, peers = private_name(), KernelPeers()
    shim = AcceptShim(
        peers,
        name,
        refused.append,
        shim_limits or ShimLimits(watch_seconds=0.05),
        http2=True,
        tls=tls,
        spiffe_id_of=spiffe_id_of,
    )
    around = surroundings(recorder, shim.peer_of, streams_max=streams_max, certificate=certificate or tls is not None)
    around = replace(around, admitted=shim.proven)
    server = RpcServer(replace(around, refused=shim.refused) if braked else around, limits)
    prepare(server)
    server.listen(GRPC_ABSTRACT + name)
    await server.start()
    path = folder / "run" / "leasehold.sock"
    await shim.listen_unix(PublicSocket(SocketPlace(path, folder_mode=0o755, socket_mode=0o666)), replaced.set)
    port = await shim.listen_tcp("127.0.0.1", 0)
    try:
        yield Door(
            f"unix:{path}",
            f"127.0.0.1:{port}",
            GRPC_ABSTRACT + name,
            server,
            shim,
            recorder,
            refused,
            replaced,
            path,
        )
    finally:
        shim.stop_accepting()
        await server.stop(0)
        await shim.close()
        peers.close()
