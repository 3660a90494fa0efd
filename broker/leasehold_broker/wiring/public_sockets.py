"""Opens what the configuration names for a door: a public Unix socket with the modes of its group, or TLS."""

import asyncio
import ssl
from pathlib import Path

from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.config.doors import Tls


async def public_socket(path: Path, group: int | None) -> PublicSocket:
    """The socket, listening: for the owner alone, or for a group too.

    Raises:
        ListenError: it cannot be published safely.
    """
    folder_mode, socket_mode = (0o700, 0o600) if group is None else (0o750, 0o660)
    return await asyncio.to_thread(PublicSocket, SocketPlace(path, group, folder_mode, socket_mode))


def server_tls(tls: Tls) -> ssl.SSLContext:
    """Mutual TLS for a door that is no gRPC.

    Raises:
        OSError, ssl.SSLError: a file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(Path(tls.certificate), Path(tls.private_key))
    return context
