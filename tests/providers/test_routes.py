"""Routes, queries, credentials and headers: what is listed passes, everything else is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.domain import scope
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Provider


def test_every_provider_is_known_by_one_list():
    """What policies, keys and configuration may name is what there is a module for."""
    assert list(scope.PROVIDERS) == sorted(set(PROVIDERS) - {"own-llm"})
    assert all(map(scope.is_provider, PROVIDERS))


@pytest.mark.parametrize("name", ["", "antropic", "own-", "own--x", "own-x-", "own-X", "own-a/b", "own-" + "a" * 29])
def test_other_names_are_no_providers(name):
    """A misspelt vendor, and a name that could not stand in a path."""
    assert not scope.is_provider(name)


LISTED = [
    ("anthropic", "POST", "/v1/messages", "", "messages", "/v1/messages"),
    ("anthropic", "POST", "/v1/messages", "beta=true", "messages", "/v1/messages?beta=true"),
    ("anthropic", "POST", "/v1/messages/count_tokens", "", "count_tokens", "/v1/messages/count_tokens"),
    ("anthropic", "GET", "/v1/models", "limit=5&after_id=m_1", "models.list", "/v1/models?after_id=m_1&limit=5"),
    ("anthropic", "GET", "/v1/models/claude-sonnet-5", "", "models.get", "/v1/models/claude-sonnet-5"),
    ("openai", "POST", "/v1/chat/completions", "", "chat.completions", "/v1/chat/completions"),
    ("openai", "POST", "/v1/responses", "", "responses", "/v1/responses"),
    ("openai", "POST", "/v1/embeddings", "", "embeddings", "/v1/embeddings"),
    ("openai", "GET", "/v1/models", "", "models.list", "/v1/models"),
    ("openai", "GET", "/v1/models/gpt-4.1", "", "models.get", "/v1/models/gpt-4.1"),
    ("gemini", "POST", "/v1/models/g-1:generateContent", "", "generate_content", "/v1/models/g-1:generateContent"),
    (
        "gemini",
        "POST",
        "/v1beta/models/g-1:generateContent",
        "key=abc",
        "generate_content",
        "/v1beta/models/g-1:generateContent",
    ),
    (
        "gemini",
        "POST",
        "/v1beta/models/g-1:streamGenerateContent",
        "alt=sse&key=k",
        "stream_generate_content",
        "/v1beta/models/g-1:streamGenerateContent?alt=sse",
    ),
    ("gemini", "POST", "/v1beta/models/g-1:countTokens", "", "count_tokens", "/v1beta/models/g-1:countTokens"),
    ("gemini", "POST", "/v1beta/models/g-1:embedContent", "", "embed_content", "/v1beta/models/g-1:embedContent"),
    (
        "gemini",
        "POST",
        "/v1beta/models/g-1:batchEmbedContents",
        "",
        "batch_embed_contents",
        "/v1beta/models/g-1:batchEmbedContents",
    ),
    ("gemini", "GET", "/v1beta/models", "pageSize=9", "models.list", "/v1beta/models?pageSize=9"),
    ("gemini", "GET", "/v1beta/models/g-1", "", "models.get", "/v1beta/models/g-1"),
]

UNLISTED = [
    ("anthropic", "GET", "/v1/messages", ""),
    ("anthropic", "POST", "/v1/messages/", ""),
    ("anthropic", "POST", "/v1//messages", ""),
    ("anthropic", "POST", "/v1/messages/batches", ""),
    ("anthropic", "POST", "/v1/complete", ""),
    ("anthropic", "POST", "/v1/files", ""),
    ("anthropic", "POST", "/v1/messages", "beta=false"),
    ("anthropic", "POST", "/v1/messages", "x=1"),
    ("anthropic", "POST", "/v1/messages", "beta=true&beta=true"),
    ("anthropic", "GET", "/v1/models", "limit=%35"),
    ("anthropic", "GET", "/v1/models/..", ""),
    ("anthropic", "GET", "/v1/models/a%2fb", ""),
    ("anthropic", "GET", "/v1/organizations/me", ""),
    ("openai", "POST", "/chat/completions", ""),
    ("openai", "POST", "/v1/chat/../completions", ""),
    ("openai", "POST", "/v1/chat/completions", "api-version=1"),
    ("openai", "GET", "/v1/chat/completions", ""),
    ("openai", "DELETE", "/v1/models/gpt-4.1", ""),
    ("openai", "GET", "/v1/models/ft:gpt-4o:acme", ""),
    ("openai", "GET", "/v1/responses/resp_1", ""),
    ("openai", "POST", "/v1/responses/compact", ""),
    ("openai", "POST", "/v1/audio/voices", ""),
    ("openai", "POST", "/v1/images/variations", ""),
    ("openai", "POST", "/v1/batches", ""),
    ("openai", "POST", "/v1/fine_tuning/jobs", ""),
    ("openai", "post", "/v1/responses", ""),
    ("gemini", "POST", "/v1/tunedModels/x:generateContent", ""),
    ("gemini", "POST", "/v2/models/g-1:generateContent", ""),
    ("gemini", "POST", "/v1/models/g-1:predict", ""),
    ("gemini", "POST", "/v1/models/g-1:batchGenerateContent", ""),
    ("gemini", "POST", "/v1/models/g-1:streamGenerateContent", ""),
    ("gemini", "POST", "/v1/models/g-1:streamGenerateContent", "alt=json"),
    ("gemini", "POST", "/v1/models/g-1:generateContent", "alt=sse"),
    ("gemini", "POST", "/v1/models/g-1:generateContent", "alt=media"),
    ("gemini", "POST", "/v1/models/g-1:generateContent", "$alt=json"),
    ("gemini", "POST", "/v1/models/g%2D1:generateContent", ""),
    ("gemini", "POST", "/v1/models/models/g-1:generateContent", ""),
    ("gemini", "GET", "/v1/models/g-1:generateContent", ""),
    ("gemini", "POST", "/v1beta/cachedContents", ""),
    ("gemini", "GET", "/v1beta/files", ""),
    ("gemini", "POST", "/v1/models/g-1:generateContent\n", ""),
]


@pytest.mark.parametrize(("name", "method", "path", "query", "operation", "upstream"), LISTED)
def test_listed(name: str, method: str, path: str, query: str, operation: str, upstream: str) -> None:
    """A listed route is found, and what goes upstream is built from the table, without the caller's key."""
    route = PROVIDERS[name].route(method, path, query)
    assert (operation, method, upstream) == (route.operation, route.method, route.upstream_path)
    assert route.takes_body == (method == "POST")


