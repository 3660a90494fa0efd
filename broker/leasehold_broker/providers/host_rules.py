"""What hosts that speak OpenAI's dialect have in common: members, refusals, and the operations made of them."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from leasehold_broker.providers.openai_body import MESSAGE_FIELDS, ChatRules
from leasehold_broker.providers.openai_chat import Chat, Embeddings
from leasehold_broker.providers.usage_hosts import UsageRules, compatible_usage

COMMON: Final = frozenset(
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
LOGPROBS: Final = frozenset(("logprobs", "top_logprobs"))
SAMPLING: Final = frozenset(("logit_bias", "min_p", "repetition_penalty", "seed", "top_k"))
MESSAGE: Final = (MESSAGE_FIELDS - {"prompt_cache_breakpoint"}) | {"reasoning", "reasoning_content"}
SEARCHES: Final = "the vendor's own searches have no bound on their cost; leave it out"
OTHER_MODEL: Final = "another model has a price of its own; name one model"
PREDICTION: Final = "rejected predictions are billed beyond the output limit; leave it out"
BACKGROUND: Final = "an answer that is fetched later outlives its lease; leave it out"
TIER: Final = "no price is known for this host's service tiers; leave it out"
REFUSED: Final[Mapping[str, str]] = {
    "audio": "audio has a price of its own, which is not bounded here; use text",
    "modalities": "only text is bounded here; leave it out",
    "prediction": PREDICTION,
    "service_tier": TIER,
    "web_search_options": SEARCHES,
}
NO_ROUTE: Final = {
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


def rules(fields: frozenset[str], refused: Mapping[str, str], *message: str) -> ChatRules:
    """What a host takes beside what all take, what it refuses, and members of its messages."""
    return ChatRules(
        fields=COMMON | fields,
        refused={name: why for name, why in {**REFUSED, **refused}.items() if name not in fields},
        message_fields=MESSAGE.union(message),
        tools=frozenset(("function",)),
        service_tiers=frozenset(),
        stream_options=frozenset(("include_usage", "include_obfuscation", "continuous_usage_stats")),
        image_tokens_max=lambda _: 0,
        limits=("max_tokens",),
    )


def chat(takes: ChatRules, usage: UsageRules) -> Chat:
    """Chat Completions at a host that takes this and reports like that."""
    return Chat(takes, partial(compatible_usage, rules=usage))


def embeddings(*fields: str) -> Embeddings:
    """Embeddings at a host that takes these members beside model and input."""
    return Embeddings(frozenset(("model", "input", *fields)), partial(compatible_usage, rules=UsageRules()))
