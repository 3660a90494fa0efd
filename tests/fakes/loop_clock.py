"""The clock of the running event loop, which a test may push on: what waits for a time is due then, and no sooner.

A test of a limit sets it so long that no busy machine reaches it, and pushes. Whoever guards a wait with
`asyncio.timeout` begins it after the push, or with more than is pushed.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any


class _Timer(asyncio.TimerHandle):
    """A call at a time, of a loop whose own timers cannot be hurried."""

    def __init__(self, clock: "LoopClock", when: float, calls: Callable[[], asyncio.Handle]) -> None:
        """Wait in the loop until then."""
        self._clock, self._at, self._call_now = clock, when, calls
        self._waiting: asyncio.Handle | None = None

    def when(self) -> float:
        """By the clock that is pushed."""
        return self._at

    def wait(self, waiting: asyncio.Handle) -> None:
        """This is what it waits for."""
        self._waiting = waiting

    def hurry(self) -> None:
        """It is due."""
        self.cancel()
        self._waiting = self._call_now()

    def cancel(self) -> None:
        """It is not to be called."""
        self._clock.pending.discard(self)
        if self._waiting is not None:
            self._waiting.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._waiting is not None and self._waiting.cancelled()

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class LoopClock:
    """Of the loop that runs now, until it ends; uvloop's too."""

    def __init__(self) -> None:
        """In step with the machine's."""
        self._loop = asyncio.get_running_loop()
        self._real, self._later, self._ahead_seconds = self._loop.time, self._loop.call_later, 0.0
        self.pending: set[_Timer] = set()
        self._loop.time = self.time  # type: ignore[method-assign]
        if not isinstance(self._loop, asyncio.BaseEventLoop):
            # The standard loop's timers ask its clock; uvloop's do not.
            self._loop.call_at = self._call_at  # type: ignore[method-assign]
            self._loop.call_later = self._call_later  # type: ignore[method-assign]

    def time(self) -> float:
        """As `loop.time`."""
        return self._real() + self._ahead_seconds

    def push(self, seconds: float) -> None:
        """So much later at once."""
        self._ahead_seconds += seconds
        now = self.time()
        for timer in sorted((one for one in self.pending if one.when() <= now), key=_Timer.when):
            timer.hurry()

    def _call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        return self._call_at(self.time() + delay, callback, *args, context=context)

    def _call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        def called() -> None:
            self.pending.discard(timer)
            callback(*args)

        timer = _Timer(self, when, lambda: self._loop.call_soon(called, context=context))
        self.pending.add(timer)
        timer.wait(self._later(max(when - self.time(), 0.0), called, context=context))
        return timer
