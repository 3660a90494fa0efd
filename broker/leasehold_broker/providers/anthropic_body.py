"""Body of Anthropic's Messages: which fields and parts are sent on, and the most they can cost as input.

Owns the lists for `messages` and `count_tokens`; a test holds the top-level lists against the official SDK. Source of
the shapes: anthropic 2.12.0, types/message_create_params.py and types/beta/message_create_params.py.
"""

from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import ANY
from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.bounds import (
    TOOL_OVERHEAD,
    TOOLS_OVERHEAD,
    VENDOR_TOOL_OVERHEAD,
    Parts,
    canonical,
    input_tokens_bound,
)
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    as_list,
    as_object,
    as_text,
    at,
    base64_text,
    check_fields,
    invalid,
    kind_of,
    one_of,
    unbounded,
    whole,
)

IMAGE_TOKENS_MAX: Final = 8_704
"""An image is scaled to 2576 pixels on its longer side and cut into patches of 28: 92 x 92, and 240 for its frame."""

FIELDS: Final = frozenset(
    [
        "cache_control",
        "context_management",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    ]
)
"""`temperature`, `top_k` and `top_p` are documented and accepted; the SDK of today no longer types them."""
REFUSED: Final = {
    "container": "a container keeps state whose cost has no bound; leave it out",
    "mcp_servers": "calls that the vendor makes to MCP servers have no bound on their cost; run the tools yourself",
    "fallbacks": "a fallback model has a price of its own; name one model",
    "fallback_credit_token": "credits change who pays; leave it out",
    "compaction": "compaction samples more than once; leave it out",
    "thread": "a stored conversation has no bound on its cost; send the messages",
    "billing_policy": "it chooses who pays, which is the broker's part; leave it out",
    "user_profile_id": "it chooses who pays, which is the broker's part; leave it out",
    "workspace_id": "it chooses who pays, which is the broker's part; leave it out",
    "betas": "betas belong into the header anthropic-beta",
}
COUNT_FIELDS: Final = FIELDS - {"max_tokens", "stream"}

