"""Rotations, driven to their end: the whole way, each failure, and a death at every moment of it."""

import asyncio
from dataclasses import replace

import pytest
from tests.fakes.planted import MARKER, planted
from tests.fakes.provider_account import Made
from tests.fakes.rotation_world import EFFECTS, KEY, LIMITS, PACE, Crash, RotationWorld

from leasehold_broker.domain.leads import HeldLead
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import RotationState, Trigger
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

S = RotationState


def entry(world):
    """What is in the store."""
    return world.store.entries[KEY]


def types(world):
    """Types of events, each once, in order."""
    return list(dict.fromkeys(event.type.value for event in world.log.events))


async def test_a_key_is_rotated():
    """One new key serves, the old one is dead and forgotten, and each step has its event."""
    world = RotationWorld()
    await world.ask()
    rotation = await world.until_over()
    assert (rotation.state, rotation.why) == (S.DONE, "")
    assert entry(world).current == planted("minted-000002")
    assert (entry(world).pending, entry(world).previous) == ("", "")
    assert [key.id for key in world.account.alive()] == ["key-2"]
    states = [event.details["state"] for event in world.log.events]
    way = ["planned", "minting", "probing", "promoting", "draining", "ending", "verifying", "forgetting", "done"]
    assert list(dict.fromkeys(states)) == way
    assert types(world) == ["key.rotation_started", "key.rotation_stepped", "key.rotation_done"]


async def at_the_end_of_the_drain(trigger=Trigger.OPERATOR):
    """A world whose new key serves, and is dead: a request to mint was heard that late, as some minters hear it."""
    world = RotationWorld()
    world.check = lambda: None
    await world.ask(trigger=trigger)
    await world.until(S.ENDING)
    await world.account.mint(f"{1:032x}")
    assert not world.account.works(entry(world).current)
    return world


async def test_the_old_key_is_not_ended_while_the_new_one_is_refused():
    """It may be the last that works: failed, with the reason; what came late is ended; the next rotation goes well."""
    world = await at_the_end_of_the_drain()
    rotation = await world.until_over()
    assert (rotation.state, rotation.by_hand) == (S.FAILED, False)
    assert rotation.why == "the provider answers 401 to the new key, which serves; the old key was not ended"
    assert [key.id for key in world.account.alive()] == ["key-1"]
    assert types(world)[-1] == "key.rotation_failed"
    await world.ask(2)
    assert (await world.until_over(2)).state is S.DONE
    assert world.account.works(entry(world).current)
    assert (entry(world).pending, entry(world).previous) == ("", "")


async def test_a_leaked_key_is_ended_whatever_becomes_of_the_new_one():
    """In an incident the old key is in wrong hands: no key at all is better than that one."""
    world = await at_the_end_of_the_drain(Trigger.INCIDENT)
    await world.until_over()
    assert "key-1" not in [key.id for key in world.account.alive()]


async def test_a_new_key_that_is_refused_once_is_asked_again():
    """A provider whose servers do not all know it yet; and one that does not answer is waited for, nothing ended."""
    world = RotationWorld()
    await world.ask()
    await world.until(S.ENDING)
    probe, asked = world.account.probe, []

    async def flickers(record, key):
        asked.append(len(world.account.alive()))
        answers = [401, 401, 0, 503]
        return answers[len(asked) - 1] if len(asked) <= len(answers) else await probe(record, key)

    world.account.probe = flickers
    rotation = await world.until_over()
    assert (rotation.state, rotation.why, rotation.confirmations) == (S.DONE, "", 3)
    assert asked[:5] == [2] * 5


async def count_effects():
    """How many effects a whole rotation has, before and after each."""
    world = RotationWorld()
    await world.ask()
    await world.until_over()
    return len(world.effects)


async def test_a_death_at_every_moment_leaves_one_working_key_and_the_rotation_goes_on():
    """Killed before or after each effect, it resumes: done, one key alive, never two of it, no value in any event."""
    total = await count_effects()
    assert total > 20
    places = set()
    for moment in range(total):
        world = RotationWorld()
        await world.ask()
        world.deaths = [moment]
        rotation = await world.until_over()
        assert rotation.state is S.DONE, moment
        assert [key.value for key in world.account.alive()] == [entry(world).current]
        assert entry(world).previous == entry(world).pending == ""
        assert planted() not in repr(world.log.events) + repr(world.log.rotations) + repr(world.told)
        places.update(world.effects)
    assert {place.split()[1] for place in places} == set(EFFECTS) - {"request"}


