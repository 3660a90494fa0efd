"""Records whose own content has been checked, before it is anyone's turn at the log. Owns what one record tells alone.

That a body is an event, and that the digest is that of the body, needs neither the stream's head nor the log's: it is
done outside the ordered section, by whichever replica the records came to, and never again in it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from leasehold_broker.domain.audit_chain import ChainedRecord, ChainEnd, Linked, LinkedBody, altered
from leasehold_broker.domain.audit_link import digests_of
from leasehold_broker.domain.reasons import Reason, Refusal


class EventColumns(NamedTuple):
    """What a store indexes of a body; "" and () where it says nothing. The end of a `CheckedRecord`.

    `previous` is the end of the life before, as a life that begins states it.
    """

    type: str
    wall_ms: int
    outcome: str
    lease: str
    issuer: str
    subject: str
    keys: tuple[str, ...]
    previous: ChainEnd | None = None


class CheckedRecord(NamedTuple):
    """A record whose digest is that of its body, which is an event; flat, as millions of them are made.

    The first six are the record's, as it was sent; the others are `EventColumns`, in their order.
    """

    stream: str
    epoch: str
    sequence: int
    previous_digest: bytes
    digest: bytes
    body: bytes
    type: str
    wall_ms: int
    outcome: str
    lease: str
    issuer: str
    subject: str
    keys: tuple[str, ...]
    previous: ChainEnd | None


ColumnsOf = Callable[[Sequence[bytes]], list[EventColumns]]
"""Out of bodies; ValueError when one of them is no event."""


def check_records(records: Sequence[ChainedRecord], columns_of: ColumnsOf) -> list[CheckedRecord]:
    """Check each for itself.

    Args:
        records: of one stream.
        columns_of: reads bodies.

    Raises:
        Refusal: AUDIT_CHAIN_BROKEN (altered), BODY_INVALID.
    """
    must_be_whole(records)
    try:
        found = columns_of([record.body for record in records])
    except ValueError:
        found = [_columns_alone(record, columns_of) for record in records]  # which says whose it is
    checked, new = [], tuple.__new__  # CheckedRecord() would be one more call
    for record, columns in zip(records, found, strict=True):
        own = (record.stream, record.epoch, record.sequence, record.previous_digest, record.digest, record.body)
        checked.append(new(CheckedRecord, own + columns))
    return checked


def _columns_alone(record: ChainedRecord, columns_of: ColumnsOf) -> EventColumns:
    try:
        return columns_of([record.body])[0]
    except ValueError as error:
        raise Refusal(
            Reason.BODY_INVALID,
            f"record {record.sequence} of stream {record.stream!r} is not an event; nothing was stored",
            detail=str(error),
        ) from None


def must_be_whole(records: Sequence[LinkedBody]) -> None:
    """Hold digests against bodies: where records come from outside, and wherever they have been in other hands since.

    Raises:
        Refusal: AUDIT_CHAIN_BROKEN.
    """
    for record, digest in zip(records, digests_of(records), strict=True):
        if digest != record.digest:
            raise chain_broken(record, altered(record))


def chain_broken(record: Linked, wrong: str) -> Refusal:
    """What a sidecar is told whose record does not fit."""
    return Refusal(
        Reason.AUDIT_CHAIN_BROKEN,
        f"stream {record.stream!r}: {wrong}; nothing of this batch was stored, ask the operators of the collector",
        detail=f"epoch {record.epoch}, sequence {record.sequence}: {wrong}",
    )
