"""Each provider's exchange against endpoints that check the workload token; the official SDKs check the endpoints."""

import base64
import json
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, unquote

import pytest
from anthropic.lib.credentials import exchange_federation_assertion
from botocore import UNSIGNED
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.client import Config
from botocore.credentials import Credentials
from botocore.session import get_session
from google.auth import identity_pool
from google.auth.transport.requests import Request
from openai.auth._workload import WorkloadIdentityAuth
from tests.fakes.token_services import RefusedError
from tests.federation.conftest import ACCOUNT, POOL, ROLE, RULES, exchanges, workload_token

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.token_endpoints import HttpTokenEndpoints
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.token_exchange import ExchangeFault, ExchangeState, MintRequest, TokenAnswer
from leasehold_broker.providers.exchanges import aws
from leasehold_broker.providers.exchanges.google import GoogleExchange

KINDS = sorted(exchanges(""))


def wanted(models=(), life=None) -> MintRequest:
    """What a call wants."""
    return MintRequest(models, life, int(time.time() * 1000))


async def mint(endpoints, services, kind, token=None, **more):
    """One exchange of this kind."""
    exchange, audience = exchanges(services.origin)[kind]
    assertion = Secret((token or workload_token(audience)).encode())
    return await endpoints.carry(exchange.exchange(assertion, wanted(**more)))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_for_a_token(endpoints, services, kind):
    """A good workload token gives a token that the provider takes, and its life."""
    minted = await mint(endpoints, services, kind)
    assert 1 <= minted.life_seconds <= 3600
    if kind != "aws":
        assert services.accepts(minted.token.reveal().decode())
    assert minted.token.reveal().decode() not in repr(minted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [{"exp": 5}, {"sub": "somebody-else"}, {"iss": "https://other.test"}, {"nbf": 4e9}])
async def test_a_workload_token_that_is_refused(endpoints, services, kind, wrong):
    """Run out, another subject or issuer, not valid yet: REFUSED; what the endpoint echoes is not passed on."""
    _, audience = exchanges(services.origin)[kind]
    with pytest.raises(ExchangeFault) as caught:
        await mint(endpoints, services, kind, workload_token(audience, **wrong))
    assert caught.value.state is ExchangeState.REFUSED
    assert "eyJ" not in str(caught.value)
    assert "echo" not in str(caught.value)
    assert services.minted == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_archived_rule_mints_nothing(endpoints, services, kind):
    """Revoked at the provider: REFUSED from then on."""
    for rule in services.rules.values():
        rule.archived = True
    with pytest.raises(ExchangeFault) as caught:
        await mint(endpoints, services, kind)
    assert caught.value.state is ExchangeState.REFUSED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("broken", "state"),
    [
        (RefusedError(429, {"error": "rate_limited"}, {"Retry-After": "9"}), ExchangeState.RATE_LIMITED),
        (RefusedError(500, b"<html>sk-PLANTED9x7Qz-echo</html>"), ExchangeState.FAILING),
        (RefusedError(503, {"error": "sk-PLANTED9x7Qz-echo"}), ExchangeState.FAILING),
        (RefusedError(307, b"", {"Location": "http://attacker.invalid/"}), ExchangeState.MALFORMED),
    ],
)
async def test_endpoints_that_fail(endpoints, services, kind, broken, state):
    """Each failure is the state it means; no redirect is followed; Retry-After is passed on."""
    services.broken = broken
    with pytest.raises(ExchangeFault) as caught:
        await mint(endpoints, services, kind)
    assert caught.value.state is state
    assert caught.value.retry_after_seconds == (9.0 if broken.status == 429 else None)
    assert "sk-PLANTED9x7Qz-echo" not in str(caught.value)
    assert len(services.asked) == 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "google"])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b"[" * 100_000,
        b'{"access_token":"sk-PLANTED9x7Qz-echo"}',
        b'{"access_token":"sk-PLANTED9x7Qz-echo","expires_in":0}',
        b'{"access_token":"sk-PLANTED9x7Qz-echo","expires_in":true}',
        b'{"access_token":"sk-PLANTED9x7Qz-echo","expires_in":1e999}',
        b'{"access_token":"sk-PLANTED9x7Qz-echo\\r\\nx-evil: 1","expires_in":60}',
        b'{"access_token":"","expires_in":60}',
        b'{"access_token":"sk-PLANTED9x7Qz-echo","expires_in":60,"token_type":"DPoP"}',
        b'{"access_token":"' + b"x" * 300_000 + b'","expires_in":60}',
    ],
)
async def test_answers_that_are_none(endpoints, services, kind, raw):
    """Not JSON, no token, no life, a header in the token, another token type, too long: no token, nothing shown."""
    services.raw = raw
    with pytest.raises(ExchangeFault) as caught:
        await mint(endpoints, services, kind)
    assert caught.value.state in {ExchangeState.MALFORMED, ExchangeState.UNREACHABLE}
    assert "sk-PLANTED9x7Qz-echo" not in str(caught.value)


