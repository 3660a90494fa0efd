"""Hosts that an operator declares, through a real sidecar: path, key, price and charge; the unpriced go nowhere."""

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openai
import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.fakes.planted import planted
from tests.processes.tokens import ISSUER, token

from leasehold import LeaseholdClient, Scope
from leasehold.http import openai_kwargs
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.domain.secret import Secret

pytestmark = [pytest.mark.timeout(120)]
VECTORS = Path(__file__).parents[1] / "vectors"
USER = [{"role": "user", "content": "Hi"}]


class Host(BaseHTTPRequestHandler):
    """Answers with golden transcripts; remembers what it was shown."""

    seen: list[tuple[str, str, dict]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One stream."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = self.headers["Authorization"] or self.headers["api-key"]
        self.seen.append((self.path, shown, asked))
        name = "own-llm/stream_hidden" if self.path.startswith("/llm") else "azure/chat_stream_hidden"
        body = "".join(json.loads((VECTORS / f"{name}.json").read_text())["answer"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def host():
    """A host on this machine, and what it saw."""
    handler = type("Remembering", (Host,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), name="host").start()
    yield f"http://127.0.0.1:{server.server_port}", handler.seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def sidecar(host):
    """A sidecar with a host of its own and an Azure resource, a key for each, and prices for two models."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        (root / "prices.toml").write_text(
            '[[price]]\nprovider = "own-llm"\nmodel = "qwen3:8b"\ninput = 100_000\noutput = 200_000\n'
        )
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
[prices]
override_file = "prices.toml"
[providers.own-llm]
kind = "openai_compatible"
origin = "{host[0]}"
allow_private = true
path = "/llm/v1"
[providers.azure]
origin = "{host[0]}"
allow_private = true
deployments = {{ chat = "o3-mini" }}
"""
        grant = GRANT.format(name="test", issuer=ISSUER, extra="").replace('"openai-test"', '"llm", "resource"')
        grant = grant.replace('provider = "openai"', 'provider = "own-llm"\n[[grants.scopes]]\nprovider = "azure"')
        own = OwnSidecar(root, issuers, grant, more=more)
        keys = LocalKeys(str(root / "keys.json"), FileMasterKey(str(root / "master.key")), SystemClock())
        keys.add("llm", "own-llm", "test", Secret(planted("of-the-host").encode()))
        keys.add("resource", "azure", "test", Secret(b"key-of-the-resource"))
        with own.running():
            yield own


def test_declared_hosts_are_served_and_charged(host, sidecar):
    """Each under its own path with its own key; charged to the micro-dollar; a model without a price goes nowhere."""
    seen = host[1]
    with (
        LeaseholdClient(sidecar.target, token()) as client,
        client.acquire(scopes=[Scope("own-llm"), Scope("azure")], budget="1", ttl="10m") as lease,
    ):
        with openai.OpenAI(**openai_kwargs(lease, "own-llm"), max_retries=0) as sdk:
            chunks = list(sdk.chat.completions.create(model="qwen3:8b", messages=USER, max_tokens=50, stream=True))
            assert all(chunk.choices for chunk in chunks)
            # 26 at 0.1 and 7 at 0.2: computed in the transcript
            assert sidecar.event("call.settled")["details"]["charged"]["cost_micro_usd"] == 4
            with pytest.raises(openai.APIStatusError, match="PRICE_UNKNOWN"):
                sdk.chat.completions.create(model="qwen3:70b", messages=USER, max_tokens=50)
        endpoint = lease.endpoint("azure").base_url.removesuffix("/openai/v1")
        key = lease.token.reveal()
        with openai.AzureOpenAI(azure_endpoint=endpoint, api_key=key, api_version="2024-10-21", max_retries=0) as sdk:
            list(sdk.chat.completions.create(model="chat", messages=USER, max_completion_tokens=50, stream=True))
    assert [(path, shown) for path, shown, _ in seen] == [
        ("/llm/v1/chat/completions", f"Bearer {planted('of-the-host')}"),
        ("/openai/deployments/chat/chat/completions?api-version=2024-10-21", "key-of-the-resource"),
    ]
    assert all(asked["stream_options"] == {"include_usage": True} for _, _, asked in seen)
    assert sidecar.event("call.refused", reason="PRICE_UNKNOWN")["details"]["provider"] == "own-llm"
