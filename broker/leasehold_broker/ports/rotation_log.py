"""The port to where rotations are kept: each step durable with its event, and one leader that may take it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.events import Event
from leasehold_broker.domain.rotation import Rotation
from leasehold_broker.domain.time import Instant


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """A wish for a new key.

    Args:
        rotation: what it becomes when it joins no other.
        request_id: of this wish; the same one by the same asker is the same rotation.
    """

    rotation: Rotation
    request_id: str


@dataclass(frozen=True, slots=True)
class Lead:
    """The right to take steps, as long as nobody else was given a higher fence.

    Args:
        holder: who has it.
        fence: grows by one with each new holder.
    """

    holder: str
    fence: int


class RotationLog(Protocol):
    """Rotations, durable. Every method raises Refusal: STORE_UNAVAILABLE, OVERLOADED."""

    async def take_lead(self, holder: str, seconds: float, now: Instant) -> Lead | None:
        """Take the lead, or keep it; None while another has it.

        Another one has lost it when this process has looked for so long, on its own clock, and the lead was not kept.
        """
        ...

    async def request(self, request: RotationRequest, describe: Callable[[Rotation], Event]) -> Rotation:
        """Keep a new rotation, with its event, or join one of the same key that has not promoted yet (no event).

        A rotation that has promoted is not joined: the new one waits behind it.

        Raises:
            Refusal: REQUEST_ID_REUSED when the same asker used this id for another key.
        """
        ...

    async def advance(self, lead: Lead | None, before: Rotation, after: Rotation, event: Event | None) -> None:
        """Replace `before` by `after`, with its event; without one where nothing but time has passed.

        Steps are the leader's; `lead` is None for an operator's word, which takes no step.

        Raises:
            Refusal: CONCURRENT_UPDATE when the lead is another's by now, or the rotation is not as `before` says.
        """
        ...

    async def open_rotations(self) -> Sequence[Rotation]:
        """What is not over, oldest first."""
        ...

    async def find_rotation(self, rotation_id: str) -> Rotation | None:
        """The rotation with this id."""
        ...

    async def last_rotations(self, key: str, limit: int, before_id: str = "") -> Sequence[Rotation]:
        """The newest rotations of a key, or of all with "", newest first; those asked for before `before_id`."""
        ...
