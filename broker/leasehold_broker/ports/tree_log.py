"""The port to the Merkle tree over the log, and to the checkpoints that were published of it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead
from leasehold_broker.domain.merkle import NodeHash
from leasehold_broker.domain.placed_turns import PlacedTurn

T = TypeVar("T")


class TreeLog(Protocol):
    """Keeps the nodes of the tree. Entry i of the tree is the record at position i + 1."""

    def tree_head(self) -> TreeHead:
        """Size and root after the newest commit, from what was accepted and not from what the disk says."""
        ...

    async def read_tree(self, question: Callable[[NodeHash], T]) -> T:
        """What `question` makes of the perfect nodes over synced records, as the disk has them; runs off the loop.

        Raises:
            Refusal: STORE_UNAVAILABLE.
            ValueError: the log does not reach as far as asked.
        """
        ...

    def placed_from(self, size: int) -> PlacedTurn | None:
        """The first turn that this process remembers of those that began at so many records or more, all of it synced.

        Its records were hashed here, from bytes whose digests were checked here; None when it remembers none.
        """
        ...

    async def newest_checkpoint(self) -> SignedCheckpoint | None:
        """What was published last; None before the first."""
        ...

    async def keep_checkpoint(self, checkpoint: SignedCheckpoint) -> None:
        """Keep it, synced.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
