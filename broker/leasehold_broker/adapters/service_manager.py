"""Tells the service manager how this process stands: ready, alive, stopping (sd_notify(3), the protocol of systemd).

Owns the datagrams. Without NOTIFY_SOCKET nobody is told anything; a manager that takes none is no reason to fail.
Alive means that work went on since the last word: a process that only turns in circles says nothing, and is restarted.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
BEATS_PER_WATCHDOG = 3
_MICROS = 1_000_000


class ServiceManager:
    """Of one process."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Who is to be told, as the environment says.

        Args:
            environ: NOTIFY_SOCKET, a path or "@" and an abstract name; WATCHDOG_USEC, how long silence is put up with,
                in microseconds, and WATCHDOG_PID, of whom.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        of_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = environ.get("WATCHDOG_USEC", "")
        self._beat_seconds = int(micros) / _MICROS / BEATS_PER_WATCHDOG if of_us and micros.isdecimal() else 0.0

    @contextlib.asynccontextmanager
    async def told(self, progress: Callable[[], int]) -> AsyncIterator[None]:
        """Ready at the beginning, stopping at the end; alive in between, for as long as the work goes on.

        Args:
            progress: counts what was done; as long as it stays the same, nothing is said.
        """
        self._say(READY)
        beating = asyncio.create_task(self._beat(progress), name="service manager")
        try:
            yield
        finally:
            beating.cancel()
            self._say(STOPPING)

    async def _beat(self, progress: Callable[[], int]) -> None:
        last = progress()
        while self._beat_seconds:
            await asyncio.sleep(self._beat_seconds)
            now = progress()
            if now != last:
                self._say(ALIVE)
                last = now

    def _say(self, word: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)  # noqa: FBT003 - its only argument
            to.sendto(word.encode(), self._address)
