"""Vertex AI: one project, one place, both ours; what is served and bounded; and that both SDKs understand all of it."""

import json
from pathlib import Path
from typing import Any

import anthropic
import pytest
from google import genai
from google.genai import errors as google_errors
from google.oauth2.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.vendor_server import VendorServer, serving

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallPlan, worst_case
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.vertex import Vertex

PROJECT, PLACE = "acme-research", "europe-west4"
PROVIDER, GLOBAL = Vertex(PROJECT, PLACE), Vertex(PROJECT, "global")
BOOK = load_price_book()
GOOGLE = "publishers/google/models"
CLAUDE = "publishers/anthropic/models"
SONNET = "claude-sonnet-4-5@20250929"
TEXT: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
MESSAGE: dict[str, Any] = {"max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]}


def plan(
    below: str, body: dict[str, Any], provider: Vertex = PROVIDER, headers: dict[str, str] | None = None
) -> CallPlan:
    """The plan of a request to this path below the location."""
    path, _, query = below.partition("?")
    route = provider.route("POST", f"/v1/projects/-/locations/-/{path}", query)
    return provider.plan(route, headers or {}, body, 0)


def sent(below: str, body: dict[str, Any], limit: int | None = None) -> tuple[str, dict[str, Any]]:
    """Path and body of what goes to the vendor."""
    path, _, query = below.partition("?")
    route = PROVIDER.route("POST", f"/v1/{path}", query)
    request = PROVIDER.request(route, {}, body, limit)
    return request.path, json.loads(request.body)


@pytest.mark.parametrize("where", [f"projects/{PROJECT}/locations/{PLACE}/", "projects/-/locations/-/", ""])
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_the_path_upstream_is_ours(where: str, version: str) -> None:
    """Project and place come from the configuration, whether the caller names them, leaves them open or out."""
    base = f"/{version}/projects/{PROJECT}/locations/{PLACE}/"
    for below, query, operation in (
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", "", "generate_content"),
        (f"{GOOGLE}/gemini-2.5-pro:streamGenerateContent", "alt=sse", "stream_generate_content"),
        (f"{GOOGLE}/gemini-2.5-pro:countTokens", "", "count_tokens"),
        (f"{CLAUDE}/{SONNET}:rawPredict", "", "raw_predict"),
        (f"{CLAUDE}/{SONNET}:streamRawPredict", "", "stream_raw_predict"),
    ):
        route = PROVIDER.route("POST", f"/{version}/{where}{below}", query)
        assert route.operation == operation
        assert route.upstream_path == base + below + (f"?{query}" if query else "")
    assert PROVIDER.route("POST", f"/v1/{CLAUDE}/claude-sonnet-4-5%4020250929:rawPredict", "").path_model == SONNET


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (f"/v1/projects/other-project/locations/{PLACE}/{GOOGLE}/gemini-2.5-pro:generateContent", ""),
        (f"/v1/projects/{PROJECT}/locations/us-central1/{GOOGLE}/gemini-2.5-pro:generateContent", ""),
        (f"/v1/projects/{PROJECT}/locations/global/{CLAUDE}/{SONNET}:rawPredict", ""),
        (f"/v1/projects/{PROJECT}%2Fx/locations/{PLACE}/{CLAUDE}/{SONNET}:rawPredict", ""),
        (f"/v1/projects//locations//{CLAUDE}/{SONNET}:rawPredict", ""),
        (f"/v1/{GOOGLE}/gemini-2.5-pro:streamGenerateContent", ""),
        (f"/v1/{GOOGLE}/gemini-2.5-pro:predict", ""),
        (f"/v1/{GOOGLE}/gemini-2.5-pro:rawPredict", ""),
        (f"/v1/{CLAUDE}/{SONNET}:generateContent", ""),
        (f"/v1/{CLAUDE}/../{SONNET}:rawPredict", ""),
        (f"/v1/{CLAUDE}/{SONNET}:rawPredict", "x=1"),
        (f"/v1/{CLAUDE}/claude%2Fx:rawPredict", ""),
        ("/v1/publishers/meta/models/llama:rawPredict", ""),
        ("/v1/projects/-/locations/-/endpoints/1:predict", ""),
        (f"/v1/projects/-/locations/-/{GOOGLE}/gemini-2.5-pro", ""),
        ("/v1/projects/-/locations/-/cachedContents", ""),
        (f"/v2/{GOOGLE}/gemini-2.5-pro:generateContent", ""),
    ],
)
def test_nobody_elses_project_place_or_route(path: str, query: str) -> None:
    """Whoever names another payer, another price or another operation is refused."""
    with pytest.raises(Refusal) as caught:
        PROVIDER.route("POST", path, query)
    assert caught.value.reason is Reason.ROUTE_NOT_ALLOWED
    with pytest.raises(Refusal):
        PROVIDER.route("GET", f"/v1/{GOOGLE}/gemini-2.5-pro:generateContent", "")