async def test_two_deaths_at_any_two_moments():
    """A second death, soon after the first one's resumption, changes nothing of that."""
    total = await count_effects()
    for moment in range(0, total, 2):
        world = RotationWorld()
        await world.ask()
        world.deaths = [moment, 1 + moment % 5]
        rotation = await world.until_over()
        assert rotation.state is S.DONE
        assert [key.value for key in world.account.alive()] == [entry(world).current]


@pytest.mark.parametrize("place", ["mint", "put_pending", "promote", "end", "retire"])
async def test_while_something_is_down_it_waits_and_says_so(place):
    """An outage of provider or store at any step is waited out, told once, and then the rotation is done."""
    world = RotationWorld()
    await world.ask()
    down = True

    def fail(where):
        if down and where == f"before {place}":
            if place in {"mint", "end"}:
                raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, "no answer")
            raise SourceFault(SourceState.SEALED, "sealed")

    plain = world.effect
    world.effect = lambda where: (plain(where), fail(where))

    async def told():
        return "key.rotation_delayed" in types(world)

    await world.live(told)
    down = False
    world.clock.advance(60)
    assert (await world.until_over()).state is S.DONE
    delayed = [event for event in world.log.events if event.type.value == "key.rotation_delayed"]
    assert len(delayed) == 1


@pytest.mark.parametrize(("asked", "slept"), [(45.0, 45.0), (3600.0, 60.0)])
async def test_a_provider_that_says_when_is_not_asked_before(monkeypatch, asked, slept):
    """Its Retry-After comes before our own pauses, also before the second attempt; a minute at a time at most."""
    world = RotationWorld(pace=replace(PACE, retry_max=60.0))
    await world.ask()
    pauses, answers, plain, sleep = [], 2, world.effect, asyncio.sleep

    def fail(where):
        nonlocal answers
        plain(where)
        if where == "before mint" and answers:
            answers -= 1
            raise ProviderKeyFault(ProviderKeyState.RATE_LIMITED, "limits our rate", asked)

    async def slept_for(seconds):
        pauses.append(seconds)
        await sleep(0)

    world.effect = fail
    monkeypatch.setattr("leasehold_broker.flows.rotate_keys.asyncio.sleep", slept_for)
    assert (await world.until_over()).state is S.DONE
    assert pauses.count(slept) == 2


@pytest.mark.parametrize("state", [ProviderKeyState.DENIED, ProviderKeyState.FULL, ProviderKeyState.LOGIN_REFUSED])
async def test_a_provider_that_says_no_leaves_the_old_key_and_an_alert(state):
    """A clear no to minting: failed at once, the old key serves, nothing is left over."""
    world = RotationWorld()
    await world.ask()
    world.account.mint_fault = ProviderKeyFault(state, "not allowed; grant api_keys.write")
    rotation = await world.until_over()
    assert (rotation.state, entry(world).current, entry(world).pending) == (S.FAILED, planted("old"), "")
    assert "grant api_keys.write" in rotation.why
    assert [key.id for key in world.account.alive()] == ["key-1"]
    assert types(world)[-1] == "key.rotation_failed"


async def test_a_key_whose_answer_never_came_is_ended_when_minting_is_given_up():
    """Made at the provider, its id known to nobody, and no later attempt comes through: its mark finds it."""
    world = RotationWorld()
    await world.ask()
    mint = world.account.mint

    async def made_unheard(rotation):
        await mint(rotation)
        world.account.mint = refused
        raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, "no answer")

    async def refused(_rotation):
        raise ProviderKeyFault(ProviderKeyState.DENIED, "permission removed")

    world.account.mint = made_unheard
    rotation = await world.until_over()
    assert (rotation.state, rotation.new_key_id) == (S.FAILED, "")
    assert "after sweep" in world.effects
    assert [key.id for key in world.account.alive()] == ["key-1"]


async def test_a_key_that_was_made_late_is_ended_before_the_rotation_is_done():
    """A request to mint that was given up takes effect while the old key drains: one key is left all the same."""
    world = RotationWorld()
    await world.ask()
    await world.until(S.DRAINING)
    world.account.keys.append(Made("key-late", "sk-late", (await world.state()).id))
    world.check = lambda: None
    world.clock.advance(60)
    assert (await world.until_over()).state is S.DONE
    assert [key.value for key in world.account.alive()] == [entry(world).current]


async def test_a_new_key_that_does_not_work_is_ended_and_the_old_one_serves():
    """The provider never takes the new key: given up, ended there, gone from the store."""
    world = RotationWorld()
    world.limits = replace(LIMITS, probe=-1.0)
    await world.ask()
    world.account.mute = True
    rotation = await world.until_over()
    assert (rotation.state, rotation.why) == (S.FAILED, "the provider gives no answer to the new key")
    assert (entry(world).current, entry(world).pending) == (planted("old"), "")
    assert [key.id for key in world.account.alive()] == ["key-1"]


