"""The port to a log that takes in what an ingest stream has kept."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.checked_record import CheckedRecord
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.ports.ingest_stream import KeptBatch


@dataclass(frozen=True, slots=True)
class IngestState:
    """How far the log is.

    Args:
        incarnation: of the stream it takes in.
        sequence: place in it up to which everything is committed here.
        refused: sidecars of which a batch could not be taken in: nothing of theirs may be acknowledged any more.
    """

    incarnation: str
    sequence: int
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the log says to records of one stream.

    Args:
        fresh: those that are new, in order.
        head: of the stream as it is committed.
    """

    fresh: Sequence[CheckedRecord]
    head: StreamHead | None


@dataclass(frozen=True, slots=True)
class InspectedBatch:
    """A batch with what it tells alone, before it is anyone's turn.

    Args:
        kept: as the stream gave it.
        leaves: of its records in the tree, in their order.
        wrong: why none of it can be taken in; None when each of its records is whole.
    """

    kept: KeptBatch
    leaves: Sequence[bytes]
    wrong: Refusal | None


class IngestLog(Protocol):
    """Keeps its place in the stream with the records, in one transaction."""

    def check(self, records: Sequence[ChainedRecord]) -> list[CheckedRecord]:
        """Look at each record for itself.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN (altered), BODY_INVALID.
        """
        ...

    async def bind(self, incarnation: str) -> IngestState:
        """Take in the stream of this incarnation from its beginning, unless the log is bound already.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def ingest_state(self) -> IngestState:
        """How far it is now.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def judge(self, stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int) -> Judgement:
        """Hold records against what is committed of their stream; stores nothing.

        Raises:
            Refusal: as `EventStore.append`.
        """
        ...

    def inspect(self, kept: KeptBatch) -> InspectedBatch:
        """Hold digests against bodies once more, as they have been in other hands, and hash the leaves.

        Waits for nothing. What is done here needs no turn, so it goes on while another one is written.
        """
        ...

    async def take_in(self, after: int, batches: Sequence[InspectedBatch]) -> Collection[str]:
        """Append batches and move the place, in one transaction.

        A batch that the log refuses is put aside whole, with an event that says why, and the others go on.

        Args:
            after: the place that this was read from.
            batches: what follows it, inspected here.

        Returns:
            The sidecars of which a batch was put aside.

        Raises:
            Refusal: CONCURRENT_UPDATE (the log is at another place), STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
