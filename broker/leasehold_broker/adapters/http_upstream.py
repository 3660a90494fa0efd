"""HTTP/1.1 client to the providers. Owns connections: address check, TLS, pool, deadlines, and the write of the key.

Refuses redirects (they are only reported), proxies from the environment, content codings, private addresses unless the
origin is configured so, reuse of a connection after anything unexpected, and retries: a request is written once.
"""

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from leasehold_broker.adapters.http_upstream_connection import UpstreamConnection, UpstreamSettings
from leasehold_broker.adapters.public_addresses import is_public
from leasehold_broker.ports.provider import UpstreamRequest
from leasehold_broker.ports.upstream import KeyHeader, UpstreamCall, UpstreamFailure, UpstreamListener

_HEAD = re.compile(r"[A-Z]+ /[!-\"$-~]*+ HTTP/1\.1(?:\r\n[a-z0-9\-]++: [ -~]*+)*+")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Addresses of a host, as text, best first."""


@dataclass(frozen=True, slots=True)
class UpstreamOrigin:
    """One configured origin.

    Args:
        url: scheme and host, with a port where it is not the scheme's own; nothing else.
        allow_private: True lets it be at a private or loopback address, and lets its scheme be http.
    """

    url: str
    allow_private: bool = False


class HttpUpstream:
    """The `Upstream` over asyncio. One loop, no threads but the resolver's."""

    def __init__(
        self,
        origins: Iterable[UpstreamOrigin],
        settings: UpstreamSettings | None = None,
        trust: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        """Serve these origins.

        Args:
            origins: the only places that are ever connected to.
            settings: bounds; the defaults when None.
            trust: a client context to verify servers with; the system's roots when None.
            resolver: finds addresses; the system's when None.

        Raises:
            ValueError: an origin that is no plain origin, or http without `allow_private`.
        """
        self.settings = settings or UpstreamSettings()
        context = trust or ssl.create_default_context()
        if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
            raise ValueError("the TLS context must verify the server's certificate and name")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._pools = {origin.url: _Pool(self, origin, context, resolver or _resolve) for origin in origins}
        self._ticker: asyncio.Task[None] | None = None

    def send(
        self, origin: str, request: UpstreamRequest, key_header: KeyHeader, listener: UpstreamListener
    ) -> UpstreamCall:
        """See the port."""
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())
        return self._pools[origin].send(request, key_header, listener)

    async def close(self) -> None:
        """Drop every connection; the listeners of unfinished calls get CLOSED_EARLY or CONNECT_FAILED."""
        opening = [pool.close() for pool in self._pools.values()]
        for tasks in opening:
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
            self._ticker = None

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.tick_seconds)
            now = loop.time()
            for pool in self._pools.values():
                pool.expire(now)


