"""What a rotation says in the audit log. Owns the words of its events; ids are among them, values never."""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.rotation import Purpose, Rotation, RotationState

_WAITING = frozenset({RotationState.PROBING, RotationState.DRAINING, RotationState.VERIFYING})
"""To wait a while is part of these; what lasts too long ends in another state, with its reason."""


_OF_DISABLING = {
    EventType.KEY_ROTATION_STARTED: EventType.KEY_DISABLING_STARTED,
    EventType.KEY_ROTATION_STEPPED: EventType.KEY_DISABLING_STEPPED,
    EventType.KEY_ROTATION_DELAYED: EventType.KEY_DISABLING_DELAYED,
    EventType.KEY_ROTATION_AWAITS_PERSON: EventType.KEY_DISABLING_AWAITS_PERSON,
    EventType.KEY_ROTATION_FAILED: EventType.KEY_DISABLING_FAILED,
    EventType.KEY_ROTATION_DONE: EventType.KEY_DISABLED_UPSTREAM,
}


def started(rotation: Rotation, subject: Subject | None, request_id: str) -> Event:
    """It was asked for."""
    return Event(
        _told(rotation, EventType.KEY_ROTATION_STARTED),
        rotation.create_wall_ms,
        Outcome.ALLOWED,
        subject=subject,
        request_id=request_id,
        details=_details(rotation),
    )


def given_up(before: Rotation, after: Rotation, subject: Subject, request_id: str, wall_ms: int) -> Event:
    """Somebody has given it up."""
    return Event(
        EventType.KEY_ROTATION_CANCELLED,
        wall_ms,
        Outcome.ALLOWED,
        subject=subject,
        request_id=request_id,
        details=_details(after) | {"state_before": before.state.value},
    )


def stepped(before: Rotation, after: Rotation, wall_ms: int) -> Event:
    """It went on, or has to wait."""
    kind, outcome = _kind(before, after)
    return Event(
        _told(after, kind),
        wall_ms,
        outcome,
        Reason.KEY_UNAVAILABLE if outcome is Outcome.FAILED else None,
        details=_details(after) | {"state_before": before.state.value},
    )


def _told(rotation: Rotation, kind: EventType) -> EventType:
    return _OF_DISABLING[kind] if rotation.purpose is Purpose.DISABLE else kind


def _kind(before: Rotation, after: Rotation) -> tuple[EventType, Outcome]:
    if after.state is RotationState.FAILED:
        return EventType.KEY_ROTATION_FAILED, Outcome.FAILED
    if after.state is RotationState.DONE:
        return EventType.KEY_ROTATION_DONE, Outcome.ALLOWED
    by_hand = after.state is RotationState.AWAITING_KEY or (after.by_hand and not before.by_hand)
    if by_hand and after.state is not before.state:
        return EventType.KEY_ROTATION_AWAITS_PERSON, Outcome.ALLOWED
    waits = after.state is before.state and after.state in _WAITING
    if after.why and after.why != before.why and not waits:
        return EventType.KEY_ROTATION_DELAYED, Outcome.FAILED
    return EventType.KEY_ROTATION_STEPPED, Outcome.ALLOWED


def _details(rotation: Rotation) -> dict[str, Detail]:
    details: dict[str, Detail] = {
        "key": rotation.key,
        "environment": rotation.environment,
        "rotation": rotation.name,
        "state": rotation.state.value,
        "trigger": rotation.trigger.value,
        "requested_by": rotation.requested_by,
    }
    more: dict[str, Detail] = {
        "note": rotation.note,
        "old_key_id": rotation.old_key_id,
        "new_key_id": rotation.new_key_id,
        "version": rotation.version,
        "message": rotation.why,
        "switch_off": "" if rotation.switch_off is None else rotation.switch_off.value,
    }
    return details | {name: value for name, value in more.items() if value}
