"""One POST to a fixed address, off the loop. Owns time limits, TLS and what counts as taken; follows no redirect.

Each sink has a thread of its own: one that hangs in a slow answer holds up no other.
"""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from leasehold_broker.adapters.private_files import NotPrivateError, read_private
from leasehold_broker.adapters.sinks.own_thread import OwnThread
from leasehold_broker.ports.event_sink import SinkFailedError

ANSWER_BYTES_MAX = 64 * 1024
TOKEN_BYTES_MAX = 16 * 1024
TIMEOUTS_A_REQUEST = 6
"""So many times the limit of one wait, a request may take in all: an answer that comes byte by byte ends, too."""
WAIT_DIGITS_MAX = 6


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where to post.

    Args:
        url: https, or http on loopback (the configuration sees to that); "" when it is in `url_file`.
        bearer_file: its content is sent as bearer token; read for each request, so that it can be rotated.
        ca_file: roots for the server's certificate; None: the system's.
        timeout_seconds: for the connection, and for each silence after it; all of it takes TIMEOUTS_A_REQUEST of them
            at most.
        url_file: its content is the URL, where that is a secret itself; read for each request.
    """

    url: str
    bearer_file: Path | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 10.0
    url_file: Path | None = None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, whatever it says. `retry_after_seconds` is None unless the place asks for a number of seconds."""

    status: int
    data: bytes
    retry_after_seconds: float | None


class HttpPoster:
    """Posts, one request after the other."""

    def __init__(self, target: HttpTarget, name: str) -> None:
        """For the sink of this name. Connects with the first request.

        Raises:
            OSError: the roots cannot be read.
        """
        self._target = target
        self._tls = ssl.create_default_context(cafile=None if target.ca_file is None else str(target.ca_file))
        self._thread = OwnThread(f"sink-{name}")
        self._connection: http.client.HTTPConnection | None = None
        self._origin = ("", "")
        self._given_up = False

    async def post(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The answer's body, after a 2xx.

        Raises:
            SinkFailedError: anything else.
        """
        answer = await self.ask(body, headers)
        if not 200 <= answer.status < 300:
            message = f"{urlsplit(self._origin[1]).hostname} answered {answer.status}"
            raise SinkFailedError(message)
        return answer.data

    async def ask(self, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """The answer, whatever its status.

        Raises:
            SinkFailedError: there is none; the message names the host at most.
        """
        seconds = TIMEOUTS_A_REQUEST * self._target.timeout_seconds
        return await self._thread.run(partial(self._ask, body, dict(headers)), seconds, self._abort)

    async def close(self) -> None:
        """Let go of the connection. A request that hangs has been given up by then, with whoever waited for it."""
        self._disconnect()

    def _abort(self) -> None:
        """Wake the thread that waits at the connection: closing would not, and would race with it."""
        self._given_up = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                # Below TLS, which would want to say goodbye first.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def _ask(self, body: bytes, headers: dict[str, str]) -> HttpAnswer:
        self._given_up = False
        try:
            url = urlsplit(self._url())
            host = url.hostname or ""
        except (OSError, NotPrivateError, ValueError) as error:
            message = f"the URL cannot be read: {type(error).__name__}"
            raise SinkFailedError(message) from None
        try:
            if self._target.bearer_file is not None:
                token = self._target.bearer_file.read_bytes()[:TOKEN_BYTES_MAX].decode().strip()
                headers["Authorization"] = f"Bearer {token}"
            connection = self._connected(url.scheme, host, url.port)
            connection.request("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""), body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX)
            wait = answer.getheader("Retry-After", "")
            whole = (answer.isclosed() or not answer.read(1)) and not self._given_up
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._disconnect()
            message = f"{host}: {type(error).__name__}"
            raise SinkFailedError(message) from None
        if not whole:
            self._disconnect()
        seconds = float(wait) if wait.isascii() and wait.isdecimal() and len(wait) <= WAIT_DIGITS_MAX else None
        return HttpAnswer(answer.status, data, seconds)

    def _url(self) -> str:
        """Where to; raises OSError, NotPrivateError, ValueError."""
        if self._target.url_file is None:
            return self._target.url
        url = read_private(self._target.url_file, TOKEN_BYTES_MAX).decode().strip()
        if not url.startswith(("https://", "http://127.0.0.1:", "http://[::1]:")):
            raise ValueError("not https")
        return url

    def _connected(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        origin = (scheme, f"//{host}:{port}")
        if self._connection is None or origin != self._origin:
            self._disconnect()
            self._origin = origin
            seconds = self._target.timeout_seconds
            self._connection = (
                http.client.HTTPConnection(host, port, timeout=seconds)
                if scheme == "http"
                else http.client.HTTPSConnection(host, port, timeout=seconds, context=self._tls)
            )
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
