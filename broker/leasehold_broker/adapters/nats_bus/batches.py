"""Batches as messages: MessagePack, by position, with a version in front. Owns those bytes.

What was read out of a body goes beside it, so that it is not parsed a second time in the log's ordered section. A
record is written as its fields in their order: who changes them changes the version.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from leasehold_broker.domain.checked_record import CheckedRecord

VERSION = 2


class _Batch(NamedTuple):
    version: int
    stream: str
    receive_wall_ms: int
    records: list[CheckedRecord]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Batch)


def encode_batch(stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int) -> bytes:
    """The message of a batch."""
    return _ENCODER.encode(_Batch(VERSION, stream, receive_wall_ms, list(records)))


def decode_batch(message: bytes) -> tuple[str, list[CheckedRecord], int]:
    """Stream, records and time of receipt, as the message says: nothing of them is checked but their shape.

    Raises:
        ValueError: it is no batch, of a version that is not known here, or of records of another stream.
    """
    try:
        batch = _DECODER.decode(message)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if batch.version != VERSION:
        text = f"version {batch.version} of a batch is not known here; update this replica"
        raise ValueError(text)
    if any(record.stream != batch.stream for record in batch.records):
        raise ValueError("a record of another stream is in it")
    return batch.stream, batch.records, batch.receive_wall_ms
