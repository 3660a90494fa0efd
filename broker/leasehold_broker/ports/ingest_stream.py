"""The port to a stream that keeps batches of records until the log has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.checked_record import CheckedRecord


@dataclass(frozen=True, slots=True)
class StreamState:
    """What is in the stream.

    Args:
        incarnation: of this stream: another one of the same name has another.
        last: sequence of the newest batch it ever kept; 0 for none.
    """

    incarnation: str
    last: int


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch that is kept.

    Args:
        sequence: its place in the stream.
        stream: of the sidecar that sent it.
        records: that were new then, in order; none when it cannot be read.
        receive_wall_ms: when it came.
        raw: as it is kept.
    """

    sequence: int
    stream: str
    records: Sequence[CheckedRecord]
    receive_wall_ms: int
    raw: bytes


class IngestMovedError(Exception):
    """A batch of the same sidecar was kept since: nothing was kept of this one, or it was kept before."""


class IngestStream(Protocol):
    """Keeps batches in one order; of one sidecar's none is kept that was decided without knowing the one before."""

    async def connect(self) -> StreamState:
        """Begin a session; one that is open is ended.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def ended(self) -> None:
        """Return once the session is over."""
        ...

    async def keep(self, stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int, after: int) -> int:
        """Keep one batch, on disk when this returns.

        Args:
            stream: of the sidecar.
            records: all of it.
            receive_wall_ms: now.
            after: place of the sidecar's last batch that is kept; 0 for none.

        Returns:
            Its place.

        Raises:
            IngestMovedError: that is not its last batch.
            Refusal: OVERLOADED (the stream is full), STORE_UNAVAILABLE: then it is not known whether it was kept.
        """
        ...

    async def last(self, stream: str) -> KeptBatch | None:
        """A sidecar's last batch that is kept.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def read(self, after: int) -> Sequence[KeptBatch]:
        """What follows, in order; waits a little for the first, and gives none when there is none.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...

    async def forget(self, until: int) -> None:
        """Drop everything up to this place; the next batch comes after it, whatever was kept.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        ...