async def test_a_promotion_whose_answer_was_lost_goes_on_forwards():
    """It took place, nobody heard of it, and trying again is refused: nothing is undone, the old key is ended."""
    world = RotationWorld()
    await world.ask()

    def deaf(where):
        if where == "after promote":
            raise SourceFault(SourceState.DENIED, "permission removed")

    plain = world.effect
    world.effect = lambda where: (plain(where), deaf(where))
    rotation = await world.until_over()
    states = [event.details["state"] for event in world.log.events]
    assert "abandoning" in states
    assert rotation.state is S.DONE
    assert [key.value for key in world.account.alive()] == [entry(world).current] == [planted("minted-000002")]


async def test_what_a_failed_rotation_left_in_the_store_does_not_stop_the_next_one():
    """A previous value that could not be forgotten is cleaned up by the next rotation of that key."""
    world = RotationWorld()
    await world.ask()
    await world.until(S.FORGETTING)
    before = await world.state()
    world.log.rotations[before.id] = replace(before, state=S.FAILED, why="denied")
    assert entry(world).previous == planted("old")
    world.clock.advance(60)
    await world.ask(2)
    assert (await world.until_over(2)).state is S.DONE


async def test_a_wish_after_promotion_waits_for_the_end_of_the_first_rotation():
    """Two rotations of a key never overlap: the second one begins when the first is over."""
    world = RotationWorld()
    world.users.names = ("sidecar-1",)
    await world.ask()
    await world.until(S.DRAINING)
    await world.ask(2, Trigger.INCIDENT)
    assert (await world.state(2)).state is S.PLANNED
    world.users.names = ()
    world.clock.advance(60)
    assert (await world.until_over(2)).state is S.DONE
    assert (await world.state(1)).state is S.DONE
    assert [key.id for key in world.account.alive()] == ["key-3"]


async def test_a_leader_that_is_no_more_leaves_what_it_has_made_to_the_one_that_leads():
    """It minted, and then may not write that down: it stores nothing; the next one finds the key by its mark."""
    world = RotationWorld()
    await world.ask()
    await world.until(S.MINTING)
    plain = world.effect

    def usurp(where):
        plain(where)
        if where == "after mint":
            world.effect = plain
            world.log.held = HeldLead("usurper", 99, 0)

    world.effect = usurp

    async def lost():
        return world.effects[-2:] == ["after mint", "before advance"]

    await world.live(lost)
    assert entry(world).pending == ""
    assert (await world.state()).new_key_id == ""
    assert (await world.until_over()).state is S.DONE
    assert [key.id for key in world.account.alive()] == ["key-3"]


async def test_while_the_log_cannot_be_written_no_second_key_is_minted():
    """The disk is full just after the minting: the one key is kept until its record is made, however often tried."""
    world = RotationWorld()
    await world.ask()
    await world.until(S.MINTING)
    world.clock.advance(60)
    full, tries = True, []

    def refuse(where):
        if full and where == "before advance":
            tries.append(where)
            raise Refusal(Reason.STORE_UNAVAILABLE, "the disk is full")

    plain = world.effect
    world.effect = lambda where: (plain(where), refuse(where))

    process = world.process()
    running = asyncio.create_task(process.run())
    while len(tries) < 5:  # noqa: ASYNC110 - the truth is in the effects
        await asyncio.sleep(0.001)
    full = False
    while not (await world.state()).over:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await world.state()).state is S.DONE
    assert [key.mark for key in world.account.keys if key.mark] == [(await world.state()).id]
    assert "the disk is full" in repr(world.told)


async def test_a_surprise_of_a_library_ends_no_rotation_and_tells_no_text():
    """An exception that nobody expected is told by its kind alone, and the step is tried again."""
    world = RotationWorld()
    await world.ask()
    surprises = [RuntimeError(f"{MARKER} in a library's words")]

    def surprise(where):
        if where == "before promote" and surprises:
            raise surprises.pop()

    plain = world.effect
    world.effect = lambda where: (plain(where), surprise(where))
    assert (await world.until_over()).state is S.DONE
    assert "RuntimeError" in repr(world.told)
    assert MARKER not in repr(world.told)


def test_a_crash_is_no_exception_that_code_may_catch():
    """The harness's crash passes every `except Exception`."""
    assert not issubclass(Crash, Exception)
