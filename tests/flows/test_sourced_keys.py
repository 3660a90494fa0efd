"""The bounded cache over a store elsewhere: what an outage may not stop, what it must, and how often it asks."""

import asyncio

import pytest
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_key_source import MemoryKeySource
from tests.fakes.planted import planted

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.sourced_keys import KeyBounds, Listed, SourcedKeys
from leasehold_broker.ports.key_source import FINAL, SourceFault, SourceState

KEY = "anthropic-prod"
OUTAGES = sorted(set(SourceState) - FINAL - {SourceState.SERVING, SourceState.CONFLICT})


class World:
    """A cache over a source in memory, with two keys."""

    def __init__(self):
        """Start with both keys stored."""
        self.clock, self.source, self.changes = ManualClock(), MemoryKeySource(), []
        self.source.put(KEY, planted("1"))
        self.source.put("openai-prod", planted("o"))
        listed = (Listed(KEY, "anthropic", "prod"), Listed("openai-prod", "openai", "prod"))
        bounds = KeyBounds(refresh_seconds=30, stale_seconds_max=300)
        self.keys = SourcedKeys(self.source, listed, bounds, self.clock, CountingEntropy(), self.changes.append)

    def fail(self, state, retry_after=None):
        """Every question fails from now on."""
        self.source.fault = SourceFault(state, "as the test says", retry_after)

    async def refused(self):
        """The refusal of the first key."""
        with pytest.raises(Refusal) as caught:
            await self.keys.secret(KEY)
        return caught.value


@pytest.fixture
async def world():
    """A cache that has read once."""
    world = World()
    await world.keys.refresh()
    yield world
    await world.keys.aclose()


@pytest.mark.parametrize("state", OUTAGES)
async def test_an_outage_stops_nothing_until_the_key_is_too_old(world, state):
    """Sealed, standby, limited, slow, failing, no login, malformed: served to the last stated second, then refused."""
    world.fail(state)
    for _ in range(10):
        world.clock.advance(30)
        await world.keys.refresh()
        assert await world.keys.secret(KEY) == Secret(planted("1").encode())
    assert world.keys.find(KEY) is not None
    world.clock.advance(1)
    refusal = await world.refused()
    assert refusal.reason is Reason.KEY_UNAVAILABLE
    assert state.value in refusal.detail
    assert refusal.retry_after_seconds
    assert world.keys.records() == ()
    assert world.keys.find(KEY) is None


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_a_clear_no_of_the_store_stops_a_key_at_once(world, state):
    """Permission removed, deleted or disabled: the key goes with the next reading, the other one stays."""
    world.source.faults[KEY] = SourceFault(state, "no")
    world.clock.advance(30)
    await world.keys.refresh()
    refusal = await world.refused()
    assert refusal.reason is (Reason.KEY_DISABLED if state is SourceState.DISABLED else Reason.KEY_UNAVAILABLE)
    assert refusal.retry_after_seconds is None
    assert await world.keys.secret("openai-prod") == Secret(planted("o").encode())


async def test_suspended_hours_make_a_key_too_old(world):
    """The age runs on the boot clock: after 16 suspended hours the first call asks the store, and gets what is new."""
    world.source.put(KEY, planted("2"))
    world.clock.advance(16 * 3600)
    assert await world.keys.secret(KEY) == Secret(planted("2").encode())


async def test_the_store_comes_back(world):
    """When the store answers again, the next call is served: no restart."""
    world.fail(SourceState.UNREACHABLE)
    world.clock.advance(400)
    await world.refused()
    world.source.fault = None
    world.clock.advance(2)
    assert await world.keys.secret(KEY) == Secret(planted("1").encode())


async def test_calls_do_not_flood_a_store_that_is_down(world):
    """A hundred calls for a key that is too old make one question a second, not a hundred."""
    world.fail(SourceState.UNREACHABLE)
    world.clock.advance(400)
    before = world.source.reads
    refusals = await asyncio.gather(*(world.keys.secret(KEY) for _ in range(100)), return_exceptions=True)
    assert all(isinstance(each, Refusal) for each in refusals)
    assert world.source.reads == before + 1
    await world.refused()
    assert world.source.reads == before + 1


async def test_a_fault_of_the_whole_store_asks_for_no_second_key(world):
    """A sealed store is asked once a round, not once a key; one key's own fault keeps no other from being read."""
    before = world.source.reads
    world.fail(SourceState.SEALED)
    await world.keys.refresh()
    assert world.source.reads == before + 1
    world.source.fault = None
    world.source.faults[KEY] = SourceFault(SourceState.MALFORMED, "no key in it")
    await world.keys.refresh()
    assert world.source.reads == before + 3


