"""Bad input, over real sockets: each a clear refusal with an audit event, nothing sent upstream, nothing charged."""

import http.client
import json
import time
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
import pytest

from leasehold import Scope
from leasehold.errors import from_rpc_error
from leasehold.v1 import lease_service_pb2 as service
from leasehold.v1 import lease_service_pb2_grpc as stubs
from leasehold.v1 import types_pb2 as kinds
from leasehold_broker.demo.issuer import Issuer

pytestmark = [pytest.mark.timeout(120)]
CLAUDE = "claude-haiku-5-5"
SECONDS_MAX = 20


def audited(house, request_id):
    """The denied event of a request, once the collector has it."""
    deadline = time.monotonic() + SECONDS_MAX
    with house.operator() as operator:
        while time.monotonic() < deadline:
            for record in operator.events(stream="sidecar-a", outcome="denied"):
                event = record.event()
                if event.get("request_id") == request_id:
                    return event
            time.sleep(0.05)
    pytest.fail(f"no event of request {request_id}")


@pytest.fixture(scope="module")
def stub(house):
    """The lease door, without our client's own checks."""
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(house.stage.sidecar_target("sidecar-a"), options) as channel:
        yield stubs.LeaseServiceStub(channel)


def mint(house, subject="agents/research/lead", audience="leasehold", seconds=300, **claims):
    """A workload token."""
    return house.stage.issuer.mint(subject, audience, {"environment": "demo", **claims}, seconds)


def foreign(house):
    """A token that says it is of our issuer, signed with another key."""
    stranger = Issuer()
    stranger.url = house.stage.issuer.url
    return stranger.mint("agents/research/lead", "leasehold", {"environment": "demo"})


def acquire(stub, token, **changes):
    """Acquire with what would be granted, but for the changes; the error."""
    asked = {"request_id": str(uuid4()), "scopes": [kinds.Scope(provider="anthropic")], **changes}
    metadata = [("leasehold", "1"), ("authorization", f"Bearer {token}")]
    with pytest.raises(grpc.RpcError) as refused:
        stub.AcquireLease(service.AcquireLeaseRequest(**asked), metadata=metadata, timeout=60)
    return refused.value


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda house: mint(house, seconds=-600), "JWT_EXPIRED"),
        (lambda house: mint(house, audience="leasehold-collector"), "AUDIENCE_MISMATCH"),
        (lambda house: mint(house, nbf=int(time.time()) + 600), "JWT_NOT_YET_VALID"),
        (lambda house: mint(house, seconds=30 * 24 * 3600), "JWT_LIFETIME_TOO_LONG"),
        (lambda house: mint(house, iss="https://elsewhere.example"), "ISSUER_NOT_TRUSTED"),
        (foreign, "JWT_BAD_SIGNATURE"),
        (lambda _house: "a.b.c", "JWT_MALFORMED"),
    ],
    ids=["expired", "audience", "early", "long", "issuer", "foreign", "malformed"],
)
def test_bad_tokens_get_one_answer_and_an_exact_event(house, stub, token, reason):
    """The caller learns that the token was not accepted; the audit log says why."""
    error = from_rpc_error(acquire(stub, token(house)), "the sidecar")

    assert error.reason == "IDENTITY_REJECTED"
    assert audited(house, error.request_id)["reason"] == reason


def limit(metric, amount):
    """One cap."""
    return kinds.Limit(metric=metric, amount=amount)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scopes": [kinds.Scope(provider="anthropic", models=["claude-opus-5-5"])]}, "MODEL_NOT_ALLOWED"),
        ({"scopes": [kinds.Scope(provider="mistral")]}, ("FIELD_INVALID", "SCOPE_EXCEEDED")),
        ({"scopes": []}, "FIELD_INVALID"),
        ({"limits": [limit(kinds.METRIC_COST_MICRO_USD, 0)]}, "FIELD_INVALID"),
        ({"limits": [limit(kinds.METRIC_COST_MICRO_USD, -1)]}, "FIELD_INVALID"),
        ({"limits": [limit(kinds.METRIC_COST_MICRO_USD, 2**62)]}, ("FIELD_INVALID", "SCOPE_EXCEEDED")),
        ({"limits": [limit(kinds.METRIC_COST_MICRO_USD, 100_001)]}, "SCOPE_EXCEEDED"),
        ({"ttl": {"seconds": 0}}, "FIELD_INVALID"),
        ({"ttl": {"seconds": -5}}, "FIELD_INVALID"),
        ({"ttl": {"seconds": 10**9}}, ("FIELD_INVALID", "SCOPE_EXCEEDED")),
        ({"mode": kinds.MODE_DISCLOSED}, "DISCLOSURE_NOT_ALLOWED"),
        ({"request_id": "not-a-uuid"}, "FIELD_INVALID"),
    ],
)
def test_bad_wishes_are_refused(house, stub, changes, reason):
    """More than the grant, and what no grant could mean: refused by name, and audited."""
    error = from_rpc_error(acquire(stub, mint(house), **changes), "the sidecar")

    assert error.reason in reason
    assert audited(house, error.request_id)["reason"] == error.reason


def test_strangers_get_nothing(house, stub):
    """A subject without a grant, and an identity of another environment, are refused."""
    nobody = from_rpc_error(acquire(stub, mint(house, subject="agents/unknown")), "the sidecar")
    elsewhere = from_rpc_error(acquire(stub, mint(house, environment="prod")), "the sidecar")

    assert nobody.reason == elsewhere.reason == "POLICY_DENIED"
    assert audited(house, nobody.request_id)["subject"]["subject"] == "agents/unknown"
    assert audited(house, elsewhere.request_id)["subject"]["labels"]["environment"] == "prod"


