"""Who asks for rotations: operators, persons with a key, the schedule, sidecars that have handed a key out."""

import asyncio
import uuid
from dataclasses import replace
from datetime import time

import pytest
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.memory_root import MemoryRoot
from tests.fakes.planted import planted
from tests.fakes.rotation_world import KEY, RotationWorld

from leasehold_broker.adapters.cron import next_time
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import RotationState, Trigger
from leasehold_broker.domain.rotation_schedule import AFTER_FAILURE_MS, DAYS, Blackout, RotationSchedule
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.root_steps import RotatedRoot
from leasehold_broker.flows.rotate_disclosed import RotateDisclosed
from leasehold_broker.flows.schedule_rotations import ScheduleRotations
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.key_source import SourceFault, SourceState

DORA = Subject("local", "uid:0")
DAY = 86_400


class Desk:
    """A world, and the flow that asks."""

    def __init__(self):
        """Nothing was asked for."""
        self.world = RotationWorld()
        self.woken = 0
        self.keys = {KEY: self.world.key()}
        self.request = RequestRotation(self.world.log, self, self.keys, self.world.clock, CountingEntropy(), self._wake)

    def _wake(self):
        self.woken += 1

    async def record(self, event):
        """As an event log."""
        self.world.log.events.append(event)

    async def rotate(self, request_id=None, key=KEY, note=""):
        """As an operator."""
        return await self.request.run(DORA, request_id or str(uuid.uuid4()), key, note, Trigger.OPERATOR)


@pytest.fixture
def desk():
    """A fresh one."""
    return Desk()


async def refused(work, text):
    """It is refused as a wrong field, with this in its sentence."""
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.reason is Reason.FIELD_INVALID
    assert text in caught.value.message


async def test_a_wish_is_durable_and_told_with_who_and_why(desk):
    """The event names the operator, the key and the note; the same id again is the same rotation."""
    request_id = str(uuid.uuid4())
    rotation = await desk.rotate(request_id, note="quarterly")
    assert await desk.rotate(request_id) == rotation
    (event,) = desk.world.log.events
    assert (event.type, event.subject, event.request_id) == (EventType.KEY_ROTATION_STARTED, DORA, request_id)
    assert (event.details["key"], event.details["note"]) == (KEY, "quarterly")
    assert desk.woken == 2


async def test_what_is_wrong_with_a_wish_is_told(desk):
    """An id that is none, a key that is not rotated here, a note that is too long: nothing is kept."""
    await refused(desk.rotate("1"), "request_id")
    await refused(desk.rotate(key="other"), "is no key that is rotated here; those are: openai-prod")
    await refused(desk.rotate(note="x" * 501), "note")
    assert desk.world.log.events == []


async def awaiting(desk):
    """A rotation that awaits its key from a person."""
    desk.world.account.by_hand = True
    await desk.world.ask()
    await desk.world.until(RotationState.AWAITING_KEY)
    desk.world.clock.advance(60)


async def test_a_key_is_tried_before_it_is_stored(desk):
    """A wrong one is refused and leaves no trace; a good one is stored as pending; who it was is an event."""
    await awaiting(desk)
    request_id = str(uuid.uuid4())
    await refused(desk.request.supply(DORA, request_id, KEY, Secret(planted("typo").encode())), "answers 401")
    assert desk.world.store.entries[KEY].pending == ""
    desk.world.account.by_person(planted("by-person"))
    await desk.request.supply(DORA, request_id, KEY, Secret(planted("by-person").encode()))
    assert desk.world.store.entries[KEY].pending == planted("by-person")
    event = desk.world.log.events[-1]
    assert (event.type, event.subject) == (EventType.KEY_ROTATION_SUPPLIED, DORA)
    assert planted() not in repr(desk.world.log.events)


async def test_a_key_that_nobody_awaits_is_refused(desk):
    """Without a rotation, and for a key that is not rotated here."""
    await refused(desk.request.supply(DORA, str(uuid.uuid4()), KEY, Secret(planted("old").encode())), "awaits a key")
    await refused(
        desk.request.supply(DORA, str(uuid.uuid4()), "other", Secret(planted("old").encode())), "no key that is rotated"
    )


async def test_a_store_that_does_not_take_a_supplied_key_is_said(desk):
    """The person is told to supply it again; the store's own words stay inside."""
    await awaiting(desk)
    desk.world.store.fault = SourceFault(SourceState.SEALED, "sealed")
    with pytest.raises(Refusal) as caught:
        await desk.request.supply(DORA, str(uuid.uuid4()), KEY, Secret(planted("old").encode()))
    assert caught.value.reason is Reason.KEY_UNAVAILABLE
    assert "supply it again" in caught.value.message


def schedule_of(desk, schedule, *, leads=True):
    """The flow for one schedule."""
    world = desk.world
    return ScheduleRotations(world.log, desk.keys, {KEY: schedule}, desk.request, world.clock, next_time, lambda: leads)


async def aged(desk, days):
    """Let the key grow old: the fake's versions say that they were stored in 1970, so the clock begins there."""
    desk.world.clock.wall_ms = 1_000
    desk.world.clock.advance(days * DAY)


async def test_an_engines_own_credential_is_due_by_age_until_it_was_rotated_here(desk):
    """Nobody knows how old the first one is: it is asked for at once, and then by its age; no store is read."""
    desk.keys[KEY] = RotatedRoot(KEY, "own-postgres", "prod", MemoryRoot(), desk.world.limits)
    flow = schedule_of(desk, RotationSchedule(every_days=30))
    await flow.look()
    await flow.look()
    (rotation,) = desk.world.log.rotations.values()
    assert rotation.trigger is Trigger.SCHEDULE
    desk.world.log.rotations[rotation.id] = replace(rotation, state=RotationState.DONE)
    desk.world.clock.advance(29 * DAY)
    await flow.look()
    assert len(desk.world.log.rotations) == 1
    desk.world.clock.advance(2 * DAY)
    await flow.look()
    assert len(desk.world.log.rotations) == 2


