"""The probe: a list of models asked for with the key, of every vendor, over a real socket; the status is the answer."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.fakes.planted import planted

from leasehold_broker.adapters.http_key_probe import WHY_BYTES_MAX, HttpKeyProbe
from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.domain.keys import KeyKind, KeyRecord, KeyState
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.providers import all_providers

VALUE = planted("probe")
PROVIDERS = all_providers({})


class Vendor(BaseHTTPRequestHandler):
    """Answers the listing with one status; remembers what it was asked."""

    status = 200
    body = b"{}"
    asked: list[tuple[str, dict]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """One listing."""
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)


@pytest.fixture
async def probe():
    """Makes a probe of vendors that answer with this status."""
    made = []

    def make(status, body=b"{}"):
        handler = type("Answering", (Vendor,), {"status": status, "body": body, "asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), name="vendor").start()
        origin = f"http://127.0.0.1:{server.server_port}"
        upstream = HttpUpstream([UpstreamOrigin(origin, allow_private=True)])
        made.append((server, upstream))
        return HttpKeyProbe(upstream, {name: (each, origin) for name, each in PROVIDERS.items()}), handler.asked

    yield make
    for server, upstream in made:
        await upstream.close()
        server.shutdown()
        server.server_close()


def record(provider, kind=KeyKind.STORED):
    """A key of this provider."""
    return KeyRecord("key", provider, "prod", KeyState.ENABLED, 1, 0, kind)


@pytest.mark.parametrize("status", [200, 401, 403, 429, 500])
async def test_the_status_is_the_answer(probe, status):
    """What the provider says to the key is told as it is."""
    asks, _ = probe(status)
    assert await asks.probe(record("anthropic"), Secret(VALUE.encode())) == status


INVALID = b'{"error":{"code":400,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"%s"}]}}'


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (400, INVALID % b"API_KEY_INVALID", 401),
        (403, INVALID % b"CONSUMER_SUSPENDED", 401),
        (403, INVALID % b"API_KEY_SERVICE_BLOCKED", 403),
        (400, INVALID % b"API_KEY_INVALID" + b" " * WHY_BYTES_MAX, 400),
        (400, b"<html>", 400),
    ],
)
async def test_a_reason_says_more_than_a_status(probe, status, body, told):
    """Google's 400 for a key that is none is told as 401; a restriction, or an answer too long, is what it is."""
    asks, _ = probe(status, body)
    assert await asks.probe(record("gemini"), Secret(VALUE.encode())) == told


@pytest.mark.parametrize("provider", ["anthropic", "openai", "gemini"])
async def test_the_key_is_sent_as_in_a_call(probe, provider):
    """A GET of the vendor's own list of models, with the key where this vendor wants it, and no body."""
    asks, asked = probe(200)
    assert await asks.probe(record(provider), Secret(VALUE.encode())) == 200
    path, headers = asked[0]
    assert path.endswith("/models")
    name, value = PROVIDERS[provider].key_header(Secret(VALUE.encode()))
    assert headers[name].encode() == value
    assert headers.get("content-length", "0") == "0"


async def test_where_everybody_may_list_the_models_the_key_is_asked_for_itself(probe):
    """OpenRouter's list says nothing of a key; the egress serves no agent what is asked instead."""
    asks, asked = probe(401)
    assert await asks.probe(record("openrouter"), Secret(VALUE.encode())) == 401
    assert asked[0][0] == "/api/v1/key"
    assert asked[0][1]["authorization"] == f"Bearer {VALUE}"
    with pytest.raises(Refusal):
        PROVIDERS["openrouter"].route("GET", "/api/v1/key", "")


async def test_a_minted_token_is_sent_as_one(probe):
    """A federated key is probed as a bearer token, with the beta that it needs."""
    asks, asked = probe(200)
    await asks.probe(record("anthropic", KeyKind.FEDERATED), Secret(VALUE.encode()))
    assert asked[0][1]["authorization"] == f"Bearer {VALUE}"
    assert asked[0][1]["anthropic-beta"] == "oauth-2025-04-20"


async def test_no_answer_is_no_proof():
    """Nobody listens, or the provider is not known: 0, which takes nothing out."""
    origin = "http://127.0.0.1:1"
    upstream = HttpUpstream([UpstreamOrigin(origin, allow_private=True)])
    asks = HttpKeyProbe(upstream, {"openai": (PROVIDERS["openai"], origin)})
    assert await asks.probe(record("openai"), Secret(VALUE.encode())) == 0
    assert await asks.probe(record("gemini"), Secret(VALUE.encode())) == 0
    await upstream.close()


def test_which_vendors_can_be_probed():
    """Every vendor with a list of models among its routes can; this names those that cannot."""
    from leasehold_broker.adapters.http_key_probe import _harmless  # noqa: PLC0415 - the rule itself

    assert sorted(name for name, provider in PROVIDERS.items() if _harmless(provider) is None) == ["bedrock"]
    probe = HttpKeyProbe(HttpUpstream([]), {name: (each, "https://x.test") for name, each in PROVIDERS.items()})
    assert [name for name in (*PROVIDERS, "own-not-declared") if not probe.asks(name)] == [
        "bedrock",
        "own-not-declared",
    ]
