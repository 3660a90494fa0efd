"""The port to what the collector keeps of its sidecars besides revocations: who is banned, and who is forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.events import Event


@dataclass(frozen=True, slots=True)
class SidecarBan:
    """A sidecar that may not speak for the centre.

    Args:
        sidecar: its name; it need not have connected before.
        note: why, in the responder's words, bounded, never a secret.
        banned_by: who, as shown.
        create_wall_ms: when.
    """

    sidecar: str
    note: str
    banned_by: str
    create_wall_ms: int


class SidecarRegister(Protocol):
    """Bans by name. Every change raises Refusal: STORE_UNAVAILABLE, OVERLOADED."""

    async def bans(self) -> Sequence[SidecarBan]:
        """All of them, by name."""
        ...

    async def ban(self, ban: SidecarBan, event: Event) -> bool:
        """Make the ban and its event durable in one transaction; False, and nothing is written, when it is banned."""
        ...

    async def readmit(self, sidecar: str, event: Event) -> bool:
        """End the ban, with its event; False, and nothing is written, when there is none."""
        ...

    async def knows(self, sidecar: str) -> bool:
        """True when this sidecar has connected, and was not forgotten since."""
        ...

    async def forget(self, sidecar: str, event: Event) -> bool:
        """Drop what is known of a sidecar, with its event; False when nothing is. Its events and its ban stay."""
        ...