async def test_a_store_that_was_set_back_is_not_believed(world):
    """An older version than one that was read is an outage of that key, told as such; the last good value serves."""
    world.source.put(KEY, planted("2"))
    await world.keys.refresh()
    world.source.entries[KEY].current, world.source.entries[KEY].version = planted("1"), 1
    await world.keys.refresh()
    assert await world.keys.secret(KEY) == Secret(planted("2").encode())
    assert "set back" in world.changes[-1].why


async def test_changes_are_told_once(world):
    """One change for a new version, one for an outage, one for its end; never the value."""
    assert [(each.key, each.state, each.version) for each in world.changes] == [
        (KEY, SourceState.SERVING, 1),
        ("openai-prod", SourceState.SERVING, 1),
    ]
    world.changes.clear()
    world.source.put(KEY, planted("2"))
    for _ in range(3):
        await world.keys.refresh()
    world.source.faults[KEY] = SourceFault(SourceState.MALFORMED, "no key in it")
    for _ in range(3):
        await world.keys.refresh()
    del world.source.faults[KEY]
    await world.keys.refresh()
    assert [(each.state, each.version) for each in world.changes] == [
        (SourceState.SERVING, 2),
        (SourceState.MALFORMED, 2),
        (SourceState.SERVING, 2),
    ]
    assert planted() not in repr(world.changes)


async def test_the_background_notices_within_the_interval():
    """Started, the cache reads by itself; a nudge makes it read before the interval ends."""
    world = World()
    await world.keys.start()
    assert await world.keys.secret(KEY) == Secret(planted("1").encode())
    world.source.put(KEY, planted("2"))
    world.clock.advance(2)
    world.keys.nudge()
    for _ in range(1000):
        if await world.keys.secret(KEY) == Secret(planted("2").encode()):
            break
        await asyncio.sleep(0)
    assert await world.keys.secret(KEY) == Secret(planted("2").encode())
    assert 24 <= world.keys._pause_seconds() <= 30
    world.fail(SourceState.RATE_LIMITED, retry_after=120)
    await world.keys.refresh()
    assert world.keys._pause_seconds() == 120
    await world.keys.aclose()
    assert world.source.closed


@pytest.mark.parametrize("turns", range(8))
async def test_a_nudge_in_the_turn_of_the_end_does_not_outlive_it(turns):
    """However many turns of the loop lie between the two, nobody reads on, and who closes is not left waiting."""
    world = World()
    await world.keys.start()
    reading = world.keys._loop_task
    await asyncio.sleep(0.001)
    world.clock.advance(60)
    world.keys.nudge()
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.create_task(world.keys.aclose())
    ended, _ = await asyncio.wait({reading}, timeout=60)
    assert ended
    await closing
    assert world.source.closed


async def test_that_a_key_has_become_too_old_is_told(world):
    """The outage once, and once more when nothing serves any more, with no version; then its end."""
    for _ in range(12):
        world.fail(SourceState.SEALED)
        world.clock.advance(30)
        await world.keys.refresh()
    world.source.fault = None
    await world.keys.refresh()
    assert [(each.state, each.version) for each in world.changes if each.key == KEY] == [
        (SourceState.SERVING, 1),
        (SourceState.SEALED, 1),
        (SourceState.SEALED, 0),
        (SourceState.SERVING, 1),
    ]


async def test_a_surprise_ends_nothing(world):
    """What no adapter should let through is an outage of that key, told by its kind; the next read heals."""
    world.source.faults[KEY] = RuntimeError(planted("in the text"))
    world.source.put("openai-prod", planted("o2"))
    await world.keys.refresh()
    assert world.keys.states()[KEY] is SourceState.MALFORMED
    assert await world.keys.secret(KEY) == Secret(planted("1").encode())
    assert await world.keys.secret("openai-prod") == Secret(planted("o2").encode())
    assert "(RuntimeError)" in world.changes[-2].why
    assert planted() not in repr(world.changes)
    world.source.faults.clear()
    await world.keys.refresh()
    assert world.keys.states()[KEY] is SourceState.SERVING


async def test_a_start_without_the_store_goes_on():
    """A sidecar starts while its store is down: nothing is served, nothing crashes, and it heals."""
    world = World()
    world.fail(SourceState.UNREACHABLE)
    await world.keys.start()
    assert (await world.refused()).reason is Reason.KEY_UNAVAILABLE
    world.source.fault = None
    world.clock.advance(2)
    assert await world.keys.secret(KEY) == Secret(planted("1").encode())
    await world.keys.aclose()
