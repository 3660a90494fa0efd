"""Bodies of Gemini's generateContent, countTokens and embedContent: what is sent on, and its bound as input.

Owns the lists. The API reads lowerCamelCase and snake_case alike (the SDK sends both), so every object is read under
its lowerCamelCase names, and one that has two spellings of a name is refused: what is checked is what is used. Source
of the shapes: google-genai 3.4.0, models.py, `_to_mldev`.
"""

from typing import Final

from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.audio_length import audio_format, seconds_max
from leasehold_broker.providers.bounds import TOOL_OVERHEAD, TOOLS_OVERHEAD, Parts
from leasehold_broker.providers.checks import (
    Object,
    as_list,
    as_object,
    as_text,
    at,
    base64_bytes,
    base64_text,
    check_fields,
    invalid,
    kind_of,
    one_of,
    unbounded,
    whole,
)
from leasehold_broker.providers.image_size import image_size

CONTENTS_MAX: Final = 100
"""Most contents of one batch embedding (the vendor's own limit)."""

FIELDS: Final = frozenset(
    [
        "contents",
        "generationConfig",
        "labels",
        "model",
        "safetySettings",
        "serviceTier",
        "store",
        "systemInstruction",
        "toolConfig",
        "tools",
    ]
)
REFUSED: Final = {"cachedContent": "a stored cache has no bound on its cost; send the contents themselves"}
CONFIG_FIELDS: Final = frozenset(
    [
        "candidateCount",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "presencePenalty",
        "responseFormat",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "seed",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    ]
)
CONFIG_REFUSED: Final = {
    "audioTranscriptionConfig": "audio has a price of its own; use text",
    "continuationToken": "a continued answer has no bound on its cost; send the contents",
    "imageConfig": "images have a price of their own; ask for text",
    "speechConfig": "speech has a price of its own; ask for text",
}
_TOOLS_REFUSED: Final = dict.fromkeys(
    [
        "codeExecution",
        "computerUse",
        "fileSearch",
        "googleMaps",
        "googleSearchRetrieval",
        "mcpServers",
        "retrieval",
    ],
    "this tool is run by the vendor without a bound on its cost; use functionDeclarations",
)
_SERVER_TOOLS: Final = frozenset(("googleSearch", "urlContext"))
_SEARCH_FIELDS: Final = frozenset(("excludeDomains", "timeRangeFilter"))
_BILLED_BY_PROMPT: Final = ("gemini-2.0-", "gemini-2.5-")
"""Here a prompt that was grounded costs once; later models are billed by the query, and nothing limits these."""
_PART_FIELDS: Final = frozenset(
    ["text", "thought", "thoughtSignature", "functionCall", "functionResponse", "executableCode", "codeExecutionResult"]
)
_MEDIA: Final = "only text and inline PNG, JPEG, WebP, WAV, MP3, FLAC and Opus have a bound on their tokens; send those"
_PART_REFUSED: Final = dict.fromkeys(("inlineData", "fileData", "videoMetadata", "mediaResolution"), _MEDIA)
_IMAGE_TYPES: Final = frozenset(("image/png", "image/jpeg", "image/webp"))
_TILE_PIXELS: Final = 256
"""Smallest edge of the tiles that an image may be cut into: the most tiles."""
_TILE_TOKENS: Final = 258
_IMAGE_TOKENS_MIN: Final = 2_304
"""An image at a fixed resolution costs up to 2,240 tokens, whatever its size."""
_SOUND_TYPES: Final = {
    "audio/flac": "flac",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
}
_SOUND_TOKENS: Final = 32
"""Of one second (documented)."""
_RESPONSE_FIELDS: Final = frozenset(("id", "name", "response", "willContinue", "scheduling"))
_TIERS: Final = frozenset(("standard", "unspecified", "flex", "priority"))
_EMBED_FIELDS: Final = frozenset(("model", "content", "taskType", "title", "outputDimensionality"))
_EMBED_REFUSED: Final = {"embedContentConfig": "give taskType, title and outputDimensionality beside the content"}


