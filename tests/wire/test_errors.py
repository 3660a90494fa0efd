"""Refusals on the wire, decoded by the stock google.rpc messages."""

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from leasehold.v1 import types_pb2
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.lease import LeaseState, Mode
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal, Violation
from leasehold_broker.wire import errors, reasons

REQUEST_ID = "5a8c1e0c-0000-4000-8000-000000000001"
STATUS_BYTES_MAX = 4096


def _stock(refusal: Refusal) -> status_pb2.Status:
    """Our status through the stock decoder."""
    return status_pb2.Status.FromString(errors.rpc_status(refusal, REQUEST_ID).SerializeToString())


def _detail(status: status_pb2.Status, kind: type[Message]) -> Message | None:
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    return None


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Reason, types_pb2.Reason, "REASON_"),
        (Mode, types_pb2.Mode, "MODE_"),
        (LeaseState, types_pb2.LeaseState, "LEASE_STATE_"),
        (Metric, types_pb2.Metric, "METRIC_"),
    ],
)
def test_domain_and_proto_have_the_same_words(ours: type, theirs: object, prefix: str) -> None:
    """No word exists on one side only, but for the proto's zero."""
    names = {name.removeprefix(prefix) for name in theirs.keys()} - {"UNSPECIFIED"}  # noqa: SIM118 - an enum wrapper
    assert {member.name for member in ours} == names


def test_every_word_has_the_number_of_its_name() -> None:
    """What is only sent goes out under its own name; absent is UNSPECIFIED."""
    for reason in Reason:
        assert types_pb2.Reason.Name(reasons.reason_to_proto(reason)) == f"REASON_{reason.name}"
    for state in LeaseState:
        assert types_pb2.LeaseState.Name(reasons.state_to_proto(state)) == f"LEASE_STATE_{state.name}"
    assert reasons.reason_to_proto(None) == types_pb2.REASON_UNSPECIFIED


def test_words_that_come_back_survive_the_way() -> None:
    """To the proto and back is the same word; an unknown number is nothing."""
    for mode in Mode:
        assert mode is reasons.mode_from_proto(reasons.mode_to_proto(mode))
    for metric in Metric:
        assert metric is reasons.metric_from_proto(reasons.metric_to_proto(metric))
    assert reasons.mode_from_proto(0) is None
    assert reasons.metric_from_proto(9999) is None


FAMILIES = [
    (1, 16, "UNAUTHENTICATED"),
    (20, 29, "PERMISSION_DENIED"),
    (40, 43, "RESOURCE_EXHAUSTED"),
    (60, 68, "FAILED_PRECONDITION"),
    (110, 119, "FAILED_PRECONDITION"),
    (70, 72, "NOT_FOUND"),
    (80, 88, "INVALID_ARGUMENT"),
    (90, 99, "UNAVAILABLE"),
    (100, 100, "ABORTED"),
]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_the_code_of_its_family(reason: Reason) -> None:
    """The proto's numbering says which family a reason belongs to; the code follows it."""
    number = reasons.reason_to_proto(reason)
    expected = next(code for first, last, code in FAMILIES if first <= number <= last)
    if reason is Reason.REQUEST_ID_REUSED:
        expected = "ALREADY_EXISTS"
    assert expected == code_pb2.Code.Name(errors.code_of(reason))


@pytest.mark.parametrize("reason", Reason)
def test_every_error_carries_error_info_and_never_the_detail(reason: Reason) -> None:
    """ErrorInfo is in each answer, with our domain and the request id; `detail` is in none."""
    status = _stock(Refusal(reason, "public sentence", detail="inner-detail"))
    info = _detail(status, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.domain, dict(info.metadata)) == ("leasehold.dev", {"request_id": REQUEST_ID})
    assert info.reason == ("IDENTITY_REJECTED" if reason in IDENTITY_REASONS else reason.value)
    assert b"inner-detail" not in status.SerializeToString()


def test_identity_reasons_are_one_answer() -> None:
    """All identity failures serialise to the same bytes, whatever they say and offer."""
    answers = {
        errors.rpc_status(
            Refusal(reason, f"sentence {reason}", "d", 1.5, (Violation("a", "b"),)), REQUEST_ID
        ).SerializeToString(deterministic=True)
        for reason in IDENTITY_REASONS
    }
    assert len(answers) == 1


def test_a_spent_budget_is_named_and_the_wait_is_exact() -> None:
    """QuotaFailure names the budget, RetryInfo says how long; without a wait there is no RetryInfo."""
    violation = Violation("subject/day", "5000000 of 5000000 micro-USD are spent")
    status = _stock(Refusal(Reason.BUDGET_EXHAUSTED, "spent", "", 61.25, (violation,)))
    quota = _detail(status, error_details_pb2.QuotaFailure)
    retry = _detail(status, error_details_pb2.RetryInfo)
    assert isinstance(quota, error_details_pb2.QuotaFailure)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert [("subject/day", violation.description)] == [(v.subject, v.description) for v in quota.violations]
    assert retry.retry_delay.ToMilliseconds() == 61_250
    assert _detail(_stock(Refusal(Reason.BUDGET_EXHAUSTED, "spent")), error_details_pb2.RetryInfo) is None


def test_a_wrong_field_is_named() -> None:
    """BadRequest names the field."""
    status = _stock(Refusal(Reason.FIELD_INVALID, "ttl: no", violations=(Violation("ttl", "no"),)))
    bad = _detail(status, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [("ttl", "no")]


@given(
    st.text(max_size=3000),
    st.lists(st.tuples(st.text(max_size=300), st.text(max_size=1000)), max_size=40),
    st.one_of(st.none(), st.floats(-1e9, 1e12)),
)
def test_a_status_is_always_small_and_printable(
    message: str, violations: list[tuple[str, str]], retry: float | None
) -> None:
    """Whatever a refusal quotes, the trailer stays within what clients read, in printable UTF-8."""
    refusal = Refusal(Reason.FIELD_INVALID, message, "", retry, tuple(Violation(*pair) for pair in violations))
    status = errors.rpc_status(refusal, REQUEST_ID)
    assert status.ByteSize() <= STATUS_BYTES_MAX
    assert len(status.message.encode()) <= errors.MESSAGE_BYTES_MAX
    assert status.message.isprintable()


def test_our_own_failure_names_nothing_but_the_request() -> None:
    """INTERNAL carries the request id to ask about."""
    status = status_pb2.Status.FromString(errors.internal_status(REQUEST_ID).SerializeToString())
    assert status.code == code_pb2.Code.INTERNAL
    assert REQUEST_ID in status.message
