"""Lease requests are read strictly; leases are shown with the time left."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.fakes.lease_flows import a_lease

from leasehold.v1 import lease_service_pb2, types_pb2
from leasehold_broker.domain.amounts import AMOUNT_MAX, UNLIMITED, Amounts, Metric
from leasehold_broker.domain.budget_usage import BudgetUsage
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.lease import TTL_SECONDS_MAX, LeaseState, Mode
from leasehold_broker.domain.policy import LeaseRequest
from leasehold_broker.domain.reasons import Reason, Refusal, Violation
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.wire import fields, leases

UUID = "0b3f2a9e-7c55-4e52-9d0f-3a8f0f3c1a11"
NOW = Instant(wall_ms=1_790_000_000_250, boot_ns=5_000 * NANOS)
ANTHROPIC = types_pb2.Scope(provider="anthropic")


def _acquire(**changes: Any) -> lease_service_pb2.AcquireLeaseRequest:
    return lease_service_pb2.AcquireLeaseRequest(**({"request_id": UUID, "scopes": [ANTHROPIC]} | changes))


def _limit(metric: int, amount: int) -> types_pb2.Limit:
    return types_pb2.Limit(metric=types_pb2.Metric.ValueType(metric), amount=amount)


def _scope(**changes: Any) -> types_pb2.Scope:
    return types_pb2.Scope(**({"provider": "anthropic"} | changes))


def test_a_full_request_is_read_whole() -> None:
    """Every field finds its place."""
    request = _acquire(
        scopes=[
            _scope(
                models=["claude-*", "*"], operations=["messages"], tools=["web_search"], max_output_tokens_per_request=9
            ),
            _scope(provider="openai", models=["ft:gpt-4o:org::id/1@x+y"]),
        ],
        limits=[_limit(types_pb2.METRIC_COST_MICRO_USD, 1), _limit(types_pb2.METRIC_CONCURRENCY, AMOUNT_MAX)],
        ttl=Duration(seconds=TTL_SECONDS_MAX),
        mode=types_pb2.MODE_MINTED,
        purpose="Prüfung der Bücher",
        labels={"team/x": "a b", "run": ""},
    )
    expected = LeaseRequest(
        (
            Scope("anthropic", "", ("claude-*", "*"), ("messages",), ("web_search",), 9),
            Scope("openai", "", ("ft:gpt-4o:org::id/1@x+y",)),
        ),
        Amounts(1, UNLIMITED, UNLIMITED, UNLIMITED, AMOUNT_MAX),
        TTL_SECONDS_MAX,
        Mode.MINTED,
        "Prüfung der Bücher",
        {"run": "", "team/x": "a b"},
    )
    assert expected == leases.acquire_request(request)


def test_what_is_left_out_is_the_contracts_default() -> None:
    """No limits: unlimited here (the grant's ceiling later); no ttl: None; no mode: brokered."""
    read = leases.acquire_request(_acquire())
    assert (Amounts(*[UNLIMITED] * 5), None, Mode.BROKERED) == (read.caps, read.ttl_seconds, read.mode)


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("scopes", {"scopes": []}),
    ("scopes", {"scopes": [ANTHROPIC, _scope(provider="openai"), ANTHROPIC]}),
    ("scopes", {"scopes": [_scope(provider=f"p{number}") for number in range(17)]}),
    ("scopes[0].provider", {"scopes": [_scope(provider="")]}),
    ("scopes[1].provider", {"scopes": [ANTHROPIC, _scope(provider="Open AI")]}),
    ("scopes[0].key", {"scopes": [_scope(key="anthropic-prod")]}),
    ("scopes[0].models", {"scopes": [_scope(models=[""])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["a*b"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["**"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["*a"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["a\n"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["a b"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["mödel"])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["x" * 129])]}),
    ("scopes[0].models", {"scopes": [_scope(models=["x"] * 65)]}),
    ("scopes[0].operations", {"scopes": [_scope(operations=["Messages"])]}),
    ("scopes[0].tools", {"scopes": [_scope(tools=["web search"])]}),
    ("scopes[0].max_output_tokens_per_request", {"scopes": [_scope(max_output_tokens_per_request=-1)]}),
    ("scopes[0].max_output_tokens_per_request", {"scopes": [_scope(max_output_tokens_per_request=2**62)]}),
    ("limits[0].metric", {"limits": [_limit(0, 5)]}),
    ("limits[0].metric", {"limits": [_limit(99, 5)]}),
    ("limits[1].metric", {"limits": [_limit(1, 5), _limit(1, 5)]}),
    ("limits[0].amount", {"limits": [_limit(1, 0)]}),
    ("limits[0].amount", {"limits": [_limit(1, -5)]}),
    ("limits[0].amount", {"limits": [_limit(1, AMOUNT_MAX + 1)]}),
    ("ttl", {"ttl": Duration()}),
    ("ttl", {"ttl": Duration(seconds=-1)}),
    ("ttl", {"ttl": Duration(nanos=1)}),
    ("ttl", {"ttl": Duration(seconds=5, nanos=500_000_000)}),
    ("ttl", {"ttl": Duration(seconds=TTL_SECONDS_MAX + 1)}),
    ("ttl", {"ttl": Duration(seconds=2**60)}),
    ("mode", {"mode": 77}),
    ("purpose", {"purpose": "x" * 257}),
    ("purpose", {"purpose": "two\nlines"}),
    ("purpose", {"purpose": "right\u202eleft"}),
    ("labels", {"labels": {f"k{number}": "" for number in range(17)}}),
    ("labels", {"labels": {"Key": "v"}}),
    ("labels", {"labels": {"": "v"}}),
    ("labels[k]", {"labels": {"k": "\x1b[31m"}}),
    ("labels[k]", {"labels": {"k": "x" * 257}}),
]


@pytest.mark.parametrize(("field", "changes"), WRONG)
def test_a_wrong_field_is_refused_by_its_name(field: str, changes: dict[str, Any]) -> None:
    """Each absurd value is FIELD_INVALID and names its field."""
    with pytest.raises(Refusal) as caught:
        leases.acquire_request(_acquire(**changes))
    assert (Reason.FIELD_INVALID, field) == (caught.value.reason, caught.value.violations[0].subject)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("place", ["top", "inside"])
def test_fields_of_a_newer_contract_are_refused(place: str) -> None:
    """A restriction that we do not know must not be dropped in silence, at any depth."""
    unknown = b"\xfa\x3f\x03abc"
    scope = ANTHROPIC.SerializeToString() + (unknown if place == "inside" else b"")
    raw = b"\x12" + bytes([len(scope)]) + scope + (unknown if place == "top" else b"")
    with pytest.raises(Refusal) as caught:
        leases.acquire_request(lease_service_pb2.AcquireLeaseRequest.FromString(raw))
    assert Reason.FIELD_INVALID is caught.value.reason


@pytest.mark.parametrize(
    "text", ["", "x", UUID.upper(), "{" + UUID + "}", UUID.replace("-", ""), UUID + "\n", "urn:uuid:" + UUID]
)
def test_a_request_id_must_be_a_canonical_uuid(text: str) -> None:
    """One id has one spelling: otherwise the same id could be two."""
    with pytest.raises(Refusal):
        fields.request_id(text)
    assert fields.request_id(UUID) == UUID


@pytest.mark.parametrize("text", ["", "leases/", "lhs_" + "a" * 49, "leases/a/b", "leases/" + "a" * 65, "leases/ä"])
def test_a_wrong_lease_name_is_refused_without_quoting_it(text: str) -> None:
    """A token that was mistaken for a name does not come back in an error."""
    with pytest.raises(Refusal) as caught:
        fields.lease_name("name", text)
    if text:
        assert text not in caught.value.message.replace("leases/<id>", "")


def test_revocation_names() -> None:
    """A revocation's name is its epoch."""
    assert fields.revocation_epoch("name", "revocations/17") == 17
    for text in ("revocations/0", "revocations/-1", "revocations/", "17", "revocations/01"):
        with pytest.raises(Refusal):
            fields.revocation_epoch("name", text)


@pytest.mark.parametrize(("stated", "used"), [(0, 50), (1, 1), (500, 500), (501, 500), (2**31 - 1, 500)])
def test_page_sizes_are_coerced(stated: int, used: int) -> None:
    """Unstated is 50, too large is 500."""
    assert used == fields.page_size(stated)


def test_absurd_pages_are_refused() -> None:
    """A negative size and a token that we never gave out are refused."""
    for absurd in (lambda: fields.page_size(-1), lambda: fields.page_token("x" * 513), lambda: fields.page_token("\n")):
        with pytest.raises(Refusal):
            absurd()


def test_delegation_is_read() -> None:
    """No scopes means the parent's; the binding is read as a lease states it; it is always brokered."""
    digest = "ab" * 32
    request = lease_service_pb2.DelegateLeaseRequest(ttl=Duration(seconds=5))
    assert LeaseRequest((), Amounts(*[UNLIMITED] * 5), 5, Mode.BROKERED) == leases.delegate_request(request)
    assert leases.delegate_binding(request) is None
    request.binding.uid = 0
    assert leases.delegate_binding(request) == "uid:0"
    request.binding.certificate_sha256 = digest
    assert f"cert:{digest}" == leases.delegate_binding(request)


@pytest.mark.parametrize(
    "binding",
    [
        types_pb2.PeerBinding(),
        types_pb2.PeerBinding(uid=-1),
        types_pb2.PeerBinding(uid=2**32 - 1),
        types_pb2.PeerBinding(certificate_sha256="AB" * 32),
        types_pb2.PeerBinding(certificate_sha256="ab"),
    ],
)
def test_an_absurd_binding_is_refused(binding: types_pb2.PeerBinding) -> None:
    """Nobody, or somebody impossible, is not a peer."""
    with pytest.raises(Refusal):
        leases.delegate_binding(lease_service_pb2.DelegateLeaseRequest(binding=binding))


def test_the_expected_renew_count() -> None:
    """Absent is None, zero is zero, negative is refused."""
    message = lease_service_pb2.RenewLeaseRequest
    assert leases.expected_renew_count(message()) is None
    assert leases.expected_renew_count(message(expected_renew_count=0)) == 0
    with pytest.raises(Refusal):
        leases.expected_renew_count(message(expected_renew_count=-1))


IDENTITY = Identity(Subject("https://i", "agent", {"environment": "test"}), {}, "", 0)


def test_a_lease_is_shown_whole() -> None:
    """Caps that are not set are not shown; the time left is counted on the boot clock; usage has its reset."""
    request = LeaseRequest((Scope("openai", "", ("gpt-*",)),), Amounts(7, *[UNLIMITED] * 4), 60, Mode.BROKERED)
    lease = a_lease("leases/a", IDENTITY, Peer(1000), request, NOW)
    later = Instant(NOW.wall_ms - 3_600_000, NOW.boot_ns + 10 * NANOS + 1)
    row = BudgetUsage("key/month", Metric.COST_MICRO_USD, 9, 1, 2, 6, 1_790_000_001_001)
    shown = leases.lease_to_proto(lease, later, [row, replace(row, reset_wall_ms=0)], 22.5)
    assert [(limit.metric, limit.amount) for limit in shown.limits] == [(types_pb2.METRIC_COST_MICRO_USD, 7)]
    assert shown.ttl.ToNanoseconds() == 50 * NANOS - 1
    assert shown.renew_after.ToMilliseconds() == 22_500
    assert NOW.wall_ms + 60_000 == shown.expire_time.ToMilliseconds()
    assert shown.binding.uid == 1000
    assert (
        shown.scopes[0].provider,
        shown.scopes[0].key,
        list(shown.scopes[0].models),
    ) == ("openai", "key-a", ["gpt-*"])
    assert shown.usage[0].reset_time.ToMilliseconds() == 1_790_000_001_001
    assert not shown.usage[1].HasField("reset_time")
    assert shown.state_reason == types_pb2.REASON_UNSPECIFIED


def test_a_dead_lease_has_no_time_left() -> None:
    """Ended or past its end: zero, never negative."""
    request = LeaseRequest((), Amounts(*[UNLIMITED] * 5), 60, Mode.BROKERED)
    lease = replace(a_lease("leases/a", IDENTITY, Peer(None, "cd" * 32), request, NOW), binding="cert:" + "cd" * 32)
    late = Instant(NOW.wall_ms, NOW.boot_ns + 100 * NANOS)
    assert leases.lease_to_proto(lease, late, (), 0.0).ttl.ToNanoseconds() == 0
    ended = lease.end(LeaseState.REVOKED, Reason.LEASE_REVOKED, NOW)
    shown = leases.lease_to_proto(ended, NOW, (), 0.0)
    assert (shown.ttl.ToNanoseconds(), shown.state) == (0, types_pb2.LEASE_STATE_REVOKED)
    assert shown.state_reason == types_pb2.REASON_LEASE_REVOKED
    assert shown.binding.certificate_sha256 == "cd" * 32


def test_a_secret_in_the_callers_own_words_is_refused_and_not_repeated() -> None:
    """A purpose or a label is kept in the audit log for good."""
    secret = "sk-" + "ant-api03-planted1planted2"
    for changes in ({"purpose": f"try {secret}"}, {"labels": {"team": secret}}):
        with pytest.raises(Refusal, match="leave that out") as refused:
            leases.acquire_request(_acquire(**changes))
        assert secret not in str(refused.value)


def test_a_refusal_never_carries_a_secret() -> None:
    """Whatever a sentence quotes from a request."""
    secret = "sk-" + "ant-api03-planted1planted2"
    refusal = Refusal(Reason.BODY_INVALID, f"no model {secret}", f"was {secret}", None, (Violation(secret, secret),))
    assert secret not in f"{refusal!s} {refusal!r}"
