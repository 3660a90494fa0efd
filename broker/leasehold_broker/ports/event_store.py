"""The port to the collector's audit log: streams from outside, the collector's own, and questions."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.stream_head import StreamHead


class RecordTaker(Protocol):
    """Takes records of streams from outside."""

    async def append(self, stream: str, records: Sequence[ChainedRecord], receive_wall_ms: int) -> StreamHead | None:
        """Store what is new of `records` (all of `stream`) and return the stream's head, synced.

        Returns:
            The head of the current life; None when nothing was ever stored.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN, AUDIT_EPOCH_FENCED (as in domain/stream_head.py), BODY_INVALID (a body that
                is no event), STORE_UNAVAILABLE, OVERLOADED. Then none of them is stored.
        """
        ...


class EventStore(RecordTaker, Protocol):
    """Keeps records for good. Every answer is about what is synced."""

    async def cut_off(self, stream: str, records: Sequence[ChainedRecord], wall_ms: int) -> None:
        """Say that the tails of the lives are unknown that these records go on, with an event; synced on return.

        For records that `append` has refused as AUDIT_EPOCH_FENCED. What is flagged already is not told again.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...

    async def page(self, wanted: EventFilter, after_position: int, limit: int) -> Sequence[StoredRecord]:
        """Records that match, in order of position, after `after_position`; at most `limit`, fewer when they are large.

        Empty only when nothing more matches.
        """
        ...

    async def drop_bodies(self, before_wall_ms: int, until_position: int, limit: int) -> int:
        """Drop the bodies of the oldest records that still have one, and what is queried by of them; synced on return.

        Digests, links and the tree stay. A declaration of lost records keeps its body: checks of the log need it.

        Args:
            before_wall_ms: only of records that came before this.
            until_position: none after this position.
            limit: at most so many in this call.

        Returns:
            How many were gone through; less than `limit` when none is left.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...

    async def heads(self) -> Sequence[StreamHead]:
        """The last record of every life of every stream, by stream, oldest life first."""
        ...

    def last_position(self) -> int:
        """Position of the newest record; 0 in an empty log."""
        ...

    async def wait_for_more(self, position: int) -> None:
        """Return once `last_position()` is above `position`."""
        ...