def camel(value: Json, field: str) -> Object:
    """The value as an object, its members under their lowerCamelCase names.

    Raises:
        Refusal: BODY_INVALID when it is no object, or holds two spellings of one name.
    """
    spelled: Object = {}
    for name, member in as_object(value, field).items():
        head, *rest = name.split("_")
        known = head + "".join(word[:1].upper() + word[1:] for word in rest)
        if known in spelled:
            raise invalid(at(field, known), "is given twice, in two spellings; keep one")
        spelled[known] = member
    return spelled


def check_model(body: Object, model: str, where: str = "") -> None:
    """A model in the body must be the one of the path, or absent.

    Raises:
        Refusal: BODY_INVALID.
    """
    named = body.get("model")
    if named is not None and named not in (model, f"models/{model}"):
        raise invalid(where + "model", f"must be models/{model}, as in the path")


def walk(body: Object, model: str) -> Parts:
    """Check every part of a generateContent request and add up what its bytes do not bound.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    one_of(body, "serviceTier", _TIERS, "no price is known for it")
    contents(body.get("contents"), parts)
    system = body.get("systemInstruction")
    if system is not None:
        _content(system, "systemInstruction", parts)
    choice = body.get("toolConfig")
    if choice is not None:
        check_fields(camel(choice, "toolConfig"), "toolConfig", frozenset(("functionCallingConfig",)), {})
    for index, entry in enumerate(as_list(body.get("tools") or [], "tools")):
        where = f"tools[{index}]"
        tool = camel(entry, where)
        check_fields(tool, where, _SERVER_TOOLS | {"functionDeclarations"}, _TOOLS_REFUSED)
        _server_tools(tool, where, model, parts)
        declared = as_list(tool.get("functionDeclarations") or [], f"{where}.functionDeclarations")
        parts.extra_tokens += TOOLS_OVERHEAD + TOOL_OVERHEAD * len(declared)
    return parts


def _server_tools(tool: Object, where: str, model: str, parts: Parts) -> None:
    """A search or a reading of pages by the vendor: what it finds fits into the window, and is read once more."""
    if tool.get("googleSearch") is not None:
        check_fields(camel(tool["googleSearch"], f"{where}.googleSearch"), f"{where}.googleSearch", _SEARCH_FIELDS, {})
        if not model.startswith(_BILLED_BY_PROMPT):
            raise unbounded(
                at(where, "googleSearch"),
                "this model's searches are billed by the query, and nothing limits them; use a model of Gemini 2.5, "
                "or functionDeclarations",
            )
        parts.server_tool("google_search", 1, web_searches=1)
    if tool.get("urlContext") is not None:
        check_fields(camel(tool["urlContext"], f"{where}.urlContext"), f"{where}.urlContext", frozenset(), {})
        parts.server_tool("url_context", 1)


def service_tiers(body: Object) -> tuple[str, ...]:
    """Where a checked request may be served: any tier may fall back to the standard one."""
    tier = kind_of(body, "serviceTier")
    return (tier, "") if tier in {"flex", "priority"} else ("",)


def config(body: Object) -> Object:
    """The checked generation config; empty when absent.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    value = body.get("generationConfig")
    if value is None:
        return {}
    settings = camel(value, "generationConfig")
    check_fields(settings, "generationConfig", CONFIG_FIELDS, CONFIG_REFUSED)
    modalities = settings.get("responseModalities")
    if modalities not in (None, [], ["TEXT"]):
        raise unbounded("generationConfig.responseModalities", "only TEXT has a known price; leave it out")
    thinking = settings.get("thinkingConfig")
    if thinking is not None:
        where = "generationConfig.thinkingConfig"
        allowed = frozenset(("includeThoughts", "thinkingBudget", "thinkingLevel"))
        check_fields(camel(thinking, where), where, allowed, {})
    return settings


