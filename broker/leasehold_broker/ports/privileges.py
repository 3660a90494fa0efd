"""The port to what a store lets our own login do."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Privileged(Protocol):
    """A store that tells it."""

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """What our login may do and does not need, one sentence each.

        Args:
            apart: paths of other environments, where it needs nothing.
            rotated: names of keys that the same login writes, as it rotates them.

        Raises:
            SourceFault: it could not be asked.
        """
        ...
