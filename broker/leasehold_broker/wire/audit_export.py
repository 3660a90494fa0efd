"""The export of the log: JSON lines, one record each. Owns the form; broker/decisions/0003-audit-chain.md states it."""

import msgspec

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import StoredRecord


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    position: int
    stream: str
    epoch: str
    sequence: int
    previous_digest: str
    digest: str
    body: str


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Line)


def encode_line(stored: StoredRecord) -> bytes:
    """One line, with its end."""
    record = stored.record
    line = _Line(
        stored.position,
        record.stream,
        record.epoch,
        record.sequence,
        record.previous_digest.hex(),
        record.digest.hex(),
        record.body.decode(),
    )
    return _ENCODER.encode(line) + b"\n"


def decode_line(line: bytes) -> StoredRecord:
    """What `encode_line` made this of; the time of receipt is not exported.

    Raises:
        ValueError: anything else.
    """
    try:
        read = _DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if read.position < 1 or not 1 <= read.sequence < 2**63:
        message = "position and sequence count from 1"
        raise ValueError(message)
    record = ChainedRecord(
        read.stream,
        read.epoch,
        read.sequence,
        bytes.fromhex(read.previous_digest),
        read.body.encode(),
        bytes.fromhex(read.digest),
    )
    return StoredRecord(read.position, 0, record)
