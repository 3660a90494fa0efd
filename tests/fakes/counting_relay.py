"""Between one sidecar and the centre: passes bytes on, counts what HTTP/2 says has crossed, and can hold everything.

It reads frame headers and nothing else (RFC 9113, section 4.1): a HEADERS frame towards the centre is a remote call
that begins, a DATA frame is a message, or a part of one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD = 9
DATA, HEADERS = 0, 1
CHUNK = 1 << 16


class Frames:
    """Counts the frames of one direction of one connection."""

    def __init__(self, skip: int, seen: Callable[[int, int], None]) -> None:
        """Skip the preface of a client; each frame's type and length is told."""
        self._skip, self._seen, self._head = skip, seen, b""

    def take(self, data: bytes) -> None:
        """Bytes as they come."""
        while data:
            if self._skip:
                gone = min(self._skip, len(data))
                self._skip -= gone
                data = data[gone:]
                continue
            missing = FRAME_HEAD - len(self._head)
            self._head += data[:missing]
            data = data[missing:]
            if len(self._head) == FRAME_HEAD:
                length = int.from_bytes(self._head[:3])
                self._seen(self._head[3], length)
                self._skip, self._head = length, b""


class CountingRelay:
    """Listens for one sidecar; connects to the first of the centre's sockets that answers."""

    def __init__(self, path: Path, centre: Callable[[], Sequence[Path]]) -> None:
        """At this path; the centre's sockets are asked for at each connection."""
        self.path = path
        self._centre = centre
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.calls = 0
        """Remote calls that the sidecar has begun."""
        self.messages = 0
        """Frames with data towards the centre."""
        self.passed = 0
        """Bytes, both ways."""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut everything."""
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def holding(self):
        """Let nothing pass in the context, either way; connections stay."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def _seen(self, kind: int, length: int) -> None:
        self.calls += kind == HEADERS
        self.messages += kind == DATA and length > 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            for path in self._centre():
                with contextlib.suppress(OSError):
                    inner, outer = await asyncio.open_unix_connection(str(path))
                    break
            else:
                return
            frames = Frames(len(PREFACE), self._seen)
            back = asyncio.create_task(self._pump(inner, writer, lambda _: None))
            try:
                await self._pump(reader, outer, frames.take)
            finally:
                back.cancel()
                outer.close()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, see: Callable[[bytes], None]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._open.wait()
                see(data)
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()
