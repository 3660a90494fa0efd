"""A real sidecar that holds no key: its calls carry tokens that were minted for them."""

import contextlib
import http.client
import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.fakes.planted import MARKER, planted
from tests.fakes.token_services import Rule
from tests.federation.conftest import RULES, workload_token
from tests.processes.tokens import ISSUER, token

from leasehold import LeaseholdClient
from leasehold.http import anthropic_kwargs, openai_kwargs

pytestmark = [pytest.mark.timeout(120)]


@pytest.fixture
def provider(services):
    """Anthropic's API, for tokens that its own endpoint minted; remembers headers."""
    seen = []

    class Messages(BaseHTTPRequestHandler):
        """Answers messages."""

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            """One message."""
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(dict(self.headers))
            good = services.accepts(self.headers.get("Authorization", "").removeprefix("Bearer "))
            usage = {"input_tokens": 3, "output_tokens": 2}
            answer = {"type": "message", "role": "assistant", "content": [], "usage": usage, "stop_reason": "end_turn"}
            body = json.dumps(answer if good else {"type": "error"}).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Messages)
    threading.Thread(target=server.serve_forever, args=(0.02,), name="messages").start()
    yield server.server_port, seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def sidecar(services, provider):
    """It, running, with a token of its own to exchange."""
    with prepared(services, provider, 'token_file = "workload"') as own, own.running():
        yield own


@pytest.fixture
def agents_own(services, provider):
    """One that has no token to exchange but the agent's; the provider's rule trusts the agent's issuer."""
    services.rules["fdrl_1"] = Rule(ec_key("process").public_key(), "leasehold", ISSUER, "agent")
    with prepared(services, provider, 'exchanges = "agent"') as own:
        yield own


@contextlib.contextmanager
def prepared(services, provider, exchanged):
    """The files of a sidecar."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        (root / "workload").write_text(workload_token(RULES["fdrl_1"]))
        issuers = f"""
[[issuers]]
name = "test"
kind = "oidc"
issuer = "{ISSUER}"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"
labels = {{ environment = {{ fixed = "test" }} }}
"""
        more = f"""
