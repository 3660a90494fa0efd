"""Blocking work of one sink or copy, off the loop. Owns its time limit, and that what hangs takes nobody with it.

Not the loop's own pool: that has few threads, which opening a socket and reading a key need as well, and a process
waits at its end for every thread of a pool. A disk that hangs, or a receiver that drips its answer, would stop both.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from leasehold_broker.ports.event_sink import SinkFailedError

T = TypeVar("T")


class OwnThread:
    """Does one thing at a time, each in a thread that the process does not wait for at its end."""

    def __init__(self, name: str) -> None:
        """Name the threads."""
        self._name = name
        self._busy = False

    async def run(self, work: Callable[[], T], seconds: float, give_up: Callable[[], None] = lambda: None) -> T:
        """What `work` returns or raises.

        Args:
            work: blocks.
            seconds: how long it may take in all.
            give_up: is called, on the loop, when nobody waits for the work any more, so that it may end.

        Raises:
            SinkFailedError: it has not ended in this time; or what was given up before hangs still.
        """
        if self._busy:
            message = "what was begun before hangs still"
            raise SinkFailedError(message)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self._busy = True
        threading.Thread(target=self._work, args=(work, result, loop), name=self._name, daemon=True).start()
        try:
            await asyncio.wait([result], timeout=seconds)
        finally:
            if not result.done():
                result.cancel()
                give_up()
        if result.cancelled():
            message = f"it has not ended after {seconds:g} s"
            raise SinkFailedError(message)
        return result.result()

    def _work(self, work: Callable[[], T], result: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
        try:
            report = partial(self._ended, result, result.set_result, work())
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            report = partial(self._ended, result, result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(report)

    def _ended(self, result: asyncio.Future[T], settle: Callable[[Any], None], value: object) -> None:
        self._busy = False
        if not result.done():
            settle(value)
