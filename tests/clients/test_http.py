"""What is handed to the SDKs: arguments that their constructors take, and variables that they read."""

import contextlib
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import groq
import openai
import pytest
from google import genai

from leasehold import InvalidRequest, Scope
from leasehold.http import (
    BASE_URL_VARIABLES,
    KEY_VARIABLES,
    STRIPPED_VARIABLES,
    anthropic_kwargs,
    child_environment,
    environment,
    google_kwargs,
    openai_async_key,
    openai_key,
    openai_kwargs,
)

TOKEN = "lhs_secret-1"


@pytest.fixture
def lease(client):
    """A lease on all three providers."""
    with client.acquire(scopes=[Scope("anthropic"), Scope("openai"), Scope("gemini")]) as held:
        yield held


def test_the_openai_sdk_takes_the_arguments(lease):
    """Base URL and key arrive in the OpenAI client."""
    with openai.OpenAI(**openai_kwargs(lease)) as sdk:
        assert (str(sdk.base_url), sdk.api_key) == ("http://127.0.0.1:9/openai/v1/", TOKEN)


def test_the_anthropic_sdk_takes_the_arguments(lease, monkeypatch):
    """Base URL and key arrive in the Anthropic client, and another credential in the environment stays out."""
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "other")
    with anthropic.Anthropic(**anthropic_kwargs(lease)) as sdk:
        assert (str(sdk.base_url).rstrip("/"), sdk.api_key) == ("http://127.0.0.1:9/anthropic", TOKEN)
        assert sdk.auth_token is None


def test_the_google_sdk_takes_the_arguments(lease, monkeypatch):
    """Base URL and key arrive in the google-genai client, also where the environment asks for Vertex AI."""
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    with genai.Client(**google_kwargs(lease)) as sdk:
        inner = sdk._api_client
        assert (inner._http_options.base_url.rstrip("/"), inner.api_key) == ("http://127.0.0.1:9/gemini", TOKEN)
        assert not inner.vertexai


def test_the_sdks_read_the_variables(lease, monkeypatch):
    """With nothing but the variables set, all three SDKs reach the sidecar with the lease."""
    for name in STRIPPED_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(lease).items():
        monkeypatch.setenv(name, value)
    with openai.OpenAI() as one, anthropic.Anthropic() as two, genai.Client() as three:
        assert (str(one.base_url), one.api_key) == ("http://127.0.0.1:9/openai/v1/", TOKEN)
        assert (str(two.base_url).rstrip("/"), two.api_key) == ("http://127.0.0.1:9/anthropic", TOKEN)
        inner = three._api_client
        assert (inner._http_options.base_url.rstrip("/"), inner.api_key) == ("http://127.0.0.1:9/gemini", TOKEN)


@dataclass(frozen=True)
class Reached:
    """Where one provider is reached."""

    provider: str
    base_url: str
    unix_socket: str = ""


@dataclass(frozen=True)
class Held:
    """A lease on these providers."""

    endpoints: tuple[Reached, ...]
    name: str = "leases/1"
    secret: str = TOKEN

    @property
    def token(self) -> "Held":
        """Its token."""
        return self

    def reveal(self) -> str:
        """The token's text."""
        return self.secret

    def endpoint(self, provider: str | None = None) -> Reached:
        """One of them."""
        return next(one for one in self.endpoints if one.provider == provider)


AT = "http://127.0.0.1:9"
NEWER = Held(
    (
        Reached("azure", f"{AT}/azure/openai/v1"),
        Reached("bedrock", f"{AT}/bedrock"),
        Reached("cohere", f"{AT}/cohere"),
        Reached("fireworks", f"{AT}/fireworks/inference/v1"),
        Reached("groq", f"{AT}/groq/openai/v1"),
        Reached("mistral", f"{AT}/mistral/v1"),
        Reached("own-llm", f"{AT}/own-llm/v1"),
        Reached("together", f"{AT}/together/v1"),
        Reached("vertex", f"{AT}/vertex"),
    )
)


def test_the_newer_sdks_read_the_variables(monkeypatch):
    """Groq's, Azure's and Anthropic's class for Bedrock find the sidecar and the lease in the environment alone."""
    for name, value in environment(NEWER).items():
        monkeypatch.setenv(name, value)
    with groq.Groq() as sdk:
        assert (str(sdk.base_url).rstrip("/"), sdk.api_key) == (f"{AT}/groq", TOKEN)
    with openai.AzureOpenAI(api_version="2025-03-01-preview") as sdk:
        assert (str(sdk.base_url).rstrip("/"), sdk.api_key) == (f"{AT}/azure/openai", TOKEN)
    with anthropic.AnthropicBedrock(aws_region="us-east-1") as sdk:
        assert (str(sdk.base_url).rstrip("/"), sdk.api_key) == (f"{AT}/bedrock", TOKEN)


