"""Retry-After is a promise: the first moment at which the same call is admitted, if nothing else comes."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.core import GRANT, Core, plan, used
from tests.fakes.manual_clock import START_WALL_MS, ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.limits import Budget, Level, Raise, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.windows import Period, Rolling

SPANS = (Period.MINUTE, Period.HOUR, Rolling(60), Rolling(90), Rolling(600), Period.TOTAL)


@st.composite
def limits(draw) -> WindowLimit:
    """A small limit on requests and input tokens, sometimes raised for a while in the near future."""
    caps = NO_CAPS._replace(requests=draw(st.integers(1, 4)), input_tokens=draw(st.integers(1, 9)))
    start, length = draw(st.integers(0, 100_000)), draw(st.sampled_from((0, 5_000, 70_000)))
    more = NO_CAPS._replace(requests=draw(st.integers(4, 6)))
    raised = Raise(START_WALL_MS + start, START_WALL_MS + start + length, more)
    return WindowLimit(Level.EVERYTHING, draw(st.sampled_from(SPANS)), caps, raises=(raised,) if length else ())


class World:
    """A sidecar with these budgets, and one lease."""

    async def start(self, found: list[WindowLimit]) -> "World":
        """Open it."""
        clock = ManualClock()
        policy = Policy("p", (GRANT,), tuple(Budget("", one) for one in found))
        self.core = await Core(MemoryStateStore(MemoryDisk(), clock), clock, policy).recover()
        self.lease = await self.core.lease()
        return self

    async def call(self, tokens: int, *, keep: bool = True) -> Refusal | None:
        """One call of so many input tokens, which stays open unless told otherwise; why it was refused."""
        try:
            admitted = await self.core.admit(self.lease, plan(tokens, 0))
        except Refusal as refusal:
            return refusal
        if not keep:
            await self.core.calls.settle(admitted.call_id, used(0, 0))
        return None

    def wait(self, milliseconds: int) -> None:
        """Let time pass, to the millisecond."""
        self.core.clock.wall_ms += milliseconds
        self.core.clock.boot_ns += milliseconds * 1_000_000


async def promise_is_kept(found, calls, wanted) -> None:
    """Make the calls, then ask for one more until it is admitted or never will be."""
    world = await World().start(found)
    for later, tokens, keep in calls:
        world.wait(later)
        await world.call(tokens, keep=keep)
    refusal = await world.call(wanted)
    if refusal is None:
        return
    if refusal.retry_after_seconds is None:
        for later in (1, 59_000, 60_000, 600_000, 2_000_000):
            world.wait(later)
            assert await world.call(wanted) is not None, "it said that waiting does not help"
        return
    due = round(refusal.retry_after_seconds * 1000)
    for later in (due // 2, due - 1 - due // 2):
        world.wait(max(0, later))
        again = await world.call(wanted)
        assert again is not None, "it was admitted before the time"
        assert again.retry_after_seconds is not None
    world.wait(1)
    assert await world.call(wanted) is None, "it was refused at the time"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(limits(), min_size=1, max_size=3, unique_by=lambda one: one.name),
    st.lists(
        st.tuples(st.sampled_from((0, 1, 950, 20_000, 61_000)), st.integers(1, 4), st.booleans()),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 5),
)
def test_retry_after_is_the_first_moment_at_which_the_same_call_is_admitted(found, calls, wanted):
    """Refused a millisecond before it, admitted at it; where none is given, refused while the lease lives."""
    asyncio.run(promise_is_kept(found, calls, wanted))
