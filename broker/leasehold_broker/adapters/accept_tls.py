"""Accepts TLS for the shim: the handshake is ours, so that what comes after it is bounded like any other connection.

Owns the wait for a handshake and its bounds. Refuses to know what is asked of a caller, and what a certificate allows.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable

import structlog

SHAKING_MAX = 256
SHAKING_PER_OWNER_MAX = 32
HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 2.0
"""For the other side's last word, after ours."""
REST_SECONDS = 0.5
BACKLOG = 512

_log = structlog.get_logger("leasehold.accept")


class TlsListener:
    """Accepts on one listening socket, and shakes hands with a bounded number of callers at a time."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        owner_of: Callable[[socket.socket], str | None],
        build: Callable[[], asyncio.Protocol],
        failed: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            context: for the next handshake; certificates change.
            owner_of: whose share of the handshakes a connection is; None when it must be closed.
            build: makes the protocol of a connection whose handshake is done.
            failed: told the owner of each handshake that came to nothing.
        """
        self._context = context
        self._owner_of = owner_of
        self._build = build
        self._failed = failed
        self._shaking: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from `listener`, which is closed at the end."""
        listener.setblocking(False)  # noqa: FBT003 - the signature is the library's
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener), name="accept of TLS")

    def close(self) -> None:
        """Take no more connections, and drop those that are not through with their handshake."""
        for task in (self._accepting, *self._tasks):
            if task is not None:
                task.cancel()

    async def wait_closed(self) -> None:
        """After `close`: until nothing is left of it."""
        tasks = [task for task in (self._accepting, *self._tasks) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as fault:
                    # Out of descriptors, mostly: those who are connected go on meanwhile.
                    _log.warning("no connection could be accepted", fault=type(fault).__name__)
                    await asyncio.sleep(REST_SECONDS)
                    continue
                owner = self._owner_of(connection)
                if owner is None or len(self._tasks) >= SHAKING_MAX or self._shaking[owner] >= SHAKING_PER_OWNER_MAX:
                    connection.close()
                    continue
                self._shaking[owner] += 1
                task = loop.create_task(self._shake(connection, owner), name="TLS handshake")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _shake(self, connection: socket.socket, owner: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._build,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            # ssl.SSLError, ConnectionError and TimeoutError are among them.
            self._failed(owner)
            connection.close()
        finally:
            self._shaking[owner] -= 1
            if not self._shaking[owner]:
                del self._shaking[owner]
