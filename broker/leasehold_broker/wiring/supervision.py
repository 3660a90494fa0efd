"""Tasks beside the doors, kept going. Owns what happens when one fails: it is told, tried again, and shown as degraded.

A task that died in silence would leave its work undone and unsaid. What fails here is logged with its place, becomes an
event (which alerts), shows in the health service and in the metrics until it has gone well again, and is tried again
after a wait that doubles.
"""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import structlog

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.clock import Clock

RETRY_FIRST_SECONDS = 0.5
RETRY_SECONDS_MAX = 60.0
SETTLED_SECONDS = 30.0
"""A task that has run this long since its last failure goes well again."""
log = structlog.get_logger("leasehold.tasks")

Record = Callable[[Event], Awaitable[object]]


class Supervisor:
    """Keeps tasks of one process going."""

    def __init__(
        self,
        clock: Clock,
        record: Record,
        retry_first_seconds: float = RETRY_FIRST_SECONDS,
        settled_seconds: float = SETTLED_SECONDS,
    ) -> None:
        """Tell these.

        Args:
            clock: for labels.
            record: makes an event durable; a Refusal of its own is no further fault.
            retry_first_seconds: wait after the first failure; doubles, up to RETRY_SECONDS_MAX.
            settled_seconds: see SETTLED_SECONDS.
        """
        self._clock = clock
        self._record = record
        self._show: list[Callable[[bool], None]] = []
        self._retry_first_seconds = retry_first_seconds
        self._settled_seconds = settled_seconds
        self.failing: dict[str, str] = {}
        """Why, by name of the task, or of what else is not well."""
        self.failures: dict[str, int] = {}

    def show(self, degraded: Callable[[bool], None]) -> None:
        """Tell this now, and at each change, whether any task fails."""
        self._show.append(degraded)
        degraded(bool(self.failing))

    def degraded_by(self, name: str, why: str) -> None:
        """Something that is no task is not well, and why; "": it is again."""
        if why:
            self.failing[name] = why
        else:
            self.failing.pop(name, None)
        self._shown()

    @contextlib.asynccontextmanager
    async def keeping(
        self, name: str, work: Callable[[], Awaitable[None]], retry_seconds_max: float = RETRY_SECONDS_MAX
    ) -> AsyncIterator[None]:
        """Run `work`, which does not end by itself, for as long as the context lasts.

        Args:
            name: of the task, in logs, events and metrics.
            work: of it.
            retry_seconds_max: the longest wait after a failure.
        """
        self.failures.setdefault(name, 0)
        task = asyncio.create_task(self._keep(name, work, retry_seconds_max), name=name)
        try:
            yield
        finally:
            await _cancelled(task)

    def samples(self) -> Iterator[Sample]:
        """Metrics of all tasks."""
        for name, count in tuple(self.failures.items()):
            label = ("task", name)
            yield Sample("task_failures", "Times a background task failed.", count, counter=True, label=label)
            yield Sample("task_failing", "1 while a background task fails.", name in self.failing, label=label)

    async def _keep(self, name: str, work: Callable[[], Awaitable[None]], retry_seconds_max: float) -> None:
        attempt = 0
        while True:
            settling = asyncio.create_task(self._settles(name), name=f"{name} settles")
            try:
                await work()
                why = "it ended"
            except Exception as fault:  # noqa: BLE001 - whatever it is: its work must go on
                why = _told(fault)
            finally:
                settled = settling.done()
                await _cancelled(settling)
            attempt = 1 if settled else attempt + 1
            await self._failed(name, why)
            await asyncio.sleep(min(retry_seconds_max, self._retry_first_seconds * 2.0 ** min(attempt - 1, 30)))

    async def _failed(self, name: str, why: str) -> None:
        self.failures[name] += 1
        log.error("a background task failed and is tried again", task=name, why=why, failures=self.failures[name])
        fresh = name not in self.failing
        self.failing[name] = why
        if fresh:
            self._shown()
            await self._tell(EventType.TASK_FAILED, name, Outcome.FAILED, why)

    async def _settles(self, name: str) -> None:
        await asyncio.sleep(self._settled_seconds)
        if self.failing.pop(name, None) is not None:
            log.info("a background task goes well again", task=name)
            self._shown()
            await self._tell(EventType.TASK_RECOVERED, name, Outcome.ALLOWED, "")

    def _shown(self) -> None:
        for degraded in self._show:
            degraded(bool(self.failing))

    async def _tell(self, type_: EventType, name: str, outcome: Outcome, why: str) -> None:
        details = {"task": name} | ({"message": f"{name}: {why}"} if why else {})
        with contextlib.suppress(Refusal):  # it shows in log, health and metrics all the same
            await self._record(Event(type_, self._clock.now().wall_ms, outcome, details=details))


def _told(fault: Exception) -> str:
    """A refusal in its own words; of anything else its kind and place alone: its text may hold anything."""
    if isinstance(fault, Refusal):
        return str(fault)
    frames = traceback.extract_tb(fault.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(fault).__name__ + place


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
