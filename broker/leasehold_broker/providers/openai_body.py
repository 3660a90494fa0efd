"""Bodies of OpenAI's Chat Completions and Embeddings: what is sent on, and the most it can cost as input.

Owns the lists; a test holds the top-level lists against the official SDK. Source of the shapes: openai 3.54.0,
types/chat/completion_create_params.py, types/embedding_create_params.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.bounds import (
    OPAQUE_FACTOR,
    TOOL_OVERHEAD,
    TOOLS_OVERHEAD,
    Parts,
    canonical,
)
from leasehold_broker.providers.checks import (
    Object,
    as_list,
    as_object,
    at,
    check_fields,
    flag,
    inline_image,
    invalid,
    kind_of,
    one_of,
    unbounded,
)

_PATCHES_MAX: Final = 24_640
"""10,000 patches (the most at any detail) at 2.46 tokens a patch, the dearest multiplier, rounded up."""
_TILES_MINI: Final = 49_152
"""gpt-4o-mini: 2,833 and eight tiles of 5,667 tokens, rounded up."""
_AUDIO: Final = "audio has a price of its own, which this broker does not bound; use text"
CHAT_FIELDS: Final = frozenset(
    [
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    ]
)
CHAT_REFUSED: Final = {
    "audio": _AUDIO,
    "moderation": "moderation inside a call has no known price; leave it out",
    "prediction": "rejected predictions are billed beyond the output limit; leave it out",
    "web_search_options": "the vendor's own searches have no bound on their cost; leave it out",
}
EMBEDDING_FIELDS: Final = frozenset(["dimensions", "encoding_format", "input", "model", "user"])

TIERS: Final = frozenset(("auto", "default", "fast", "flex", "priority"))
STREAM_OPTIONS: Final = frozenset(("include_usage", "include_obfuscation"))
_CHAT_TEXT_PARTS: Final = frozenset(("text", "refusal"))
MESSAGE_FIELDS: Final = frozenset(
    [
        "role",
        "content",
        "name",
        "refusal",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "prompt_cache_breakpoint",
    ]
)
CHAT_TOOLS: Final = frozenset(("function", "custom"))
_OPAQUE: Final = frozenset(("reasoning_details",))
"""Members of a message that may hold encrypted reasoning, at any depth."""


def image_tokens_max(model: str) -> int:
    """The most input tokens of one inline image."""
    return _TILES_MINI if model.startswith("gpt-4o-mini") else _PATCHES_MAX


def service_tier(body: Object, standard: str = "default") -> str:
    """The tier that a checked request is sent with: one that leaves it to the vendor is sent with the standard one."""
    tier = kind_of(body, "service_tier")
    return standard if tier in {"", "auto"} else tier


def service_tiers(body: Object) -> tuple[str, ...]:
    """Where a checked request may be served: fast mode is reported as priority, and any tier may fall back."""
    tier = service_tier(body)
    return ("default",) if tier == "default" else ("priority" if tier == "fast" else tier, "default")


@dataclass(frozen=True, slots=True)
class ChatRules:
    """What a host takes in a chat request.

    Args:
        fields: members of the body that are sent on.
        refused: members that the host knows and whose cost or reach has no bound, with what to do instead.
        message_fields: members of a message.
        tools: types of tools that the client runs.
        service_tiers: words that the request may have as `service_tier`.
        stream_options: members of `stream_options`.
        image_tokens_max: the most input tokens of one inline image for a model; 0: no bound is known.
        limits: members that bound an answer; the first is the one to place.
        choices_max: the largest `n`.
        usage_asked: a stream reports usage only when `stream_options` ask for it; else that member is not sent on.
        service_tier: the word that stands for the standard tier; "": the host has no such member.
        added: members that are always sent, over what the request says.
    """

    fields: frozenset[str]
    refused: Mapping[str, str]
    message_fields: frozenset[str]
    tools: frozenset[str]
    service_tiers: frozenset[str]
    stream_options: frozenset[str]
    image_tokens_max: Callable[[str], int]
    limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    choices_max: int = 128
    usage_asked: bool = True
    service_tier: str = ""
    added: Mapping[str, Json] = field(default_factory=dict)


OPENAI_CHAT: Final = ChatRules(
    fields=CHAT_FIELDS,
    refused=CHAT_REFUSED,
    message_fields=MESSAGE_FIELDS,
    tools=CHAT_TOOLS,
    service_tiers=TIERS,
    stream_options=STREAM_OPTIONS,
    image_tokens_max=image_tokens_max,
    service_tier="default",
)


def shared_options(body: Object, tiers: frozenset[str], stream_options: frozenset[str]) -> None:
    """Check what Chat and Responses have in common.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    one_of(body, "service_tier", tiers, "no price is known for it")
    cache = body.get("prompt_cache_options")
    if cache is not None:
        one_of(as_object(cache, "prompt_cache_options"), "ttl", frozenset(("30m",)), "no price is known for it")
    options = body.get("stream_options")
    if options is not None:
        if not flag(body, "stream"):
            raise invalid("stream_options", "only goes with stream: true")
        check_fields(as_object(options, "stream_options"), "stream_options", stream_options, {})