async def test_an_engines_own_credential_has_no_value_to_supply_or_to_disclose(desk):
    """Nobody can hand one in, and a credential of the engine that was handed out does not rotate its root."""
    desk.keys[KEY] = RotatedRoot(KEY, "own-postgres", "prod", MemoryRoot(), desk.world.limits)
    await refused(desk.request.supply(DORA, str(uuid.uuid4()), KEY, Secret(b"x")), "made by a secret engine")
    await RotateDisclosed(desk.request, desk.keys, read).deliver([handed_out(1)])
    assert desk.world.log.rotations == {}


async def test_a_key_is_asked_for_once_when_it_is_due(desk):
    """A day before: nothing. Then one rotation, however often it is looked; its age counts anew from there."""
    flow = schedule_of(desk, RotationSchedule(every_days=30))
    await aged(desk, 29)
    await flow.look()
    assert desk.world.log.rotations == {}
    desk.world.clock.advance(DAY)
    await flow.look()
    await flow.look()
    (rotation,) = desk.world.log.rotations.values()
    assert rotation.trigger is Trigger.SCHEDULE
    desk.world.log.rotations[rotation.id] = replace(rotation, state=RotationState.DONE)
    desk.world.clock.advance(29 * DAY)
    await flow.look()
    assert len(desk.world.log.rotations) == 1
    desk.world.clock.advance(DAY)
    await flow.look()
    assert len(desk.world.log.rotations) == 2


async def test_a_blackout_holds_it_back_and_a_failure_for_an_hour(desk):
    """Within the blackout nothing begins; a rotation that failed is asked for again, but not at once."""
    closed = schedule_of(desk, RotationSchedule(every_days=1, blackouts=(Blackout(DAYS, time(0), time(0)),)))
    await aged(desk, 2)
    await closed.look()
    assert desk.world.log.rotations == {}
    flow = schedule_of(desk, RotationSchedule(every_days=1))
    await flow.look()
    (rotation,) = desk.world.log.rotations.values()
    failed = replace(rotation, state=RotationState.FAILED, state_wall_ms=desk.world.clock.wall_ms)
    desk.world.log.rotations[rotation.id] = failed
    desk.world.clock.advance(AFTER_FAILURE_MS / 1000 - 1)
    await flow.look()
    assert len(desk.world.log.rotations) == 1
    desk.world.clock.advance(1)
    await flow.look()
    assert len(desk.world.log.rotations) == 2


async def test_who_does_not_lead_asks_for_nothing(desk):
    """A second process with the same schedule stands by."""
    await aged(desk, 60)
    standing_by = asyncio.create_task(schedule_of(desk, RotationSchedule(every_days=1), leads=False).run())
    await asyncio.sleep(0.01)
    standing_by.cancel()
    await asyncio.gather(standing_by, return_exceptions=True)
    assert desk.world.log.rotations == {}


async def test_a_store_that_is_away_only_delays_the_schedule(desk):
    """It is asked again at the next look."""
    flow = schedule_of(desk, RotationSchedule(every_days=1))
    await aged(desk, 2)
    desk.world.store.fault = SourceFault(SourceState.SEALED, "sealed")
    await flow.look()
    desk.world.store.fault = None
    await flow.look()
    assert len(desk.world.log.rotations) == 1


def handed_out(version, key=KEY, sequence=1):
    """The event of a sidecar, by its sequence number; its body is read by the test's reader."""
    body = f"{key}/{version}".encode()
    return StoredRecord(
        sequence, 0, ChainedRecord("one", "e1", sequence, GENESIS, body, GENESIS), "key.rotation_requested"
    )


def read(body):
    """The event of such a body."""
    key, _, version = body.decode().partition("/")
    if not version:
        raise ValueError(body)
    details = {"key": key, "version": int(version)}
    return Event(EventType.KEY_ROTATION_REQUESTED, 0, Outcome.ALLOWED, details=details)


async def test_a_key_that_was_handed_out_is_rotated_once(desk):
    """The value that was shown is replaced; an event of an older value, of another key, or twice, changes nothing."""
    flow = RotateDisclosed(desk.request, desk.keys, read)
    desk.world.store.entries[KEY].version = 5
    unreadable = replace(handed_out(5), record=replace(handed_out(5).record, body=b"?"))
    await flow.deliver([handed_out(4), handed_out(5, "other"), unreadable])
    assert desk.world.log.rotations == {}
    await flow.deliver([handed_out(5, sequence=7), handed_out(5, sequence=7)])
    (rotation,) = desk.world.log.rotations.values()
    assert (rotation.trigger, rotation.requested_by) == (Trigger.DISCLOSED, "sidecar one")


async def test_a_wish_of_a_sidecar_waits_for_a_store_that_is_away(desk):
    """The event is not passed over: it is delivered again. Of a key that is gone for good it is."""
    flow = RotateDisclosed(desk.request, desk.keys, read)
    desk.world.store.fault = SourceFault(SourceState.UNREACHABLE, "away")
    with pytest.raises(SinkFailedError):
        await flow.deliver([handed_out(1)])
    desk.world.store.fault = SourceFault(SourceState.MISSING, "gone")
    await flow.deliver([handed_out(1)])
    assert desk.world.log.rotations == {}