@pytest.mark.parametrize("attempt", ["Get", "Watch", "Renew", "Release", "Delegate"])
def test_another_agent_s_lease_does_not_exist(house, stub, lease, attempt):
    """Whatever is tried with another subject's lease: there is none, the log says who tried, and it costs nothing."""
    named = {"parent": lease.name} if attempt == "Delegate" else {"name": lease.name}
    if attempt in {"Renew", "Delegate"}:
        named["request_id"] = str(uuid4())
    request = getattr(service, f"{attempt}LeaseRequest")(**named)
    metadata = [("leasehold", "1"), ("authorization", f"Bearer {mint(house, subject='agents/research/other')}")]
    call = getattr(stub, f"{attempt}Lease")
    with pytest.raises(grpc.RpcError) as refused:
        next(call(request, metadata=metadata, timeout=20))  # only a watch has a next: the others raise before
    error = from_rpc_error(refused.value, "the sidecar")

    assert error.reason == "LEASE_NOT_FOUND"
    assert audited(house, error.request_id)["subject"]["subject"] == "agents/research/other"
    assert lease.usage()[0].settled == 0
    assert not lease.lost.is_set()


@pytest.fixture(scope="module")
def lease(house):
    """A lease for Anthropic, one tenth of a cent."""
    with house.client() as client, client.acquire(scopes=[Scope("anthropic")], budget="0.001", ttl="5m") as lease:
        yield lease


BODY = {"model": CLAUDE, "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}
LONG = {**BODY, "messages": [{"role": "user", "content": "Hi " * 5000}]}
JSON = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
TWICE = f'{{"model": "{CLAUDE}", "model": "claude-opus-5-5", "max_tokens": 20, "messages": []}}'
MESSAGES = "/anthropic/v1/messages"


def case(status, reason, path=MESSAGES, method="POST", body=None, **headers):
    """One bad request, and what is due."""
    content = json.dumps(BODY).encode() if body is None else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return method, path, {**JSON, **named}, content, status, reason


CASES = {
    "unknown route": case(403, "ROUTE_NOT_ALLOWED", "/anthropic/v1/files"),
    "unknown provider": case(403, "ROUTE_NOT_ALLOWED", "/acme/v1/chat/completions"),
    "climbing path": case(403, "ROUTE_NOT_ALLOWED", "/anthropic/v1/../v1/messages"),
    "encoded path": case(403, "ROUTE_NOT_ALLOWED", "/anthropic/v1/%6dessages"),
    "method": case(403, "ROUTE_NOT_ALLOWED", method="PUT"),
    "provider not leased": case(403, "SCOPE_EXCEEDED", "/openai/v1/chat/completions"),
    "unknown model": case(403, "MODEL_NOT_ALLOWED", body=json.dumps({**BODY, "model": "claude-next"}).encode()),
    "header of another payer": case(400, "HEADER_NOT_ALLOWED", anthropic_workspace_id="w"),
    "beta with a price": case(400, "HEADER_NOT_ALLOWED", anthropic_beta="context-1m-2025-08-07"),
    "two credentials": case(400, "HEADER_NOT_ALLOWED", authorization="Bearer other"),
    "content type": case(415, "CONTENT_TYPE_NOT_ALLOWED", content_type="text/plain"),
    "content encoding": case(415, "CONTENT_TYPE_NOT_ALLOWED", content_encoding="gzip"),
    "no JSON": case(400, "BODY_INVALID", body=b"{"),
    "duplicate keys": case(400, "BODY_INVALID", body=TWICE.encode()),
    "not UTF-8": case(400, "BODY_INVALID", body=b'{"model": "\xff"}'),
    "unknown field": case(400, "BODY_INVALID", body=json.dumps({**BODY, "discount": 1}).encode()),
    "negative limit": case(400, "BODY_INVALID", body=json.dumps({**BODY, "max_tokens": -1}).encode()),
    "limit above the scope": case(403, "SCOPE_EXCEEDED", body=json.dumps({**BODY, "max_tokens": 9000}).encode()),
    "input above the budget": case(402, "BUDGET_EXHAUSTED", body=json.dumps(LONG).encode()),
    "oversized body": case(413, "BODY_TOO_LARGE", body=b" " * (9 * 1024 * 1024)),
    "no lease": case(401, "LEASE_UNKNOWN", x_api_key="sk-ant-api03-something"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_calls_are_refused_and_cost_nothing(house, lease, name):
    """Status, reason and who refused in the answer; an event in the log; nothing at the provider; nothing spent."""
    method, path, headers, body, status, reason = CASES[name]
    before = len(house.served())
    address = urlsplit(lease.endpoint("anthropic").base_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for header, value in {"x-api-key": lease.token.reveal(), **headers, "content-length": str(len(body))}.items():
            connection.putheader(header, value)
        connection.endheaders()
        if len(body) < 1024 * 1024:
            connection.send(body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()

    assert (status, reason) == (answer.status, answer.headers["leasehold-reason"]), content
    assert answer.headers["leasehold-refused-by"] == "leasehold"
    assert json.loads(content)
    assert lease.token.reveal().encode() not in content
    assert audited(house, answer.headers["leasehold-request-id"])["reason"] == reason
    assert len(house.served()) == before
    assert next(usage for usage in lease.usage() if usage.budget == "lease").settled == 0
