"""Batches as messages: MessagePack, by position, with a version in front. Owns those bytes.

What was read out of a body goes beside it, so that it is not parsed a second time in the log's ordered section.
"""

from collections.abc import Sequence

import msgspec

from leasehold_broker.domain.audit_chain import ChainedRecord, ChainEnd
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.checked_record import CheckedRecord, EventColumns

VERSION = 1


class _Record(msgspec.Struct, array_like=True):
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
    previous: tuple[str, int, bytes] | None


class _Batch(msgspec.Struct, array_like=True):
    version: int
    stream: str
    receive_wall_ms: int
    records: list[_Record]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Batch)


def encode_batch(stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int) -> bytes:
    """The message of a batch."""
    return _ENCODER.encode(_Batch(VERSION, stream, receive_wall_ms, [_words(one) for one in records]))


def decode_batch(message: bytes) -> tuple[str, list[CheckedRecord], int]:
    """Stream, records and time of receipt. Their digests are as the message says: nothing of them is checked.

    Raises:
        ValueError: it is no batch, or of a version that is not known here.
    """
    try:
        batch = _DECODER.decode(message)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if batch.version != VERSION:
        text = f"version {batch.version} of a batch is not known here; update this replica"
        raise ValueError(text)
    return batch.stream, [_record(batch.stream, one) for one in batch.records], batch.receive_wall_ms


def _words(checked: CheckedRecord) -> _Record:
    record, columns, previous = checked.record, checked.columns, checked.columns.previous
    return _Record(
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
        None if previous is None else (previous.epoch, previous.sequence, previous.digest),
    )


def _record(stream: str, one: _Record) -> CheckedRecord:
    record = ChainedRecord(stream, one.epoch, one.sequence, one.previous_digest, one.body, one.digest)
    previous = None if one.previous is None else ChainEnd(*one.previous)
    columns = EventColumns(one.type, one.wall_ms, one.outcome, one.lease, one.issuer, one.subject, one.keys, previous)
    return CheckedRecord(record, columns, entry_hash(record))
