"""Opens what the configuration names for a door: a public Unix socket with the modes of its group, or TLS."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from leasehold_broker.adapters.accept_pipe import TurnedAway
from leasehold_broker.adapters.accept_tls import Shakers, TlsListener
from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.adapters.refusal_brake import RefusalBrake
from leasehold_broker.adapters.server_tls import ServerTls, ServerTlsFiles
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.config.doors import Tls
from leasehold_broker.ports.peer_resolver import PeerResolver


async def public_socket(path: Path, group: int | None) -> PublicSocket:
    """The socket, listening: for the owner alone, or for a group too.

    Raises:
        ListenError: it cannot be published safely.
    """
    folder_mode, socket_mode = (0o700, 0o600) if group is None else (0o750, 0o660)
    return await asyncio.to_thread(PublicSocket, SocketPlace(path, group, folder_mode, socket_mode))


def server_tls(tls: Tls, protocol: str = "h2", oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ServerTls:
    """The certificates of a door, which follow their files.

    Args:
        tls: where they are.
        protocol: what the door speaks, as ALPN calls it.
        oldest: version of TLS.

    Raises:
        RuntimeError: they cannot be used.
    """
    client_ca = Path(tls.client_ca) if tls.client_ca else None
    try:
        return ServerTls(ServerTlsFiles(Path(tls.certificate), Path(tls.private_key), client_ca), protocol, oldest)
    except FilesRefusedError as error:
        raise RuntimeError(str(error)) from None


def tls_acceptor(tls: ServerTls, peers: PeerResolver) -> Callable[[Callable[[], asyncio.Protocol]], TlsListener]:
    """Makes what accepts TLS for a door that is no gRPC, given what makes the protocol of a connection."""
    shakers = Shakers(peers, RefusalBrake(), TurnedAway(), lambda _refusal: None)
    return lambda build: TlsListener(tls.context, shakers, build)
