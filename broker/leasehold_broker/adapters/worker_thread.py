"""One thread for libraries that block. Owns that a call which hangs holds up neither the loop nor a second caller."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from leasehold_broker.ports.key_source import SourceFault, SourceState

T = TypeVar("T")


class WorkerThread:
    """Runs one blocking call at a time; others wait their turn, each no longer than its own bound."""

    def __init__(self, name: str, seconds_max: float) -> None:
        """Start no thread yet; `seconds_max` bounds each call, the wait for its turn included."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._seconds_max = seconds_max
        self._hanging: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives.

        Raises:
            SourceFault: UNREACHABLE when it took too long, or an earlier call hangs still; and what `work` raises.
        """
        if self._hanging is not None and not self._hanging.done():
            raise SourceFault(SourceState.UNREACHABLE, "the store has not answered an earlier question yet")
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._seconds_max)
        except TimeoutError:
            if future.done() and not future.cancelled() and future.exception() is not None:
                raise
            self._hanging = future
            future.add_done_callback(_forget_result)
            message = f"the store did not answer within {self._seconds_max:g} s"
            raise SourceFault(SourceState.UNREACHABLE, message) from None

    def close(self) -> None:
        """Take no more work; a call that hangs is left to its own timeout."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _forget_result(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
