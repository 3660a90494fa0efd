"""The port to what a store lets our own login do."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class Privileged(Protocol):
    """A store that tells it."""

    async def excess(self, apart: Sequence[str] = ()) -> Sequence[str]:
        """What our login may do and does not need, one sentence each; also at the paths `apart`, which are others'.

        Raises:
            SourceFault: it could not be asked.
        """
        ...