def thinking_budget(settings: Object) -> int:
    """Tokens that a checked generation config sets aside for thinking, out of its output limit; 0 when it states none.

    Raises:
        Refusal: BODY_INVALID.
    """
    where = "generationConfig.thinkingConfig"
    thinking = settings.get("thinkingConfig")
    if thinking is None:
        return 0
    return max(0, whole(camel(thinking, where), "thinkingBudget", -1, 10_000_000, f"{where}.") or 0)


def contents(value: Json, parts: Parts) -> None:
    """Check a list of contents.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    entries = as_list(value, "contents")
    if not entries:
        raise invalid("contents", "must not be empty")
    for index, entry in enumerate(entries):
        _content(entry, f"contents[{index}]", parts, images=True)


def image_tokens_max(width: int, height: int) -> int:
    """The most tokens of an image of this many pixels: its tiles and one view of the whole."""
    tiles = -(-width // _TILE_PIXELS) * -(-height // _TILE_PIXELS) + 1
    return max(_IMAGE_TOKENS_MIN, tiles * _TILE_TOKENS)


def _inline(value: Json, where: str, parts: Parts) -> None:
    blob = camel(value, where)
    check_fields(blob, where, frozenset(("mimeType", "data", "displayName")), {})
    kind = kind_of(blob, "mimeType")
    if kind in _SOUND_TYPES:
        sound = base64_bytes(blob.get("data"), at(where, "data"))
        seconds = seconds_max(sound) if audio_format(sound) == _SOUND_TYPES[kind] else None
        if seconds is None:
            raise unbounded(at(where, "data"), f"is no {kind} whose length can be told from its bytes; send plain WAV")
        parts.sound(as_text(blob["data"], where), seconds * _SOUND_TOKENS)
        return
    if kind not in _IMAGE_TYPES:
        raise unbounded(at(where, "mimeType"), _MEDIA)
    data = base64_text(blob.get("data"), at(where, "data"))
    size = image_size(data)
    if size is None:
        raise unbounded(at(where, "data"), "the image's size cannot be read, so its tokens have no bound")
    parts.image(data, image_tokens_max(*size))


def _content(value: Json, where: str, parts: Parts, *, images: bool = False) -> None:
    content = camel(value, where)
    check_fields(content, where, frozenset(("role", "parts")), {})
    entries = as_list(content.get("parts") or [], f"{where}.parts")
    parts.messages(1 + len(entries))
    for index, entry in enumerate(entries):
        place = f"{where}.parts[{index}]"
        part = camel(entry, place)
        if images and part.get("inlineData") is not None:
            _inline(part.pop("inlineData"), f"{place}.inlineData", parts)
        check_fields(part, place, _PART_FIELDS, _PART_REFUSED)
        if part.get("text") is not None:
            as_text(part["text"], f"{place}.text")
        parts.opaque(part.get("thoughtSignature"))
        response = part.get("functionResponse")
        if response is not None:
            field = f"{place}.functionResponse"
            check_fields(camel(response, field), field, _RESPONSE_FIELDS, {"parts": _MEDIA})


def walk_embedding(body: Object, model: str) -> Parts:
    """Check an embedContent request.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    _embedding(body, model, "", parts)
    return parts


def walk_batch_embedding(body: Object, model: str) -> Parts:
    """Check a batchEmbedContents request.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    parts = Parts()
    check_fields(body, "", frozenset(("requests",)), {})
    requests = as_list(body.get("requests"), "requests")
    if not 1 <= len(requests) <= CONTENTS_MAX:
        raise invalid("requests", f"must hold 1 to {CONTENTS_MAX} requests")
    for index, entry in enumerate(requests):
        _embedding(entry, model, f"requests[{index}].", parts)
    return parts


def _embedding(value: Json, model: str, where: str, parts: Parts) -> None:
    request = camel(value, where.rstrip(".") or "body")
    check_fields(request, where.rstrip("."), _EMBED_FIELDS, _EMBED_REFUSED)
    check_model(request, model, where)
    _content(request.get("content"), f"{where}content", parts)