_TEXT_BLOCKS: Final = frozenset(("text", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result"))
_SERVER_BLOCKS: Final = frozenset(("server_tool_use", "web_search_tool_result", "web_fetch_tool_result"))
SERVER_TOOLS: Final = ("web_search_", "web_fetch_")
SERVER_TOOL_FIELDS: Final = frozenset(
    [
        "allowed_callers",
        "allowed_domains",
        "blocked_domains",
        "cache_control",
        "citations",
        "max_content_tokens",
        "max_uses",
        "name",
        "response_inclusion",
        "strict",
        "type",
        "url_sources",
        "use_cache",
        "user_location",
    ]
)
_CALLED_DIRECTLY: Final = frozenset(("web_search_20250305", "web_fetch_20250910"))
"""Versions whose default caller is the model itself; later ones are called by code of the vendor's."""
_USES_MAX: Final = 1_000
_ITERATIONS: Final = 10
"""The vendor's own loop samples so often before it gives the turn back with `pause_turn` (documented)."""
_CLIENT_TOOLS: Final = ("bash_", "text_editor_", "memory_")
_IMAGE_FIELDS: Final = frozenset(("type", "source", "cache_control"))
_IMAGE_SOURCE_FIELDS: Final = frozenset(("type", "media_type", "data"))
_EDITS: Final = frozenset(("clear_tool_uses_20250919", "clear_thinking_20251015"))


def walk(body: Object, *, server_tools: bool = False) -> Parts:
    """Check every part of a request and add up what its bytes do not bound.

    Args:
        body: the request.
        server_tools: this house runs tools of its own, whose uses have a price.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    _options(body)
    system = body.get("system")
    if isinstance(system, list):
        _blocks(system, "system", parts)
    elif system is not None and not isinstance(system, str):
        raise invalid("system", "must be a string or a list of text blocks")
    messages = as_list(body.get("messages"), "messages")
    parts.messages(len(messages))
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        entry = as_object(message, where)
        check_fields(entry, where, frozenset(("role", "content")), {})
        content = entry.get("content")
        if isinstance(content, list):
            _blocks(content, f"{where}.content", parts)
        elif not isinstance(content, str):
            raise invalid(at(where, "content"), "must be a string or a list of blocks")
    _tools(body.get("tools"), parts, server_tools=server_tools)
    output = body.get("output_config")
    if output is not None and as_object(output, "output_config").get("format") is not None:
        parts.extra_tokens += TOOLS_OVERHEAD
    return parts


def plan(
    provider: str,
    operation: str,
    model: str,
    body: Object,
    parts: Parts,
    *,
    stream: bool,
    tiers: tuple[str, ...] = ("",),
    places: tuple[str, ...] = ("",),
) -> CallPlan:
    """What a checked message asks for, at whatever house serves it.

    Args:
        provider: its name.
        operation: of the route.
        model: what is billed.
        body: the request.
        parts: what the walk over it added up.
        stream: the answer is a stream.
        tiers: service tiers that it may be served at.
        places: regions that it may be served in.

    Raises:
        Refusal: BODY_INVALID.
    """
    return CallPlan(
        provider,
        operation,
        model,
        metered=True,
        stream=stream,
        input_tokens_bound=input_tokens_bound(body, parts),
        output_tokens_stated=whole(body, "max_tokens", 0, OUTPUT_TOKENS_MAX),
        output_limited=True,
        output_tokens_floor=thinking_budget(body) + OUTPUT_TOKENS_FLOOR,
        choices=1 + parts.rereads,
        tools=tuple(parts.tools),
        units_bound=parts.units,
        output_rates=("output",),
        service_tiers=tiers,
        regions=places,
        # Prompt caching is asked for by this member, and by nothing else; a mere mention in a text costs a larger
        # hold, never a smaller one.
        cache_writes=b'"cache_control"' in canonical(body),
        rereads=parts.rereads,
    )


def thinking_budget(body: Object) -> int:
    """Tokens that the request sets aside for thinking, out of its output limit; 0 when it states none.

    Raises:
        Refusal: BODY_INVALID.
    """
    thinking = body.get("thinking")
    if thinking is None:
        return 0
    return whole(as_object(thinking, "thinking"), "budget_tokens", 1, 10_000_000, "thinking.") or 0


def service_tiers(body: Object) -> tuple[str, ...]:
    """Where a checked request may be served: what asks to be fast may be served at the standard speed."""
    return ("fast", "") if body.get("speed") == "fast" else ("",)


def regions(body: Object) -> tuple[str, ...]:
    """Where a checked request may be served: one that names no place goes where the workspace's setting says."""
    place = kind_of(body, "inference_geo")
    return (place,) if place else (ANY,)


def _options(body: Object) -> None:
    one_of(body, "service_tier", frozenset(("auto", "standard_only")), "priority capacity has a price of its own")
    one_of(body, "speed", frozenset(("standard", "fast")), "no price is known for it")
    one_of(body, "inference_geo", frozenset(("global", "us")), "no price is known for it")
    limit = whole(body, "max_tokens", 0, 10_000_000)
    budget = thinking_budget(body)
    if budget and limit is not None and budget >= limit:
        raise unbounded("thinking.budget_tokens", "must be below max_tokens, which is what bounds the cost")
    management = body.get("context_management")
    if management is not None:
        entry = as_object(management, "context_management")
        check_fields(entry, "context_management", frozenset(("edits",)), {})
        for index, edit in enumerate(as_list(entry.get("edits", []), "context_management.edits")):
            where = f"context_management.edits[{index}]"
            if kind_of(as_object(edit, where)) not in _EDITS:
                raise unbounded(where, f"only edits that clear are taken ({', '.join(sorted(_EDITS))})")


def _blocks(blocks: list[Json], where: str, parts: Parts) -> None:
    parts.messages(len(blocks))
    for index, block in enumerate(blocks):
        _block(as_object(block, f"{where}[{index}]"), f"{where}[{index}]", parts)


def _block(block: Object, where: str, parts: Parts) -> None:
    kind = kind_of(block)
    if kind == "image":
        _image(block, where, parts)
        return
    if kind == "document":
        _document(block, where, parts)
        return
    if kind in _SERVER_BLOCKS:
        _server_block(block, where, parts)
        return
    if kind not in _TEXT_BLOCKS:
        raise unbounded(at(where, "type"), "this kind of block has no bound on its cost; send text or inline images")
    if kind == "text" and not isinstance(block.get("text"), str):
        raise invalid(at(where, "text"), "must be a string")
    _no_citations(block, where)
    _cited(block.get("citations"), parts)
    parts.opaque(block.get("signature"))
    parts.opaque(block.get("data"))
    content = block.get("content")
    if isinstance(content, list):
        if kind not in {"tool_result", "search_result"}:
            raise invalid(at(where, "content"), f"a {kind} block has no list of parts")
        for index, part in enumerate(content):
            if as_object(part, f"{where}.content[{index}]").get("type") == "tool_result":
                raise invalid(at(where, "content"), "a tool_result cannot hold another")
        _blocks(content, f"{where}.content", parts)


def _server_block(block: Object, where: str, parts: Parts) -> None:
    """What a tool of the vendor's found in an earlier turn: it comes back as it was given, its texts encrypted."""
    content = block.get("content")
    if isinstance(content, list):
        parts.messages(len(content))
        for index, entry in enumerate(content):
            found = as_object(entry, f"{where}.content[{index}]")
            if kind_of(found) != "web_search_result":
                raise unbounded(
                    at(f"{where}.content[{index}]", "type"), "only web_search_result is a result of a search"
                )
            parts.opaque(found.get("encrypted_content"))
    elif isinstance(content, dict) and content.get("content") is not None:
        _document(as_object(content["content"], f"{where}.content.content"), f"{where}.content.content", parts)


def _cited(citations: Json, parts: Parts) -> None:
    for entry in citations if isinstance(citations, list) else []:
        if isinstance(entry, dict):
            parts.opaque(entry.get("encrypted_index"))


def _no_citations(block: Object, where: str) -> None:
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled") not in (None, False):
        raise unbounded(at(where, "citations"), "citations cut a source into pieces, which has no bound; disable them")


def _image(block: Object, where: str, parts: Parts) -> None:
    check_fields(block, where, _IMAGE_FIELDS, {"transformations": "keep the default scaling, which bounds the tokens"})
    source = as_object(block.get("source"), f"{where}.source")
    if source.get("type") != "base64":
        raise unbounded(at(where, "source"), "images are taken inline only, as base64: a remote one has no bound")
    check_fields(source, f"{where}.source", _IMAGE_SOURCE_FIELDS, {})
    parts.image(base64_text(source.get("data"), f"{where}.source.data"), IMAGE_TOKENS_MAX)


def _document(block: Object, where: str, parts: Parts) -> None:
    _no_citations(block, where)
    source = as_object(block.get("source"), f"{where}.source")
    kind = kind_of(source)
    if kind == "text":
        as_text(source.get("data"), f"{where}.source.data")
    elif kind == "content":
        content = source.get("content")
        if isinstance(content, list):
            _blocks(content, f"{where}.source.content", parts)
        else:
            as_text(content, f"{where}.source.content")
    else:
        raise unbounded(at(where, "source"), "PDFs, files and remote documents have no bound; send their text")


def _tools(value: Json, parts: Parts, *, server_tools: bool) -> None:
    if value is None:
        return
    tools = as_list(value, "tools")
    if tools:
        parts.extra_tokens += TOOLS_OVERHEAD
    for index, entry in enumerate(tools):
        where = f"tools[{index}]"
        tool = as_object(entry, where)
        kind = tool.get("type")
        parts.extra_tokens += TOOL_OVERHEAD
        if kind is None or kind == "custom":
            callers = tool.get("allowed_callers")
            if callers is not None and callers != ["direct"]:
                raise unbounded(at(where, "allowed_callers"), "only direct calls are bounded; leave it out")
        elif isinstance(kind, str) and kind.startswith(_CLIENT_TOOLS):
            parts.extra_tokens += VENDOR_TOOL_OVERHEAD
        elif server_tools and isinstance(kind, str) and kind.startswith(SERVER_TOOLS):
            _server_tool(tool, kind, where, parts)
        else:
            raise unbounded(
                at(where, "type"),
                f"the tool {kind!r} is run or described by the vendor without a bound; use custom tools",
            )


def _server_tool(tool: Object, kind: str, where: str, parts: Parts) -> None:
    """A search or fetch of the vendor's: a use is bounded by `max_uses`, what is read for it by the vendor's loop."""
    check_fields(tool, where, SERVER_TOOL_FIELDS, {"defer_loading": "a tool that is loaded later is not bounded"})
    callers = tool.get("allowed_callers")
    if callers != ["direct"] and not (callers is None and kind in _CALLED_DIRECTLY):
        raise unbounded(
            at(where, "allowed_callers"), 'code that calls the tool is billed by its time; set it to ["direct"]'
        )
    uses = whole(tool, "max_uses", 1, _USES_MAX, f"{where}.")
    if uses is None:
        raise unbounded(at(where, "max_uses"), f"without it {kind} has no bound on its cost; set it")
    parts.extra_tokens += VENDOR_TOOL_OVERHEAD
    parts.server_tool(kind, _ITERATIONS, web_searches=uses if kind.startswith("web_search_") else 0)
