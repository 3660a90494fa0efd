"""A revocation that has the key ended at its provider too: refused beforehand, or durable until it is seen dead."""

import asyncio
import uuid

import msgspec
import pytest
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.planted import planted
from tests.fakes.rotation_world import KEY, RotationWorld

from leasehold_broker.domain.audit_chain import GENESIS, chain
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Purpose
from leasehold_broker.domain.rotation import RotationState as S
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.cancel_rotation import CancelRotation
from leasehold_broker.flows.disable_key import DisableKey, DisableRevoked
from leasehold_broker.flows.read_rotations import ReadRotations
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.root_steps import RotatedRoot
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState
from leasehold_broker.wire.event_body import decode_event, encode_event

DORA = Subject("local", "uid:0")


class Desk:
    """A world whose served key may die, and the flow that has it ended."""

    def __init__(self):
        """All is well."""
        self.world = RotationWorld()
        self.world.check = lambda: None
        self.passed_over = []
        self.keys = {KEY: self.world.key(lambda _where: None)}
        request = RequestRotation(self.world.log, None, self.keys, self.world.clock, CountingEntropy(), lambda: None)
        self.disable = DisableKey(request, self.keys)
        self.follower = DisableRevoked(self.disable, decode_event, lambda *told: self.passed_over.append(told))

    async def asked(self, epoch=3):
        """As the door asks."""
        ended = await self.disable.check(KEY)
        return await self.disable.ask(epoch, "dora (local)", KEY, ended, "in a paste", DORA)

    async def over(self, rotation):
        """How it ends."""

        async def ended():
            return (await self.world.log.find_rotation(rotation.id)).over

        await self.world.live(ended)
        return await self.world.log.find_rotation(rotation.id)

    def types(self):
        """Of events, without what is repeated."""
        return list(dict.fromkeys(event.type for event in self.world.log.events))

    @property
    def alive(self):
        """Values that work."""
        return [key.value for key in self.world.account.alive()]


@pytest.fixture
def desk():
    """A fresh one."""
    return Desk()


def revoked(details):
    """A record of the collector's log that says that something was revoked."""
    event = Event(EventType.REVOCATION_ISSUED, 5, Outcome.ALLOWED, subject=DORA, details=details)
    return StoredRecord(1, 5, chain("centre", "e1", 1, GENESIS, encode_event(event)))


TOLD = {"epoch": 3, "revoked_by": "dora (local)", "key": KEY, "note": "in a paste"}
TOLD |= {"disable_key_by": "inactive", "disable_key": True, "disable_key_id": "key-1", "disable_key_version": 0}


async def test_the_key_is_ended_and_seen_dead(desk):
    """Ended by its id, refused three times; its value stays in the store, and no other is made; each step is told."""
    over = await desk.over(await desk.asked())
    assert (over.state, over.purpose, over.old_key_id, over.confirmations) == (S.DONE, Purpose.DISABLE, "key-1", 3)
    assert desk.alive == []
    assert desk.world.account.disabled == ["key-1"]
    assert {event.details["switch_off"] for event in desk.world.log.events} == {over.switch_off} == {"inactive"}
    assert len(desk.world.account.keys) == 1
    entry = desk.world.store.entries[KEY]
    assert (entry.current, entry.pending, entry.previous) == (planted("old"), "", "")
    kinds = [EventType.KEY_DISABLING_STARTED, EventType.KEY_DISABLING_STEPPED, EventType.KEY_DISABLED_UPSTREAM]
    assert desk.types() == kinds
    first = desk.world.log.events[0]
    assert (first.subject, first.details["trigger"], first.details["note"]) == (DORA, "incident", "in a paste")


async def test_a_death_at_every_moment_loses_nothing(desk):
    """Killed before or after each effect: the next life ends the key, once for all."""
    await desk.over(await desk.asked())
    moments = len(desk.world.effects)
    assert moments > 6
    for moment in range(moments):
        other = Desk()
        asked = await other.asked()
        other.world.deaths = [moment]
        assert (await other.over(asked)).state is S.DONE, moment
        assert other.alive == []


async def test_the_event_alone_is_enough_and_asks_for_the_same(desk):
    """Whoever took the call died after the entry: a follower of the log asks, and again, for one switch-off."""
    await desk.follower.deliver([revoked(TOLD), revoked(TOLD)])
    (found,) = desk.world.log.rotations.values()
    assert await desk.asked() == found
    assert (await desk.over(found)).state is S.DONE
    await desk.follower.deliver([revoked(TOLD)])
    assert list(desk.world.log.rotations) == [found.id]


async def test_other_revocations_disable_nothing(desk):
    """Without the word, of a key that nobody here may end, or not to be read: nothing is asked for."""
    without = {name: value for name, value in TOLD.items() if name != "disable_key"}
    odd = StoredRecord(1, 5, chain("centre", "e1", 1, GENESIS, b"{}"))
    await desk.follower.deliver(
        [revoked(without), revoked(TOLD | {"disable_key": 1}), odd, revoked(TOLD | {"key": "x"})]
    )
    assert desk.world.log.rotations == {}
    assert [what for what, _ in desk.passed_over] == ["revocations/3"]