def test_each_provider_has_variables_and_no_token_without_its_address():
    """Ours for every name; a vendor's key variable only beside the address that the same SDK reads."""
    found = environment(NEWER)
    for endpoint in NEWER.endpoints:
        ours = f"LEASEHOLD_{endpoint.provider.upper().replace('-', '_')}"
        assert (found[f"{ours}_BASE_URL"], found[f"{ours}_API_KEY"]) == (endpoint.base_url, TOKEN)
    assert (found["CO_API_URL"], found["TOGETHER_BASE_URL"]) == (f"{AT}/cohere", f"{AT}/together")
    assert (found["FIREWORKS_BASE_URL"], found["GOOGLE_VERTEX_BASE_URL"]) == (
        f"{AT}/fireworks/inference",
        f"{AT}/vertex",
    )
    assert set(KEY_VARIABLES) <= set(BASE_URL_VARIABLES)
    assert not {"MISTRAL_API_KEY", "XAI_API_KEY", "OPENROUTER_API_KEY"} & found.keys()


async def test_a_callable_key_follows_the_current_lease(client, lease):
    """The OpenAI SDK may ask for the key at each request, so leases can follow one another."""
    with client.acquire(provider="openai") as second:
        current = [lease]
        key, async_key = openai_key(lambda: current[0]), openai_async_key(lambda: current[0])

        assert (key(), await async_key()) == (TOKEN, TOKEN)
        current[0] = second
        assert (key(), await async_key()) == ("lhs_secret-2", "lhs_secret-2")


def test_a_provider_outside_the_lease_is_an_error(client):
    """Arguments for a provider that the lease does not reach are refused by name."""
    with client.acquire(provider="anthropic") as lease, pytest.raises(InvalidRequest, match="reaches anthropic"):
        openai_kwargs(lease)


def test_a_child_gets_the_lease_and_no_key(lease):
    """Keys and switches of the parent are taken out, the rest stays, loopback goes around any proxy."""
    parent = {
        "PATH": "/bin",
        "OPENAI_API_KEY": "sk-real",
        "MISTRAL_API_KEY": "real",
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "NO_PROXY": "internal, localhost",
    }
    child, removed = child_environment(lease, parent)

    assert removed == ["GOOGLE_GENAI_USE_VERTEXAI", "MISTRAL_API_KEY", "OPENAI_API_KEY"]
    assert (TOKEN, "/bin", lease.name) == (child["OPENAI_API_KEY"], child["PATH"], child["LEASEHOLD_LEASE"])
    assert child["NO_PROXY"] == "internal,localhost,127.0.0.1,::1"
    assert "real" not in "".join(child.values())


@contextlib.contextmanager
def gemini():
    """A server that answers as the Gemini API does; what it was sent, and where it is."""
    sent: list[dict[str, str]] = []
    said = b'{"candidates": [{"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}]}'

    class Handler(BaseHTTPRequestHandler):
        """One answer for every call, as events where events are asked for."""

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            """A call."""
            self.rfile.read(int(self.headers["Content-Length"]))
            sent.append({name.lower(): value for name, value in self.headers.items()})
            stream = "alt=sse" in self.path
            body = b"data: " + said + b"\r\n\r\n" if stream else said
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if stream else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # google-genai's own, of aiohttp
@pytest.mark.parametrize("aiohttp", [True, False])
async def test_the_google_sdk_sends_a_minted_token_as_bearer_and_no_key(monkeypatch, aiohttp):
    """Plain and streamed, in all of its clients: the API takes an access token in one header, and no key beside it."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", aiohttp)
    minted = "ya29.c.minted-by-google"
    with gemini() as (address, sent):
        lease = Held((Reached("gemini", address),), secret=minted)
        with genai.Client(**google_kwargs(lease)) as sdk:
            assert sdk.models.generate_content(model="gemini-2.5-flash", contents="hi").text == "hello"
            texts = [one.text for one in sdk.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")]
            assert texts == ["hello"]
            assert (await sdk.aio.models.generate_content(model="gemini-2.5-flash", contents="hi")).text == "hello"
            stream = await sdk.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="hi")
            assert [one.text async for one in stream] == ["hello"]
            await sdk.aio.aclose()
    assert [one["authorization"] for one in sent] == [f"Bearer {minted}"] * 4
    assert not [one for one in sent if "x-goog-api-key" in one]


async def test_the_google_sdk_sends_a_key_as_key():
    """A lease token and a disclosed key are none of Google's tokens."""
    with gemini() as (address, sent):
        for secret in (TOKEN, "AIzaSy-a-disclosed-key"):
            with genai.Client(**google_kwargs(Held((Reached("gemini", address),), secret=secret))) as sdk:
                sdk.models.generate_content(model="gemini-2.5-flash", contents="hi")
            assert sent[-1]["x-goog-api-key"] == secret
            assert "authorization" not in sent[-1]


def test_a_minted_token_of_google_s_is_in_no_variable_of_a_key():
    """Its SDK would send it as what it is not."""
    lease = Held((Reached("gemini", f"{AT}/gemini"),), secret="ya29.c.minted-by-google")
    variables = environment(lease)
    assert variables["GOOGLE_GEMINI_BASE_URL"] == f"{AT}/gemini"
    assert not set(KEY_VARIABLES["gemini"]) & set(variables)
    assert variables["LEASEHOLD_GEMINI_API_KEY"] == "ya29.c.minted-by-google"
