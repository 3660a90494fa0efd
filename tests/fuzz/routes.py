"""Fuzz targets for the vendors' doors: routing and credentials, and whole request bodies."""

# ruff: noqa: PT017 - a refusal is one of the good answers here, not the expected one

import re

import msgspec
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.body_gate import parse_object
from leasehold_broker.ports.provider import Provider, Route
from leasehold_broker.providers.bounds import canonical

UPSTREAM_PATH = re.compile(r"(?:/[A-Za-z0-9._:@+-]+)+(?:\?[A-Za-z0-9._~=&-]+)?")
ROUTES = tuple(
    (PROVIDERS[name], PROVIDERS[name].route(method, path, query))
    for name, method, path, query in (
        ("anthropic", "POST", "/v1/messages", ""),
        ("anthropic", "POST", "/v1/messages/count_tokens", "beta=true"),
        ("openai", "POST", "/v1/chat/completions", ""),
        ("openai", "POST", "/v1/responses", ""),
        ("openai", "POST", "/v1/embeddings", ""),
        ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:generateContent", ""),
        ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", "alt=sse"),
        ("gemini", "POST", "/v1beta/models/gemini-2.5-pro:countTokens", ""),
        ("gemini", "POST", "/v1beta/models/gemini-embedding-001:embedContent", ""),
        ("gemini", "POST", "/v1beta/models/gemini-embedding-001:batchEmbedContents", ""),
        ("azure", "POST", "/openai/v1/chat/completions", ""),
        ("cohere", "POST", "/v2/chat", ""),
        ("cohere", "POST", "/v2/embed", ""),
        ("deepseek", "POST", "/v1/chat/completions", ""),
        ("fireworks", "POST", "/inference/v1/chat/completions", ""),
        ("groq", "POST", "/openai/v1/chat/completions", ""),
        ("mistral", "POST", "/v1/chat/completions", ""),
        ("openrouter", "POST", "/api/v1/chat/completions", ""),
        ("own-llm", "POST", "/v1/chat/completions", ""),
        ("together", "POST", "/v1/embeddings", ""),
        ("xai", "POST", "/v1/chat/completions", ""),
    )
)
PLAN_REFUSALS = frozenset(
    {Reason.BODY_INVALID, Reason.COST_UNBOUNDED, Reason.HEADER_NOT_ALLOWED, Reason.MODEL_NOT_ALLOWED}
)
TOKENS_MAX = 10**9


def _checked(provider: Provider, route: Route) -> None:
    assert route.method in {"GET", "POST"}
    assert UPSTREAM_PATH.fullmatch(route.upstream_path), route.upstream_path
    assert "/../" not in f"{route.upstream_path}/"
    assert "/./" not in f"{route.upstream_path}/"
    assert route.path_model is None or provider.name == "azure" or route.path_model in route.upstream_path
    path, _, query = route.upstream_path.partition("?")
    again = provider.route(route.method, path, query)
    assert again == route


def routing(data: bytes) -> None:
    """Method, path and query (one a line) are one listed route, stable when asked again, or refused.

    No byte that another parser could read as a separator, an escape or a step upwards reaches the vendor. The fourth
    line is a header value that carries a credential.
    """
    method, path, query, value = (*data.decode("latin-1").split("\n", 3), "", "", "", "")[:4]
    for provider in PROVIDERS.values():
        try:
            route = provider.route(method, path, query)
        except Refusal as refusal:
            assert refusal.reason in {Reason.ROUTE_NOT_ALLOWED, Reason.MODEL_NOT_ALLOWED}
            assert len(refusal.message) < 1000
        else:
            _checked(provider, route)
        try:
            credential = provider.credential({"authorization": value, "x-api-key": path}, query)
        except Refusal as refusal:
            assert refusal.reason is Reason.HEADER_NOT_ALLOWED
        else:
            assert credential is None or credential


def plans(data: bytes) -> None:
    """Any JSON object, as the body of any route, gives a bounded plan and a request with one meaning, or a refusal.

    The first byte chooses the route.
    """
    provider, route = ROUTES[data[0] % len(ROUTES) if data else 0]
    try:
        body = parse_object(data[1:])
    except Refusal:
        return
    before = canonical(body)
    try:
        plan = provider.plan(route, {}, body, len(data))
    except Refusal as refusal:
        assert refusal.reason in PLAN_REFUSALS, refusal.reason
        assert len(refusal.message) < 1000
        return
    assert canonical(body) == before
    assert plan.provider == provider.name
    assert plan.operation == route.operation
    if plan.metered:
        assert plan.model
        assert 0 <= plan.input_tokens_bound < TOKENS_MAX
    sent = provider.request(route, {}, body, 17 if plan.output_limited else None)
    assert sent.method == route.method
    assert isinstance(msgspec.json.decode(sent.body), dict)
    assert canonical(body) == before
    again = parse_object(sent.body)
    assert canonical(again) == sent.body
    if plan.output_limited:
        assert provider.plan(route, {}, again, len(sent.body)).output_tokens_stated == 17
