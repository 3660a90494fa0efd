"""The load of the benchmarks: callers over raw sockets that send what the official SDK sends, one request at a time."""

import asyncio
import json
import time
from typing import Any

from tests.bench.origin import ANSWER, MODEL

BODY = json.dumps(
    {
        "model": MODEL,
        "max_tokens": 256,
        "system": "You are a careful assistant. " * 8,
        "messages": [{"role": "user", "content": "Summarise this paragraph, please. " * 24}],
    }
)


class Caller(asyncio.Protocol):
    """Sends one request after the other until the time is up, and notes how long each took."""

    def __init__(self, request: bytes, until: float, ends: tuple[bytes, ...]) -> None:
        """Send `request` until `until`; an answer is over when it ends with one of `ends`."""
        self._request = request
        self._until = until
        self._ends = ends
        self._tail = b""
        self.done = asyncio.get_running_loop().create_future()
        self.took: list[float] = []

    def connection_made(self, transport: Any) -> None:
        """Start."""
        self._transport = transport
        self._send()

    def connection_lost(self, fault: Exception | None) -> None:
        """A connection that ends early spoils the measurement: say so."""
        if not self.done.done():
            self.done.set_exception(fault or ConnectionError("closed before the time was up"))

    def _send(self) -> None:
        self._from = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look for the end of the answer."""
        self._tail = (self._tail + data)[-128:]
        if b"leasehold-refused-by" in data and not self.done.done():
            self.done.set_exception(RuntimeError(data.decode()))
            return
        if not self._tail.endswith(self._ends):
            return
        now = time.perf_counter()
        self.took.append(now - self._from)
        self._tail = b""
        if now < self._until:
            self._send()
        elif not self.done.done():
            self.done.set_result(None)
            self._transport.close()


def request_bytes(port: int, prefix: str, token: str, *, stream: bool, words: str = "") -> bytes:
    """What the official SDK sends; `words` stand at the beginning of what is asked."""
    asked = BODY.replace("Summarise", f"{words} Summarise", 1) if words else BODY
    body = (asked if not stream else asked[:-1] + ',"stream":true}').replace(": ", ":").encode()
    return (
        f"POST {prefix}/v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: gzip, deflate\r\n"
        f"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        f"User-Agent: Anthropic/Python 2.12.0\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.12.0\r\n"
        f"X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
        f"X-Stainless-Runtime-Version: 3.11\r\nX-Api-Key: {token}\r\nX-Stainless-Async: false\r\n"
        f"anthropic-version: 2023-06-01\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def load(port: int, prefix: str, token: str, concurrency: int, seconds: float, *, stream: bool) -> list[float]:
    """Seconds each request took, sorted.

    Args:
        port: of the origin, or of the egress.
        prefix: "" for the origin; the provider's path for the egress.
        token: the lease token.
        concurrency: connections, each with one request at a time.
        seconds: how long.
        stream: ask for a stream.
    """
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    request = request_bytes(port, prefix, token, stream=stream)
    ends = (b"\r\n0\r\n\r\n", ANSWER[-8:])
    callers = []
    for _ in range(concurrency):
        _, caller = await loop.create_connection(lambda: Caller(request, until, ends), "127.0.0.1", port)
        callers.append(caller)
    await asyncio.wait_for(asyncio.gather(*(caller.done for caller in callers)), seconds + 20)
    return sorted(one for caller in callers for one in caller.took)


def at(took: list[float], share: float) -> float:
    """Milliseconds at this share of the sorted times."""
    return took[min(len(took) - 1, int(len(took) * share))] * 1000
