"""The listeners of the egress, its clock tick, its drain. Owns start and stop; refuses to know what a request is."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.connection import Connection
from leasehold_broker.egress.header_gate import allowed_hosts
from leasehold_broker.egress.parts import EgressParts, PublicListener

BACKLOG = 512

_log = structlog.get_logger("leasehold.egress")


class Accepting(Protocol):
    """Accepts connections, and does with each what must be done before its first byte is ours."""

    def start(self, listener: socket.socket) -> None:
        """Accept from `listener`, which is closed at the end."""
        ...

    def close(self) -> None:
        """Take no more."""
        ...

    async def wait_closed(self) -> None:
        """After `close`: until nothing is left of it."""
        ...


class EgressServer:
    """Serves callers on any number of listeners until it is drained."""

    def __init__(self, parts: EgressParts) -> None:
        """Serve with these parts."""
        self.parts = parts
        self.draining = False
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server | Accepting] = []
        self._publics: dict[PublicListener, Callable[[], None]] = {}
        self._ticker: asyncio.Task[None] | None = None

    async def listen_tcp(
        self, host: str, port: int, tls: Callable[[Callable[[], Connection]], Accepting] | None = None
    ) -> int:
        """Listen on an address.

        Args:
            host: a numeric address; whether it may be other than loopback is the configuration's decision.
            port: 0 for any.
            tls: what accepts TLS, given what makes a connection; with client certificates required, callers are bound
                by their certificate. None: plain.

        Returns:
            The port.

        Raises:
            OSError: the address cannot be bound.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            bound: int = listener.getsockname()[1]
            hosts = allowed_hosts(bound, self.parts.host_names)
            server: asyncio.Server | Accepting
            if tls is None:
                loop = asyncio.get_running_loop()
                server = await loop.create_server(lambda: Connection(self, hosts), sock=listener, backlog=BACKLOG)
            else:
                listener.listen(BACKLOG)
                server = tls(lambda: Connection(self, hosts))
                server.start(listener)
        except BaseException:
            listener.close()
            raise
        self._serve(server)
        return bound

    async def listen_unix(self, public: PublicListener, on_replaced: Callable[[], None]) -> None:
        """Listen on a public Unix socket, which we close when we drain.

        Args:
            public: already listening.
            on_replaced: called once when the path no longer leads to it: somebody has taken our place.
        """
        hosts = allowed_hosts(None, self.parts.host_names)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Connection(self, hosts), sock=public.listener, backlog=BACKLOG)
        self._publics[public] = on_replaced
        self._serve(server)

    async def drain(self) -> None:
        """Take no more requests, let those in work finish for a while, cut the rest, and wait until all are settled."""
        self.draining = True
        for server in self._servers:
            server.close()
        for public in self._publics:
            public.close()
        self._publics.clear()
        for connection in list(self.connections):
            connection.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.parts.limits.drain_seconds
        await self._wait_for_tasks(deadline)
        refusal = Refusal(Reason.DRAINING, "this sidecar is stopping; try again in a moment")
        for connection in list(self.connections):
            connection.cut(CallEnd.CUT_BY_DRAIN, refusal)
        # A cut call ends in the same turn; what remains is settling and answering, which the store bounds.
        await self._wait_for_tasks(None)
        for connection in list(self.connections):
            connection.abort()
        await self._close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task that is held until it ends and that nobody else can cancel."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            fault = task.exception()
            if fault is not None:
                # Only its kind: the text of an unforeseen fault may hold anything.
                _log.error("exchange_fault", kind=type(fault).__name__)

    def _serve(self, server: asyncio.Server | Accepting) -> None:
        self._servers.append(server)
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.parts.limits.tick_seconds)
            now = loop.time()
            for connection in list(self.connections):
                try:
                    connection.check(now)
                except Exception as fault:  # noqa: BLE001 - one connection's: the time limits of all others go on
                    _log.error("connection_fault", kind=type(fault).__name__)
                    connection.abort()
            for public in [public for public in self._publics if public.replaced()]:
                _log.error("socket_replaced")
                self._publics.pop(public)()

    async def _wait_for_tasks(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        while self._tasks:
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return
            await asyncio.wait(self._tasks, timeout=left)

    async def _close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
            self._ticker = None
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
