"""The port to a store's versions of a key: what a rotation does to it, each step idempotent and safe to repeat."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from leasehold_broker.domain.secret import Secret


class KeyStage(StrEnum):
    """Which version of a key: the one that serves, the one that will, the one that did."""

    CURRENT = "current"
    PENDING = "pending"
    PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class KeyStages:
    """Which stages of a key exist.

    Args:
        mine: the last change of it was made by the rotation that asks.
        pending: a value waits to be promoted.
        previous: the value before the current one is still kept.
    """

    mine: bool
    pending: bool
    previous: bool


class KeyAdmin(Protocol):
    """Changes keys in a store. Every method raises SourceFault; CONFLICT when another change came between."""

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """What exists now, as seen by this rotation."""
        ...

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """The value at a stage; MISSING when there is none."""
        ...

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """Keep `value` as pending for this rotation; nobody is served it.

        Again by the same rotation: the first value stays. CONFLICT while another rotation's value is pending.
        """
        ...

    async def promote(self, name: str, rotation: str) -> None:
        """Pending becomes current, current becomes previous. Done already by this rotation: no effect."""
        ...

    async def retire(self, name: str, rotation: str) -> None:
        """Forget the previous value, and what is pending, of this rotation. Done already: no effect."""
        ...