async def test_nobody_answers():
    """A closed port is UNREACHABLE; the fault names the origin."""
    origin = "http://127.0.0.1:1"
    exchange, audience = exchanges(origin)["openai"]
    upstream = HttpUpstream([UpstreamOrigin(origin, allow_private=True)])
    with pytest.raises(ExchangeFault, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
        await HttpTokenEndpoints(upstream).carry(exchange.exchange(Secret(workload_token(audience).encode()), wanted()))
    assert caught.value.state is ExchangeState.UNREACHABLE
    await upstream.close()


async def test_a_life_can_be_asked_of_google(endpoints, services):
    """A shorter life than the rule's is asked for, and is what comes."""
    minted = await mint(endpoints, services, "google", life=120)
    assert minted.life_seconds <= 120
    assert services.asked[-1]["lifetime"] == "120s"


def test_google_s_token_may_not_outlive_what_is_promised():
    """An end later than asked for, beyond what clocks may differ, is no token to hand out; for calls it serves."""

    def ended(seconds, life):
        exchanging = GoogleExchange(POOL, ACCOUNT).exchange(Secret(b"a.b.c"), wanted(life=life))
        next(exchanging)
        exchanging.send(TokenAnswer(200, {}, b'{"access_token":"federated","expires_in":3600}'))
        end = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
        with pytest.raises(StopIteration) as caught:
            exchanging.send(TokenAnswer(200, {}, json.dumps({"accessToken": "t", "expireTime": end}).encode()))
        return caught.value.value.life_seconds

    assert ended(290, 300) <= 290
    assert ended(340, 300) == 300
    with pytest.raises(ExchangeFault, match="lives longer than was asked for"):
        ended(3600, 300)
    assert ended(3600, None) == 900


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        ("0001-01-01T00:00:00", ExchangeFault),
        ("2020-01-01T00:00:00Z", ExchangeFault),
        ("9999-12-31T23:59:59", StopIteration),
        ("soon", StopIteration),
    ],
)
def test_an_end_that_aws_does_not_give(end, raised):
    """Long ago, also without a zone: a fault. Too late, or none: a session of the length that was asked for."""
    exchanging = aws.BedrockExchange(ROLE, "eu-central-1").exchange(Secret(b"a.b.c"), wanted())
    next(exchanging)
    fields = {"AccessKeyId": "A", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": end}
    body = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    with pytest.raises(raised) as caught:
        exchanging.send(TokenAnswer(200, {}, body.encode()))
    told = caught.value
    told = told.value.life_seconds if isinstance(told, StopIteration) else told.state
    assert told == (ExchangeState.MALFORMED if raised is ExchangeFault else aws.SESSION_SECONDS_MIN)


async def test_anthropic_tokens_end_with_their_assertion(endpoints, services):
    """A workload token with 40 seconds left gives a token of twice that at most."""
    token = workload_token(RULES["fdrl_1"], exp=int(time.time()) + 40)
    assert (await mint(endpoints, services, "anthropic", token)).life_seconds <= 80


async def test_bedrock_sessions_are_narrowed(endpoints, services):
    """The session policy names the lease's models and nothing else; without models, any model but no other service."""
    await mint(endpoints, services, "aws", models=("anthropic.claude-*", "amazon.nova-lite-v1:0"))
    policy = json.loads(services.asked[-1]["Policy"])
    invoke, bearer = policy["Statement"]
    assert invoke["Resource"] == [
        "arn:aws:bedrock:*::foundation-model/anthropic.claude-*",
        "arn:aws:bedrock:eu-central-1:*:inference-profile/*anthropic.claude-*",
        "arn:aws:bedrock:*::foundation-model/amazon.nova-lite-v1:0",
        "arn:aws:bedrock:eu-central-1:*:inference-profile/*amazon.nova-lite-v1:0",
    ]
    assert bearer["Action"] == "bedrock:CallWithBearerToken"
    with pytest.raises(ExchangeFault, match="too long for AWS"):
        await mint(endpoints, services, "aws", models=tuple(f"model-number-{n}" for n in range(64)))


def test_the_bedrock_key_is_what_aws_signs(monkeypatch):
    """botocore, given the same session and second, presigns the same call: the key is that URL in base64."""
    at = 1_795_000_000
    session = aws.Session("ASIAEXAMPLEEXAMPLE00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "Fwo+/==", None)
    key = aws.short_term_key(session, "eu-central-1", 900, at * 1000).reveal()
    ours = base64.b64decode(key.removeprefix(b"bedrock-api-key-")).decode()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    request = AWSRequest(
        "POST",
        "https://bedrock.amazonaws.com/",
        {"host": "bedrock.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    credentials = Credentials(session.access_key_id, session.secret_access_key, session.session_token)
    signer = SigV4QueryAuth(credentials, "bedrock", "eu-central-1", expires=900)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(at, UTC))
    signer.add_auth(request)
    theirs = parse_qs(request.url.partition("?")[2])
    assert stamp in ours
    assert parse_qs(unquote(ours).partition("?")[2])["Version"] == ["1"]
    assert parse_qs(ours.partition("?")[2]) == {**theirs, "Version": ["1"]}


# The endpoints, checked by the SDKs' own exchange code.


def test_the_anthropic_sdk_agrees(services):
    """Anthropic's SDK gets a token from the same endpoint, and its refusal is the SDK's error."""
    assertion = workload_token(RULES["fdrl_1"])
    found = exchange_federation_assertion(
        assertion=assertion, federation_rule_id="fdrl_1", organization_id="org", base_url=services.origin
    )
    assert services.accepts(found.token)


def test_the_openai_sdk_agrees(services):
    """OpenAI's SDK gets a token from the same endpoint."""
    identity = {
        "identity_provider_id": "idp_1",
        "service_account_id": "svc_1",
        "provider": {"token_type": "jwt", "get_token": lambda: workload_token(RULES["idp_1/svc_1"])},
    }
    auth = WorkloadIdentityAuth(workload_identity=identity, token_exchange_url=f"{services.origin}/oauth/token")
    assert services.accepts(auth.get_token())


def test_google_auth_agrees(services, tmp_path):
    """Google's library gets a token by federation and impersonation from the same endpoints."""
    (tmp_path / "token").write_text(workload_token(POOL))
    credentials = identity_pool.Credentials(
        audience=POOL,
        subject_token_type="urn:ietf:params:oauth:token-type:jwt",
        token_url=f"{services.origin}/v1/token",
        service_account_impersonation_url=(
            f"{services.origin}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
        ),
        credential_source={"file": str(tmp_path / "token")},
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
    )
    credentials.refresh(Request())
    assert services.accepts(credentials.token)


def test_botocore_agrees(services):
    """AWS's library reads the same XML as a session, and the same error as its own."""
    client = get_session().create_client(
        "sts",
        "eu-central-1",
        endpoint_url=services.origin,
        config=Config(signature_version=UNSIGNED),
    )
    session = client.assume_role_with_web_identity(
        RoleArn=ROLE, RoleSessionName="tests", WebIdentityToken=workload_token(RULES[ROLE]), DurationSeconds=900
    )
    assert session["Credentials"]["AccessKeyId"] == "ASIAEXAMPLEEXAMPLE00"
    with pytest.raises(client.exceptions.InvalidIdentityTokenException):
        client.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="tests", WebIdentityToken="a.b.c")


async def test_our_exchange_works_at_moto(moto_address):
    """The exchange with AWS goes through at moto's STS as well."""
    upstream = HttpUpstream([UpstreamOrigin(moto_address, allow_private=True)])
    exchange = aws.BedrockExchange(ROLE, "eu-central-1", sts_origin=moto_address)
    minted = await HttpTokenEndpoints(upstream).carry(exchange.exchange(Secret(b"a.b.c"), wanted()))
    await upstream.close()
    assert minted.token.reveal().startswith(b"bedrock-api-key-")