async def test_a_log_that_takes_nothing_is_asked_again(desk, monkeypatch):
    """The follower stays where it is."""

    async def full(*_args):
        raise Refusal(Reason.STORE_UNAVAILABLE, "full")

    monkeypatch.setattr(desk.world.log, "request", full)
    with pytest.raises(SinkFailedError):
        await desk.follower.deliver([revoked(TOLD)])


async def test_what_cannot_be_ended_from_here_is_refused_beforehand(desk, monkeypatch):
    """Not configured, an engine's, by hand only, not told apart, not allowed: each with its reason, nothing is kept."""

    async def refused(name, text):
        with pytest.raises(Refusal) as caught:
            await desk.disable.check(name)
        assert caught.value.reason is Reason.FIELD_INVALID
        assert text in caught.value.message

    await refused("other", "no [[rotations]] names it")
    desk.keys["engine"] = RotatedRoot("engine", "postgres", "prod", None, desk.world.limits)
    await refused("engine", "revoking the leases ends those")
    for state, text in ((ProviderKeyState.BY_HAND, "in the console"), (ProviderKeyState.DENIED, "may not")):

        async def fails(_value, state=state, text=text):
            raise ProviderKeyFault(state, text)

        monkeypatch.setattr(desk.world.account, "current_id", fails)
        await refused(KEY, text)
    desk.world.account.tells_ids = False
    monkeypatch.undo()
    await refused(KEY, "does not tell which of its keys")
    assert desk.world.log.events == []


async def test_a_provider_that_does_not_answer_delays_it_only(desk, monkeypatch):
    """Its id is not known yet: accepted, tried again until the provider answers; said meanwhile."""

    async def silent(_value):
        raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(desk.world.account, "current_id", silent)
        assert (await desk.disable.check(KEY)).id == ""
        asked = await desk.asked()

        async def delayed():
            return EventType.KEY_DISABLING_DELAYED in desk.types()

        await desk.world.live(delayed)
    with monkeypatch.context() as patched:

        async def away(*_args):
            raise SourceFault(SourceState.UNREACHABLE, "no answer")

        patched.setattr(desk.world.store, "staged", away)
        assert (await desk.disable.check(KEY)).id == ""
    assert (await desk.over(asked)).state is S.DONE
    assert desk.alive == []


async def test_it_waits_for_no_rotation_and_ends_no_new_key(desk):
    """A rotation awaits a person: the key is ended at once all the same; the key handed in later serves, and lives."""
    world = desk.world
    world.account.by_hand = True
    await world.ask()
    await world.until(S.AWAITING_KEY)
    world.account.by_hand = False
    over = await desk.over(await desk.asked())
    assert over.state is S.DONE
    assert (await world.state()).state is S.AWAITING_KEY
    world.account.by_person(planted("by-hand"))
    await desk.keys[KEY].store.put_pending(KEY, Secret(planted("by-hand").encode()), f"{1:032x}")
    assert (await world.until_over()).state is S.DONE
    assert desk.alive == [planted("by-hand")]


async def test_a_key_that_a_rotation_replaced_meanwhile_is_tried_where_it_is_now(desk):
    """Promoted between the end and the proof: the old value is refused, and the new one is not touched."""
    world = desk.world
    await world.ask()
    await world.until(S.PROMOTING)
    asked = await desk.asked()
    over = await desk.over(asked)
    assert (over.state, over.old_key_id) == (S.DONE, "key-1")
    assert (await world.until_over()).state is S.DONE
    assert desk.alive == [planted("minted-000002")]


async def test_a_key_that_lives_on_is_no_success(desk, monkeypatch):
    """The provider says that it is ended and takes it still: it fails, with an alarm, and says what to do."""

    async def pretends(_key_id):
        return None

    monkeypatch.setattr(desk.world.account, "disable", pretends)
    asked = await desk.asked()

    async def ended():
        desk.world.clock.advance(5)
        return (await desk.world.log.find_rotation(asked.id)).over

    await desk.world.live(ended)
    over = await desk.world.log.find_rotation(asked.id)
    assert over.state is S.FAILED
    assert "the old key was not seen dead" in over.why
    assert EventType.KEY_DISABLING_FAILED in desk.types()
    await asyncio.sleep(0)


async def test_it_is_not_given_up(desk):
    """Whoever asked meant it."""
    asked = await desk.asked()
    read = ReadRotations(desk.world.log, lambda _seconds: asyncio.sleep(0))
    cancel = CancelRotation(desk.world.log, read, desk.keys, desk.world.clock, lambda: None)
    with pytest.raises(Refusal) as caught:
        await cancel.run(DORA, str(uuid.uuid4()), asked.name, "")
    assert "is a switch-off" in caught.value.message
    assert msgspec.to_builtins(await desk.world.log.find_rotation(asked.id)) == msgspec.to_builtins(asked)
