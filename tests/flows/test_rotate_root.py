"""Rotation of what an engine stands on: never begun where it does not work, one-way, and no success without a proof."""

from dataclasses import replace

import pytest
from tests.fakes.memory_root import MemoryRoot
from tests.fakes.rotation_world import KEY, LIMITS, RotationWorld, _Dying

from leasehold_broker.domain.rotation import RotationState
from leasehold_broker.flows.root_steps import RotatedRoot, root_step
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

S = RotationState
BROKEN = ProviderKeyFault(ProviderKeyState.FAILING, "the database does not take its login")


class RootWorld(RotationWorld):
    """The world in which everything dies, with an engine in it."""

    def __init__(self):
        """It works."""
        super().__init__()
        self.root = MemoryRoot()

    def key(self, effect=None):
        """All that the rotation needs."""
        return RotatedRoot(KEY, "own-postgres", "prod", _Dying(self.root, effect or self.effect), LIMITS)

    def check(self):
        """There is nothing in a store."""


def types(world):
    """Types of events, each once, in order."""
    return list(dict.fromkeys(event.type.value for event in world.log.events))


async def test_a_root_is_rotated_and_proven():
    """Tried, replaced, tried again; no id and no value is told."""
    world = RootWorld()
    await world.ask()
    rotation = await world.until_over()
    assert (rotation.state, rotation.why, rotation.version) == (S.DONE, "", 0)
    assert len(world.root.made) == 2
    assert [each.split()[1] for each in world.effects if "before" in each and "advance" not in each] == [
        "check",
        "rotate",
        "check",
    ]
    states = [event.details["state"] for event in world.log.events]
    assert list(dict.fromkeys(states)) == ["planned", "minting", "probing", "done"]
    assert "planted" not in repr((world.log.events, world.log.rotations, world.told))


async def test_a_death_at_every_moment_ends_with_an_engine_that_works():
    """Killed before or after each effect, it resumes; the engine has the newest credential, and was tried with it."""
    world = RootWorld()
    await world.ask()
    await world.until_over()
    for moment in range(len(world.effects)):
        world = RootWorld()
        await world.ask()
        world.deaths = [moment, 1 + moment % 3]
        assert (await world.until_over()).state is S.DONE
        assert 2 <= len(world.root.made) <= 4
        rotated = max(index for index, where in enumerate(world.effects) if where == "after rotate")
        assert "after check" in world.effects[rotated:]


async def test_an_engine_that_does_not_work_is_left_alone():
    """Nothing is replaced when the engine issues nothing to begin with: what is broken is not the rotation's."""
    world = RootWorld()
    world.root.broken = ProviderKeyFault(ProviderKeyState.DENIED, "may not be read")
    await world.ask()
    rotation = await world.until_over()
    assert (rotation.state, rotation.why) == (S.FAILED, "provider: may not be read")
    assert world.root.made == ["first-root"]
    assert types(world)[-1] == "key.rotation_failed"


async def test_a_root_that_may_not_be_rotated_leaves_a_working_engine_and_an_alert():
    """DENIED: failed at once, and that the engine works was looked at."""
    world = RootWorld()
    world.root.denied = True
    await world.ask()
    rotation = await world.until_over()
    assert (rotation.state, rotation.why) == (S.FAILED, "provider: may not rotate-root")
    assert world.effects[-3:-1] == ["after check", "before advance"]
    assert types(world)[-1] == "key.rotation_failed"


async def test_an_engine_that_is_broken_after_its_rotation_is_told_to_a_person():
    """It is tried for a while, then the failure says what is to be done; nothing is rotated again."""
    world = RootWorld()
    await world.ask()
    await world.until(S.PROBING)
    world.root.broken = BROKEN
    world.key = lambda _effect: replace(RootWorld.key(world), limits=replace(LIMITS, mint=-1.0))
    world.clock.advance(60)
    rotation = await world.until_over()
    assert rotation.state is S.FAILED
    assert "does not take its login; not undone: the engine issues no credential" in rotation.why
    assert "by hand" in rotation.why
    assert len(world.root.made) == 2


async def test_an_engine_that_recovers_while_it_is_tried_is_done():
    """An outage between the rotation and its proof is waited out."""
    world = RootWorld()
    await world.ask()
    await world.until(S.PROBING)
    world.root.broken = BROKEN
    checks = world.root.checks

    async def tried():
        return world.root.checks > checks + 3

    world.clock.advance(60)
    await world.live(tried)
    world.root.broken = None
    world.clock.advance(60)
    assert (await world.until_over()).state is S.DONE


async def test_no_other_state_has_a_step():
    """A row that was changed by hand is not acted on."""
    world = RootWorld()
    rotation = await world.ask()
    with pytest.raises(ValueError, match="never draining"):
        await root_step(replace(rotation, state=S.DRAINING), world.key())
