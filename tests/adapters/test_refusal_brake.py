"""Whoever is refused too often waits; nobody else does."""

import asyncio

from leasehold_broker.adapters.refusal_brake import BrakeLimits, RefusalBrake

QUICK = BrakeLimits(each_per_second=100, debt_max=20, slice_bytes=10, tick_seconds=0.001)


async def test_only_a_holder_in_debt_is_held():
    """A burst of twice the rate is free; one more is not, and a neighbour is not touched."""
    brake = RefusalBrake(QUICK)
    for _ in range(200):
        brake.refused("uid:1")
    assert not brake.holds("uid:1")
    for _ in range(10):
        brake.refused("uid:1")
    assert brake.holds("uid:1")
    assert not brake.holds("uid:2")


async def test_what_waits_comes_in_slices_in_turn_and_the_debt_is_paid_first():
    """Two connections of one holder take turns; while any of them waits, new bytes wait too."""
    brake, loop, passed = RefusalBrake(QUICK), asyncio.get_running_loop(), []
    done = asyncio.Event()
    left = {"a": 3, "b": 2}

    def of(name):
        def let_through(count):
            passed.append((name, count))
            left[name] -= 1
            if not any(left.values()):
                done.set()
            return left[name] > 0

        return let_through

    for _ in range(220):
        brake.refused("uid:1")
    started = loop.time()
    brake.wait("uid:1", of("a"))
    brake.wait("uid:1", of("b"))
    assert brake.holds("uid:1")
    await asyncio.wait_for(done.wait(), 60)
    assert loop.time() - started >= 0.15
    assert passed == [("a", 10), ("b", 10), ("a", 10), ("b", 10), ("a", 10)]
    assert not brake.holds("uid:1")


async def test_a_debt_is_bounded():
    """A long flood costs its author a minute, not a day."""
    brake = RefusalBrake(QUICK)
    for _ in range(100_000):
        brake.refused("uid:1")
    turn = asyncio.Event()
    brake.wait("uid:1", lambda _count: turn.set() or False)
    await asyncio.wait_for(turn.wait(), 60)
