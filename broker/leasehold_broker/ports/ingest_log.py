"""The port to a log that takes in what an ingest stream has kept."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.checked_record import CheckedRecord
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

    async def take_in(self, after: int, batches: Sequence[KeptBatch]) -> Collection[str]:
        """Append batches and move the place, in one transaction.

        A batch that the log refuses is put aside whole, with an event that says why, and the others go on.

        Args:
            after: the place that this was read from.
            batches: what follows it.

        Returns:
            The sidecars of which a batch was put aside.

        Raises:
            Refusal: CONCURRENT_UPDATE (the log is at another place), STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
