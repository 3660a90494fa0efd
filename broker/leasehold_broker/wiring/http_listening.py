"""Where an HTTP door of the collector listens: plain on loopback, or TLS that follows its files."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable

from leasehold_broker.adapters.accept_tls import BACKLOG
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.config.doors import Listen
from leasehold_broker.wiring.public_sockets import server_tls, tls_acceptor
from leasehold_broker.wiring.supervision import Supervisor


@contextlib.asynccontextmanager
async def listening(
    what: str, listen: Listen, build: Callable[[], asyncio.Protocol], peers: KernelPeers, tasks: Supervisor
) -> AsyncIterator[int]:
    """Listen while the context lasts; gives the port. Browsers and other systems may know no newer TLS than 1.2.

    Raises:
        RuntimeError: the certificates cannot be used. OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    if listen.tls is None:
        server = await asyncio.get_running_loop().create_server(build, listen.host, listen.port, backlog=BACKLOG)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
        return
    tls = server_tls(listen.tls, "http/1.1", ssl.TLSVersion.TLSv1_2)
    listener = socket.create_server((listen.host, listen.port), family=family, backlog=BACKLOG)
    accepting = tls_acceptor(tls, peers)(build)
    accepting.start(listener)
    try:
        async with tasks.keeping(f"{what} certificates", tls.watch):
            yield listener.getsockname()[1]
    finally:
        accepting.close()
        await accepting.wait_closed()
