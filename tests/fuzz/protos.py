"""Fuzz target for the border between protobuf words and domain words."""

# ruff: noqa: PT017 - a refusal is one of the good answers here, not the expected one

import contextlib
from collections.abc import Callable
from dataclasses import replace

from google.protobuf.message import DecodeError, Message

from leasehold import InvalidRequest
from leasehold.audit import Record
from leasehold.v1 import (
    audit_service_pb2,
    budget_service_pb2,
    lease_service_pb2,
    revocation_service_pb2,
    sidecar_service_pb2,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.wire import budgets, event_body, leases, records, revocations, slices, sync


def _acquire(message: Message) -> None:
    asked = leases.acquire_request(message)
    assert 1 <= len(asked.scopes) <= leases.SCOPES_MAX


def _delegate(message: Message) -> None:
    leases.delegate_request(message)
    leases.delegate_binding(message)


def _renew(message: Message) -> None:
    count = leases.expected_renew_count(message)
    assert count is None or count >= 0


def _selector(message: Message) -> None:
    selector = revocations.selector_from_proto(message)
    assert revocations.selector_from_proto(revocations.selector_to_proto(selector)) == selector


def _revocation(message: Message) -> None:
    entry = revocations.revocation_from_proto(message)
    if 0 <= entry.create_wall_ms < 2**45:
        assert revocations.revocation_from_proto(revocations.revocation_to_proto(entry)) == entry


def _record(message: Message) -> None:
    (record,) = records.records_from_proto([message])
    assert records.records_from_proto([records.record_to_proto(record)]) == [record]


def _filter(message: Message) -> None:
    asked = records.filter_from_proto(message)
    assert asked.start_wall_ms >= 0
    assert asked.end_wall_ms >= 0


def _sync(message: Message) -> None:
    heard = sync.message_from_proto(message)
    assert sync.message_from_proto(sync.message_to_proto(heard)) == heard


def _push(message: Message) -> None:
    push = sync.push_from_proto(message)
    assert 0 < push.authority_seconds <= sync.AUTHORITY_SECONDS_MAX


def _reports(message: Message) -> None:
    reports = slices.reports_from_proto(message)
    assert slices.reports_from_proto(slices.reports_to_proto(reports)) == reports
    assert all(0 <= total <= slices.TOTAL_MAX for one in reports for total in (one.granted, one.spent, one.held))


def _slices(message: Message) -> None:
    told = slices.slices_from_proto(message)
    assert all(one.granted >= 0 and one.keep >= 0 and one.remaining >= 0 and one.seconds >= 0 for one in told)
    again = slices.slices_from_proto(slices.slices_to_proto(told))
    assert [replace(one, seconds=0) for one in again] == [replace(one, seconds=0) for one in told]


def _change(message: Message) -> None:
    change = budgets.change_from_proto(message)
    assert budgets.change_from_proto(budgets.change_to_proto(change)) == change


READERS: tuple[tuple[type[Message], Callable[[Message], None]], ...] = (
    (lease_service_pb2.AcquireLeaseRequest, _acquire),
    (lease_service_pb2.DelegateLeaseRequest, _delegate),
    (lease_service_pb2.RenewLeaseRequest, _renew),
    (revocation_service_pb2.RevocationSelector, _selector),
    (revocation_service_pb2.RevocationEntry, _revocation),
    (audit_service_pb2.AuditRecord, _record),
    (audit_service_pb2.ListEventsRequest, _filter),
    (sidecar_service_pb2.SyncStateRequest, _sync),
    (sidecar_service_pb2.SyncStateResponse, _push),
    (sidecar_service_pb2.SliceReports, _reports),
    (sidecar_service_pb2.BudgetSlices, _slices),
    (budget_service_pb2.BudgetChange, _change),
)


def protos(data: bytes) -> None:
    """Any message is read into domain words that stay the same through another round, or refused by field.

    The first byte chooses the message; beyond the messages it chooses the readers of event bodies and of exports.
    """
    chosen, rest = (data[0], data[1:]) if data else (0, b"")
    chosen %= len(READERS) + 2
    if chosen == len(READERS):
        with contextlib.suppress(ValueError):
            event_body.event_columns(rest)
        return
    if chosen > len(READERS):
        with contextlib.suppress(InvalidRequest):
            record = Record.of_line(rest.decode("utf-8", "surrogateescape"), 1)
            assert Record.of_line(record.line(), 1) == record
        return
    kind, read = READERS[chosen]
    try:
        message = kind.FromString(rest)
    except DecodeError:
        return
    try:
        read(message)
    except Refusal as refusal:
        assert refusal.reason is Reason.FIELD_INVALID
        assert len(refusal.message) < 500
