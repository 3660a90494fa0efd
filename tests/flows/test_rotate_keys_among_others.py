"""A rotation and the others: sidecars that it waits for, hands that win over it, people whom it asks."""

from dataclasses import replace

from tests.fakes.planted import planted
from tests.fakes.rotation_world import KEY, LIMITS, RotationWorld

from leasehold_broker.domain.rotation import RotationState
from leasehold_broker.domain.secret import Secret


def stored_by_hand(world, value, rotation=""):
    """A hand puts this value where the key is, and clears away what waited."""
    entry = world.store.entries[KEY]
    entry.current, entry.pending, entry.rotation = value, "", rotation


async def test_a_key_that_a_hand_has_put_back_is_not_ended():
    """After promotion an operator stores the old value again: it serves, so nobody ends it, and a person is told."""
    world = RotationWorld()
    world.limits = replace(LIMITS, by_hand=-1.0)
    await world.ask()
    await world.until(RotationState.ENDING)
    world.store.entries[KEY].current = planted("old")
    world.clock.advance(60)
    rotation = await world.until_over()
    assert rotation.state is RotationState.FAILED
    assert "nothing was ended" in rotation.why
    assert world.account.works(planted("old"))


async def test_a_new_key_that_serves_is_not_ended_when_it_is_given_up():
    """A hand has stored the very key that is given up: it serves, and stays."""
    world = RotationWorld()
    world.limits = replace(LIMITS, probe=-1.0)
    await world.ask()
    await world.until(RotationState.PROBING)
    world.account.mute = True
    stored_by_hand(world, planted("minted-000002"), "by hand")
    world.clock.advance(60)
    rotation = await world.until_over()
    assert rotation.state is RotationState.FAILED
    assert "not undone" in rotation.why
    assert world.account.works(planted("minted-000002"))


async def test_a_hand_that_changes_the_key_meanwhile_wins():
    """An operator stores another key before promotion: the rotation fails, its key is ended, theirs serves."""
    world = RotationWorld()
    await world.ask()
    await world.until(RotationState.PROBING)
    world.account.by_person(planted("by-hand"))
    stored_by_hand(world, planted("by-hand"))
    world.clock.advance(60)
    rotation = await world.until_over()
    assert rotation.state is RotationState.FAILED
    assert "another hand" in rotation.why
    assert {key.id for key in world.account.alive()} == {"key-1", "key-3"}


async def test_the_old_key_is_kept_while_a_sidecar_uses_it():
    """Draining waits for every user; only then is the old key ended."""
    world = RotationWorld()
    world.users.names = ("sidecar-1", "sidecar-2")
    await world.ask()

    async def waiting():
        return (await world.state()).why != ""

    await world.live(waiting)
    assert (await world.state()).why == "still used by sidecar-1, sidecar-2"
    assert world.account.works(planted("old"))
    world.users.names = ()
    world.clock.advance(60)
    assert (await world.until_over()).state is RotationState.DONE
    assert not world.account.works(planted("old"))


async def test_a_drain_goes_on_where_a_dead_process_left_it():
    """A collector that lives for five minutes at a time ends an hour's drain after an hour of lives, and not before."""
    world = RotationWorld()
    world.limits = replace(LIMITS, drain=3600.0)
    world.users.names = ("sidecar-1",)
    await world.ask()
    await world.until(RotationState.DRAINING)
    lives = 0
    while (await world.state()).state is RotationState.DRAINING:
        lives += 1
        world.clock.advance(86_400)  # nobody looks: this counts for nothing
        seen = (await world.state()).waited_ms

        async def counted(seen=seen):
            world.clock.advance(5)
            found = await world.state()
            return found.waited_ms >= seen + 300_000 or found.state is not RotationState.DRAINING

        await world.live(counted)
    assert 10 <= lives <= 12, lives
    why = next(event.details["message"] for event in world.log.events if event.details["state"] == "ending")
    assert why == "not drained within 3600 s: still used by sidecar-1"


async def test_a_person_supplies_the_key_and_ends_the_old_one():
    """A provider without an interface for it: it waits for a person twice, says so, and proves the end."""
    world = RotationWorld()
    world.account.by_hand = True
    await world.ask()
    await world.until(RotationState.AWAITING_KEY)
    world.account.by_person(planted("by-person"))
    await world.store.put_pending(KEY, Secret(planted("by-person").encode()), (await world.state()).id)
    world.clock.advance(60)
    await world.until(RotationState.VERIFYING)
    assert (await world.state()).by_hand
    assert world.store.entries[KEY].current == planted("by-person")
    world.account.keys[0].alive = False
    world.clock.advance(60)
    rotation = await world.until_over()
    assert (rotation.state, rotation.new_key_id) == (RotationState.DONE, "key-2")
    awaits = [event for event in world.log.events if event.type.value == "key.rotation_awaits_person"]
    assert [event.details["state"] for event in awaits] == ["awaiting_key", "verifying"]


async def test_an_old_key_without_an_id_is_left_to_a_person():
    """Where the provider cannot tell which key is the old one, nothing is ended by guess."""
    world = RotationWorld()
    world.account.tells_ids = False
    world.limits = replace(LIMITS, by_hand=-1.0)
    await world.ask()
    rotation = await world.until_over()
    assert rotation.state is RotationState.FAILED
    assert "was not seen dead" in rotation.why
    assert [key.id for key in world.account.alive()] == ["key-1", "key-2"]
    assert (world.store.entries[KEY].current, world.store.entries[KEY].previous) == (planted("minted-000002"), "")
