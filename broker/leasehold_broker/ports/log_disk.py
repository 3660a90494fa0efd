"""The port to the disk below the log, where the log has one of its own."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DiskState:
    """How the disk is.

    Args:
        low: the log takes no more events of sidecars; what is left is for revocations.
        room_bytes: that the log may still use, its reserve aside.
        reserve_bytes: kept for revocations.
        reserve_bytes_wanted: what is to be kept.
    """

    low: bool
    room_bytes: int
    reserve_bytes: int
    reserve_bytes_wanted: int


class LogDisk(Protocol):
    """Looks at the disk."""

    @property
    def state(self) -> DiskState:
        """As it was when it was last looked at."""
        ...

    async def look(self) -> DiskState:
        """As it is now; makes the reserve whole again where there is room.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
