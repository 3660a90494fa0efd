"""Records whose own content has been checked, before it is anyone's turn at the log. Owns what one record tells alone.

That a body is an event, and that the digest is that of the body, needs neither the stream's head nor the log's: it is
done outside the ordered section, by whichever replica the records came to, and never again in it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from leasehold_broker.domain.audit_chain import ChainedRecord, ChainEnd, Linked, altered
from leasehold_broker.domain.audit_link import digests_of
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.values import value


@value
class EventColumns:
    """What a store indexes of a body; "" and () where it says nothing.

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

    The first six are the record's, as it was sent; the others are what a store indexes, as in `EventColumns`.
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


def check_records(records: Sequence[ChainedRecord], columns_of: Callable[[bytes], EventColumns]) -> list[CheckedRecord]:
    """Check each for itself.

    Args:
        records: of one stream.
        columns_of: out of a body; ValueError when it is no event.

    Raises:
        Refusal: AUDIT_CHAIN_BROKEN (altered), BODY_INVALID.
    """
    checked = []
    for record, digest in zip(records, digests_of(records), strict=True):
        if digest != record.digest:
            raise chain_broken(record, altered(record))
        try:
            columns = columns_of(record.body)
        except ValueError as error:
            raise Refusal(
                Reason.BODY_INVALID,
                f"record {record.sequence} of stream {record.stream!r} is not an event; nothing was stored",
                detail=str(error),
            ) from None
        checked.append(
            CheckedRecord(
                record.stream,
                record.epoch,
                record.sequence,
                record.previous_digest,
                record.digest,
                record.body,
                columns.type,
                columns.wall_ms,
                columns.outcome,
                columns.lease,
                columns.issuer,
                columns.subject,
                columns.keys,
                columns.previous,
            )
        )
    return checked


def must_be_whole(records: Sequence[CheckedRecord]) -> None:
    """Once more what was checked where they came from: they have been in other hands since.

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
