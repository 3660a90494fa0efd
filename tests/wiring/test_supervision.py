"""Tasks beside the doors: one that fails is told, shown as degraded, tried again, and well again after a while."""

import asyncio

from tests.fakes.centre import eventually
from tests.fakes.planted import planted

from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.domain.events import Event, EventType
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.wiring.supervision import Supervisor


class Told:
    """Remembers events and states."""

    def __init__(self, refuses: bool = False) -> None:
        """Takes everything, or refuses to record."""
        self.events: list[Event] = []
        self.states: list[bool] = []
        self._refuses = refuses

    async def record(self, event: Event) -> None:
        """As the store."""
        if self._refuses:
            raise Refusal(Reason.STORE_UNAVAILABLE, "no")
        self.events.append(event)


def supervisor(told: Told, settled_seconds: float = 0.02) -> Supervisor:
    """One that waits little."""
    made = Supervisor(SystemClock(), told.record, retry_first_seconds=0.001, settled_seconds=settled_seconds)
    made.show(told.states.append)
    return made


async def test_a_task_that_fails_is_told_once_tried_again_and_well_again():
    """Whatever it raises, its work goes on; nothing of the fault's own text is told, only kind and place."""
    told, turns = Told(), []

    async def work() -> None:
        turns.append(1)
        if len(turns) < 4:
            raise ValueError(planted("secret"))
        await asyncio.Event().wait()

    tasks = supervisor(told)
    async with asyncio.timeout(240), tasks.keeping("worker", work):
        await eventually(lambda: EventType.TASK_RECOVERED in [event.type for event in told.events])
    assert [event.type for event in told.events] == [EventType.TASK_FAILED, EventType.TASK_RECOVERED]
    assert told.states == [False, True, False]
    assert tasks.failures == {"worker": 3}
    message = told.events[0].details["message"]
    assert message.startswith("worker: ValueError at test_supervision.py:")
    assert planted("secret") not in str(told.events)


async def test_a_task_that_ends_is_begun_anew_and_a_store_that_refuses_the_event_changes_nothing():
    """An end is a failure too; the health still shows it."""
    told, turns = Told(refuses=True), []

    async def work() -> None:
        turns.append(1)
        if len(turns) > 2:
            await asyncio.Event().wait()

    tasks = supervisor(told, settled_seconds=3600)
    async with asyncio.timeout(240), tasks.keeping("worker", work):
        await eventually(lambda: len(turns) == 3)
        failing = [(sample.name, sample.value) for sample in tasks.samples() if sample.name == "task_failing"]
    assert told.states == [False, True]
    assert tasks.failing == {"worker": "it ended"}
    assert failing == [("task_failing", True)]


async def test_two_tasks_fail_for_themselves():
    """One that fails holds up no other, and the health is well only when both are."""
    told, beats = Told(), []

    async def bad() -> None:
        raise RuntimeError

    async def good() -> None:
        while True:
            beats.append(1)
            await asyncio.sleep(0)

    tasks = supervisor(told)
    async with asyncio.timeout(240), tasks.keeping("bad", bad), tasks.keeping("good", good):
        await eventually(lambda: tasks.failures["bad"] > 2 and len(beats) > 2)
    assert tasks.failures["good"] == 0
    assert told.states[-1] is True


async def test_a_wait_after_a_failure_has_the_bound_it_was_given():
    """What is to be found again soon is tried again soon, however often it failed before."""
    told, turns = Told(), []

    async def work() -> None:
        turns.append(1)
        if len(turns) < 40:  # doubled without a bound, the waits would be years
            raise ValueError
        await asyncio.Event().wait()

    tasks = supervisor(told)
    async with asyncio.timeout(240), tasks.keeping("worker", work, retry_seconds_max=0.002):
        await eventually(lambda: len(turns) == 40)
    assert tasks.failures == {"worker": 39}
