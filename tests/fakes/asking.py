"""Small helpers for tests of flows: what was refused, what the log says, and letting the loop turn."""

import asyncio
from collections.abc import Awaitable

from tests.fakes.core import Core
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryStateStore

from leasehold_broker.domain.reasons import Reason, Refusal

DISK = Refusal(Reason.STORE_UNAVAILABLE, "the disk has failed")


async def refused(work: Awaitable[object]) -> Refusal:
    """The refusal that `work` ends in."""
    try:
        await work
    except Refusal as refusal:
        return refusal
    message = "was not refused"
    raise AssertionError(message)


async def turns(count: int = 10) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def logged(core: Core, kind: str) -> list:
    """Durable events of one type, in order."""
    return [event for _, _, event in core.store.disk.events if event.type.value == kind]


async def restarted(core: Core) -> Core:
    """Kill the process and start another on the same disk."""
    disk = core.store.crash()
    clock: ManualClock = core.clock
    store = MemoryStateStore(disk, clock)
    return await Core(store, clock, core.policies.policy, CountingEntropy(store.epoch)).recover()
