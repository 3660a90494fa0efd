"""How budgets are shown to the holder of a lease, and that what is remembered of them never goes stale."""

from dataclasses import replace

from tests.fakes.core import GRANT, Core, caps, plan, used
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.amounts import NO_CAPS, Metric
from leasehold_broker.domain.limits import Level, WindowLimit
from leasehold_broker.domain.windows import Period

DAY = WindowLimit(Level.SUBJECT, Period.DAY, caps(cost_micro_usd=10_000))


async def core() -> Core:
    """Flows in a small world."""
    clock = ManualClock()
    return await Core(MemoryStateStore(MemoryDisk(), clock), clock).recover()


async def spend(world: Core, lease) -> None:
    """One call of 100 and 10 tokens: 150 micro-USD."""
    admitted = await world.admit(world.now_lease(lease), plan())
    await world.calls.settle(admitted.call_id, used(100, 10))


async def test_what_was_spent_is_shown_without_a_cap():
    """Cost and requests of the lease itself are rows even when nothing caps them."""
    world = await core()
    lease = await world.lease(NO_CAPS)

    await spend(world, lease)

    rows = {(row.budget, row.metric): row.settled for row in world.read.usage(world.now_lease(lease))}
    assert rows["lease", Metric.COST_MICRO_USD] == 150
    assert rows["lease", Metric.REQUESTS] == 1


async def test_a_new_day_opens_a_new_window():
    """What one day's calls have drawn on is not what the next day's draw on."""
    world = await core()
    world.set_grant(windows=(DAY,), ttl_seconds_max=200_000, life_seconds_max=400_000)
    lease = await world.lease(NO_CAPS, 180_000)
    await spend(world, lease)

    world.clock.advance(86_400)
    await spend(world, lease)

    (row,) = [row for row in world.read.usage(world.now_lease(lease)) if row.budget == "subject/day"]
    assert row.settled == 150


async def test_a_reloaded_policy_counts_for_the_next_call():
    """A window that a new policy adds is drawn on by the very next call of a lease that exists."""
    world = await core()
    lease = await world.lease(NO_CAPS)
    await spend(world, lease)

    world.policies.policy = replace(world.policies.policy, grants=(replace(GRANT, windows=(DAY,)),))
    await spend(world, lease)

    (row,) = [row for row in world.read.usage(world.now_lease(lease)) if row.budget == "subject/day"]
    assert row.settled == 150
