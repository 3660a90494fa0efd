"""Revocations in both directions: selectors, entries, progress. Owns the strict reading: unset means refused."""

from typing import assert_never

from leasehold.v1 import revocation_service_pb2
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLease,
    ByProvider,
    BySubject,
    Everything,
    Revocation,
    Selector,
)
from leasehold_broker.domain.revocation_progress import RevocationProgress
from leasehold_broker.wire.fields import check_known
from leasehold_broker.wire.records import timestamp, wall_ms_of


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
    )


def revocation_from_proto(message: revocation_service_pb2.RevocationEntry) -> Revocation:
    """One entry as the centre sent it.

    Raises:
        Refusal: FIELD_INVALID: a selector that this build does not know must never be passed over.
    """
    if message.epoch < 1:
        raise field_invalid("revocations.epoch", f"must be positive, was {message.epoch}")
    return Revocation(
        message.epoch,
        selector_from_proto(message.selector),
        message.note,
        message.revoked_by,
        wall_ms_of(message.create_time),
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
