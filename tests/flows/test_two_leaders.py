"""A leader freezes at any moment of a rotation, another finishes it, and the first goes on where it was."""

import asyncio

import pytest
from tests.fakes.rotation_world import KEY, PACE, RotationWorld

from leasehold_broker.domain.rotation import RotationState


class Freezing:
    """A leader whose every effect waits from the given one on, until it is thawed; and so does its hold on the lead."""

    def __init__(self, world, moment):
        """Freeze at this effect of it, counted from 0."""
        self._world, self._left = world, moment
        self._thawed = asyncio.Event()
        self.frozen_at = ""
        self.refused = 0

    def effect(self, where):
        """Passes, or waits."""
        self._world.check()
        if not self.frozen_at and "take_lead" not in where:
            self._left -= 1
            if self._left < 0:
                self.frozen_at = where
        return self._thawed.wait() if self.frozen_at else None

    def thaw(self):
        """Go on."""
        self._thawed.set()


async def frozen_at(moment):
    """A world where a leader froze at this moment of a rotation, another one finished it, and the first went on.

    Gives the world, where it froze ("" when the rotation was over before), and what the first had minted by then.
    """
    world = RotationWorld()
    await world.ask()
    ice = Freezing(world, moment)
    first = asyncio.create_task(world.process(ice.effect).run())
    second = None
    try:
        while not ice.frozen_at and not (await world.state()).over:  # noqa: ASYNC110 - the truth is in the log
            await asyncio.sleep(0.001)
        if not ice.frozen_at:
            return world, "", 0
        minted = len(world.account.keys)
        second = asyncio.create_task(world.process(alone=False).run())
        while not (await world.state()).over:
            await asyncio.sleep(0.004)  # for a look or two
            world.clock.advance(PACE.lead / 4)
        before = list(world.log.events)
        ice.thaw()
        for _ in range(30):
            await asyncio.sleep(0.001)
        assert world.log.events == before, f"frozen at {ice.frozen_at}, it wrote"
        return world, ice.frozen_at, minted
    finally:
        ice.thaw()
        tasks = [task for task in (first, second) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.timeout(120)
async def test_a_leader_that_freezes_at_any_moment_writes_nothing_more_and_harms_nothing():
    """Its writes are refused; the key that serves works all the while; one key is alive at the end, none is left over.

    Not asked here: frozen within a request that mints. No fence can stop that one; it is cut off instead, and a
    real process shows it (tests/scale/test_replicas_rotate.py).
    """
    places = set()
    for moment in range(100):
        world, where, minted = await frozen_at(moment)
        if not where:
            break
        if where == "before mint":
            continue
        places.add(where)
        world.check()
        assert (await world.state()).state is RotationState.DONE, where
        assert [key.value for key in world.account.alive()] == [world.store.entries[KEY].current], where
        assert world.store.entries[KEY].pending == world.store.entries[KEY].previous == "", where
        # A key whose record was not made is ended and made anew by whoever leads; nobody makes a third one.
        assert len(world.account.keys) <= 3, where
        assert minted <= 2
    assert len(places) == 13, places


async def test_a_leader_whose_lead_was_not_kept_in_time_cuts_off_what_it_does(monkeypatch):
    """While the log does not answer, what is under way ends before another process may lead."""
    world = RotationWorld()
    await world.ask()
    reached = asyncio.Event()
    cut = asyncio.Event()

    async def slow_mint(_rotation):
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    async def silent(*_args):
        await asyncio.Event().wait()

    monkeypatch.setattr(world.account, "mint", slow_mint)
    process = world.process()
    process._pace = type(PACE)(**{name: getattr(PACE, name) for name in PACE.__slots__} | {"lead": 0.05})
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(240):
        await reached.wait()
        monkeypatch.setattr(world.log, "take_lead", silent)
        await cut.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await world.state()).state is RotationState.MINTING
