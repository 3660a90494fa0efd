"""A rotation's words on the wire. Owns the pairing of states, triggers and switch-offs with their numbers."""

from leasehold.v1 import key_service_pb2 as pb
from leasehold_broker.domain.rotation import Purpose, Rotation, RotationState, SwitchOff, Trigger
from leasehold_broker.wire.records import timestamp

_STATES = {state: pb.RotationState.Value(f"ROTATION_STATE_{state.name}") for state in RotationState}
_SWITCH_OFFS = {how: pb.SwitchOff.Value(f"SWITCH_OFF_{how.name}") for how in SwitchOff}
_TRIGGERS = {trigger: pb.RotationTrigger.Value(f"ROTATION_TRIGGER_{trigger.name}") for trigger in Trigger}


def rotation_to_proto(rotation: Rotation) -> pb.Rotation:
    """As operators and pipelines see it."""
    return pb.Rotation(
        name=rotation.name,
        key=rotation.key,
        environment=rotation.environment,
        trigger=_TRIGGERS[rotation.trigger],
        requested_by=rotation.requested_by,
        state=_STATES[rotation.state],
        create_time=timestamp(rotation.create_wall_ms),
        state_time=timestamp(rotation.state_wall_ms),
        note=rotation.note,
        old_key_id=rotation.old_key_id,
        new_key_id=rotation.new_key_id,
        why=rotation.why,
        end_by_hand=rotation.by_hand and not rotation.over,
        disables=rotation.purpose is Purpose.DISABLE,
        switch_off=switch_off_to_proto(rotation.switch_off),
    )


def switch_off_to_proto(how: SwitchOff | None) -> pb.SwitchOff.ValueType:
    """What becomes of a key that is switched off."""
    return pb.SWITCH_OFF_UNSPECIFIED if how is None else _SWITCH_OFFS[how]
