"""Body of Bedrock's Converse: which members and blocks are sent on, and the most they can cost as input.

Owns the lists; a test holds the top-level lists against botocore. Source of the shapes: botocore 1.44.8,
data/bedrock-runtime/2023-09-30.
"""

from typing import Final

from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.anthropic_body import IMAGE_TOKENS_MAX
from leasehold_broker.providers.bounds import TOOL_OVERHEAD, TOOLS_OVERHEAD, Parts
from leasehold_broker.providers.checks import (
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

FIELDS: Final = frozenset(
    [
        "additionalModelRequestFields",
        "additionalModelResponseFieldPaths",
        "inferenceConfig",
        "messages",
        "outputConfig",
        "performanceConfig",
        "requestMetadata",
        "serviceTier",
        "system",
        "toolConfig",
    ]
)
REFUSED: Final = {
    "guardrailConfig": "a guardrail has a price of its own; leave it out",
    "projectIdentifier": "it chooses who pays, which is the broker's part; leave it out",
    "promptVariables": "a stored prompt has no bound on its cost; send its text",
}
_MEDIA: Final = "only text and inline images have a bound on their tokens; send those"
_BLOCKS_REFUSED: Final = {
    "audio": _MEDIA,
    "citationsContent": "citations cut a source into pieces, which has no bound; send its text",
    "guardContent": "a guardrail has a price of its own; send text",
    "searchResult": "a search result may be cut into pieces, which has no bound; send its text",
    "toolAddition": "name the tools in toolConfig",
    "toolRemoval": "name the tools in toolConfig",
    "video": _MEDIA,
}
_MODEL_FIELDS: Final = frozenset(("thinking", "top_k"))
_CACHE_TTLS: Final = frozenset(("5m", "1h"))


def walk(body: Object, model: str) -> Parts:
    """Check every part of a request and add up what its bytes do not bound.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    check_fields(body, "", FIELDS, REFUSED)
    _options(body)
    for name in ("system", "messages"):
        entries = as_list(body.get(name) or [], name)
        parts.messages(len(entries))
        for index, entry in enumerate(entries):
            where = f"{name}[{index}]"
            member = as_object(entry, where)
            if name == "system":
                _block(member, where, model, parts)
                continue
            check_fields(member, where, frozenset(("role", "content")), {})
            _blocks(member.get("content"), f"{where}.content", model, parts)
    _tools(body.get("toolConfig"), parts)
    output = body.get("outputConfig")
    if output is not None:
        check_fields(as_object(output, "outputConfig"), "outputConfig", frozenset(("textFormat", "effort")), {})
        parts.extra_tokens += TOOLS_OVERHEAD
    return parts


def config(body: Object) -> Object:
    """The inference config; empty when absent.

    Raises:
        Refusal: BODY_INVALID.
    """
    value = body.get("inferenceConfig")
    return {} if value is None else as_object(value, "inferenceConfig")


def output_limit(body: Object) -> int | None:
    """The request's own output limit.

    Raises:
        Refusal: BODY_INVALID.
    """
    return whole(config(body), "maxTokens", 1, OUTPUT_TOKENS_MAX, "inferenceConfig.")


def thinking_budget(body: Object) -> int:
    """Tokens that the request sets aside for thinking, out of its output limit; 0 when it states none.

    Raises:
        Refusal: BODY_INVALID.
    """
    fields = body.get("additionalModelRequestFields")
    if fields is None:
        return 0
    where = "additionalModelRequestFields.thinking"
    thinking = as_object(fields, "additionalModelRequestFields").get("thinking")
    return (
        0 if thinking is None else whole(as_object(thinking, where), "budget_tokens", 1, 10_000_000, f"{where}.") or 0
    )


def _options(body: Object) -> None:
    one_of_object(body, "serviceTier", "type", frozenset(("default",)))
    one_of_object(body, "performanceConfig", "latency", frozenset(("standard",)))
    allowed = frozenset(("maxTokens", "temperature", "topP", "stopSequences"))
    check_fields(config(body), "inferenceConfig", allowed, {})
    fields = body.get("additionalModelRequestFields")
    if fields is not None:
        where = "additionalModelRequestFields"
        check_fields(as_object(fields, where), where, _MODEL_FIELDS, {})
    budget, limit = thinking_budget(body), output_limit(body)
    if budget and limit is not None and budget >= limit:
        where = "additionalModelRequestFields.thinking.budget_tokens"
        raise unbounded(where, "must be below maxTokens, which is what bounds the cost")


def one_of_object(body: Object, name: str, member: str, allowed: frozenset[str]) -> None:
    """A member of a member that may have few values.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    value = body.get(name)
    if value is not None:
        one_of(as_object(value, name), member, allowed, "no price is known for it", f"{name}.")


def _blocks(value: Json, where: str, model: str, parts: Parts) -> None:
    blocks = as_list(value, where)
    parts.messages(len(blocks))
    for index, block in enumerate(blocks):
        _block(as_object(block, f"{where}[{index}]"), f"{where}[{index}]", model, parts)


def _block(block: Object, where: str, model: str, parts: Parts) -> None:
    """One block, in a message, a system prompt, a tool's result or a document: it holds one of the members."""
    allowed = frozenset(
        ("text", "image", "document", "toolUse", "toolResult", "cachePoint", "reasoningContent", "json")
    )
    check_fields(block, where, allowed, _BLOCKS_REFUSED)
    if block.get("text") is not None:
        as_text(block["text"], f"{where}.text")
    if block.get("cachePoint") is not None:
        point = as_object(block["cachePoint"], f"{where}.cachePoint")
        one_of(point, "ttl", _CACHE_TTLS, "no price is known for it", f"{where}.cachePoint.")
    if block.get("image") is not None:
        _image(as_object(block["image"], f"{where}.image"), f"{where}.image", model, parts)
    if block.get("document") is not None:
        _document(as_object(block["document"], f"{where}.document"), f"{where}.document", model, parts)
    if block.get("reasoningContent") is not None:
        reasoning = as_object(block["reasoningContent"], f"{where}.reasoningContent")
        parts.opaque(reasoning.get("redactedContent"))
        text = reasoning.get("reasoningText")
        if text is not None:
            parts.opaque(as_object(text, f"{where}.reasoningContent.reasoningText").get("signature"))
    result = block.get("toolResult")
    if result is not None:
        if ".toolResult." in where:
            raise invalid(where, "a tool result cannot hold another")
        _blocks(as_object(result, f"{where}.toolResult").get("content"), f"{where}.toolResult.content", model, parts)


def _image(image: Object, where: str, model: str, parts: Parts) -> None:
    check_fields(image, where, frozenset(("format", "source")), {})
    source = as_object(image.get("source"), f"{where}.source")
    check_fields(source, f"{where}.source", frozenset(("bytes",)), {"s3Location": "send the image inline"})
    if "anthropic.claude" not in model:
        raise unbounded(where, "no bound is known for this model's images; send text, or use a Claude model")
    parts.image(base64_text(source.get("bytes"), f"{where}.source.bytes"), IMAGE_TOKENS_MAX)


def _document(document: Object, where: str, model: str, parts: Parts) -> None:
    citations = document.get("citations")
    if citations is not None and as_object(citations, f"{where}.citations").get("enabled") not in (None, False):
        raise unbounded(at(where, "citations"), "citations cut a source into pieces, which has no bound; disable them")
    source = as_object(document.get("source"), f"{where}.source")
    refused = dict.fromkeys(("bytes", "s3Location"), "a file has no bound on its tokens; send its text")
    check_fields(source, f"{where}.source", frozenset(("text", "content")), refused)
    if source.get("content") is not None:
        if ".document." in where:
            raise invalid(where, "a document cannot hold another")
        _blocks(source["content"], f"{where}.source.content", model, parts)


def _tools(value: Json, parts: Parts) -> None:
    if value is None:
        return
    settings = as_object(value, "toolConfig")
    check_fields(settings, "toolConfig", frozenset(("tools", "toolChoice")), {})
    parts.extra_tokens += TOOLS_OVERHEAD
    for index, entry in enumerate(as_list(settings.get("tools") or [], "toolConfig.tools")):
        where = f"toolConfig.tools[{index}]"
        tool = as_object(entry, where)
        system = {"systemTool": "this tool is run by the vendor without a bound; use toolSpec"}
        check_fields(tool, where, frozenset(("toolSpec", "cachePoint")), system)
        if tool.get("cachePoint") is not None:
            point = as_object(tool["cachePoint"], f"{where}.cachePoint")
            one_of(point, "ttl", _CACHE_TTLS, "no price is known for it", f"{where}.cachePoint.")
        parts.extra_tokens += TOOL_OVERHEAD


def writes_1h(body: Object) -> bool:
    """The request asks for a cache write of one hour, somewhere."""
    return any(kind_of(point, "ttl") == "1h" for point in _points(body))


def _points(value: Json) -> list[Object]:
    """Every cache point of a checked request."""
    found: list[Object] = []
    open_values: list[Json] = [value]
    while open_values:
        each = open_values.pop()
        if isinstance(each, dict):
            point = each.get("cachePoint")
            found += [point] if isinstance(point, dict) else []
            open_values += each.values()
        elif isinstance(each, list):
            open_values += each
    return found
