"""Hosts that speak OpenAI's dialect, and Cohere: what each serves, bounds and refuses, and that no bound is too low."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from groq.types.chat.completion_create_params import CompletionCreateParams
from hypothesis import given
from hypothesis import strategies as st
from mistralai.client.models import ChatCompletionStreamRequest
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallPlan, worst_case
from leasehold_broker.domain.price import ModelPrice, Rates, Usage, cost_micro_usd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Provider, Route
from leasehold_broker.providers import hosts
from leasehold_broker.providers.openai_chat import Chat

CHATS = {
    "azure": ("/openai/deployments/my-o3/chat/completions", "api-version=2025-01-01-preview", "my-o3"),
    "cohere": ("/v2/chat", "", "command-a-03-2025"),
    "deepseek": ("/v1/chat/completions", "", "deepseek-chat"),
    "fireworks": ("/inference/v1/chat/completions", "", "accounts/fireworks/models/deepseek-v3p2"),
    "groq": ("/openai/v1/chat/completions", "", "openai/gpt-oss-120b"),
    "mistral": ("/v1/chat/completions", "", "mistral-small-latest"),
    "openai": ("/v1/chat/completions", "", "gpt-5"),
    "openrouter": ("/api/v1/chat/completions", "", "anthropic/claude-sonnet-4.5"),
    "own-llm": ("/v1/chat/completions", "", "qwen3:8b"),
    "together": ("/v1/chat/completions", "", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    "xai": ("/v1/chat/completions", "", "grok-4.3"),
}
USER = [{"role": "user", "content": "Hi"}]
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def chat(name: str, **fields: Any) -> tuple[Provider, Route, dict[str, Any]]:
    """A chat request at this host."""
    path, query, model = CHATS[name]
    provider = PROVIDERS[name]
    return provider, provider.route("POST", path, query), {"model": model, "messages": USER, **fields}


def planned(name: str, **fields: Any) -> CallPlan:
    """Its plan."""
    provider, route, body = chat(name, **fields)
    return provider.plan(route, {}, body, 0)


def sent(name: str, limit: int | None = None, **fields: Any) -> Any:
    """What goes upstream."""
    provider, route, body = chat(name, **fields)
    return msgspec.json.decode(provider.request(route, {}, body, limit).body)


def refused(call: Callable[..., object], *args: Any, **fields: Any) -> Refusal:
    """The refusal that this call ends with."""
    with pytest.raises(Refusal) as caught:
        call(*args, **fields)
    return caught.value


LISTED = [
    ("azure", "POST", "/openai/deployments/my-o3/chat/completions", "api-version=2024-10-21", "chat.completions"),
    ("azure", "POST", "/openai/deployments/my-embedding/embeddings", "api-version=2024-10-21", "embeddings"),
    ("azure", "POST", "/openai/responses", "api-version=2025-03-01-preview", "responses"),
    ("azure", "POST", "/openai/v1/responses", "", "responses"),
    ("azure", "POST", "/openai/v1/chat/completions", "api-version=preview", "chat.completions"),
    ("azure", "GET", "/openai/v1/models", "", "models.list"),
    ("cohere", "POST", "/v2/embed", "", "embed"),
    ("cohere", "GET", "/v1/models", "", "models.list"),
    ("cohere", "GET", "/v1/models/command-a-03-2025", "", "models.get"),
    ("fireworks", "GET", "/inference/v1/models/accounts/fireworks/models/x", "", "models.get"),
    ("groq", "GET", "/openai/v1/models/openai/gpt-oss-120b", "", "models.get"),
    ("mistral", "POST", "/v1/embeddings", "", "embeddings"),
    ("openrouter", "GET", "/api/v1/models", "", "models.list"),
    ("together", "POST", "/v1/embeddings", "", "embeddings"),
    ("own-llm", "POST", "/v1/embeddings", "", "embeddings"),
]


@pytest.mark.parametrize(("name", "method", "path", "query", "operation"), LISTED)
def test_what_is_listed_is_served(name: str, method: str, path: str, query: str, operation: str) -> None:
    """A listed route is found, and goes upstream under the same path."""
    route = PROVIDERS[name].route(method, path, query)
    assert (operation, path + (f"?{query}" if query else "")) == (route.operation, route.upstream_path)


def test_a_path_that_an_sdk_shortens_is_completed() -> None:
    """DeepSeek's SDK users leave out /v1; what goes upstream has it."""
    assert PROVIDERS["deepseek"].route("POST", "/chat/completions", "").upstream_path == "/v1/chat/completions"


