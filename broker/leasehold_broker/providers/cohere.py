"""Cohere's own API, version 2: chat, embeddings and reranking. Pure. Source of the shapes: cohere 7.3.1, v2/client.py.

Billed units are not tokens: what the vendor adds to a prompt is not billed. So `usage.billed_units` counts, not
`usage.tokens`. Base URL for the SDK: our prefix alone.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.provider import Json, Meter
from leasehold_broker.providers import headers as door
from leasehold_broker.providers.bounds import (
    TOOL_OVERHEAD,
    TOOLS_OVERHEAD,
    Parts,
    input_tokens_bound,
    text_tokens_bound,
)
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    as_list,
    as_object,
    as_text,
    at,
    check_fields,
    flag,
    invalid,
    kind_of,
    unbounded,
    whole,
)
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import JsonMeter, SseMeter, choose
from leasehold_broker.providers.openai_host import HostShape, OpenAIHost
from leasehold_broker.providers.operation import TakesJson, WithoutLimit
from leasehold_broker.providers.usage_hosts import billed_usage, searched_usage

CHAT_FIELDS: Final = frozenset(
    [
        "citation_options",
        "documents",
        "frequency_penalty",
        "k",
        "logprobs",
        "max_tokens",
        "messages",
        "model",
        "p",
        "presence_penalty",
        "priority",
        "response_format",
        "safety_mode",
        "seed",
        "stop_sequences",
        "stream",
        "strict_tools",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
    ]
)
EMBED_FIELDS: Final = frozenset(
    ["embedding_types", "input_type", "max_tokens", "model", "output_dimension", "priority", "texts", "truncate"]
)
RERANK_FIELDS: Final = frozenset(["documents", "max_tokens_per_doc", "model", "priority", "query", "top_n"])
_PIECE_TOKENS: Final = 500
_ROOM_TOKENS_MIN: Final = 100
_PIECES: Final = 100
"""A document is cut into pieces of so many tokens, and so many pieces are one search (documented)."""
_EMBED_REFUSED: Final = {
    "images": "a picture has a price of its own, which is not bounded here; use texts",
    "inputs": "mixed inputs may hold pictures, which are not bounded here; use texts",
}
_MESSAGE_FIELDS: Final = frozenset(("role", "content", "tool_calls", "tool_plan", "citations", "tool_call_id"))
_ENDS: Final = frozenset(("message-end",))
_PARTS: Final = frozenset(("text", "thinking", "document"))
_PATHS: Final = {
    "/v1/chat": "the first version is not served; use POST /v2/chat",
    "/v1/generate": "the first version is not served; use POST /v2/chat",
    "/v1/embed": "jobs and the first version are not served; use POST /v2/embed",
    "/v1/datasets": "a stored file is read by calls that nobody can bound; send its text in the request",
    "/v1/finetuning": "training has no bound that a request states; let the platform team run it",
    "/v1/connectors": "what the vendor fetches has no bound; send its text in the request",
    "/v2/batches": "a batch runs for a day, after its lease; send the calls themselves",
}


@dataclass(frozen=True, slots=True)
class _Chat(TakesJson):
    """POST /v2/chat."""

    name: str = "chat"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", CHAT_FIELDS, {})
        return CallPlan(
            provider,
            self.name,
            model,
            metered=True,
            stream=flag(body, "stream"),
            input_tokens_bound=input_tokens_bound(body, _walk(body)),
            output_tokens_stated=whole(body, "max_tokens", 1, OUTPUT_TOKENS_MAX),
            output_limited=True,
            output_tokens_floor=OUTPUT_TOKENS_FLOOR,
            output_rates=("output",),
        )

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol."""
        return body if output_tokens_limit is None else {**body, "max_tokens": output_tokens_limit}

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(
            content_type, lambda answer: billed_usage(answer.get("usage")), lambda: SseMeter(LastEvent(_ENDS, _nested))
        )


@dataclass(frozen=True, slots=True)
class _Embed(TakesJson, WithoutLimit):
    """POST /v2/embed."""

    name: str = "embed"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", EMBED_FIELDS, _EMBED_REFUSED)
        parts = Parts()
        texts = as_list(body.get("texts"), "texts")
        parts.messages(len(texts))
        for index, text in enumerate(texts):
            as_text(text, f"texts[{index}]")
        bound = input_tokens_bound(body, parts)
        return CallPlan(provider, self.name, model, metered=True, stream=False, input_tokens_bound=bound)

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(
            content_type, lambda answer: billed_usage(answer.get("meta")), lambda: SseMeter(LastEvent(_ENDS, _nested))
        )


