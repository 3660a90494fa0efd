"""An event loop on a virtual clock: the production code's own sleeps, timeouts and tasks, without waiting for any.

Owns time and the order of things: nothing here depends on the machine, so a seed is one run. A turn of the loop is a
step; whoever asked is told after each. Work for threads runs at once, on the loop.
"""

import asyncio
import itertools
import selectors
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context, ContextVar
from typing import Any
from unittest.mock import patch

NANOS = 1_000_000_000
PROCESS: "ContextVar[Process | None]" = ContextVar("PROCESS", default=None)
"""Whose task runs: inherited by every task that production code starts."""


class StuckError(AssertionError):
    """Nothing can ever happen again."""


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set is decided by its number, not by its address."""

    _numbers = itertools.count(1)

    def __init__(self, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        """As a task."""
        self._number = next(NumberedTask._numbers)
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        """The number."""
        return self._number

    def __eq__(self, other: object) -> bool:
        """Identity."""
        return self is other


class NumberedEvent(asyncio.Event):
    """An event whose place in a set is decided by its number."""

    _numbers = itertools.count(1)

    def __init__(self) -> None:
        """As an event."""
        self._number = next(NumberedEvent._numbers)
        super().__init__()

    def __hash__(self) -> int:
        """The number."""
        return self._number

    def __eq__(self, other: object) -> bool:
        """Identity."""
        return self is other


class Process:
    """A process of the simulated world: what it runs ends with it, between any two steps."""

    def __init__(self, name: str, failed: list[BaseException]) -> None:
        """Nothing runs yet; what its tasks raise is put into `failed`."""
        self.name = name
        self.dead = False
        self.tasks: dict[NumberedTask, None] = {}
        self._failed = failed

    def __repr__(self) -> str:
        """Its name."""
        return f"Process({self.name!r}, dead={self.dead})"

    def adopt(self, task: NumberedTask) -> None:
        """Run this as part of it."""
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        if self.dead:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str, *, awaited: bool = False) -> asyncio.Task[Any]:
        """Start a task of this process; what it raises is looked at after the step, or is whoever's who awaits it."""
        token = PROCESS.set(self)
        try:
            task = asyncio.get_running_loop().create_task(work, name=name)
        finally:
            PROCESS.reset(token)
        if not awaited:
            task.add_done_callback(self._watched)
        return task

    def kill(self) -> None:
        """SIGKILL: no more of it runs that could be seen from outside."""
        self.dead = True
        for task in tuple(self.tasks):
            task.cancel()

    def _ended(self, task: NumberedTask) -> None:
        self.tasks.pop(task, None)

    def _watched(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (failure := task.exception()) is not None and not self.dead:
            self._failed.append(failure)


class _NoWaiting(selectors.SelectSelector):
    """Instead of waiting, time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.turned: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let the time pass that the loop would have slept."""
        if self.turned is not None:
            self.turned()
        if timeout is None:
            message = "every task waits for another"
            raise StuckError(message)
        if timeout > 0:
            self.seconds += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        """At zero."""
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)
        self.set_task_factory(_numbered)
        self.turns = 0
        self._due: dict[Process, None] = {}
        self._next: dict[Process, None] = {}
        self.slow_callback_duration = 1e9

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._virtual.seconds

    def _write_to_self(self) -> None:
        """There is no other thread to be woken by."""

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """As the loop does; whose it is will have run by the end of the next turn."""
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            self._next[process] = None
        return super().call_soon(callback, *args, context=context)

    def after_each_turn(self, look: Callable[[Iterable[Process]], None]) -> None:
        """Call this after every turn, with the processes of which something has run in it."""

        def turned() -> None:
            self.turns += 1
            ran, self._due, self._next = self._due, self._next, {}
            look(ran)

        self._virtual.turned = turned

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
        """At once, here."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the caller's
            done.set_exception(error)
        return done


def _numbered(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> NumberedTask:
    task = NumberedTask(coro, loop=loop, **options)
    process = PROCESS.get()
    if process is not None:
        process.adopt(task)
    return task


def run_virtually(work: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run to the end on a loop of its own.

    Raises:
        Exception: what `work` raises, and what a look after a turn raises.
    """
    NumberedTask._numbers, NumberedEvent._numbers = itertools.count(1), itertools.count(1)
    loop = VirtualLoop()
    try:
        with patch("asyncio.Event", NumberedEvent):
            loop.run_until_complete(work(loop))
    finally:
        loop._virtual.turned = None
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(50):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