UNLISTED = [
    ("azure", "POST", "/openai/deployments/my-o3/chat/completions", "", "api-version"),
    ("azure", "POST", "/openai/deployments/my-o3/chat/completions", "api-version=1'", "served are"),
    ("azure", "POST", "/openai/deployments/my-o3/chat/completions", "api-version=2024", "api-version must be"),
    ("azure", "POST", "/openai/deployments/my-o3/extensions/chat/completions", "api-version=2024-10-21", "served are"),
    ("azure", "POST", "/openai/v1/chat/completions", "x=1", "served are"),
    ("azure", "POST", "/openai/v1/batches", "", "runs for a day"),
    ("cohere", "POST", "/v1/chat", "", "use POST /v2/chat"),
    ("deepseek", "POST", "/beta/completions", "", "POST /chat/completions"),
    ("fireworks", "POST", "/v1/chat/completions", "", "POST /chat/completions"),
    ("xai", "POST", "/v1/audio/transcriptions", "", "no price is known for audio"),
    ("groq", "POST", "/openai/v1/batches", "", "runs for a day"),
    ("groq", "POST", "/openai/v1/responses", "", "use chat/completions"),
    ("mistral", "POST", "/v1/agents/completions", "", "an agent's own calls"),
    ("mistral", "POST", "/v1/fine_tuning/jobs", "", "training"),
    ("mistral", "POST", "/v1/ocr", "", "pages"),
    ("openai", "POST", "/v1/realtime/sessions", "", "session has no bound"),
    ("openai", "POST", "/v1/batches", "", "runs for a day"),
    ("openai", "POST", "/v1/files", "", "stored file"),
    ("openai", "POST", "/v1/fine_tuning/jobs", "", "training"),
    ("openrouter", "GET", "/api/v1/models/a/../b", "", "POST /chat/completions"),
    ("together", "POST", "/v1/images/generations", "", "no price is known for pictures"),
    ("own-llm", "POST", "/v1/completions", "", "legacy"),
    ("xai", "POST", "/v1/responses", "", "fee"),
]


@pytest.mark.parametrize(("name", "method", "path", "query", "said"), UNLISTED)
def test_what_is_not_listed_is_refused_with_the_reason(
    name: str, method: str, path: str, query: str, said: str
) -> None:
    """Batches, files, training, realtime and whatever else has no bound: refused, and why."""
    refusal = refused(PROVIDERS[name].route, method, path, query)
    assert refusal.reason is Reason.ROUTE_NOT_ALLOWED
    assert said in refusal.message