@dataclass(frozen=True, slots=True)
class _Rerank(TakesJson, WithoutLimit):
    """POST /v2/rerank: billed by the search, which is a query with up to a hundred pieces of documents."""

    name: str = "rerank"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol. A document is cut into pieces of 500 tokens, those of the query among them."""
        check_fields(body, "", RERANK_FIELDS, {})
        room = _PIECE_TOKENS - text_tokens_bound(as_text(body.get("query"), "query").encode())
        if room < _ROOM_TOKENS_MIN:
            most = _PIECE_TOKENS - _ROOM_TOKENS_MIN
            raise unbounded("query", f"is longer than {most} bytes, and cuts documents into pieces without a bound")
        pieces = sum(
            max(1, -(-text_tokens_bound(as_text(text, f"documents[{index}]").encode()) // room))
            for index, text in enumerate(as_list(body.get("documents"), "documents"))
        )
        searches = Usage(rerank_searches=max(1, -(-pieces // _PIECES)))
        return CallPlan(provider, self.name, model, metered=True, stream=False, units_bound=searches)

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body, content_type  # it is not streamed
        return JsonMeter(lambda answer: searched_usage(answer.get("meta")))


def _nested(event: Object) -> Usage | None:
    delta = event.get("delta")
    return billed_usage(delta.get("usage")) if isinstance(delta, dict) else None


def _walk(body: Object) -> Parts:
    """Check every part of a chat request and add up what its bytes do not bound."""
    parts = Parts()
    messages = as_list(body.get("messages"), "messages")
    parts.messages(len(messages))
    for index, entry in enumerate(messages):
        where = f"messages[{index}]"
        message = as_object(entry, where)
        check_fields(message, where, _MESSAGE_FIELDS, {})
        content = message.get("content")
        if isinstance(content, list):
            parts.messages(len(content))
            for place, part in enumerate(content):
                _part(as_object(part, f"{where}.content[{place}]"), f"{where}.content[{place}]")
        elif content is not None and not isinstance(content, str):
            raise invalid(at(where, "content"), "must be a string or a list of parts")
    documents = _listed(body, "documents")
    tools = _listed(body, "tools")
    parts.messages(len(documents))
    for index, document in enumerate(documents):
        if not isinstance(document, str):
            check_fields(
                as_object(document, f"documents[{index}]"), f"documents[{index}]", frozenset(("data", "id")), {}
            )
    parts.extra_tokens += TOOL_OVERHEAD * len(tools)
    if documents or tools or body.get("response_format") is not None:
        parts.extra_tokens += TOOLS_OVERHEAD
    for index, tool in enumerate(tools):
        where = f"tools[{index}]"
        if kind_of(as_object(tool, where)) != "function":
            raise unbounded(at(where, "type"), "only function tools, which you run yourself, are bounded")
    return parts


def _listed(body: Object, name: str) -> list[Json]:
    value = body.get(name)
    return [] if value is None else as_list(value, name)


def _part(part: Object, where: str) -> None:
    if kind_of(part) not in _PARTS:
        raise unbounded(at(where, "type"), "this kind of part has no bound on its cost at this host; send text")


SHAPE: Final = HostShape(
    name="cohere",
    origin="https://api.cohere.com",
    prefix="",
    operations={"/v2/chat": _Chat(), "/v2/embed": _Embed(), "/v2/rerank": _Rerank()},
    models_path="/v1/models",
    refused_paths=_PATHS,
    flat_errors=True,
)


class Cohere(OpenAIHost):
    """The port `Provider` for Cohere."""

    def __init__(self) -> None:
        """Serve what the table lists."""
        super().__init__(SHAPE)

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port. A message of this dialect ends with its error."""
        delta = {"error": door.sentence(refusal, request_id), "finish_reason": "ERROR"}
        return b"event: message-end\ndata: " + msgspec.json.encode({"type": "message-end", "delta": delta}) + b"\n\n"
