"""The port to a faster way of telling other replicas of revocations than their asking the log."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.revocation import Revocation


class RevocationRelay(Protocol):
    """Carries entries that the log has; the log stays the record of them."""

    async def connect(self) -> None:
        """Begin a session; one that is open is ended.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def tell(self, entry: Revocation) -> None:
        """Tell every replica of a committed entry; one that was told already changes nothing.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def hear(self) -> Sequence[Revocation]:
        """What was told since the last call, by anybody, from where this replica stopped, in the order told.

        Waits a little for the first, and gives none when there is none. After a start everything that is kept comes.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...
