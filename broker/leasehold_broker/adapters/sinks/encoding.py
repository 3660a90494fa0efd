"""A record as one JSON object for a sink, in one of two forms. Owns the choice; the forms are in wire/."""

from enum import StrEnum

import msgspec

from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.wire.ocsf import ocsf_event

_ENCODER = msgspec.json.Encoder()


class Format(StrEnum):
    """OCSF: for a SIEM. LEASEHOLD: the event as it was hashed, with its place in the log."""

    OCSF = "ocsf"
    LEASEHOLD = "leasehold"


def encode(stored: StoredRecord, form: Format) -> bytes:
    """The object, in one line without an end.

    Raises:
        ValueError: the record has no event.
    """
    if form is Format.OCSF:
        return _ENCODER.encode(ocsf_event(stored))
    record = stored.record
    return _ENCODER.encode(
        {
            "position": stored.position,
            "stream": record.stream,
            "epoch": record.epoch,
            "sequence": record.sequence,
            "digest": record.digest.hex(),
            "receive_wall_ms": stored.receive_wall_ms,
            "event": msgspec.Raw(record.body),
        }
    )
