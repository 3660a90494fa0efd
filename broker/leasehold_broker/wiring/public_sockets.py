"""Opens the public Unix socket that the configuration names for a door, with the modes that its group asks for."""

import asyncio
from pathlib import Path

from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace


async def public_socket(path: Path, group: int | None) -> PublicSocket:
    """The socket, listening: for the owner alone, or for a group too.

    Raises:
        ListenError: it cannot be published safely.
    """
    folder_mode, socket_mode = (0o700, 0o600) if group is None else (0o750, 0o660)
    return await asyncio.to_thread(PublicSocket, SocketPlace(path, group, folder_mode, socket_mode))
