"""Hosts that speak OpenAI's dialect, each as data: Mistral, xAI, DeepSeek, an operator's own; all of them by name.

Owns what sets each apart: which members it takes, which of them bounds an answer, where its usage is, how its models
are named, and what is refused because its cost has no bound. Sources: the vendors' public API references (November
2026). What a host reports above its hold is charged and freezes the lease, here as everywhere.
"""

from dataclasses import replace
from functools import partial
from typing import Final

from leasehold_broker.domain.host_settings import COMPATIBLE, OUTPUT_LIMITS, HostSettings
from leasehold_broker.providers.checks import GROUPED_NAME
from leasehold_broker.providers.host_rules import (
    BACKGROUND,
    LOGPROBS,
    NO_ROUTE,
    SAMPLING,
    SEARCHES,
    chat,
    embeddings,
    rules,
)
from leasehold_broker.providers.hosts_of_many import FIREWORKS, GROQ, OPENROUTER, TOGETHER
from leasehold_broker.providers.openai_audio import Transcription
from leasehold_broker.providers.openai_body import EMBEDDING_FIELDS
from leasehold_broker.providers.openai_chat import Chat, Embeddings
from leasehold_broker.providers.openai_host import HostShape
from leasehold_broker.providers.operation import Operation
from leasehold_broker.providers.usage_hosts import UsageRules, compatible_usage, heard_usage

MISTRAL: Final = HostShape(
    name="mistral",
    origin="https://api.mistral.ai",
    prefix="/v1",
    operations={
        "/chat/completions": chat(
            replace(
                rules(
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
                    | LOGPROBS,
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
        "/embeddings": embeddings("encoding_format", "metadata", "output_dimension", "output_dtype"),
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
    refused_paths=NO_ROUTE | {"/ocr": "pages have a price of their own, which no request bounds; send text"},
    flat_errors=True,
)
XAI: Final = HostShape(
    name="xai",
    origin="https://api.x.ai",
    prefix="/v1",
    operations={
        "/chat/completions": chat(
            replace(
                rules(
                    frozenset(("logit_bias", "max_completion_tokens", "reasoning_effort", "seed", "user")) | LOGPROBS,
                    {"deferred": BACKGROUND, "search_parameters": SEARCHES},
                ),
                # At most six tiles and one for the whole, 256 tokens each.
                image_tokens_max=lambda _: 1_792,
                limits=("max_completion_tokens", "max_tokens"),
            ),
            # Reasoning is not part of the completion, except where the total says so.
            UsageRules(reasoning_apart=True),
        ),
    },
    refused_paths=NO_ROUTE | {"/responses": "a refused answer has a fee of its own there; use chat/completions"},
)
DEEPSEEK: Final = HostShape(
    name="deepseek",
    origin="https://api.deepseek.com",
    prefix="/v1",
    also=("",),
    operations={
        "/chat/completions": chat(
            replace(
                rules(frozenset(("reasoning_effort", "thinking", "user", "user_id")) | LOGPROBS, {}),
                choices_max=1,
            ),
            UsageRules(cached=("prompt_cache_hit_tokens",)),
        ),
    },
    refused_paths=NO_ROUTE,
)
SHAPES: Final = {shape.name: shape for shape in (DEEPSEEK, FIREWORKS, GROQ, MISTRAL, OPENROUTER, TOGETHER, XAI)}


def tuned(shape: HostShape, name: str, settings: HostSettings) -> HostShape:
    """A host under a name of its own, with what an operator adds to its chat requests."""

    def widened(operation: Operation) -> Operation:
        if not isinstance(operation, Chat):
            return operation
        takes = replace(operation.rules, fields=operation.rules.fields.union(settings.extra_fields))
        if settings.image_tokens_max:
            takes = replace(takes, image_tokens_max=lambda _: settings.image_tokens_max)
        return replace(operation, rules=takes)

    return replace(
        shape, name=name, operations={path: widened(operation) for path, operation in shape.operations.items()}
    )


def compatible(settings: HostSettings) -> HostShape:
    """A host that is no vendor's: vLLM, Ollama, a gateway of one's own."""
    limits = (settings.output_limit, *(each for each in OUTPUT_LIMITS if each != settings.output_limit))
    takes = rules(SAMPLING | LOGPROBS | {"max_completion_tokens", "reasoning_effort", "user"}, {})
    return HostShape(
        name=COMPATIBLE,
        origin="",
        prefix=settings.path,
        models=GROUPED_NAME,
        operations={
            "/chat/completions": chat(replace(takes, limits=limits, usage_asked=settings.asks_for_usage), UsageRules()),
            "/embeddings": Embeddings(EMBEDDING_FIELDS, partial(compatible_usage, rules=UsageRules())),
        },
        refused_paths=NO_ROUTE,
    )
