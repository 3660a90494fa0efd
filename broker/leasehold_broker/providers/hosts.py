"""Hosts that speak OpenAI's dialect, each as data: Mistral, Groq, xAI, DeepSeek, Together, Fireworks, OpenRouter, own.

Owns what sets each apart: which members it takes, which of them bounds an answer, where its usage is, how its models
are named, and what is refused because its cost has no bound. Sources: the vendors' public API references (November
2026). What a host reports above its hold is charged and freezes the lease, here as everywhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from leasehold_broker.domain.host_settings import COMPATIBLE, OUTPUT_LIMITS, HostSettings
from leasehold_broker.providers.checks import GROUPED_NAME
from leasehold_broker.providers.openai_audio import TRANSCRIPT_FIELDS, Speech, Transcription
from leasehold_broker.providers.openai_body import EMBEDDING_FIELDS, MESSAGE_FIELDS, ChatRules
from leasehold_broker.providers.openai_chat import Chat, Embeddings
from leasehold_broker.providers.openai_host import HostShape
from leasehold_broker.providers.operation import Operation
from leasehold_broker.providers.usage import UsageRules, compatible_usage, heard_usage, lasting_usage

_COMMON: Final = frozenset(
    [
        "frequency_penalty",
        "max_tokens",
        "messages",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "response_format",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    ]
)
_LOGPROBS: Final = frozenset(("logprobs", "top_logprobs"))
_SAMPLING: Final = frozenset(("logit_bias", "min_p", "repetition_penalty", "seed", "top_k"))
_MESSAGE: Final = (MESSAGE_FIELDS - {"prompt_cache_breakpoint"}) | {"reasoning", "reasoning_content"}
_SEARCHES: Final = "the vendor's own searches have no bound on their cost; leave it out"
_OTHER_MODEL: Final = "another model has a price of its own; name one model"
_PREDICTION: Final = "rejected predictions are billed beyond the output limit; leave it out"
_BACKGROUND: Final = "an answer that is fetched later outlives its lease; leave it out"
_TIER: Final = "no price is known for this host's service tiers; leave it out"
_REFUSED: Final[Mapping[str, str]] = {
    "audio": "audio has a price of its own, which is not bounded here; use text",
    "modalities": "only text is bounded here; leave it out",
    "prediction": _PREDICTION,
    "service_tier": _TIER,
    "web_search_options": _SEARCHES,
}
_NO_ROUTE: Final = {
    "/batch": "a batch runs for a day, after its lease; send the calls themselves",
    "/files": "a stored file is read by calls that nobody can bound; send its text in the request",
    "/fine": "training has no bound that a request states; let the platform team run it",
    "/audio": "no price is known for audio at this host; it is not served",
    "/images": "no price is known for pictures at this host; it is not served",
    "/agents": "an agent's own calls have no bound on their cost; use chat/completions",
    "/conversations": "a stored conversation has no bound on its cost; use chat/completions",
    "/responses": "Responses is not served at this host; use chat/completions",
    "/completions": "legacy completions are not served; use chat/completions",
}


def _rules(fields: frozenset[str], refused: Mapping[str, str], *message: str) -> ChatRules:
    """What a host takes beside what all take, what it refuses, and members of its messages."""
    return ChatRules(
        fields=_COMMON | fields,
        refused={name: why for name, why in {**_REFUSED, **refused}.items() if name not in fields},
        message_fields=_MESSAGE.union(message),
        tools=frozenset(("function",)),
        service_tiers=frozenset(),
        stream_options=frozenset(("include_usage", "include_obfuscation", "continuous_usage_stats")),
        image_tokens_max=lambda _: 0,
        limits=("max_tokens",),
    )


def _chat(rules: ChatRules, usage: UsageRules) -> Chat:
    return Chat(rules, partial(compatible_usage, rules=usage))


def _embeddings(*fields: str) -> Embeddings:
    return Embeddings(frozenset(("model", "input", *fields)), partial(compatible_usage, rules=UsageRules()))


def _heard_at_groq(name: str) -> Transcription:
    """Groq bills ten seconds at least, and says how long a sound was in its verbose answer only."""
    return Transcription(
        name,
        TRANSCRIPT_FIELDS - {"stream", "include[]", "keywords[]", "languages[]"},
        {"url": "how long it sounds is read from its bytes; send the file"},
        by_token=(),
        seconds_min=10,
        read=partial(lasting_usage, seconds_min=10),
    )


MISTRAL: Final = HostShape(
    name="mistral",
    origin="https://api.mistral.ai",
    prefix="/v1",
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    frozenset(
                        (
                            "metadata",
                            "min_tokens",
                            "prompt_cache_key",
                            "prompt_logprobs",
                            "prompt_mode",
                            "random_seed",
                            "reasoning_effort",
                            "repetition_penalty",
                            "safe_prompt",
                            "top_k",
                            "top_prompt_logprobs",
                        )
                    )
                    | _LOGPROBS,
                    {"guardrails": "moderation inside a call has a price of its own; leave it out"},
                    "prefix",
                ),
                # Pixtral cuts a picture of at most 1,024 pixels into patches of 16, later models into fewer; a mark
                # ends each row.
                image_tokens_max=lambda _: 4_352,
                usage_asked=False,
            ),
            # Some models report cached input beside the details. Sound is refused, so its seconds never come.
            UsageRules(cached=("num_cached_tokens",)),
        ),
        "/embeddings": _embeddings("encoding_format", "metadata", "output_dimension", "output_dtype"),
        "/audio/transcriptions": Transcription(
            fields=frozenset(
                ("diarize", "file", "language", "model", "stream", "temperature", "timestamp_granularities")
            ),
            off=frozenset(("diarize",)),
            refused=dict.fromkeys(("file_id", "file_url"), "how long it sounds is read from its bytes; send the file"),
            by_token=(),
            read=heard_usage,
            ends=frozenset(("transcription.done",)),
        ),
    },
    refused_paths=_NO_ROUTE | {"/ocr": "pages have a price of their own, which no request bounds; send text"},
    flat_errors=True,
)
GROQ: Final = HostShape(
    name="groq",
    origin="https://api.groq.com",
    prefix="/openai/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    frozenset(
                        (
                            "disable_tool_validation",
                            "function_call",
                            "functions",
                            "include_reasoning",
                            "logit_bias",
                            "max_completion_tokens",
                            "metadata",
                            "reasoning_effort",
                            "reasoning_format",
                            "seed",
                            "service_tier",
                            "store",
                            "user",
                        )
                    )
                    | _LOGPROBS,
                    {
                        "citation_options": "citations cut a source into pieces, which has no bound; leave it out",
                        "compound_custom": _SEARCHES,
                        "documents": "documents are put into the prompt in a way that is not bounded; send their text",
                        "exclude_domains": _SEARCHES,
                        "include_domains": _SEARCHES,
                        "search_settings": _SEARCHES,
                    },
                ),
                limits=("max_completion_tokens", "max_tokens"),
                choices_max=1,
                service_tier="on_demand",
                service_tiers=frozenset(("auto", "flex", "on_demand")),
            ),
            # Flex costs what on-demand costs; the performance tier is by contract.
            UsageRules(nested="x_groq", tiers={"on_demand": "", "flex": "", "auto": ""}),
        ),
        "/audio/transcriptions": _heard_at_groq("audio.transcriptions"),
        "/audio/translations": _heard_at_groq("audio.translations"),
        "/audio/speech": Speech("canopylabs/orpheus", frozenset(("input", "model", "response_format", "voice"))),
    },
    refused_models={"compound": "this model runs tools and other models without a bound; name a plain model"},
    refused_paths=_NO_ROUTE,
)
XAI: Final = HostShape(
    name="xai",
    origin="https://api.x.ai",
    prefix="/v1",
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    frozenset(("logit_bias", "max_completion_tokens", "reasoning_effort", "seed", "user")) | _LOGPROBS,
                    {"deferred": _BACKGROUND, "search_parameters": _SEARCHES},
                ),
                # At most six tiles and one for the whole, 256 tokens each.
                image_tokens_max=lambda _: 1_792,
                limits=("max_completion_tokens", "max_tokens"),
            ),
            # Reasoning is not part of the completion, except where the total says so.
            UsageRules(reasoning_apart=True),
        ),
    },
    refused_paths=_NO_ROUTE | {"/responses": "a refused answer has a fee of its own there; use chat/completions"},
)
DEEPSEEK: Final = HostShape(
    name="deepseek",
    origin="https://api.deepseek.com",
    prefix="/v1",
    also=("",),
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(frozenset(("reasoning_effort", "thinking", "user", "user_id")) | _LOGPROBS, {}),
                choices_max=1,
            ),
            UsageRules(cached=("prompt_cache_hit_tokens",)),
        ),
    },
    refused_paths=_NO_ROUTE,
)
TOGETHER: Final = HostShape(
    name="together",
    origin="https://api.together.xyz",
    prefix="/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    _SAMPLING
                    | {
                        "chat_template_kwargs",
                        "context_length_exceeded_behavior",
                        "function_call",
                        "logprobs",
                        "reasoning",
                        "reasoning_effort",
                    },
                    {"safety_model": _OTHER_MODEL},
                ),
                usage_asked=False,
            ),
            UsageRules(cached=("cached_tokens",)),
        ),
        "/embeddings": _embeddings(),
    },
    refused_paths=_NO_ROUTE | {"/rerank": "no bound is known for it; it is not served"},
)
FIREWORKS: Final = HostShape(
    name="fireworks",
    origin="https://api.fireworks.ai",
    prefix="/inference/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    _SAMPLING
                    | _LOGPROBS
                    | {
                        "context_length_exceeded_behavior",
                        "function_call",
                        "functions",
                        "ignore_eos",
                        "max_completion_tokens",
                        "metadata",
                        "min_tokens",
                        "mirostat_lr",
                        "mirostat_target",
                        "perf_metrics_in_response",
                        "prompt_cache_isolation_key",
                        "prompt_cache_key",
                        "prompt_truncate_len",
                        "raw_output",
                        "reasoning_effort",
                        "reasoning_history",
                        "thinking",
                        "typical_p",
                        "user",
                    },
                    {"speculation": _PREDICTION},
                ),
                usage_asked=False,
                limits=("max_tokens", "max_completion_tokens"),
            ),
            UsageRules(),
        ),
        "/embeddings": _embeddings("dimensions", "encoding_format", "user"),
    },
    refused_models={"deployments/": "a deployment is billed by time, not by call; name a serverless model"},
    refused_paths=_NO_ROUTE,
)
OPENROUTER: Final = HostShape(
    name="openrouter",
    origin="https://openrouter.ai",
    prefix="/api/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": _chat(
            replace(
                _rules(
                    _SAMPLING
                    | _LOGPROBS
                    | {
                        "include_reasoning",
                        "max_completion_tokens",
                        "metadata",
                        "reasoning",
                        "reasoning_effort",
                        "session_id",
                        "structured_outputs",
                        "top_a",
                        "transforms",
                        "usage",
                        "user",
                        "verbosity",
                    },
                    {
                        "models": _OTHER_MODEL,
                        "plugins": "plugins search, read files and run on without a bound; leave it out",
                        "preset": "a preset holds settings that are not seen here; write them into the request",
                        "provider": "a chosen route may cost more than the listed price; leave it out",
                        "route": _OTHER_MODEL,
                    },
                    "reasoning_details",
                ),
                limits=("max_tokens", "max_completion_tokens"),
                choices_max=1,
                added={"usage": {"include": True}},
            ),
            UsageRules(cost=True),
        ),
    },
    refused_models={
        ":online": _SEARCHES,
        ":nitro": "it prefers fast routes, which may cost more than the listed price; name the plain model",
        ":exacto": "it prefers chosen routes, which may cost more than the listed price; name the plain model",
        "openrouter/": _OTHER_MODEL,
    },
    refused_paths=_NO_ROUTE | {"/embeddings": "embeddings are not served at this host"},
)
SHAPES: Final = {shape.name: shape for shape in (DEEPSEEK, FIREWORKS, GROQ, MISTRAL, OPENROUTER, TOGETHER, XAI)}


def tuned(shape: HostShape, name: str, settings: HostSettings) -> HostShape:
    """A host under a name of its own, with what an operator adds to its chat requests."""

    def widened(operation: Operation) -> Operation:
        if not isinstance(operation, Chat):
            return operation
        rules = replace(operation.rules, fields=operation.rules.fields.union(settings.extra_fields))
        if settings.image_tokens_max:
            rules = replace(rules, image_tokens_max=lambda _: settings.image_tokens_max)
        return replace(operation, rules=rules)

    return replace(
        shape, name=name, operations={path: widened(operation) for path, operation in shape.operations.items()}
    )


def compatible(settings: HostSettings) -> HostShape:
    """A host that is no vendor's: vLLM, Ollama, a gateway of one's own."""
    limits = (settings.output_limit, *(each for each in OUTPUT_LIMITS if each != settings.output_limit))
    rules = _rules(_SAMPLING | _LOGPROBS | {"max_completion_tokens", "reasoning_effort", "user"}, {})
    return HostShape(
        name=COMPATIBLE,
        origin="",
        prefix=settings.path,
        models=GROUPED_NAME,
        operations={
            "/chat/completions": _chat(
                replace(rules, limits=limits, usage_asked=settings.asks_for_usage), UsageRules()
            ),
            "/embeddings": Embeddings(EMBEDDING_FIELDS, partial(compatible_usage, rules=UsageRules())),
        },
        refused_paths=_NO_ROUTE,
    )