@pytest.mark.parametrize(
    ("project", "place"),
    [("", "global"), ("Acme", "global"), ("a/b-cdef", "global"), ("acme-research", ""), ("acme-research", "us/../x")],
)
def test_the_configuration_must_name_a_project_in_a_place(project: str, place: str) -> None:
    """What would become a part of a path must have the form of such a name."""
    with pytest.raises(ValueError, match="no project in a location"):
        Vertex(project, place)


def test_origins() -> None:
    """Each kind of place has a host of its own."""
    assert GLOBAL.default_origin == "https://aiplatform.googleapis.com"
    assert Vertex("123456789012", "eu").default_origin == "https://aiplatform.eu.rep.googleapis.com"
    assert PROVIDER.default_origin == "https://europe-west4-aiplatform.googleapis.com"
    assert PROVIDER.key_header(Secret(b"t")) == ("authorization", b"Bearer t")


def test_plans_and_what_is_sent() -> None:
    """Limits, streams and places; the version of Claude's body is ours."""
    gemini = f"{GOOGLE}/gemini-2.5-pro"
    assert (
        plan(f"{gemini}:generateContent", {**TEXT, "generationConfig": {"maxOutputTokens": 5}}).output_tokens_stated
        == 5
    )
    assert plan(f"{gemini}:streamGenerateContent?alt=sse", TEXT).stream
    assert not plan(f"{gemini}:countTokens", TEXT).metered
    assert plan(f"{gemini}:generateContent", TEXT).regions == ("regional",)
    assert plan(f"{gemini}:generateContent", TEXT, GLOBAL).regions == ("",)
    assert plan(f"{CLAUDE}/{SONNET}:rawPredict", MESSAGE).regions == ("regional",)
    assert plan(f"{CLAUDE}/{SONNET}:streamRawPredict", {**MESSAGE, "stream": True}).stream
    path, body = sent(f"{gemini}:generateContent", {"contents": [], "generation_config": {"top_k": 3}}, 7)
    assert path == f"/v1/projects/{PROJECT}/locations/{PLACE}/{gemini}:generateContent"
    assert body == {"contents": [], "generationConfig": {"topK": 3, "maxOutputTokens": 7}}
    _, body = sent(f"{CLAUDE}/{SONNET}:rawPredict", {"messages": []}, 7)
    assert body == {"messages": [], "max_tokens": 7, "anthropic_version": "vertex-2023-10-16"}


