"""A rotation is given up: from each step, in the middle of a step, and not where no working key would be left."""

import asyncio
import uuid

import pytest
from tests.fakes.planted import planted
from tests.fakes.rotation_world import KEY, RotationWorld

from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import RotationState as S
from leasehold_broker.flows.cancel_rotation import CancelRotation
from leasehold_broker.flows.read_rotations import ReadRotations
from leasehold_broker.flows.root_steps import RotatedRoot

DORA = Subject("local", "uid:0")
BEFORE_PROMOTION = [S.PLANNED, S.MINTING, S.AWAITING_KEY, S.PROBING, S.PROMOTING]


class Desk:
    """A world in which the operator can give up."""

    def __init__(self):
        """One rotation was asked for by nobody yet."""
        self.world = RotationWorld()

    async def cancel(self, request_id=None):
        """Give up the first rotation."""
        world = self.world
        read = ReadRotations(world.log, lambda _seconds: asyncio.sleep(0))
        flow = CancelRotation(world.log, read, {KEY: world.key(lambda _where: None)}, world.clock, lambda: None)
        return await flow.run(DORA, request_id or str(uuid.uuid4()), f"rotations/{1:032x}", "wrong project")

    def cancelled(self):
        """Events that say so."""
        return [event for event in self.world.log.events if event.type is EventType.KEY_ROTATION_CANCELLED]


@pytest.fixture
def desk():
    """A fresh one."""
    return Desk()


async def at(desk, state):
    """The rotation is at this step, and nobody drives it."""
    desk.world.account.by_hand = state is S.AWAITING_KEY
    await desk.world.ask()
    if state is not S.PLANNED:
        await desk.world.until(state)


async def refused(work, reason, text):
    """It is refused so."""
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.reason is reason
    assert text in caught.value.message


@pytest.mark.parametrize("state", BEFORE_PROMOTION)
async def test_before_promotion_the_new_key_is_ended_and_the_present_one_stays(desk, state):
    """From each step: audited with who and why, undone, failed; and the next rotation goes well."""
    await at(desk, state)
    given_up = await desk.cancel()
    assert given_up.state is S.ABANDONING
    over = await desk.world.until_over()
    assert (over.state, over.why, over.by_hand) == (S.FAILED, "cancelled by uid:0 (local): wrong project", False)
    assert [key.value for key in desk.world.account.alive()] == [planted("old")]
    entry = desk.world.store.entries[KEY]
    assert (entry.current, entry.pending) == (planted("old"), "")
    (event,) = desk.cancelled()
    assert (event.subject, event.details["state_before"], event.details["rotation"]) == (DORA, state.value, over.name)
    desk.world.account.by_hand = False
    await desk.world.ask(2)
    assert (await desk.world.until_over(2)).state is S.DONE


async def test_twice_is_once(desk):
    """The second time, and after the end of it, the same rotation is the answer, and nothing is told again."""
    await at(desk, S.PROBING)
    first = await desk.cancel()
    assert await desk.cancel() == first
    over = await desk.world.until_over()
    assert await desk.cancel() == over
    assert len(desk.cancelled()) == 1


@pytest.mark.parametrize("state", [S.DRAINING, S.ENDING, S.VERIFYING, S.FORGETTING])
async def test_after_promotion_it_is_refused_and_goes_on(desk, state):
    """The new key serves: to give it up would leave none."""
    await at(desk, state)
    await refused(desk.cancel(), Reason.FIELD_INVALID, "its new key serves")
    assert (await desk.world.until_over()).state is S.DONE
    assert desk.cancelled() == []
    await refused(desk.cancel(), Reason.FIELD_INVALID, "is over")


async def test_where_the_present_key_is_dead_the_new_one_is_not_given_up(desk):
    """Somebody has ended the old key at its provider meanwhile: the rotation is what saves the day."""
    await at(desk, S.PROBING)
    desk.world.account.keys[0].alive = False
    desk.world.check = lambda: None
    await refused(desk.cancel(), Reason.FIELD_INVALID, "does not take the present key any more")
    assert (await desk.world.state()).state is S.PROBING
    assert desk.cancelled() == []
    assert (await desk.world.until_over()).state is S.DONE


async def test_where_it_cannot_be_told_whether_the_present_key_works_it_is_refused(desk):
    """A provider that does not answer: nothing is taken away on a guess; before a key was made it does not matter."""
    await at(desk, S.PROBING)
    desk.world.account.mute = True
    await refused(desk.cancel(), Reason.KEY_UNAVAILABLE, "it is not sure that the present key")
    assert (await desk.world.state()).state is S.PROBING
    fresh = Desk()
    await at(fresh, S.PLANNED)
    fresh.world.account.mute = True
    assert (await fresh.cancel()).state is S.ABANDONING


async def test_an_old_key_that_dies_after_the_word_is_replaced_all_the_same(desk):
    """Giving up looks before it undoes: the new key is promoted, as the present one is gone."""
    await at(desk, S.PROBING)
    await desk.cancel()
    desk.world.account.keys[0].alive = False
    desk.world.check = lambda: None
    over = await desk.world.until_over()
    assert over.state is S.DONE
    assert desk.world.account.works(desk.world.store.entries[KEY].current)


async def test_a_provider_that_refuses_every_key_makes_no_new_one_serve(desk):
    """An outage that answers 401 to the old and the new key alike: back to the old one, as it was."""
    await at(desk, S.PROBING)
    await desk.cancel()
    for key in desk.world.account.keys:
        key.alive = False
    desk.world.check = lambda: None
    over = await desk.world.until_over()
    assert over.state is S.FAILED
    assert desk.world.store.entries[KEY].current == planted("old")


@pytest.mark.parametrize(
    ("where", "end", "alive"),
    [
        ("before mint", S.FAILED, [planted("old")]),
        ("after mint", S.FAILED, [planted("old")]),
        ("before put_pending", S.FAILED, [planted("old")]),
        ("after put_pending", S.FAILED, [planted("old")]),
        ("before promote", S.DONE, [planted("minted-000002")]),
        ("after promote", S.DONE, [planted("minted-000002")]),
    ],
)
async def test_given_up_in_the_middle_of_a_step(desk, where, end, alive):
    """The step ends and its record is refused: what it made is ended, and what it promoted stays."""
    world = desk.world
    plain = world.effect
    await world.ask()

    def hook(place):
        plain(place)
        if place != where:
            return None
        world.effect = plain
        return desk.cancel()

    world.effect = hook
    over = await world.until_over()
    assert over.state is end
    assert [key.value for key in world.account.alive()] == alive
    assert world.store.entries[KEY].pending == ""
    assert len(desk.cancelled()) == 1


async def test_the_credential_of_an_engine_is_not_given_up_once_it_may_be_made(desk):
    """There is one only: after the first step nothing could be gone back to."""
    await at(desk, S.MINTING)
    root = RotatedRoot(KEY, "openai", "prod", None, desk.world.limits)
    read = ReadRotations(desk.world.log, lambda _seconds: asyncio.sleep(0))
    flow = CancelRotation(desk.world.log, read, {KEY: root}, desk.world.clock, lambda: None)
    work = flow.run(DORA, str(uuid.uuid4()), f"rotations/{1:032x}", "")
    await refused(work, Reason.FIELD_INVALID, "an engine's own credential cannot be given up")
