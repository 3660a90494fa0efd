"""Batches as messages: MessagePack, by position, with a version in front. Owns those bytes.

What was read out of a body goes beside it, so that it is not parsed a second time in the log's ordered section. A
record is written as its fields in their order: who changes them changes the version.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from leasehold_broker.domain.checked_record import CheckedRecord

VERSION = 2
NUMBER_MAX = 2**63 - 1
"""That a log can keep."""


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
        ValueError: it is no batch, of a version that is not known here, of records of another stream, or with numbers
            that no log can keep: one that cannot be stored would hold up all that come after it.
    """
    try:
        batch = _DECODER.decode(message)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if batch.version != VERSION:
        text = f"version {batch.version} of a batch is not known here; update this replica"
        raise ValueError(text)
    if not 0 <= batch.receive_wall_ms <= NUMBER_MAX:
        raise ValueError("it came at no time")
    for record in batch.records:
        if record.stream != batch.stream:
            raise ValueError("a record of another stream is in it")
        if not 0 < record.sequence <= NUMBER_MAX or not 0 <= record.wall_ms <= NUMBER_MAX:
            raise ValueError("a record in it has a number that no log can keep")
    return batch.stream, batch.records, batch.receive_wall_ms
