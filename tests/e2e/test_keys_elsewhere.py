"""A real sidecar whose key is in a real OpenBao: a new version is taken up, an outage is survived, and not for ever."""

import http.client
import json
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.fakes.planted import planted
from tests.processes.tokens import ISSUER, token

from leasehold import LeaseholdClient
from leasehold.http import openai_kwargs

pytestmark = [pytest.mark.timeout(150)]
PLANTED = planted("in-the-vault")


class Provider(BaseHTTPRequestHandler):
    """Answers every chat; remembers the keys it was shown."""

    seen: list[str]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One chat."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append(self.headers["Authorization"])
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        body = json.dumps({"id": "c", "object": "chat.completion", "choices": [], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider():
    """A provider on this machine."""
    handler = type("Remembering", (Provider,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), name="provider").start()
    yield server, handler.seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def path(bao):
    """Where the key is; and a login by AppRole that may read it for a minute at a time."""
    path = f"e2e/{uuid.uuid4().hex}"
    bao.put(f"{path}/openai", value=f"{PLANTED}-1")
    return path


@pytest.fixture
def sidecar(bao, path, provider):
    """A sidecar that knows no key but the one in the vault."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        bao.policy("e2e", f"secret/data/{path}/*")
        bao_token = bao.ask("POST", "auth/token/create", {"policies": ["e2e"], "ttl": "60s"})["auth"]["client_token"]
        (root / "vault-token").write_text(bao_token)
        (root / "vault-token").chmod(0o600)
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
[providers.openai]
origin = "http://127.0.0.1:{provider[0].server_port}"
allow_private = true
[[keys.stores]]
kind = "vault"
environment = "test"
path = "{path}"
address = "{bao.address}"
refresh_seconds = 5
max_stale_seconds = 8
login = {{ method = "token", token_file = "vault-token" }}
keys = [{{ name = "openai-vault", provider = "openai", secret = "openai" }}]
"""
        grant = GRANT.format(name="test", issuer=ISSUER, extra="").replace("openai-test", "openai-vault")
        own = OwnSidecar(root, issuers, grant, more=more)
        with own.running():
            yield own


def ask(kwargs: dict) -> tuple[int, str]:
    """Status and body of one chat through the egress."""
    base = urlsplit(kwargs["base_url"])
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=30)
    message = {"model": "gpt-6-luna", "max_completion_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {kwargs['api_key']}", "Content-Type": "application/json"}
    connection.request("POST", f"{base.path}/chat/completions", json.dumps(message), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def until(kwargs: dict, done) -> tuple[int, str]:
    """Ask until `done` is satisfied, within a bound."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = ask(kwargs)
        if done(*found):
            return found
        time.sleep(0.2)
    raise AssertionError(found)


def test_a_key_in_a_vault(bao, path, provider, sidecar):
    """Its value goes upstream; a new one within the interval; sealed: served, then refused; unsealed: served."""
    seen = provider[1]
    with LeaseholdClient(sidecar.target, token()) as client, client.acquire(provider="openai", ttl="10m") as lease:
        kwargs = openai_kwargs(lease)
        assert ask(kwargs)[0] == 200
        assert seen == [f"Bearer {PLANTED}-1"]
        bao.put(f"{path}/openai", value=f"{PLANTED}-2")
        until(kwargs, lambda *_: seen[-1] == f"Bearer {PLANTED}-2")
        bao.seal()
        try:
            assert ask(kwargs)[0] == 200
            status, body = until(kwargs, lambda status, _: status != 200)
            assert status == 503
            assert "KEY_UNAVAILABLE" in body
            assert PLANTED not in body
            calls = len(seen)
            assert ask(kwargs)[0] == 503
            assert len(seen) == calls
        finally:
            bao.unseal()
        until(kwargs, lambda status, _: status == 200)
    assert sidecar.event("key.not_read", outcome="failed")["details"]["state"] == "sealed"
    refused = sidecar.event("call.refused", reason="KEY_UNAVAILABLE")
    assert "sealed" in refused["details"]["detail"]
    for file in sidecar.root.rglob("*"):
        if file.is_file() and file.name != "vault-token":
            assert PLANTED.encode() not in file.read_bytes()
