"""The log's rows as the collector's stores keep them. Owns which column is what; the questions are each store's own."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.selector_words import from_words, order_from_words, order_to_words, to_words
from leasehold_broker.domain.stream_head import LifeState, StreamHead


def stored_record(values: Iterable[Any]) -> StoredRecord:
    """The record of a row, by the order of its columns."""
    position, receive_wall_ms, type_, stream, epoch, sequence, previous_digest, digest, body = values
    record = ChainedRecord(stream, epoch, sequence, previous_digest, body, digest)
    return StoredRecord(position, receive_wall_ms, record, type_)


def stream_head(row: Mapping[str, Any]) -> StreamHead:
    """The head that the row of a life holds."""
    return StreamHead(
        row["stream"], row["epoch"], row["sequence"], row["digest"], row["receive_wall_ms"], LifeState(row["state"])
    )


def revocation(row: Mapping[str, Any]) -> Revocation:
    """The revocation that a row holds.

    Raises:
        ValueError, msgspec.DecodeError: the row was damaged.
    """
    selector = from_words(msgspec.json.decode(row["selector"], type=dict[str, Any]))
    order = order_from_words(msgspec.json.decode(row["terms"], type=dict[str, Any]))
    return Revocation(row["epoch"], selector, row["note"], row["revoked_by"], row["create_wall_ms"], order)


REVOCATION_COLUMNS = "epoch, selector, terms, note, revoked_by, request_id, create_wall_ms"


def revocation_values(entry: Revocation, request_id: str) -> tuple[int | str, ...]:
    """What is put into `REVOCATION_COLUMNS`."""
    selector = msgspec.json.encode(to_words(entry.selector), order="sorted").decode()
    terms = msgspec.json.encode(order_to_words(entry.order), order="sorted").decode()
    return entry.epoch, selector, terms, entry.note, entry.revoked_by, request_id, entry.create_wall_ms
