"""Prove what the log holds: checkpoint, inclusion, consistency. Changes nothing; proves no more than is published."""

from collections.abc import Sequence
from dataclasses import dataclass

from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.checkpoint import SignedCheckpoint
from leasehold_broker.domain.merkle import consistency_proof, inclusion_proof
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.tree_log import TreeLog


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A record and its audit path in the tree of `checkpoint`."""

    stored: StoredRecord
    checkpoint: SignedCheckpoint
    hashes: Sequence[bytes]


class Prove:
    """Answers with proofs against the newest checkpoint."""

    def __init__(self, store: EventStore, tree: TreeLog, published: PublishCheckpoint, verifier_key: str) -> None:
        """Prove from this log."""
        self._store = store
        self._tree = tree
        self._published = published
        self.verifier_key = verifier_key

    def checkpoint(self) -> SignedCheckpoint:
        """The newest; it may be a second old.

        Raises:
            Refusal: STARTING (nothing is published yet).
        """
        newest = self._published.newest
        if newest is None:
            raise Refusal(
                Reason.STARTING, "no checkpoint has been published yet; try again shortly", retry_after_seconds=1.0
            )
        return newest

    async def inclusion(self, position: int) -> Inclusion:
        """That the record at `position` is in the newest checkpoint's tree.

        Raises:
            Refusal: FIELD_INVALID (not there yet, or never), STORE_UNAVAILABLE, STARTING.
        """
        newest = self.checkpoint()
        size = newest.head.size
        if not 1 <= position <= size:
            raise field_invalid("position", f"must be 1 to {size}, what the newest checkpoint covers; was {position}")
        (stored,) = await self._store.page(EventFilter(until_position=position), position - 1, 1)
        hashes = await self._tree.read_tree(lambda node: inclusion_proof(position - 1, size, node))
        return Inclusion(stored, newest, hashes)

    async def consistency(self, old_size: int) -> tuple[SignedCheckpoint, Sequence[bytes]]:
        """That the newest checkpoint's tree begins with the tree of `old_size` records.

        Raises:
            Refusal: FIELD_INVALID, STORE_UNAVAILABLE, STARTING.
        """
        newest = self.checkpoint()
        size = newest.head.size
        if not 0 <= old_size <= size:
            raise field_invalid("old_size", f"must be 0 to {size}, the newest checkpoint's size; was {old_size}")
        return newest, await self._tree.read_tree(lambda node: consistency_proof(old_size, size, node))
