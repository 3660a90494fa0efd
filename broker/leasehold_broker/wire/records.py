"""Audit records in both directions. Owns the strict reading; a record's body stays the bytes that were hashed."""

import re
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from leasehold.v1 import audit_service_pb2
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.checkpoint import SignedCheckpoint
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.stream_head import LifeState, StreamHead

DIGEST_BYTES = 32
_STATES = {
    LifeState.OPEN: audit_service_pb2.LIFE_STATE_OPEN,
    LifeState.CLOSED: audit_service_pb2.LIFE_STATE_CLOSED,
    LifeState.TAIL_UNKNOWN: audit_service_pb2.LIFE_STATE_TAIL_UNKNOWN,
}
STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
EPOCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def records_from_proto(messages: Iterable[audit_service_pb2.AuditRecord]) -> list[ChainedRecord]:
    """Records as sent; whether their digests hold is asked of the chain.

    Raises:
        Refusal: FIELD_INVALID.
    """
    found = []
    of: tuple[str, str] | None = None
    for message in messages:
        stream, epoch, sequence = message.stream, message.epoch, message.sequence
        previous_digest, digest = message.previous_digest, message.digest
        if of != (stream, epoch):  # all of a batch have the same
            if not STREAM.fullmatch(stream):
                raise field_invalid("records.stream", f"must match {STREAM.pattern}")
            if not EPOCH.fullmatch(epoch):
                raise field_invalid("records.epoch", f"must match {EPOCH.pattern}")
            of = (stream, epoch)
        if sequence < 1:
            raise field_invalid("records.sequence", f"must be positive, was {sequence}")
        if len(previous_digest) != DIGEST_BYTES or len(digest) != DIGEST_BYTES:
            raise field_invalid("records.digest", f"digests must be {DIGEST_BYTES} bytes")
        found.append(ChainedRecord(stream, epoch, sequence, previous_digest, message.body, digest))
    return found


def record_to_proto(record: ChainedRecord) -> audit_service_pb2.AuditRecord:
    """One record."""
    return audit_service_pb2.AuditRecord(
        stream=record.stream,
        epoch=record.epoch,
        sequence=record.sequence,
        previous_digest=record.previous_digest,
        body=record.body,
        digest=record.digest,
    )


def stored_to_proto(stored: Iterable[StoredRecord]) -> list[audit_service_pb2.StoredEvent]:
    """Records with their place in the log."""
    return [
        audit_service_pb2.StoredEvent(
            position=one.position,
            receive_time=timestamp(one.receive_wall_ms),
            record=record_to_proto(one.record),
        )
        for one in stored
    ]


def head_to_proto(head: StreamHead) -> audit_service_pb2.StreamHead:
    """The last record of one life of a stream."""
    return audit_service_pb2.StreamHead(
        stream=head.stream,
        epoch=head.epoch,
        sequence=head.sequence,
        digest=head.digest,
        receive_time=timestamp(head.receive_wall_ms),
        state=_STATES[head.state],
    )


def checkpoint_to_proto(checkpoint: SignedCheckpoint) -> audit_service_pb2.Checkpoint:
    """A published head."""
    return audit_service_pb2.Checkpoint(
        tree_size=checkpoint.head.size,
        root_hash=checkpoint.head.root,
        note=checkpoint.note,
        sign_time=timestamp(checkpoint.sign_wall_ms),
    )


def filter_from_proto(request: audit_service_pb2.ListEventsRequest) -> EventFilter:
    """What is asked for.

    Raises:
        Refusal: FIELD_INVALID.
    """
    return EventFilter(
        stream=request.stream,
        type=request.type,
        lease=request.lease,
        subject=request.subject,
        key=request.key,
        outcome=request.outcome,
        start_wall_ms=_wall_ms(request, "start_time"),
        end_wall_ms=_wall_ms(request, "end_time"),
    )


def timestamp(wall_ms: int) -> Timestamp:
    """Unix milliseconds as a Timestamp."""
    return Timestamp(seconds=wall_ms // 1000, nanos=wall_ms % 1000 * 1_000_000)


def wall_ms_of(moment: Timestamp) -> int:
    """A Timestamp as Unix milliseconds, cut."""
    return moment.seconds * 1000 + moment.nanos // 1_000_000


def _wall_ms(request: audit_service_pb2.ListEventsRequest, field: str) -> int:
    if field == "start_time" and request.HasField("start_time"):
        moment = request.start_time
    elif field == "end_time" and request.HasField("end_time"):
        moment = request.end_time
    else:
        return 0
    if not 0 < moment.seconds < 2**40 or not 0 <= moment.nanos < 10**9:
        raise field_invalid(field, "must be a time after 1970")
    return wall_ms_of(moment)