@pytest.mark.parametrize(("name", "method", "path", "query"), UNLISTED)
def test_unlisted(name: str, method: str, path: str, query: str) -> None:
    """Everything else is refused, with the list of what is served."""
    with pytest.raises(Refusal) as caught:
        PROVIDERS[name].route(method, path, query)
    assert caught.value.reason is Reason.ROUTE_NOT_ALLOWED


@given(st.sampled_from(sorted(PROVIDERS)), st.sampled_from(["GET", "POST"]), st.text(max_size=60), st.text(max_size=30))
def test_any_path_is_answered(name: str, method: str, path: str, query: str) -> None:
    """Any text as path and query is either a route or a refusal that can be printed."""
    refusal: Refusal | None = None
    try:
        PROVIDERS[name].route(method, "/v1/models" + path, query)
    except Refusal as raised:
        refusal = raised
    assert refusal is None or (refusal.reason is Reason.ROUTE_NOT_ALLOWED and refusal.message.isprintable())


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_credential_from_every_place(provider: Provider) -> None:
    """The lease is taken from wherever an SDK puts it; the same twice is fine, two different ones are refused."""
    places: list[tuple[dict[str, str], str]] = [
        ({"authorization": "Bearer T"}, ""),
        ({"authorization": "bearer  T "}, ""),
        ({"x-api-key": "T"}, ""),
        ({"x-goog-api-key": "T"}, ""),
        ({"api-key": "T"}, ""),
        ({}, "alt=sse&key=T"),
        ({"authorization": "Bearer T", "x-api-key": "T"}, "key=T"),
    ]
    for headers, query in places:
        assert provider.credential(headers, query) == "T"
    assert provider.credential({}, "alt=sse") is None
    assert provider.credential({"x-api-key": ""}, "") is None
    twice: list[tuple[dict[str, str], str]] = [
        ({"authorization": "Bearer T", "x-api-key": "U"}, ""),
        ({"x-goog-api-key": "T"}, "key=U"),
        ({}, "key=T&key=U"),
        ({"authorization": "Basic T"}, ""),
    ]
    for headers, query in twice:
        with pytest.raises(Refusal) as caught:
            provider.credential(headers, query)
        assert caught.value.reason is Reason.HEADER_NOT_ALLOWED
        assert "T" not in caught.value.message.replace("Two", "")