@pytest.mark.parametrize(
    ("below", "body", "reason"),
    [
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "cachedContent": "c"}, Reason.COST_UNBOUNDED),
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "serviceTier": "flex"}, Reason.COST_UNBOUNDED),
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "service_tier": "flex"}, Reason.COST_UNBOUNDED),
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "tools": [{"googleMaps": {}}]}, Reason.COST_UNBOUNDED),
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "model": "other"}, Reason.BODY_INVALID),
        (f"{GOOGLE}/gemini-2.5-pro:generateContent", {**TEXT, "modelArmorConfig": {}}, Reason.BODY_INVALID),
        (f"{CLAUDE}/{SONNET}:rawPredict", {**MESSAGE, "stream": True}, Reason.BODY_INVALID),
        (f"{CLAUDE}/{SONNET}:streamRawPredict", MESSAGE, Reason.BODY_INVALID),
        (f"{CLAUDE}/{SONNET}:rawPredict", {**MESSAGE, "anthropic_version": "bedrock-2023-05-31"}, Reason.BODY_INVALID),
        (f"{CLAUDE}/{SONNET}:rawPredict", {**MESSAGE, "inference_geo": "us"}, Reason.COST_UNBOUNDED),
        (f"{CLAUDE}/{SONNET}:rawPredict", {**MESSAGE, "speed": "fast"}, Reason.COST_UNBOUNDED),
        (f"{CLAUDE}/{SONNET}:rawPredict", {**MESSAGE, "mcp_servers": []}, Reason.COST_UNBOUNDED),
    ],
    ids=str,
)
def test_what_is_refused(below: str, body: dict[str, Any], reason: Reason) -> None:
    """By the same rules as at the vendors' own APIs, and what only those have is not here."""
    with pytest.raises(Refusal) as caught:
        plan(below, body)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "headers",
    [
        {"x-goog-user-project": "p"},
        {"x-vertex-ai-llm-shared-request-type": "priority"},
        {"x-vertex-ai-llm-request-type": "dedicated"},
        {"anthropic-beta": "context-1m-2025-08-07"},
    ],
    ids=str,
)
def test_headers_that_choose_a_price_or_a_payer_are_refused(headers: dict[str, str]) -> None:
    """By name, before anything is held."""
    with pytest.raises(Refusal) as caught:
        plan(f"{CLAUDE}/{SONNET}:rawPredict", MESSAGE, headers=headers)
    assert caught.value.reason is Reason.HEADER_NOT_ALLOWED


def test_gemini_3_has_no_price_away_from_the_global_endpoint() -> None:
    """What is not known is refused; at the global endpoint it is known."""
    price = BOOK.price("vertex", "gemini-3.5-flash")
    with pytest.raises(Refusal) as caught:
        worst_case(plan(f"{GOOGLE}/gemini-3.5-flash:generateContent", TEXT), price, 0, NO_CAPS)
    assert caught.value.reason is Reason.PRICE_UNKNOWN
    assert worst_case(plan(f"{GOOGLE}/gemini-3.5-flash:generateContent", TEXT, GLOBAL), price, 0, NO_CAPS)


