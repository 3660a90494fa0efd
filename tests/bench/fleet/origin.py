"""The provider of the fleet: answers at once, keeps streams open, notes when requests come and streams go.

Run `python -m tests.bench.fleet.origin OUT`: prints its port; writes what it noted when its input ends. It takes any
key: whether the right one comes is not what is measured here.
"""

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from tests.bench.origin import EVENTS, JSON_ANSWER

TAG = re.compile(rb"call-(\d+)-(\d+)")
"""What an agent writes into its request: which agent, and its how-manieth lease."""
DRIP_SECONDS = 0.1
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

Noted = list[tuple[int, int, int]]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Origin(asyncio.Protocol):
    """One connection."""

    def __init__(self, calls: Noted, cuts: Noted) -> None:
        """Note into these."""
        self._calls = calls
        self._cuts = cuts
        self._buffer = b""
        self._stream: tuple[int, int] | None = None
        self._drip: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a whole request is here."""
        now = time.monotonic_ns()
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = int(self._buffer[:end].lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(self._buffer) < end + 4 + length:
            return
        tag = TAG.search(self._buffer)
        agent, lease = (int(part) for part in tag.groups()) if tag else (-1, -1)
        self._calls.append((now, agent, lease))
        if b'"stream":true' in self._buffer:
            self._stream = agent, lease
            self._transport.write(STREAM_HEAD + _chunk(EVENTS[0]))
            self._next_drop()
        else:
            self._transport.write(JSON_ANSWER)
        self._buffer = b""

    def _next_drop(self) -> None:
        self._transport.write(_chunk(EVENTS[1]))
        self._drip = asyncio.get_running_loop().call_later(DRIP_SECONDS, self._next_drop)

    def connection_lost(self, fault: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """Note when a stream is gone."""
        if self._drip is not None:
            self._drip.cancel()
        if self._stream is not None:
            self._cuts.append((time.monotonic_ns(), *self._stream))


async def _serve(out: Path) -> None:
    calls: Noted = []
    cuts: Noted = []
    server = await asyncio.get_running_loop().create_server(lambda: Origin(calls, cuts), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    _write(out, {"calls": calls, "cuts": cuts})


def _write(out: Path, noted: dict[str, Noted]) -> None:
    out.write_text(json.dumps(noted))


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
