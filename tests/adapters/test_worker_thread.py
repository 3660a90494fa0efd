"""Work that changes things elsewhere: what nobody waits for any more takes no further step."""

import asyncio
import threading

import pytest

from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.ports.key_source import SourceFault, SourceState


class Steps:
    """Two steps, of which the first is held up until the test lets it end."""

    def __init__(self):
        """Nothing done."""
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.done = []

    def work(self, go_on):
        """Both."""
        go_on()
        self.begun.set()
        self.let_go.wait(30)
        self.done.append("first")
        go_on()
        self.done.append("second")
        return "both"


async def begun(steps):
    """The first step is under way."""
    await asyncio.to_thread(steps.begun.wait, 30)


async def test_steps_that_are_waited_for_are_taken():
    """What the work gives."""
    worker, steps = WorkerThread("test", 30.0), Steps()
    steps.let_go.set()
    assert await worker.run_steps(steps.work) == "both"
    assert steps.done == ["first", "second"]
    worker.close()


async def test_a_cancellation_waits_for_the_step_under_way_and_takes_no_other():
    """Who is cancelled returns with nothing going on behind its back; the thread is free again."""
    worker, steps = WorkerThread("test", 30.0), Steps()
    running = asyncio.create_task(worker.run_steps(steps.work))
    await begun(steps)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    steps.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert steps.done == ["first"]
    assert await worker.run_steps(lambda _go_on: "next") == "next"
    assert steps.done == ["first"]
    worker.close()


async def test_work_that_takes_too_long_takes_no_further_step():
    """The fault says so; until the step under way has ended nothing else is begun, and then no second step is."""
    worker, steps = WorkerThread("test", 0.05), Steps()
    with pytest.raises(SourceFault) as caught:
        await worker.run_steps(steps.work)
    assert caught.value.state is SourceState.UNREACHABLE
    with pytest.raises(SourceFault, match="earlier question"):
        await worker.run_steps(lambda _go_on: "beside it")
    steps.let_go.set()
    worker._executor.shutdown(wait=True)
    assert steps.done == ["first"]


async def test_a_step_that_hangs_does_not_hold_up_a_cancellation_for_ever():
    """The wait has the bound of a call."""
    worker, steps = WorkerThread("test", 0.05), Steps()
    running = asyncio.create_task(worker.run_steps(steps.work))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    steps.let_go.set()
    worker._executor.shutdown(wait=True)
    assert "second" not in steps.done


async def test_a_librarys_surprise_is_a_fault_of_the_store():
    """Whatever it is, it ends no loop of ours, and what it says is not told; our own faults go through."""
    worker = WorkerThread("test", 30.0)

    def surprise():
        raise RecursionError("sk-in-the-text")

    def own():
        raise SourceFault(SourceState.SEALED, "sealed")

    with pytest.raises(SourceFault) as caught:
        await worker.run(surprise)
    assert (caught.value.state, str(caught.value)) == (
        SourceState.MALFORMED,
        "the store's answer could not be read (RecursionError)",
    )
    assert caught.value.__suppress_context__
    with pytest.raises(SourceFault, match="sealed"):
        await worker.run(own)
    worker.close()
