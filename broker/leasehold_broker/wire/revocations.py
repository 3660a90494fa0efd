"""Revocations in both directions: selectors, entries, progress. Owns the strict reading: unset means refused."""

from dataclasses import replace
from typing import assert_never

from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import revocation_service_pb2
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Cause,
    Everything,
    Order,
    Revocation,
    Selector,
)
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import timestamp, wall_ms_of

CAUSE_PREFIX = "REVOCATION_CAUSE_"


def selector_from_proto(message: revocation_service_pb2.RevocationSelector) -> Selector:
    """The selector; its contents are checked by the flow.

    Raises:
        Refusal: FIELD_INVALID: none set, `everything` set to false, or fields this build does not know.
    """
    check_known(message)
    match message.WhichOneof("selector"):
        case "lease":
            return ByLease(message.lease)
        case "subject":
            return BySubject(message.subject.issuer, message.subject.subject)
        case "key":
            return ByKey(message.key)
        case "provider":
            return ByProvider(message.provider)
        case "environment":
            return ByEnvironment(message.environment)
        case "label":
            return ByLabel(message.label.name, message.label.value)
        case "sidecar":
            return BySidecar(message.sidecar)
        case "everything":
            if not message.everything:
                raise field_invalid("selector.everything", "must be true when it is set")
            return Everything()
        case _:
            raise field_invalid("selector", "must name what to revoke")


def selector_to_proto(selector: Selector) -> revocation_service_pb2.RevocationSelector:
    """The selector."""
    message = revocation_service_pb2.RevocationSelector
    match selector:
        case ByLease(lease):
            return message(lease=lease)
        case BySubject(issuer, subject):
            return message(subject=revocation_service_pb2.SubjectSelector(issuer=issuer, subject=subject))
        case ByKey(key):
            return message(key=key)
        case ByProvider(provider):
            return message(provider=provider)
        case ByEnvironment(environment):
            return message(environment=environment)
        case ByLabel(name, value):
            return message(label=revocation_service_pb2.LabelSelector(name=name, value=value))
        case BySidecar(sidecar):
            return message(sidecar=sidecar)
        case Everything():
            return message(everything=True)
        case _:
            assert_never(selector)


def revocation_to_proto(entry: Revocation) -> revocation_service_pb2.RevocationEntry:
    """One entry."""
    return revocation_service_pb2.RevocationEntry(
        name=entry.name,
        epoch=entry.epoch,
        selector=selector_to_proto(entry.selector),
        note=entry.note,
        revoked_by=entry.revoked_by,
        create_time=timestamp(entry.create_wall_ms),
        cause=_cause_to_proto(entry.order.cause),
        block_new=entry.order.block_new,
        block_duration=Duration(seconds=entry.order.block_seconds) if entry.order.block_seconds else None,
        lifts_epoch=entry.order.lifts,
    )


def order_from_proto(
    message: revocation_service_pb2.RevokeLeasesRequest | revocation_service_pb2.RevocationEntry,
) -> Order:
    """What is ordered besides the end of what matches; lifts nothing.

    Raises:
        Refusal: FIELD_INVALID.
    """
    duration = message.block_duration
    if duration.nanos or (message.HasField("block_duration") and duration.seconds < 1):
        raise field_invalid("block_duration", "must be whole seconds, at least one; leave it out to block until lifted")
    return Order(_cause_from_proto(message.cause), message.block_new, duration.seconds)


def _cause_from_proto(cause: revocation_service_pb2.RevocationCause.ValueType) -> Cause:
    if cause == revocation_service_pb2.REVOCATION_CAUSE_UNSPECIFIED:
        return Cause.UNSTATED
    try:
        return Cause(revocation_service_pb2.RevocationCause.Name(cause).removeprefix(CAUSE_PREFIX))
    except ValueError:
        raise field_invalid("cause", f"{cause} is no cause that is known here") from None


def _cause_to_proto(cause: Cause) -> revocation_service_pb2.RevocationCause.ValueType:
    return revocation_service_pb2.RevocationCause.Value(f"{CAUSE_PREFIX}{cause.value or 'UNSPECIFIED'}")


def revocation_from_proto(message: revocation_service_pb2.RevocationEntry) -> Revocation:
    """One entry as the centre sent it.

    Raises:
        Refusal: FIELD_INVALID: a selector that this build does not know must never be passed over.
    """
    check_known(message)
    if message.epoch < 1:
        raise field_invalid("revocations.epoch", f"must be positive, was {message.epoch}")
    return Revocation(
        message.epoch,
        selector_from_proto(message.selector),
        message.note,
        message.revoked_by,
        wall_ms_of(message.create_time),
        replace(order_from_proto(message), lifts=message.lifts_epoch),
    )


def progress_to_proto(progress: RevocationProgress) -> revocation_service_pb2.RevocationProgress:
    """How far one entry has come."""
    message = revocation_service_pb2.RevocationProgress(
        entry=revocation_to_proto(progress.revocation), complete=progress.complete
    )
    for row in progress.sidecars:
        message.sidecars.add(
            sidecar=row.sidecar,
            connected=row.connected,
            applied_epoch=row.applied_epoch,
            leases_ended=row.leases_ended,
            calls_cut=row.calls_cut,
            last_heard_time=timestamp(row.last_heard_wall_ms) if row.last_heard_wall_ms else None,
        )
    return message