[logging]
level = "debug"
[providers.anthropic]
origin = "http://127.0.0.1:{provider[0]}"
allow_private = true
[[keys.federated]]
name = "anthropic-wif"
provider = "anthropic"
environment = "test"
{exchanged}
rule = {{ at = "anthropic", federation_rule_id = "fdrl_1", organization_id = "org", origin = "{services.origin}" }}
"""
        handed = 'modes = ["minted", "disclosed"]\nminted_seconds_max = 600\ndisclosed_keys = ["openai-test"]\nkeys ='
        grants = GRANT.format(name="test", issuer=ISSUER, extra="").replace("openai-test", "anthropic-wif")
        grants = grants.replace('"openai"', '"anthropic"')
        more_grants = GRANT.format(name="handed", issuer=ISSUER, extra="").replace("keys =", handed)
        more_grants = more_grants.replace('["openai-test"]\nttl', '["anthropic-wif", "openai-test"]\nttl')
        more_grants = (
            more_grants.replace("delegation_depth_max = 2", "") + '[[grants.scopes]]\nprovider = "anthropic"\n'
        )
        yield OwnSidecar(root, issuers, grants + more_grants, more=more)


def ask(kwargs: dict, beta: str = "") -> tuple[int, str]:
    """Status and body of one message through the egress."""
    base = urlsplit(kwargs["base_url"])
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=30)
    message = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"x-api-key": kwargs["api_key"], "Content-Type": "application/json"} | (
        {"anthropic-beta": beta} if beta else {}
    )
    connection.request("POST", f"{base.path}/v1/messages", json.dumps(message), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_calls_without_a_key(services, provider, sidecar):
    """Calls share one minted token, sent as OAuth asks; a rule that is archived and a lost token end in a refusal."""
    seen = provider[1]
    with LeaseholdClient(sidecar.target, token()) as client, client.acquire(provider="anthropic", ttl="10m") as lease:
        kwargs = anthropic_kwargs(lease)
        assert [ask(kwargs)[0] for _ in range(3)] == [200, 200, 200]
        assert len({each["authorization"] for each in seen}) == 1
        assert {each["anthropic-beta"] for each in seen} == {"oauth-2025-04-20"}
        assert not [name for each in seen for name in each if name.lower() == "x-api-key"]
        assert len(services.asked) == 1
        event = sidecar.event("key.minted")
        assert event["details"]["key"] == "anthropic-wif"
        assert "cannot be revoked" in event["details"]["revocation"]
        minted = next(iter(services.minted)).encode()
    for file in sidecar.root.rglob("*"):
        if file.is_file():
            assert minted not in file.read_bytes()


def test_a_rule_that_mints_nothing(services, provider, sidecar):
    """The provider refuses our workload token: 503 for the agent, nothing sent, an event that says why."""
    services.rules["fdrl_1"].archived = True
    with LeaseholdClient(sidecar.target, token()) as client, client.acquire(provider="anthropic", ttl="10m") as lease:
        status, body = ask(anthropic_kwargs(lease))
    assert status == 503
    assert "KEY_UNAVAILABLE" in body
    assert "eyJ" not in body
    assert provider[1] == []
    assert sidecar.event("key.not_minted")["details"]["state"] == "refused"
    assert "refused" in sidecar.event("call.refused")["details"]["detail"]


def test_a_minted_token_in_the_hands_of_the_sdk(services, provider, sidecar):
    """Anthropic's SDK calls the provider itself with a minted token; the lease's end says how long that lives on."""
    with (
        LeaseholdClient(sidecar.target, token()) as client,
        client.acquire(provider="anthropic", mode="minted", renew=False) as lease,
    ):
        kwargs = anthropic_kwargs(lease)
        assert kwargs["base_url"] == f"http://127.0.0.1:{provider[0]}"
        assert services.accepts(kwargs["auth_token"])
        assert 0 < lease.info.ttl_seconds <= 600
        anthropic.Anthropic(**kwargs, max_retries=0).messages.create(
            model="claude-haiku-5-5", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
        )
        assert len(provider[1]) == 1
        client.release(lease.name)
    assert sidecar.event("lease.released")["details"]["token_lives_until_wall_ms"] > 0


def test_a_disclosed_key(sidecar):
    """The stored key is handed out; exposure and request for rotation are in the audit log, the key is in no file."""
    with (
        LeaseholdClient(sidecar.target, token()) as client,
        client.acquire(provider="openai", mode="disclosed", renew=False) as lease,
    ):
        kwargs = openai_kwargs(lease)
        assert kwargs == {"base_url": "https://api.openai.com/v1", "api_key": planted()}
        client.release(lease.name)
    assert sidecar.event("key.exposed")["details"] == {"key": "openai-test", "version": 1}
    assert sidecar.event("key.rotation_requested")["details"]["cause"] == "disclosed"
    for file in sidecar.root.rglob("*"):
        assert not file.is_file() or MARKER.encode() not in file.read_bytes()


def test_the_agents_own_token_is_exchanged(services, provider, agents_own):
    """The agent's own workload token goes to the provider's endpoint; after a kill, once the agent has shown it again.

    The event names the agent and says what cannot be revoked; no token of either sort is in any file.
    """
    with agents_own.running(), LeaseholdClient(agents_own.target, shown := token()) as client:
        with client.acquire(provider="anthropic", ttl="10m", renew=False) as lease:
            assert ask(anthropic_kwargs(lease))[0] == 200
        assert [each["assertion"] for each in services.asked] == [shown]
        event = agents_own.event("key.minted")
        assert event["subject"]["subject"] == "agent"
        assert event["details"]["exchanged"] == "the agent's token"
        assert "cannot be revoked" in event["details"]["revocation"]
        lease = client.acquire(provider="anthropic", ttl="10m", renew=False)
        lease.abandon()
        agents_own.kill()
    with (
        agents_own.running(),
        LeaseholdClient(agents_own.target, token()) as client,
        client.acquire(provider="anthropic", ttl="10m", renew=False) as other,
    ):
        # The egress has another port now; the lease's token is the same.
        assert ask({**anthropic_kwargs(other), "api_key": lease.token.reveal()})[0] == 200
    assert len(services.asked) == 2
    minted = [each.encode() for each in services.minted]
    for file in agents_own.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert shown.rpartition(".")[2].encode() not in content
            assert not [each for each in minted if each in content]


def test_a_provider_that_does_not_trust_the_agents_issuer(services, provider, agents_own):
    """Its rule is for somebody else: 503 for the agent, nothing sent, and the event names the agent."""
    services.rules["fdrl_1"].subject = "somebody-else"
    with agents_own.running(), LeaseholdClient(agents_own.target, token()) as client:
        with client.acquire(provider="anthropic", ttl="10m", renew=False) as lease:
            assert ask(anthropic_kwargs(lease))[0] == 503
        assert provider[1] == []
        event = agents_own.event("key.not_minted")
        assert (event["subject"]["subject"], event["details"]["state"]) == ("agent", "refused")