@given(st.text(max_size=80), st.integers(1, 500), st.integers(0, 10), st.data())
def test_b12_no_answer_within_the_request_costs_more_than_its_hold(text, limit, spare, data) -> None:
    """In a region as at the global endpoint, for Claude as for Gemini: whatever of bound and limit is used."""
    claude = {"messages": [{"role": "user", "content": text}], "max_tokens": limit}
    gemini = {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": {"maxOutputTokens": limit}}
    for provider, region in ((PROVIDER, "regional"), (GLOBAL, "")):
        for below, body, model in (
            (f"{CLAUDE}/{SONNET}:rawPredict", claude, SONNET),
            (f"{GOOGLE}/gemini-2.5-pro:generateContent", gemini, "gemini-2.5-pro"),
        ):
            price = BOOK.price("vertex", model)
            wanted = plan(below, body, provider)
            assert wanted.input_tokens_bound >= len(text.encode())
            read = data.draw(st.integers(0, wanted.input_tokens_bound))
            usage = Usage(wanted.input_tokens_bound - read, read, output_tokens=limit, region=region)
            held = worst_case(wanted, price, 0, NO_CAPS).amounts
            assert cost_micro_usd(usage, price) <= held.cost_micro_usd
            larger = worst_case(plan(below, {**body}, provider), price, 0, NO_CAPS).amounts
            assert held.fits(larger)


@given(st.text(max_size=60), st.text(max_size=20), st.integers(1, 500), st.integers(1, 500))
def test_b11_more_of_anything_never_holds_less(text, longer, limit, more) -> None:
    """A longer text or a larger limit: the hold is at least as large."""

    def held(said: str, most: int) -> Any:
        body = {"messages": [{"role": "user", "content": said}], "max_tokens": most}
        return worst_case(plan(f"{CLAUDE}/{SONNET}:rawPredict", body), BOOK.price("vertex", SONNET), 0, NO_CAPS).amounts

    assert held(text, limit).fits(held(text + longer, limit))
    assert held(text, limit).fits(held(text, limit + more))


def vector(server: VendorServer, name: str) -> dict[str, Any]:
    """Let the server answer with a golden transcript."""
    found = json.loads((Path(__file__).parents[1] / "vectors" / "vertex" / f"{name}.json").read_text())
    server.answer = "".join(found["answer"]).encode()
    server.content_type = found["content_type"]
    return found


def test_the_google_sdk() -> None:
    """google-genai with Vertex on: it writes project and place into its paths, and sends the lease as its token."""
    with serving(VendorServer(GLOBAL)) as server:
        client = genai.Client(
            vertexai=True,
            project=PROJECT,
            location="global",
            credentials=Credentials("the-lease"),
            http_options={"base_url": server.base_url},
        )
        expected = vector(server, "gemini_json_thoughts_cached")
        answer = client.models.generate_content(model="gemini-2.5-pro", contents="Hi")
        assert answer.usage_metadata.thoughts_token_count == 150
        exchange = server.last
        assert (exchange.credential, exchange.plan.model) == ("the-lease", "gemini-2.5-pro")
        assert exchange.upstream.path.startswith(f"/v1beta1/projects/{PROJECT}/locations/global/{GOOGLE}/")
        assert exchange.meter.usage == Usage(**expected["usage"])
        expected = vector(server, "gemini_stream_tools")
        chunks = list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))
        assert len(chunks) == len(expected["answer"])
        assert server.last.meter.usage == Usage(**expected["usage"])
        server.cut = Refusal(Reason.LEASE_REVOKED, "revoked")
        vector(server, "gemini_stream_cut")
        with pytest.raises(google_errors.ClientError, match="LEASE_REVOKED"):
            list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))
        server.cut, server.refuse = None, Refusal(Reason.BUDGET_EXHAUSTED, "spent")
        with pytest.raises(google_errors.ClientError, match="BUDGET_EXHAUSTED"):
            client.models.generate_content(model="gemini-2.5-pro", contents="Hi")


def test_the_anthropic_sdk() -> None:
    """AnthropicVertex: the model is in the path, the body has its version, betas go in a header."""
    with serving(VendorServer(PROVIDER)) as server:
        client = anthropic.AnthropicVertex(
            base_url=f"{server.base_url}/v1", project_id=PROJECT, region=PLACE, access_token="the-lease", max_retries=0
        )
        ask = {**MESSAGE, "model": SONNET}
        expected = vector(server, "claude_json_cache_regional")
        answer = client.messages.create(**ask)
        assert answer.usage.cache_read_input_tokens == 10_000
        exchange = server.last
        assert (exchange.credential, exchange.plan.model) == ("the-lease", SONNET)
        assert {**exchange.sent, "anthropic_version": ""} == {**MESSAGE, "anthropic_version": ""}
        assert exchange.meter.usage == Usage(**expected["usage"])
        expected = vector(server, "claude_stream_thinking_tools")
        events = list(client.messages.create(**ask, stream=True))
        assert events[-1].type == "message_stop"
        assert server.last.meter.usage == Usage(**expected["usage"])
        server.cut = Refusal(Reason.LEASE_REVOKED, "revoked")
        vector(server, "claude_stream_cut")
        with pytest.raises(anthropic.APIStatusError, match="LEASE_REVOKED"):
            list(client.messages.create(**ask, stream=True))
        server.cut, server.refuse = None, Refusal(Reason.RATE_LIMITED, "slow down")
        with pytest.raises(anthropic.RateLimitError, match="RATE_LIMITED"):
            client.messages.create(**ask)