def cache_breakpoint(part: Object, where: str) -> None:
    """Check the mark that ends a part of a prompt which is to be cached.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    mark = part.get("prompt_cache_breakpoint")
    if mark is not None:
        field = f"{where}.prompt_cache_breakpoint"
        one_of(as_object(mark, field), "ttl", frozenset(("30m",)), "no price is known for it", f"{field}.")


def walk_chat(body: Object, model: str, rules: ChatRules) -> Parts:
    """Check every part of a chat request and add up what its bytes do not bound.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    shared_options(body, rules.service_tiers, rules.stream_options)
    modalities = body.get("modalities")
    if modalities is not None and modalities != ["text"]:
        raise unbounded("modalities", _AUDIO)
    images = rules.image_tokens_max(model)
    messages = as_list(body.get("messages"), "messages")
    parts.messages(len(messages))
    for index, entry in enumerate(messages):
        where = f"messages[{index}]"
        message = as_object(entry, where)
        check_fields(message, where, rules.message_fields, {"audio": _AUDIO})
        cache_breakpoint(message, where)
        for name in _OPAQUE & message.keys():
            parts.extra_tokens += (OPAQUE_FACTOR - 1) * len(canonical(message[name]))
        content = message.get("content")
        if isinstance(content, list):
            parts.messages(len(content))
            for place, part in enumerate(content):
                _chat_part(as_object(part, f"{where}.content[{place}]"), f"{where}.content[{place}]", images, parts)
        elif content is not None and not isinstance(content, str):
            raise invalid(at(where, "content"), "must be a string or a list of parts")
    for name in ("tools", "functions"):
        client_tools(body.get(name), name, parts, rules.tools if name == "tools" else None)
    if body.get("response_format") is not None:
        parts.extra_tokens += TOOLS_OVERHEAD
    return parts


def _chat_part(part: Object, where: str, image_tokens: int, parts: Parts) -> None:
    cache_breakpoint(part, where)
    kind = kind_of(part)
    if kind == "image_url":
        if not image_tokens:
            raise unbounded(where, "no bound is known for an image at this host; an operator may set image_tokens_max")
        image = as_object(part.get("image_url"), f"{where}.image_url")
        check_fields(image, f"{where}.image_url", frozenset(("url", "detail")), {})
        parts.image(inline_image(image.get("url"), f"{where}.image_url.url"), image_tokens)
    elif kind == "input_audio":
        raise unbounded(where, _AUDIO)
    elif kind not in _CHAT_TEXT_PARTS:
        raise unbounded(at(where, "type"), "this kind of part has no bound on its cost; send text or inline images")


def client_tools(value: Json, name: str, parts: Parts, kinds: frozenset[str] | None) -> None:
    """Check tools that the client runs; `kinds`: their types, None where they have none.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    if value is None:
        return
    tools = as_list(value, name)
    if tools:
        parts.extra_tokens += TOOLS_OVERHEAD
    for index, entry in enumerate(tools):
        where = f"{name}[{index}]"
        tool = as_object(entry, where)
        parts.extra_tokens += TOOL_OVERHEAD
        if kinds is not None and kind_of(tool) not in kinds:
            raise unbounded(
                at(where, "type"),
                f"the tool {kind_of(tool)!r} is run by the vendor without a bound; use function or custom tools",
            )


def walk_embedding(body: Object) -> Parts:
    """Check an Embeddings request.

    Raises:
        Refusal: BODY_INVALID.
    """
    parts = Parts()
    content = body.get("input")
    if isinstance(content, list):
        if not content:
            raise invalid("input", "must not be empty")
        parts.messages(len(content))
    elif not isinstance(content, str):
        raise invalid("input", "must be text, token numbers, or a list of these")
    return parts
