"""What a step of a rotation gave, and the state that follows from it.

Every step may be repeated, so a crash costs at most a repetition. Until PROMOTING the old key serves, and a failure
gives the new one up; from DRAINING on the new key serves, and a failure leaves the old one behind, and says so. An old
key may be the last one that works: it is not ended while the new one is refused. Refuses
to do anything itself, and to hold a key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.rotation import (
    OLD_SERVES,
    Purpose,
    Rotation,
    RotationLimits,
    RotationState,
    SwitchOff,
    Trigger,
)

CONFIRMATIONS = 3
"""So many refusals of the old key in a row are steady."""
WHY_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Identified:
    """The provider's id of the key that serves, "" when it cannot be told; its version, where it is to be disabled."""

    old_key_id: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Minted:
    """The provider made the key; it is not stored yet."""

    new_key_id: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """An engine has replaced its own credential, which nobody is shown."""


@dataclass(frozen=True, slots=True)
class Proven:
    """The engine works with the credential that has replaced the last one, and nothing of that is left."""


@dataclass(frozen=True, slots=True)
class NeedsPerson:
    """The provider does this by hand only."""

    why: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The new value is pending in the store. `new_key_id`: when it is known only now, else ""."""

    new_key_id: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """The provider's status for the harmless call; 0: no answer came."""

    status: int


@dataclass(frozen=True, slots=True)
class Promoted:
    """The new value serves, from this version of the key on."""

    version: int


