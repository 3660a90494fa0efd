"""Revocations across the border: what goes out comes back the same, and what is not understood is refused."""

import pytest
from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import revocation_service_pb2 as pb
from leasehold_broker.domain.reasons import Reason, Refusal
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
)
from leasehold_broker.wire.revocations import order_from_proto, revocation_from_proto, revocation_to_proto

SELECTORS = [
    ByLease("leases/1"),
    BySubject("https://i", "agent-*"),
    ByKey("k"),
    ByProvider("openai"),
    ByEnvironment("prod"),
    ByLabel("team", "research"),
    BySidecar("sidecar-a"),
    Everything(),
]
ORDERS = [Order(), Order(lifts=3), *(Order(cause, block_new=True, block_seconds=60) for cause in Cause)]


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("order", ORDERS, ids=lambda one: f"{one.cause.value or 'plain'}-{one.lifts}")
def test_an_entry_comes_back_as_it_went(selector, order):
    """Every kind of selector with every kind of order, through bytes."""
    entry = Revocation(7, selector, "note", "alice", 1_795_000_000_123, order)
    sent = revocation_to_proto(entry).SerializeToString()
    assert revocation_from_proto(pb.RevocationEntry.FromString(sent)) == entry


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (pb.RevokeLeasesRequest(cause=99), "cause"),
        (pb.RevokeLeasesRequest(block_new=True, block_duration=Duration()), "block_duration"),
        (pb.RevokeLeasesRequest(block_new=True, block_duration=Duration(seconds=1, nanos=1)), "block_duration"),
        (pb.RevokeLeasesRequest(block_new=True, block_duration=Duration(seconds=-1)), "block_duration"),
    ],
    ids=["unknown cause", "no time", "part of a second", "negative"],
)
def test_an_order_that_is_not_understood_is_refused(request_, word):
    """By name, instead of passing over it."""
    with pytest.raises(Refusal) as refused:
        order_from_proto(request_)
    assert (refused.value.reason, word in refused.value.message) == (Reason.FIELD_INVALID, True)


def test_a_selector_of_a_later_build_is_never_passed_over():
    """An entry with fields that this build does not know stops the sidecar instead of being applied in part."""
    later = revocation_to_proto(Revocation(7, Everything(), "", "alice", 1)).SerializeToString() + b"\xf8\x06\x01"
    with pytest.raises(Refusal) as refused:
        revocation_from_proto(pb.RevocationEntry.FromString(later))
    assert refused.value.reason is Reason.FIELD_INVALID
