"""Hosts of other people's models, each as data: Groq, Together, Fireworks, OpenRouter.

Owns what sets each apart, as `hosts` does for vendors of their own models. Sources: the hosts' public API references
(November 2026).
"""

from dataclasses import replace
from functools import partial
from typing import Final

from leasehold_broker.providers.checks import GROUPED_NAME
from leasehold_broker.providers.host_rules import (
    LOGPROBS,
    NO_ROUTE,
    OTHER_MODEL,
    PREDICTION,
    SAMPLING,
    SEARCHES,
    chat,
    embeddings,
    rules,
)
from leasehold_broker.providers.openai_audio import TRANSCRIPT_FIELDS, Speech, Transcription
from leasehold_broker.providers.openai_chat import Embeddings
from leasehold_broker.providers.openai_host import HostShape
from leasehold_broker.providers.usage_hosts import UsageRules, compatible_usage, lasting_usage


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


GROQ: Final = HostShape(
    name="groq",
    origin="https://api.groq.com",
    prefix="/openai/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": chat(
            replace(
                rules(
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
                    | LOGPROBS,
                    {
                        "citation_options": "citations cut a source into pieces, which has no bound; leave it out",
                        "compound_custom": SEARCHES,
                        "documents": "documents are put into the prompt in a way that is not bounded; send their text",
                        "exclude_domains": SEARCHES,
                        "include_domains": SEARCHES,
                        "search_settings": SEARCHES,
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
    refused_paths=NO_ROUTE,
)
TOGETHER: Final = HostShape(
    name="together",
    origin="https://api.together.xyz",
    prefix="/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": chat(
            replace(
                rules(
                    SAMPLING
                    | {
                        "chat_template_kwargs",
                        "context_length_exceeded_behavior",
                        "function_call",
                        "logprobs",
                        "reasoning",
                        "reasoning_effort",
                    },
                    {"safety_model": OTHER_MODEL},
                ),
                usage_asked=False,
            ),
            UsageRules(cached=("cached_tokens",)),
        ),
        "/embeddings": embeddings(),
    },
    refused_paths=NO_ROUTE | {"/rerank": "no bound is known for it; it is not served"},
)
FIREWORKS: Final = HostShape(
    name="fireworks",
    origin="https://api.fireworks.ai",
    prefix="/inference/v1",
    models=GROUPED_NAME,
    operations={
        "/chat/completions": chat(
            replace(
                rules(
                    SAMPLING
                    | LOGPROBS
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
                    {"speculation": PREDICTION},
                ),
                usage_asked=False,
                limits=("max_tokens", "max_completion_tokens"),
            ),
            UsageRules(),
        ),
        "/embeddings": embeddings("dimensions", "encoding_format", "user"),
    },
    refused_models={"deployments/": "a deployment is billed by time, not by call; name a serverless model"},
    refused_paths=NO_ROUTE,
)
OPENROUTER: Final = HostShape(
    name="openrouter",
    origin="https://openrouter.ai",
    prefix="/api/v1",
    models=GROUPED_NAME,
    probe_path="/key",
    operations={
        "/chat/completions": chat(
            replace(
                rules(
                    SAMPLING
                    | LOGPROBS
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
                        "models": OTHER_MODEL,
                        "plugins": "plugins search, read files and run on without a bound; leave it out",
                        "preset": "a preset holds settings that are not seen here; write them into the request",
                        "provider": "a chosen route may cost more than the listed price; leave it out",
                        "route": OTHER_MODEL,
                    },
                    "reasoning_details",
                ),
                limits=("max_tokens", "max_completion_tokens"),
                choices_max=1,
                added={"usage": {"include": True}},
            ),
            UsageRules(cost=True),
        ),
        "/embeddings": Embeddings(
            frozenset(("dimensions", "encoding_format", "input", "input_type", "model", "user")),
            partial(compatible_usage, rules=UsageRules(cost=True)),
        ),
    },
    refused_models={
        ":online": SEARCHES,
        ":nitro": "it prefers fast routes, which may cost more than the listed price; name the plain model",
        ":exacto": "it prefers chosen routes, which may cost more than the listed price; name the plain model",
        "openrouter/": OTHER_MODEL,
    },
    refused_paths=NO_ROUTE,
)
