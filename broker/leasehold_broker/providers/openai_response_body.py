"""Body of OpenAI's Responses: what is sent on, and the most it can cost as input.

Owns the lists; a test holds the top-level list against the official SDK. Source of the shapes: openai 3.54.0,
types/responses/response_create_params.py.
"""

from typing import Final

from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.bounds import TOOLS_OVERHEAD, VENDOR_TOOL_OVERHEAD, Parts
from leasehold_broker.providers.checks import (
    Object,
    as_object,
    at,
    check_fields,
    flag,
    inline_image,
    invalid,
    kind_of,
    unbounded,
    whole,
)
from leasehold_broker.providers.openai_body import (
    CHAT_REFUSED,
    CHAT_TOOLS,
    STREAM_OPTIONS,
    TIERS,
    cache_breakpoint,
    client_tools,
    image_tokens_max,
    shared_options,
)

_REASONING_MAX: Final = 131_072
"""Reasoning given by reference is what one earlier answer reasoned: at most the largest answer of any model."""

_STORED: Final = "a stored conversation has no bound on its cost; send the messages themselves"
RESPONSE_FIELDS: Final = frozenset(
    [
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
        "background",
    ]
)
RESPONSE_REFUSED: Final = {
    "access_programs": "it changes what the key may reach; leave it out",
    "background_options": "a call in the background outlives its lease; leave it out",
    "context_management": "compaction samples more than once; leave it out",
    "conversation": _STORED,
    "image": "request-level image options change the token count; leave it out",
    "moderation": CHAT_REFUSED["moderation"],
    "previous_response_id": _STORED,
    "prompt": "a stored prompt has no bound on its cost; send its text as instructions",
}
_TEXT_ITEMS: Final = frozenset(
    ["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning"]
)
_TEXT_PARTS: Final = frozenset(("input_text", "output_text", "refusal", "summary_text", "reasoning_text", "text"))
WEB_SEARCHES: Final = frozenset(("web_search", "web_search_2025_08_26"))
FILE_SEARCH: Final = "file_search"
SERVER_TOOL_FIELDS: Final = frozenset(
    [
        "external_web_access",
        "filters",
        "max_num_results",
        "ranking_options",
        "search_context_size",
        "type",
        "user_location",
        "vector_store_ids",
    ]
)
_TOOL_CALLS_MAX: Final = 1_000
_BLOCK_BILLED: Final = ("gpt-4o-mini", "gpt-4.1-mini")
"""Here what a search finds is billed as a fixed block of tokens, which the usage need not report."""


def walk_response(body: Object, model: str) -> Parts:
    """Check every part of a Responses request and add up what its bytes do not bound.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    shared_options(body, TIERS, STREAM_OPTIONS)
    if flag(body, "background"):
        raise unbounded("background", "a call in the background outlives its lease; leave it out")
    flag(body, "store")
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        raise invalid("instructions", "must be a string")
    content = body.get("input")
    if isinstance(content, list):
        parts.messages(len(content))
        for index, item in enumerate(content):
            _item(as_object(item, f"input[{index}]"), f"input[{index}]", model, parts)
    elif not isinstance(content, str):
        raise invalid("input", "must be a string or a list of items")
    tools = body.get("tools")
    if isinstance(tools, list):
        _server_tools(tools, body, model, parts)
        tools = [tool for tool in tools if not _is_server_tool(tool)]
    client_tools(tools, "tools", parts, CHAT_TOOLS)
    if body.get("text") is not None:
        parts.extra_tokens += TOOLS_OVERHEAD
    return parts


def _is_server_tool(tool: Json) -> bool:
    return isinstance(tool, dict) and kind_of(tool) in {*WEB_SEARCHES, FILE_SEARCH}


def _server_tools(tools: list[Json], body: Object, model: str, parts: Parts) -> None:
    """Searches of the vendor's: `max_tool_calls` bounds them, and how often the conversation is read again."""
    asked = [(place, as_object(tool, f"tools[{place}]")) for place, tool in enumerate(tools) if _is_server_tool(tool)]
    calls = whole(body, "max_tool_calls", 1, _TOOL_CALLS_MAX)
    for place, tool in asked:
        where = f"tools[{place}]"
        if calls is None:
            raise unbounded("max_tool_calls", f"without it the tool {kind_of(tool)} has no bound on its cost; set it")
        check_fields(tool, where, SERVER_TOOL_FIELDS, {})
        searches = kind_of(tool) in WEB_SEARCHES
        if searches and model.startswith(_BLOCK_BILLED):
            raise unbounded(at(where, "type"), "what this model's searches find is not in its usage; name another one")
        parts.extra_tokens += VENDOR_TOOL_OVERHEAD
        # One reading after each call, and one after a call that was asked for in vain.
        parts.server_tool(kind_of(tool), calls + 1, **{"web_searches" if searches else "file_searches": calls})


def _item(item: Object, where: str, model: str, parts: Parts) -> None:
    kind = kind_of(item) if "type" in item else "message" * ("role" in item)
    if kind == "item_reference":
        raise unbounded(where, _STORED)
    if kind not in _TEXT_ITEMS:
        raise unbounded(
            at(where, "type"), "this kind of item has no bound on its cost; send messages and function calls"
        )
    parts.opaque(item.get("encrypted_content"))
    if kind == "reasoning" and not isinstance(item.get("encrypted_content"), str):
        parts.extra_tokens += _REASONING_MAX
    for name in ("content", "output", "summary"):
        value = item.get(name)
        if isinstance(value, list):
            parts.messages(len(value))
            for index, part in enumerate(value):
                _part(as_object(part, f"{where}.{name}[{index}]"), f"{where}.{name}[{index}]", model, parts)
        elif value is not None and not isinstance(value, str):
            raise invalid(at(where, name), "must be a string or a list of parts")


def _part(part: Object, where: str, model: str, parts: Parts) -> None:
    cache_breakpoint(part, where)
    kind = kind_of(part)
    if kind == "input_image":
        if part.get("file_id") is not None:
            raise unbounded(at(where, "file_id"), "a stored image has no bound; send it inline")
        parts.image(inline_image(part.get("image_url"), f"{where}.image_url"), image_tokens_max(model))
    elif kind not in _TEXT_PARTS:
        raise unbounded(at(where, "type"), "this kind of part has no bound on its cost; send text or inline images")
