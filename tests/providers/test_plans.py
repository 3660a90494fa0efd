"""The body gate: what each vendor's fields cost, place, and which are refused with a way out."""

import copy
import importlib
from typing import Any

import google.genai.types as genai_types
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.price import ANY
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import Provider, Route
from leasehold_broker.providers import (
    all_providers,
    anthropic_body,
    gemini_body,
    openai_audio,
    openai_body,
    openai_images,
    openai_response_body,
)

PROVIDERS = all_providers()
ROUTES = {
    "messages": ("anthropic", "/v1/messages", ""),
    "count": ("anthropic", "/v1/messages/count_tokens", ""),
    "chat": ("openai", "/v1/chat/completions", ""),
    "responses": ("openai", "/v1/responses", ""),
    "embeddings": ("openai", "/v1/embeddings", ""),
    "generate": ("gemini", "/v1/models/gemini-2.5-flash:generateContent", ""),
    "stream": ("gemini", "/v1/models/gemini-2.5-flash:streamGenerateContent", "alt=sse"),
    "embed": ("gemini", "/v1/models/gemini-embedding-001:embedContent", ""),
    "batch_embed": ("gemini", "/v1/models/gemini-embedding-001:batchEmbedContents", ""),
}
USER = [{"role": "user", "content": "Hi"}]
BASE: dict[str, dict[str, Any]] = {
    "messages": {"model": "claude-sonnet-5", "max_tokens": 64, "messages": USER},
    "count": {"model": "claude-sonnet-5", "messages": USER},
    "chat": {"model": "gpt-5", "messages": USER},
    "responses": {"model": "gpt-5", "input": "Hi"},
    "embeddings": {"model": "text-embedding-3-small", "input": "Hi"},
    "generate": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "stream": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "embed": {"content": {"parts": [{"text": "Hi"}]}},
    "batch_embed": {"requests": [{"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "Hi"}]}}]},
}


def at(kind: str) -> tuple[Provider, Route]:
    """Provider and route by our short name."""
    name, path, query = ROUTES[kind]
    return PROVIDERS[name], PROVIDERS[name].route("POST", path, query)


def planned(kind: str, **fields: Any) -> Any:
    """The plan of the base request with these fields."""
    provider, route = at(kind)
    return provider.plan(route, {}, {**copy.deepcopy(BASE[kind]), **fields}, 0)


def sent(kind: str, limit: int | None = None, **fields: Any) -> Any:
    """The body that goes upstream."""
    provider, route = at(kind)
    return msgspec.json.decode(provider.request(route, {}, {**copy.deepcopy(BASE[kind]), **fields}, limit).body)


IMAGE_URL = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
ANTHROPIC_URL = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
UNBOUNDED: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"container": "c"}),
    ("messages", {"mcp_servers": [{"url": "https://x"}]}),
    ("messages", {"speed": "faster"}),
    ("messages", {"inference_geo": "mars"}),
    ("messages", {"service_tier": "priority"}),
    ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("messages", {"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
    ("messages", {"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20250825"]}]}),
    ("messages", {"thinking": {"type": "enabled", "budget_tokens": 64}}),
    ("messages", {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
    ("messages", {"messages": [{"role": "user", "content": [ANTHROPIC_URL]}]}),
    ("messages", {"messages": [{"role": "user", "content": [PDF]}]}),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}),
    ("chat", {"audio": {"voice": "alloy"}}),
    ("chat", {"modalities": ["text", "audio"]}),
    ("chat", {"prediction": {"type": "content", "content": "x"}}),
    ("chat", {"web_search_options": {}}),
    ("chat", {"service_tier": "scale"}),
    ("chat", {"prompt_cache_options": {"ttl": "12h"}}),
    ("chat", {"messages": [{"role": "user", "content": [IMAGE_URL]}]}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}),
    ("chat", {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}),
    ("responses", {"previous_response_id": "resp_1"}),
    ("responses", {"conversation": "conv_1"}),
    ("responses", {"background": True}),
    ("responses", {"prompt": {"id": "p"}}),
    ("responses", {"tools": [{"type": "web_search"}]}),
    ("responses", {"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}),
    ("responses", {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
    ("responses", {"tools": [{"type": "mcp", "server_label": "x"}]}),
    ("responses", {"input": [{"type": "item_reference", "id": "x"}]}),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
    ("generate", {"cachedContent": "cachedContents/1"}),
    ("generate", {"cached_content": "cachedContents/1"}),
    ("generate", {"tools": [{"googleMaps": {}}]}),
    ("generate", {"tools": [{"google_maps": {}}]}),
    ("generate", {"tools": [{"codeExecution": {}}]}),
    ("generate", {"tools": [{"codeExecution": {}}]}),
    ("generate", {"serviceTier": "turbo"}),
    ("generate", {"generationConfig": {"responseModalities": ["IMAGE"]}}),
    ("generate", {"generationConfig": {"speechConfig": {}}}),
    ("generate", {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]}]}),
    ("generate", {"contents": [{"parts": [{"file_data": {"fileUri": "x"}}]}]}),
]
INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"max_tokns": 5}, "max_tokns"),
    ("messages", {"max_tokens": True}, "max_tokens"),
    ("messages", {"max_tokens": -1}, "max_tokens"),
    ("messages", {"max_tokens": 5.0}, "max_tokens"),
    ("messages", {"max_tokens": "5"}, "max_tokens"),
    ("messages", {"stream": "true"}, "stream"),
    ("messages", {"model": ["x"]}, "model"),
    ("messages", {"model": "../x"}, "model"),
    ("messages", {"messages": "Hi"}, "messages"),
    ("messages", {"messages": [{"role": "user", "content": 5}]}, "messages"),
    ("chat", {"n": 0}, "n"),
    ("chat", {"n": 129}, "n"),
    ("chat", {"n": True}, "n"),
    ("chat", {"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens"),
    ("chat", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("chat", {"model": "ft:gpt-4o:acme"}, "model"),
    ("chat", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("chat", {"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
    ("chat", {"Max_Tokens": 5}, "Max_Tokens"),
    ("responses", {"max_output_tokens": 0}, "max_output_tokens"),
    ("responses", {"input": 5}, "input"),
    ("embeddings", {"input": []}, "input"),
    ("embeddings", {"max_tokens": 1}, "max_tokens"),
    ("generate", {"generationConfig": {"maxOutputTokens": 5, "max_output_tokens": 9}}, "maxOutputTokens"),
    ("generate", {"generationConfig": {"candidateCount": 9}}, "candidateCount"),
    ("generate", {"generation_config": {"maxOutputTokens": 0}}, "maxOutputTokens"),
    ("generate", {"generationConfig": {}, "generation_config": {}}, "generationConfig"),
    ("generate", {"model": "models/gemini-2.5-pro"}, "model"),
    ("generate", {"contents": []}, "contents"),
    ("batch_embed", {"requests": [{"model": "models/other", "content": {"parts": []}}]}, "model"),
]


@pytest.mark.parametrize(("kind", "fields"), UNBOUNDED)
def test_what_has_no_bound_is_refused(kind: str, fields: dict[str, Any]) -> None:
    """A part or field whose cost has no bound is refused as such, naming it and what to do."""
    with pytest.raises(Refusal) as caught:
        planned(kind, **fields)
    assert caught.value.reason is Reason.COST_UNBOUNDED
    assert caught.value.violations


@pytest.mark.parametrize(("kind", "fields", "named"), INVALID)
def test_what_is_wrong_is_refused_by_name(kind: str, fields: dict[str, Any], named: str) -> None:
    """An unknown field and a wrong type are refused, naming the field."""
    with pytest.raises(Refusal, match=named) as caught:
        planned(kind, **fields)
    assert caught.value.reason is Reason.BODY_INVALID


def test_plans_state_limits_and_choices() -> None:
    """The plan carries the request's own limit and the number of answers."""
    assert planned("messages").output_tokens_stated == 64
    assert planned("chat", max_tokens=7, n=3).output_tokens_stated == 7
    assert planned("chat", max_tokens=7, n=3).choices == 3
    assert planned("chat", max_completion_tokens=8).output_tokens_stated == 8
    assert planned("chat").output_tokens_stated is None
    assert planned("responses", max_output_tokens=9).output_tokens_stated == 9
    config = {"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}}
    assert (planned("generate", **config).output_tokens_stated, planned("generate", **config).choices) == (5, 2)
    assert planned("generate", generation_config={"max_output_tokens": 6}).output_tokens_stated == 6
    assert not planned("embeddings").output_limited
    assert not planned("batch_embed").output_limited
    assert planned("embed").metered
    assert not planned("count").metered
    assert planned("messages", stream=True).stream
    assert planned("stream").stream


def test_plans_say_where_a_call_may_be_served() -> None:
    """A tier or place asked for, and the one it may fall back to; an unnamed place is whichever the workspace has."""
    assert (planned("messages").service_tiers, planned("messages").regions) == (("",), (ANY,))
    fast = planned("messages", speed="fast", inference_geo="us")
    assert (fast.service_tiers, fast.regions) == (("fast", ""), ("us",))
    assert planned("messages", inference_geo="global").regions == ("global",)
    for kind in ("chat", "responses"):
        assert planned(kind, service_tier="auto").service_tiers == ("default",)
        assert planned(kind, service_tier="flex").service_tiers == ("flex", "default")
        assert planned(kind, service_tier="fast").service_tiers == ("priority", "default")
        assert sent(kind, service_tier="fast")["service_tier"] == "fast"
    assert planned("generate", serviceTier="flex").service_tiers == ("flex", "")


def test_requests_place_the_limit_and_the_tier() -> None:
    """The chosen limit lands in the vendor's field; the standard tier is asked for by name; nothing else changes."""
    assert sent("chat", 5) == {**BASE["chat"], "service_tier": "default", "max_completion_tokens": 5}
    assert sent("chat", stream=True)["stream_options"] == {"include_usage": True}
    asked = {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}}
    assert sent("chat", **asked)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert sent("responses", 5) == {**BASE["responses"], "service_tier": "default", "max_output_tokens": 5}
    assert sent("messages", 5)["max_tokens"] == 5
    assert sent("messages", service_tier="auto")["service_tier"] == "standard_only"
    assert sent("generate", 5)["generationConfig"] == {"maxOutputTokens": 5}
    assert sent("generate", generation_config={"top_k": 3})["generationConfig"] == {"topK": 3}
    assert sent("generate") == BASE["generate"]
    assert sent("embeddings") == BASE["embeddings"]


def test_requests_leave_the_checked_body_alone() -> None:
    """Building a request changes nothing in the body that was checked."""
    for kind, body in BASE.items():
        provider, route = at(kind)
        before = copy.deepcopy(body)
        provider.request(route, {}, body, 5)
        assert before == body


def test_reasoning_by_reference_counts_as_the_largest_answer() -> None:
    """A reasoning item without its content is bounded by what one answer can reason."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert planned("responses", input=[*USER, item]).input_tokens_bound > 131_072
    known = {**item, "encrypted_content": "AAAA"}
    assert planned("responses", input=[*USER, known]).input_tokens_bound < 1_000


def _all_fields(module: str, name: str) -> set[str]:
    typed = getattr(importlib.import_module(module), name)
    return set(typed.__required_keys__ | typed.__optional_keys__)


def test_no_field_of_the_sdks_is_forgotten() -> None:
    """Every field that an official SDK types is either sent on or refused with a reason; drift shows here."""
    sampled = [
        (
            "anthropic.types.message_create_params",
            "MessageCreateParamsStreaming",
            anthropic_body.FIELDS,
            anthropic_body.REFUSED,
        ),
        (
            "anthropic.types.beta.message_create_params",
            "MessageCreateParamsStreaming",
            anthropic_body.FIELDS,
            anthropic_body.REFUSED,
        ),
        (
            "anthropic.types.beta.message_count_tokens_params",
            "MessageCountTokensParams",
            anthropic_body.COUNT_FIELDS,
            anthropic_body.REFUSED,
        ),
        (
            "openai.types.chat.completion_create_params",
            "CompletionCreateParamsStreaming",
            openai_body.CHAT_FIELDS,
            openai_body.CHAT_REFUSED,
        ),
        (
            "openai.types.responses.response_create_params",
            "ResponseCreateParamsStreaming",
            openai_response_body.RESPONSE_FIELDS,
            openai_response_body.RESPONSE_REFUSED,
        ),
        ("openai.types.embedding_create_params", "EmbeddingCreateParams", openai_body.EMBEDDING_FIELDS, {}),
        (
            "openai.types.image_generate_params",
            "ImageGenerateParamsStreaming",
            openai_images.GENERATION_FIELDS,
            openai_images.REFUSED,
        ),
        (
            "openai.types.image_edit_params",
            "ImageEditParamsStreaming",
            openai_images.EDIT_FIELDS - {"image[]"},
            openai_images.REFUSED,
        ),
        (
            "openai.types.audio.speech_create_params",
            "SpeechCreateParams",
            openai_audio.SPEECH_FIELDS,
            openai_audio.SPEECH_REFUSED,
        ),
        (
            "openai.types.audio.transcription_create_params",
            "TranscriptionCreateParamsStreaming",
            {name.removesuffix("[]") for name in openai_audio.TRANSCRIPT_FIELDS},
            {name.removesuffix("[]"): why for name, why in openai_audio.TRANSCRIPT_REFUSED.items()},
        ),
    ]
    gone = {"temperature", "top_k", "top_p", "context_management", "stream", "max_tokens", "metadata", "diagnostics"}
    gone |= {"inference_geo", "service_tier", "stop_sequences"}
    for module, name, allowed, refused in sampled:
        typed = _all_fields(module, name)
        assert typed <= allowed | set(refused), (module, typed - allowed - set(refused))
        assert allowed - typed <= (gone if "anthropic" in module else set()), (module, allowed - typed)


def test_no_generation_setting_of_gemini_is_forgotten() -> None:
    """Every generation setting that the SDK types is known, refused, or of the other platform only."""
    other_platform = {
        "audioTimestamp", "enableAffectiveDialog", "modelSelectionConfig", "routingConfig", "translationConfig",
    }  # fmt: skip
    typed = {field.alias or name for name, field in genai_types.GenerationConfig.model_fields.items()}
    known = gemini_body.CONFIG_FIELDS | set(gemini_body.CONFIG_REFUSED) | other_platform
    assert typed <= known, typed - known


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**7) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "role", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    sorted(anthropic_body.FIELDS | openai_body.CHAT_FIELDS | openai_response_body.RESPONSE_FIELDS | gemini_body.FIELDS)
)


@given(st.sampled_from(sorted(ROUTES)), st.dictionaries(FIELDS, JSON, max_size=4))
def test_any_value_is_planned_or_refused(kind: str, fields: dict[str, Any]) -> None:
    """Whatever a field holds, the gate answers with a plan or a refusal, and a plan can be sent."""
    refusal: Refusal | None = None
    try:
        plan = planned(kind, **fields)
    except Refusal as raised:
        refusal = raised
    if refusal is not None:
        assert refusal.reason in {Reason.BODY_INVALID, Reason.COST_UNBOUNDED}
        assert refusal.message.isprintable()
        return
    assert plan.input_tokens_bound >= 0
    assert plan.choices >= 1
    assert sent(kind, 5, **fields)


@pytest.mark.parametrize("value", [[], {}, 5, True, 1.5, "", "nothing", [[]]], ids=repr)
def test_a_wrong_type_anywhere_is_refused(value: Any) -> None:
    """Where a word sorts a part, a value of any other type is refused, never a fault."""
    part = {"type": value}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("messages", {"messages": [{"role": "user", "content": [part]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": part}]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "document", "source": part}]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": [value]}]}]}),
        ("messages", {"tools": [part]}),
        ("messages", {"service_tier": value}),
        ("messages", {"context_management": {"edits": [part]}}),
        ("messages", {"stream": [value]}),
        ("chat", {"messages": [{"role": "user", "content": [part]}]}),
        ("chat", {"tools": [part]}),
        ("chat", {"modalities": [value]}),
        ("chat", {"service_tier": value}),
        ("responses", {"input": [part]}),
        ("responses", {"input": [{"role": "user", "content": [part]}]}),
        ("responses", {"tools": [part]}),
        ("generate", {"serviceTier": value}),
        ("generate", {"contents": [{"parts": [{"text": [value]}]}]}),
        ("generate", {"generationConfig": {"responseModalities": [value]}}),
    ]
    for kind, fields in cases:
        with pytest.raises(Refusal) as caught:
            planned(kind, **fields)
        assert caught.value.reason in {Reason.BODY_INVALID, Reason.COST_UNBOUNDED}
