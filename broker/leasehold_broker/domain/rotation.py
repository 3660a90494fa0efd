"""One rotation of one provider key, as it is kept: why it is, how far it has come, and how long each part may take.

A state says what is to be done next; `rotation_transitions` says which one follows. Refuses to hold a key.
"""

from dataclasses import dataclass
from enum import StrEnum


class RotationState(StrEnum):
    """What is done next."""

    PLANNED = "planned"
    MINTING = "minting"
    AWAITING_KEY = "awaiting_key"
    PROBING = "probing"
    PROMOTING = "promoting"
    DRAINING = "draining"
    ENDING = "ending"
    VERIFYING = "verifying"
    FORGETTING = "forgetting"
    ABANDONING = "abandoning"
    DONE = "done"
    FAILED = "failed"


OVER = frozenset({RotationState.DONE, RotationState.FAILED})
OLD_SERVES = frozenset(
    {
        RotationState.PLANNED,
        RotationState.MINTING,
        RotationState.AWAITING_KEY,
        RotationState.PROBING,
        RotationState.PROMOTING,
    }
)
"""The value that serves is still to be replaced: whoever wants that joins instead of asking for another rotation."""


class Trigger(StrEnum):
    """Why a key is rotated."""

    SCHEDULE = "schedule"
    OPERATOR = "operator"
    PIPELINE = "pipeline"
    INCIDENT = "incident"
    DISCLOSED = "disclosed"


class Purpose(StrEnum):
    """What it is for."""

    REPLACE = "replace"
    DISABLE = "disable"
    """The key that serves is switched off at its provider, and none comes in its place."""


class SwitchOff(StrEnum):
    """What becomes of a key that is switched off at its provider, and so whether that can be undone there."""

    INACTIVE = "inactive"
    """Whoever administers the account can make it active again."""
    RESTORABLE = "restorable"
    """Deleted; it can be brought back for some time."""
    DELETED = "deleted"
    REPLACED = "replaced"
    """Another value has taken its place; nobody was shown that one."""
    CUSTOM = "custom"
    """What the operator's own program or service does when it ends a key."""


@dataclass(frozen=True, slots=True)
class DisabledKey:
    """The key that a revocation wants to be switched off, as it was when that was asked for: another may serve by now.

    Args:
        id: the provider's; "" when it did not answer.
        version: of the key in its store; 0 when that did not answer.
        switch_off: what will be done to it.
    """

    id: str = ""
    version: int = 0
    switch_off: SwitchOff | None = None


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """How long each part may take, in seconds; time is counted from when a process took up the state.

    Args:
        mint: until a provider that does not answer is given up.
        by_hand: until a person has supplied the key, or has ended the old one.
        probe: until the provider takes the new key.
        drain_min: the old key is kept at least so long after its last reader could have read it.
        drain: until calls on the old key are left to end as they may.
        drain_incident: the same when the key is in wrong hands.
        verify: until the provider refuses the old key.
        give_up: until a step that only cleans up is left to a person.
        probed: there is a harmless call at this provider; without one nothing is proven, and the events say so.
    """

    mint: float = 3600.0
    by_hand: float = 7 * 86400.0
    probe: float = 300.0
    drain_min: float = 30.0
    drain: float = 3600.0
    drain_incident: float = 60.0
    verify: float = 900.0
    give_up: float = 86400.0
    probed: bool = True


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotation. Safe to log: ids, never values.

    Args:
        id: 32 hex digits; it marks the new key at the provider and in the store.
        key: name of the key.
        environment: of the key.
        trigger: why.
        requested_by: who, in words.
        state: what is next.
        create_wall_ms, state_wall_ms: when it was asked for, and when the state began.
        note: why, in words.
        old_key_id, new_key_id: the provider's ids; "" when not known.
        version: of the key in its store, from which on the new value serves; 0 before that.
        confirmations: refusals of the old key in a row.
        by_hand: the old key has to be ended by a person.
        why: what keeps it waiting, or why it failed; "" when all is well.
        purpose: what it is for.
        waited_ms: how long it was seen in this state, by all processes together; see `rotation_time`.
        switch_off: what will be, and from VERIFYING on what was, done to a key that is switched off.
    """

    id: str
    key: str
    environment: str
    trigger: Trigger
    requested_by: str
    state: RotationState
    create_wall_ms: int
    state_wall_ms: int
    note: str = ""
    old_key_id: str = ""
    new_key_id: str = ""
    version: int = 0
    confirmations: int = 0
    by_hand: bool = False
    why: str = ""
    waited_ms: int = 0
    purpose: Purpose = Purpose.REPLACE
    switch_off: SwitchOff | None = None

    @property
    def name(self) -> str:
        """As operators know it."""
        return f"rotations/{self.id}"

    @property
    def over(self) -> bool:
        """Nothing is left to do."""
        return self.state in OVER

    def takes(self, wanted: "Rotation") -> bool:
        """True when this one, which is open, is what another wish for the same key asks for."""
        return self.purpose is wanted.purpose and self.state in OLD_SERVES
