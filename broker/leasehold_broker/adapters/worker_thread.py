"""One thread for libraries that block. Owns that a call which hangs holds up neither the loop nor a second caller."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKeyFault

T = TypeVar("T")


class GivenUpError(Exception):
    """Nobody waits for this work any more."""


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
            SourceFault: UNREACHABLE when it took too long, or an earlier call hangs still; MALFORMED when a library was
                surprised; and what `work` raises of its own.
        """
        return await self._result(self._begin(work))

    async def run_steps(self, work: Callable[[Callable[[], None]], T]) -> T:
        """What `work` gives, which changes things elsewhere step by step: it takes no step that nobody waits for.

        Otherwise a process that is told to end would go on changing things from this thread, beside the one that
        follows it. Cancelled, this returns when the step that is under way has ended, or hangs.

        Args:
            work: calls what it is handed before each step.

        Raises:
            SourceFault: as `run`.
        """
        given_up = threading.Event()

        def go_on() -> None:
            if given_up.is_set():
                raise GivenUpError

        future = self._begin(lambda: work(go_on))
        try:
            return await self._result(future)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.wait([future], timeout=self._seconds_max)
            self._hanging = future
            raise
        finally:
            given_up.set()

    def close(self) -> None:
        """Take no more work; a call that hangs is left to its own timeout."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        if self._hanging is not None and not self._hanging.done():
            raise SourceFault(SourceState.UNREACHABLE, "the store has not answered an earlier question yet")
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: _understood(work))
        future.add_done_callback(_forget_result)  # whoever asked may have left by then
        return future

    async def _result(self, future: "asyncio.Future[T]") -> T:
        # Not wait_for: cancelled, it tells its caller some turns of the loop later, and a step could begin in between.
        done, _ = await asyncio.wait([future], timeout=self._seconds_max)
        if not done:
            self._hanging = future
            raise SourceFault(SourceState.UNREACHABLE, f"the store did not answer within {self._seconds_max:g} s")
        return future.result()


def _understood(work: Callable[[], T]) -> T:
    """What `work` gives; a surprise of its library is a fault of the store, so that it ends nobody's loop."""
    try:
        return work()
    except (SourceFault, ProviderKeyFault, Refusal, GivenUpError):
        raise
    except Exception as surprise:  # noqa: BLE001 - its text may hold anything, and is not told
        message = f"the store's answer could not be read ({type(surprise).__name__})"
        raise SourceFault(SourceState.MALFORMED, message) from None


def _forget_result(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()