UNBOUNDED = [
    ("azure", {"data_sources": []}, "data_sources"),
    ("azure", {"service_tier": "priority"}, "by its type"),
    ("cohere", {"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ("cohere", {"messages": [{"role": "user", "content": [PIXEL]}]}, "send text"),
    ("deepseek", {"messages": [{"role": "user", "content": [PIXEL]}]}, "image_tokens_max"),
    ("fireworks", {"prediction": {}}, "rejected predictions"),
    ("fireworks", {"model": "accounts/a/deployments/d"}, "billed by time"),
    ("groq", {"model": "groq/compound"}, "without a bound"),
    ("groq", {"search_settings": {}}, "searches"),
    ("groq", {"service_tier": "performance"}, "no price"),
    ("groq", {"tools": [{"type": "browser_search"}]}, "browser_search"),
    ("mistral", {"guardrails": []}, "moderation"),
    ("mistral", {"prediction": {"type": "content", "content": "x"}}, "rejected predictions"),
    ("mistral", {"tools": [{"type": "web_search"}]}, "web_search"),
    ("openrouter", {"model": "openai/gpt-4o:online"}, "searches"),
    ("openrouter", {"model": "openrouter/auto"}, "name one model"),
    ("openrouter", {"models": ["a/b"]}, "name one model"),
    ("openrouter", {"plugins": [{"id": "web"}]}, "plugins"),
    ("openrouter", {"provider": {"sort": "throughput"}}, "route"),
    ("together", {"safety_model": "x"}, "name one model"),
    ("xai", {"deferred": True}, "outlives its lease"),
    ("xai", {"search_parameters": {"mode": "on"}}, "searches"),
    ("own-llm", {"audio": {"voice": "x"}}, "use text"),
    ("own-llm", {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "no bound"),
]


@pytest.mark.parametrize(("name", "fields", "said"), UNBOUNDED)
def test_what_has_no_bound_is_refused_with_a_way_out(name: str, fields: dict[str, Any], said: str) -> None:
    """Own searches, other models, predictions, remote things: COST_UNBOUNDED, and what to do instead."""
    refusal = refused(planned, name, **fields)
    assert (refusal.reason, said in refusal.message) == (Reason.COST_UNBOUNDED, True), refusal.message


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("cohere", {"connectors": []}),
        ("deepseek", {"max_completion_tokens": 5}),
        ("deepseek", {"n": 2}),
        ("groq", {"n": 2}),
        ("mistral", {"seed": 1}),
        ("mistral", {"model": "a/b"}),
        ("own-llm", {"max_tokens": 5, "max_completion_tokens": 5}),
        ("own-llm", {"chat_template": "x"}),
        ("own-llm", {"model": "../x"}),
        ("xai", {"stream_options": {"include_usage": True}}),
    ],
)
def test_what_a_host_does_not_know_is_refused(name: str, fields: dict[str, Any]) -> None:
    """A field on neither list, a second limit, a name outside of the alphabet: BODY_INVALID."""
    assert refused(planned, name, **fields).reason is Reason.BODY_INVALID


@pytest.mark.parametrize("name", CHATS)
def test_one_limit_goes_upstream_where_the_host_reads_it(name: str) -> None:
    """The chosen limit lands in the host's own member; a stated one is replaced where it stands."""
    member = {"azure": "max_completion_tokens", "groq": "max_completion_tokens", "openai": "max_completion_tokens"} | {
        "xai": "max_completion_tokens"
    }
    placed = member.get(name, "max_tokens")
    assert sent(name, 40)[placed] == 40
    body = sent(name, 40, max_tokens=900)
    assert body["max_tokens"] == 40
    assert "900" not in str(body)
    assert planned(name, max_tokens=900).output_tokens_stated == 900


FORCED = {"azure", "deepseek", "groq", "openai", "openrouter", "own-llm", "xai"}


@pytest.mark.parametrize("name", CHATS)
def test_usage_is_asked_for_where_the_host_needs_it(name: str) -> None:
    """A stream asks for its usage where none comes otherwise; hosts that do not know the option are not sent it."""
    body = sent(name, stream=True)
    if name in FORCED:
        assert body["stream_options"] == {"include_usage": True}
        assert "stream_options" not in sent(name)
    else:
        assert "stream_options" not in body
        assert name == "cohere" or "stream_options" not in sent(
            name, stream=True, stream_options={"include_usage": True}
        )
    assert ("usage" in body) == (name == "openrouter")


def test_the_standard_tier_is_asked_for_by_name() -> None:
    """Where a host has service tiers, the one that is held for is named; where it has none, none is."""
    assert sent("groq")["service_tier"] == "on_demand"
    assert sent("groq", service_tier="auto")["service_tier"] == "on_demand"
    assert sent("groq", service_tier="flex")["service_tier"] == "flex"
    assert all("service_tier" not in sent(name) for name in set(CHATS) - {"groq", "openai"})


def test_a_deployment_is_planned_as_the_model_that_it_serves() -> None:
    """Price and scope go by the declared model; upstream, the deployment is in the path or the body, and once only."""
    provider, route, body = chat("azure")
    assert (route.path_model, planned("azure").model) == ("o3-mini", "o3-mini")
    assert "model" not in sent("azure")
    versionless = provider.route("POST", "/openai/v1/chat/completions", "")
    assert provider.plan(versionless, {}, body, 0).model == "o3-mini"
    assert msgspec.json.decode(provider.request(versionless, {}, body, None).body)["model"] == "my-o3"
    unknown = refused(provider.plan, versionless, {}, {**body, "model": "o3-mini"}, 0)
    assert (unknown.reason, "not declared" in unknown.message) == (Reason.MODEL_NOT_ALLOWED, True)
    path = "/openai/deployments/theirs/chat/completions"
    assert refused(provider.route, "POST", path, "api-version=2024-10-21").reason is Reason.MODEL_NOT_ALLOWED
    assert provider.key_header(Secret(b"k")) == ("api-key", b"k")


def test_a_picture_counts_by_the_model_that_is_deployed() -> None:
    """gpt-4o-mini has its own, larger maximum, whatever its deployment is called."""
    provider = PROVIDERS["azure"]
    content = [{"role": "user", "content": [PIXEL]}]
    bounds = []
    for deployment in ("my-small", "my-o3"):
        route = provider.route("POST", f"/openai/deployments/{deployment}/chat/completions", "api-version=2024-10-21")
        bounds.append(provider.plan(route, {}, {"messages": content}, 0).input_tokens_bound)
    assert bounds[0] > 48_000 > bounds[1] > 24_000


def test_a_picture_counts_at_its_maximum() -> None:
    """Documented maxima at Mistral and xAI, the operator's word at a declared host."""
    content = [{"role": "user", "content": [PIXEL]}]
    for name, most in (("mistral", 4_352), ("own-llm", 4_096), ("xai", 1_792)):
        assert most <= planned(name, messages=content).input_tokens_bound < most + 300


def test_encrypted_reasoning_counts_for_more_than_its_length() -> None:
    """OpenRouter's reasoning details stand for text that may be longer than themselves."""
    message = {"role": "assistant", "content": "", "reasoning_details": [{"type": "x", "data": "A" * 1000}]}
    assert planned("openrouter", messages=[message]).input_tokens_bound > 4_000


def test_an_operator_widens_a_request_knowingly() -> None:
    """A declared extra field is sent on, and its text is counted."""
    plain, more = planned("own-llm"), planned("own-llm", guided_choice=["a" * 500])
    assert more.input_tokens_bound > plain.input_tokens_bound + 500
    assert sent("own-llm", guided_choice=["a"])["guided_choice"] == ["a"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=120)
PRICE = ModelPrice("m", Rates(300_000, 900_000, 30_000), (), 0, 0, "v")


@given(st.sampled_from(sorted(CHATS)), TEXT, TEXT, st.integers(1, 5_000), st.data())
def test_the_hold_covers_every_usage_within_the_bound(
    name: str, first: str, second: str, limit: int, data: Any
) -> None:
    """B12: no report within the request's bytes and limit costs more than its hold, at any host."""
    plan = planned(
        name, messages=[{"role": "user", "content": first}, {"role": "user", "content": second}], max_tokens=limit
    )
    assert plan.input_tokens_bound >= len((first + second).encode())
    held = worst_case(plan, PRICE, 0, NO_CAPS).amounts
    fresh = data.draw(st.integers(0, plan.input_tokens_bound))
    cached = data.draw(st.integers(0, plan.input_tokens_bound - fresh))
    used = Usage(fresh, cached, output_tokens=data.draw(st.integers(0, limit * plan.choices)))
    assert cost_micro_usd(used, PRICE) <= held.cost_micro_usd
    assert used.all_input_tokens <= held.input_tokens
    assert used.all_output_tokens <= held.output_tokens


@given(st.sampled_from(sorted(CHATS)), TEXT, TEXT, st.integers(1, 5_000), st.integers(0, 5_000))
def test_more_is_never_held_for_less(name: str, first: str, second: str, limit: int, more: int) -> None:
    """B11: another message, a tool, a larger limit: the hold never falls."""
    messages = [{"role": "user", "content": first}]
    small = worst_case(planned(name, messages=messages, max_tokens=limit), PRICE, 0, NO_CAPS).amounts
    tool = {"type": "function", "function": {"name": "f", "description": second, "parameters": {}}}
    for fields in (
        {"messages": [*messages, {"role": "user", "content": second}], "max_tokens": limit},
        {"messages": messages, "max_tokens": limit, "tools": [tool]},
        {"messages": messages, "max_tokens": limit + more},
    ):
        large = worst_case(planned(name, **fields), PRICE, 0, NO_CAPS).amounts
        assert small.cost_micro_usd <= large.cost_micro_usd
        assert small.input_tokens <= large.input_tokens
        assert small.output_tokens <= large.output_tokens


def test_refusals_have_the_shape_of_the_host() -> None:
    """Each SDK finds the message where its own host would put it, in an answer and in a stream."""
    refusal = Refusal(Reason.LEASE_REVOKED, "the lease was revoked")
    for name, provider in PROVIDERS.items():
        body = msgspec.json.decode(provider.refusal_body(403, refusal, "r"))
        found = body if name in {"bedrock", "cohere", "mistral"} else body["error"]
        assert "LEASE_REVOKED" in found["message"]
        event = provider.refusal_event(refusal, "r")
        assert name == "bedrock" or event.endswith((b"\n\n", b"\r\n\r\n"))
        assert b"LEASE_REVOKED" in event


def test_no_field_of_groqs_sdk_is_forgotten() -> None:
    """Every field that it types is either sent on or refused with a reason; drift shows here."""
    chat = hosts.GROQ.operations["/chat/completions"]
    assert isinstance(chat, Chat)
    typed = CompletionCreateParams.__required_keys__ | CompletionCreateParams.__optional_keys__
    known = chat.rules.fields | set(chat.rules.refused)
    # What belongs to models that search on their own, which are refused by name.
    assert typed <= known, typed - known


def test_no_field_of_mistrals_sdk_is_forgotten() -> None:
    """As above; its SDK types a request as a model."""
    chat = hosts.MISTRAL.operations["/chat/completions"]
    assert isinstance(chat, Chat)
    known = chat.rules.fields | set(chat.rules.refused)
    typed = {field.alias or name for name, field in ChatCompletionStreamRequest.model_fields.items()}
    assert typed <= known, typed - known