class _Pool:
    """The connections of one origin."""

    def __init__(self, owner: HttpUpstream, origin: UpstreamOrigin, trust: ssl.SSLContext, resolver: Resolver) -> None:
        parts = urlsplit(origin.url)
        plain = f"{parts.scheme}://{parts.netloc}" == origin.url and "@" not in origin.url and parts.hostname
        if not plain or parts.scheme not in {"https", "http"}:
            message = f"{origin.url!r} is no origin; give scheme and host, as in https://api.example.com"
            raise ValueError(message)
        if parts.scheme == "http" and not origin.allow_private:
            message = f"{origin.url!r} is not encrypted; use https, or allow_private for a stand-in on this machine"
            raise ValueError(message)
        self.settings = owner.settings
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._host_header = parts.netloc
        self._trust = trust if parts.scheme == "https" else None
        self._allow_private = origin.allow_private
        self._resolver = resolver
        self.idle: deque[UpstreamConnection] = deque()
        self.connections: set[UpstreamConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, request: UpstreamRequest, key_header: KeyHeader, listener: UpstreamListener) -> UpstreamCall:
        head = self._head(request)
        while self.idle:
            connection = self.idle.pop()
            if connection.reusable:
                connection.start(head, key_header, request.body, listener)
                return connection.call
        opening = _Opening(self, head, key_header, request.body, listener)
        task = asyncio.get_running_loop().create_task(self._open(opening))
        opening.task = task
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return opening

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """The connection's answer is over and nothing unexpected has come."""
        if len(self.idle) >= self.settings.pool_connections_max:
            connection.drop()
            return
        connection.deadline = now + self.settings.pool_idle_seconds
        self.idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def expire(self, now: float) -> None:
        for connection in [found for found in self.connections if found.deadline < now]:
            try:
                connection.expired()
            except Exception:  # noqa: BLE001 - a listener's fault: the time limits of all others go on
                self.connections.discard(connection)
                connection.abort()

    def close(self) -> list[asyncio.Task[None]]:
        for connection in list(self.connections):
            connection.fail(UpstreamFailure.CLOSED_EARLY)
        tasks = list(self._opening)
        for task in tasks:
            task.cancel()
        return tasks

    def _head(self, request: UpstreamRequest) -> bytes:
        lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {self._host_header}"]
        lines.append("accept-encoding: identity")
        for name, value in request.headers:
            if name not in _OURS:
                lines.append(f"{name}: {value}")
        if request.body or request.method == "POST":
            lines.append(f"content-length: {len(request.body)}")
        head = "\r\n".join(lines)
        if not _HEAD.fullmatch(head) or head.count("\r\n") != len(lines) - 1:
            message = f"the request to {self._host} holds a character that no request line and no header has"
            raise ValueError(message)
        return head.encode("ascii")

    async def _open(self, opening: "_Opening") -> None:
        failure = UpstreamFailure.CONNECT_FAILED
        try:
            if len(self.connections) + len(self._opening) > self.settings.connections_max:
                failure = UpstreamFailure.OVERLOADED
            else:
                async with asyncio.timeout(self.settings.connect_seconds):
                    connection = await self._connect()
                if isinstance(connection, UpstreamConnection):
                    opening.connected(connection)
                    return
                failure = connection
        except TimeoutError:
            failure = UpstreamFailure.CONNECT_TIMEOUT
        except asyncio.CancelledError:
            opening.failed(failure)
            raise
        opening.failed(failure)

    async def _connect(self) -> UpstreamConnection | UpstreamFailure:
        loop = asyncio.get_running_loop()
        try:
            found = await self._resolver(self._host, self._port)
        except OSError:
            return UpstreamFailure.UNRESOLVED
        addresses = [address for address in found if self._allow_private or is_public(address)]
        if not addresses:
            return UpstreamFailure.ADDRESS_FORBIDDEN if found else UpstreamFailure.UNRESOLVED
        failure = UpstreamFailure.CONNECT_FAILED
        for address in addresses:
            try:
                # The address that was checked is the one connected to; the name is only for SNI and verification.
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    address,
                    self._port,
                    ssl=self._trust,
                    server_hostname=self._host if self._trust else None,
                )
            except ssl.SSLError:
                return UpstreamFailure.TLS_FAILED
            except OSError:
                continue
            return connection
        return failure


class _Opening:
    """A request that waits for its connection."""

    def __init__(
        self, pool: _Pool, head: bytes, key_header: KeyHeader, body: bytes, listener: UpstreamListener
    ) -> None:
        self._pool = pool
        self._request = (head, key_header, body)
        self._listener: UpstreamListener | None = listener
        self._call: UpstreamCall | None = None
        self._paused = False
        self.task: asyncio.Task[None] | None = None

    @property
    def sent(self) -> bool:
        return self._call is not None and self._call.sent

    def connected(self, connection: UpstreamConnection) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            connection.drop()
            return
        head, key_header, body = self._request
        self._request = (b"", key_header, b"")
        connection.start(head, key_header, body, listener)
        self._call = connection.call
        if self._paused:
            self._call.pause()

    def failed(self, failure: UpstreamFailure) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.answer_failed(failure)

    def pause(self) -> None:
        self._paused = True
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        self._paused = False
        if self._call is not None:
            self._call.resume()

    def abort(self) -> None:
        self._listener = None
        if self._call is not None:
            self._call.abort()
        elif self.task is not None:
            self.task.cancel()


async def _resolve(host: str, port: int) -> Sequence[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]