def models_of(provider: Provider) -> str:
    """Where it lists its models."""
    return f"{provider.sdk_path or '/v1'}/models"


def plan(provider: Provider, headers: dict[str, str]) -> Any:
    """Plan a list of models with these headers."""
    return provider.plan(provider.route("GET", models_of(provider), ""), headers, None, 0)


LISTING = {name: provider for name, provider in PROVIDERS.items() if name not in {"bedrock", "vertex"}}
"""Providers with a list of models; the headers of the others are tested with their modules."""


@pytest.mark.parametrize("provider", LISTING.values(), ids=LISTING)
def test_unknown_headers_are_refused(provider: Provider) -> None:
    """A header on no list is refused by name; telemetry and HTTP's own pass and are not sent on."""
    for header in ("openai-beta", "x-forwarded-for", "cookie", "x-goog-user-project", "openai-organization", "x-evil"):
        with pytest.raises(Refusal, match=header) as caught:
            plan(provider, {header: "1"})
        assert caught.value.reason is Reason.HEADER_NOT_ALLOWED
    harmless = {
        "x-stainless-lang": "python",
        "user-agent": "x",
        "traceparent": "00",
        "x-goog-api-client": "g",
        "host": "h",
    }
    assert not plan(provider, harmless).metered
    request = provider.request(provider.route("GET", models_of(provider), ""), harmless, None, None)
    names = {name for name, _ in request.headers}
    assert (
        {"accept", "accept-encoding", "user-agent"}
        <= names
        <= {"accept", "accept-encoding", "user-agent", "anthropic-version"}
    )
    assert dict(request.headers)["accept-encoding"] == "identity"
    assert request.body == b""


def test_anthropic_versions_and_betas() -> None:
    """A known version and betas that keep the cost bounded are sent on; others are refused by name."""
    provider = PROVIDERS["anthropic"]
    route = provider.route("GET", "/v1/models", "")
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "output-128k-2025-02-19, pdfs-2024-09-25"}
    plan(provider, headers)
    sent = dict(provider.request(route, headers, None, None).headers)
    assert sent["anthropic-beta"] == "output-128k-2025-02-19,pdfs-2024-09-25"
    for wrong in (
        {"anthropic-version": "2029-01-01"},
        {"anthropic-beta": "context-1m-2025-08-07"},
        {"anthropic-beta": "pdfs-2024-09-25,context-1m-2025-08-07"},
        {"anthropic-workspace-id": "w"},
    ):
        with pytest.raises(Refusal) as caught:
            plan(provider, wrong)
        assert caught.value.reason is Reason.HEADER_NOT_ALLOWED


def test_the_key_goes_into_one_header() -> None:
    """Each vendor's key has one place."""
    key = Secret(b"sk-1")
    assert PROVIDERS["anthropic"].key_header(key) == ("x-api-key", b"sk-1")
    assert PROVIDERS["openai"].key_header(key) == ("authorization", b"Bearer sk-1")
    assert PROVIDERS["gemini"].key_header(key) == ("x-goog-api-key", b"sk-1")