@dataclass(frozen=True, slots=True)
class Drained:
    """Nobody uses the old value any more, when `users` is empty; else who does."""

    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The step is done: the old key ended, the previous value forgotten, or what was begun undone."""


@dataclass(frozen=True, slots=True)
class SwitchedOff:
    """The key was switched off at its provider, and how."""

    how: SwitchOff


@dataclass(frozen=True, slots=True)
class Faulted:
    """The step could not be done. `final`: asking again would not help; `wait_seconds`: nor would it before that."""

    why: str
    final: bool = False
    wait_seconds: float = 0.0


Outcome = (
    Identified
    | Minted
    | Replaced
    | Proven
    | NeedsPerson
    | Stored
    | Probed
    | Promoted
    | Drained
    | Done
    | SwitchedOff
    | Faulted
)


def refused(status: int) -> bool:
    """True when this answer to the harmless call says that the key is no good: a good one is answered with success."""
    return status in {400, 401, 403}


def accepted(status: int) -> bool:
    """True when this answer says that the key is good."""
    return 200 <= status < 300


def after(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits, wall_ms: int) -> Rotation:
    """The rotation after its step gave this outcome; the same one when nothing has changed.

    Args:
        rotation: not over.
        outcome: of the step that its state asks for.
        elapsed: seconds in this state, as `StateTime` counts them.
        limits: how long each part may take.
        wall_ms: now.

    Raises:
        ValueError: no step of this state gives such an outcome.
    """
    step = _STEPS.get(rotation.state, _impossible)
    next_ = step(rotation, outcome, elapsed, limits)
    if next_.state is not rotation.state:
        next_ = replace(next_, state_wall_ms=wall_ms, waited_ms=0)
    return next_


def cancelled(rotation: Rotation, by: str, note: str, wall_ms: int) -> Rotation:
    """The rotation after somebody has given it up; the same one when it was given up before, by whomever.

    Raises:
        Refusal: FIELD_INVALID: its new key serves, so there is nothing to go back to.
    """
    if rotation.purpose is Purpose.DISABLE:
        raise field_invalid(
            "name", f"{rotation.name} is a switch-off, and is not given up: the key may be in wrong hands"
        )
    if rotation.state in {RotationState.ABANDONING, RotationState.FAILED} and not rotation.version:
        return rotation
    if rotation.state not in OLD_SERVES:
        said = "is over" if rotation.over else "cannot be given up: its new key serves, and the old one is being ended"
        raise field_invalid("name", f"{rotation.name} {said}; to replace the key that serves now, rotate it again")
    why = _short(f"cancelled by {by}: {note}" if note else f"cancelled by {by}")
    return replace(rotation, state=RotationState.ABANDONING, why=why, state_wall_ms=wall_ms, waited_ms=0)


def _planned(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Identified(old_key_id, version) if rotation.purpose is Purpose.DISABLE:
            return _to(rotation, RotationState.ENDING, old_key_id=old_key_id, version=version)
        case Identified(old_key_id):
            return _to(rotation, RotationState.MINTING, old_key_id=old_key_id)
        case Faulted(why, final):
            # Nothing was made yet, so there is nothing to undo.
            return _waits(rotation, why, RotationState.FAILED, over=final or elapsed > limits.mint)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _acquiring(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    awaiting = rotation.state is RotationState.AWAITING_KEY
    match outcome:
        case Minted(new_key_id) if not awaiting:
            return replace(rotation, new_key_id=new_key_id, why="")
        case Replaced() if not awaiting:
            return _to(rotation, RotationState.PROBING)
        case NeedsPerson(why) if not awaiting:
            return _to(rotation, RotationState.AWAITING_KEY, why=why)
        case Stored(new_key_id):
            return _to(rotation, RotationState.PROBING, new_key_id=new_key_id or rotation.new_key_id)
        case Faulted(why, final):
            limit = limits.by_hand if awaiting else limits.mint
            return _waits(rotation, why, RotationState.ABANDONING, over=final or elapsed > limit)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _probing(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Probed(status) if accepted(status):
            return _to(rotation, RotationState.PROMOTING)
        case Probed(status):
            said = f"answers {status} to the new key" if status else "gives no answer to the new key"
            over = elapsed > limits.probe
            return _waits(rotation, f"the provider {said}", RotationState.ABANDONING, over=over)
        case Done() if not limits.probed:
            return _to(rotation, RotationState.PROMOTING)
        case Proven():
            return _to(rotation, RotationState.DONE)
        case Faulted(why, final):
            return _waits(rotation, why, RotationState.ABANDONING, over=final or elapsed > limits.mint)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _promoting(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Promoted(version):
            return _to(rotation, RotationState.DRAINING, version=version)
        case Faulted(why, final):
            # An earlier promotion may have succeeded unheard: ABANDONING looks before it undoes anything.
            return _waits(rotation, why, RotationState.ABANDONING, over=final or elapsed > limits.mint)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _draining(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    incident = rotation.trigger is Trigger.INCIDENT
    limit = limits.drain_incident if incident else limits.drain
    match outcome:
        case Drained(()):
            if elapsed < (0.0 if incident else limits.drain_min):
                return rotation
            return _to(rotation, RotationState.ENDING)
        case Drained(users):
            why = f"still used by {', '.join(users)}"
        case Faulted(why):
            pass
        case _:
            return _impossible(rotation, outcome, elapsed, limits)
    if elapsed > limit:
        return _to(rotation, RotationState.ENDING, why=_short(f"not drained within {limit:g} s: {why}"))
    return _told(rotation, why)


def _ending(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case SwitchedOff(how) if rotation.purpose is Purpose.DISABLE:
            return _to(rotation, RotationState.VERIFYING, switch_off=how)
        case Done() if rotation.purpose is Purpose.REPLACE:
            return _to(rotation, RotationState.VERIFYING, confirmations=0)
        case Probed(status) if refused(status):
            count = rotation.confirmations + 1
            if count < CONFIRMATIONS:
                return replace(rotation, confirmations=count)
            why = f"the provider answers {status} to the new key, which serves; the old key was not ended"
            return _to(rotation, RotationState.FAILED, why=why)
        case NeedsPerson(why):
            return _to(rotation, RotationState.VERIFYING, by_hand=True, why=why)
        case Faulted(why, final):
            if final or elapsed > limits.give_up:
                return _to(
                    rotation, RotationState.VERIFYING, by_hand=True, why=_short(f"the old key must be ended: {why}")
                )
            return _told(rotation, why)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _verifying(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Done() if not limits.probed or rotation.purpose is Purpose.DISABLE:
            return _to(rotation, RotationState.FORGETTING, why=rotation.why)
        case Probed(status) if refused(status):
            count = rotation.confirmations + 1
            if count < CONFIRMATIONS:
                return replace(rotation, confirmations=count)
            return _to(rotation, RotationState.FORGETTING, confirmations=count, by_hand=False)
        case Probed(status):
            said = (
                f"takes the old key still ({status})" if accepted(status) else "does not say that the old key is dead"
            )
            why = rotation.why if rotation.by_hand else f"the provider {said}"
            if status:
                rotation = replace(rotation, confirmations=0)
        case Faulted(why):
            pass
        case _:
            return _impossible(rotation, outcome, elapsed, limits)
    if elapsed > (limits.by_hand if rotation.by_hand else limits.verify):
        return _to(
            rotation, RotationState.FORGETTING, by_hand=True, why=_short(f"the old key was not seen dead: {why}")
        )
    return _told(rotation, why)


def _forgetting(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Done():
            # A key that may live on at its provider is no success, whatever else went well.
            state = RotationState.FAILED if rotation.by_hand else RotationState.DONE
            return _to(rotation, state, why=rotation.why if rotation.by_hand else "")
        case Faulted(why, final):
            if final or elapsed > limits.give_up:
                left = f"the new key serves; the previous value is still in the store: {why}"
                return _to(rotation, RotationState.FAILED, why=_short(left))
            return _told(rotation, rotation.why or why)
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _abandoning(rotation: Rotation, outcome: Outcome, elapsed: float, limits: RotationLimits) -> Rotation:
    match outcome:
        case Promoted(version):
            return _to(rotation, RotationState.DRAINING, version=version)
        case Done():
            return _to(rotation, RotationState.FAILED, why=rotation.why)
        case NeedsPerson(why):
            return _to(rotation, RotationState.FAILED, why=_short(f"{rotation.why}; not undone: {why}"))
        case Faulted(why, final):
            if final or elapsed > limits.give_up:
                return _to(rotation, RotationState.FAILED, why=_short(f"{rotation.why}; not undone: {why}"))
            return rotation
        case _:
            return _impossible(rotation, outcome, elapsed, limits)


def _to(rotation: Rotation, state: RotationState, *, why: str = "", **changed: object) -> Rotation:
    return replace(rotation, state=state, why=why, **changed)  # type: ignore[arg-type] # fields, checked by the tests


def _waits(rotation: Rotation, why: str, given_up: RotationState, *, over: bool) -> Rotation:
    return _to(rotation, given_up, why=_short(why)) if over else _told(rotation, why)


def _told(rotation: Rotation, why: str) -> Rotation:
    """Waiting for this; the same words are not told twice."""
    return replace(rotation, why=_short(why))


def _short(why: str) -> str:
    return without_secrets(why)[:WHY_LENGTH_MAX]


def _impossible(rotation: Rotation, outcome: Outcome, _elapsed: float, _limits: RotationLimits) -> Rotation:
    message = f"a rotation that is {rotation.state} has no outcome {type(outcome).__name__}"
    raise ValueError(message)


_STEPS: Mapping[RotationState, Callable[[Rotation, Outcome, float, RotationLimits], Rotation]] = {
    RotationState.PLANNED: _planned,
    RotationState.MINTING: _acquiring,
    RotationState.AWAITING_KEY: _acquiring,
    RotationState.PROBING: _probing,
    RotationState.PROMOTING: _promoting,
    RotationState.DRAINING: _draining,
    RotationState.ENDING: _ending,
    RotationState.VERIFYING: _verifying,
    RotationState.FORGETTING: _forgetting,
    RotationState.ABANDONING: _abandoning,
}
