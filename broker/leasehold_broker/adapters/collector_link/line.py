"""The connection to the collector that both streams of a link share. Owns its life; refuses to know what goes over it.

One connection for a sidecar: a handshake costs the collector more than anything else of a reconnect, and a fleet that
comes back makes them all at once. Whatever ends it for one stream ends it for both: one that has failed or gone
half-open is never asked again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import grpc


class Line:
    """One connection, while anybody is on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Made by `Lines`."""
        self.channel = channel
        self._users = 0
        self._over = asyncio.Event()

    @property
    def shared(self) -> bool:
        """Both streams are on it."""
        return self._users > 1

    @property
    def over(self) -> bool:
        """Nobody new may come on it."""
        return self._over.is_set()

    def end(self) -> None:
        """Whoever is on it leaves."""
        self._over.set()

    async def carry(self, session: Coroutine[None, None, None]) -> None:
        """Run a stream until it ends, or the line is over.

        Raises:
            Exception: what the stream raises.
        """
        stream = asyncio.create_task(session)
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait((stream, over), return_when=asyncio.FIRST_COMPLETED)
            if stream.done():
                stream.result()
        finally:
            over.cancel()
            stream.cancel()
            await asyncio.gather(stream, over, return_exceptions=True)
            del stream, over  # what is raised names this frame: named by it, it would keep the connection (`together`)


class Lines:
    """Opens a line when there is none to share."""

    def __init__(self, connect: Callable[[], Awaitable[grpc.aio.Channel]]) -> None:
        """`connect` makes a channel that shares nothing with an earlier one; it may raise OSError."""
        self._connect = connect
        self._opening = asyncio.Lock()
        self._newest: Line | None = None

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """The one that the other stream is on, or a new one; closed with the last who leaves.

        Raises:
            OSError: a certificate file cannot be read.
        """
        async with self._opening:
            line = self._newest
            if line is None or line.over:
                line = self._newest = Line(await self._connect())
            line._users += 1  # noqa: SLF001 - a line is this class's own
        try:
            yield line
        finally:
            line._users -= 1  # noqa: SLF001 - as above
            if not line._users:  # noqa: SLF001 - as above
                line.end()
                if self._newest is line:
                    self._newest = None
                await line.channel.close()
