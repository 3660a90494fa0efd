"""One POST to a fixed address, off the loop. Owns time limits, TLS and what counts as taken; follows no redirect.

Each sink has a thread of its own: one that hangs in a slow answer holds up no other.
"""

import asyncio
import http.client
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from leasehold_broker.ports.event_sink import SinkFailedError

ANSWER_BYTES_MAX = 64 * 1024
TOKEN_BYTES_MAX = 16 * 1024
CLOSE_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where to post.

    Args:
        url: https, or http on loopback (the configuration sees to that).
        bearer_file: its content is sent as bearer token; read for each request, so that it can be rotated.
        ca_file: roots for the server's certificate; None: the system's.
        timeout_seconds: for the connection, and for each silence after it.
    """

    url: str
    bearer_file: Path | None = None
    ca_file: Path | None = None
    timeout_seconds: float = 10.0


class HttpPoster:
    """Posts, one request after the other."""

    def __init__(self, target: HttpTarget, name: str) -> None:
        """For the sink of this name. Connects with the first request.

        Raises:
            OSError: the roots cannot be read.
        """
        self._target = target
        parts = urlsplit(target.url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = (
            ssl.create_default_context(cafile=None if target.ca_file is None else str(target.ca_file))
            if parts.scheme == "https"
            else None
        )
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"sink-{name}")
        self._connection: http.client.HTTPConnection | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The answer's body, after a 2xx.

        Raises:
            SinkFailedError: anything else.
        """
        work = partial(self._post, body, dict(headers))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        """Let go of the connection; a request that hangs is given up with the process."""
        letting_go = asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
        await asyncio.wait([letting_go], timeout=CLOSE_SECONDS_MAX)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            if self._target.bearer_file is not None:
                token = self._target.bearer_file.read_bytes()[:TOKEN_BYTES_MAX].decode().strip()
                headers["Authorization"] = f"Bearer {token}"
            if self._connection is None:
                self._connection = self._connect()
            self._connection.request("POST", self._path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX)
            status, whole = answer.status, answer.isclosed() or not answer.read(1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._disconnect()
            message = f"{self._host}: {type(error).__name__}"
            raise SinkFailedError(message) from None
        if not whole:
            self._disconnect()
        if not 200 <= status < 300:
            message = f"{self._host} answered {status}"
            raise SinkFailedError(message)
        return data

    def _connect(self) -> http.client.HTTPConnection:
        seconds = self._target.timeout_seconds
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=self._tls)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
