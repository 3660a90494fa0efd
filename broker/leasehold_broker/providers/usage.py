"""The vendors' usage reports, normalised to `domain.price.Usage`. Owns the rules; refuses to repair a wrong report.

A report with a negative, absurd or non-integer count, or with a unit or a service tier that the price table does not
price, is no usage: the hold is charged and flagged, which errs on the charged side.
"""

from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.usage_counts import (
    Object,
    UnusableError,
    read_count,
    read_details,
    read_entries,
    read_rest,
    read_word,
)

_ANTHROPIC_TIERS: Final = frozenset({"standard", "batch"})
_ANTHROPIC_SPEEDS: Final = {"": "", "standard": "", "fast": "fast"}
_ANTHROPIC_PLACES: Final = {"": "", "global": "", "not_available": "", "us": "us"}
_CACHE_TTLS: Final = frozenset({"5m", "1h"})
_OPENAI_TIERS: Final = frozenset({"", "default", "flex", "priority", "fast"})
_GEMINI_TRAFFIC: Final = {
    "": "",
    "ON_DEMAND": "",
    "TRAFFIC_TYPE_UNSPECIFIED": "",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
}
_GEMINI_TIERS: Final = {"": "", "standard": "standard", "unspecified": "", "flex": "flex", "priority": "priority"}
_GEMINI_TEXT: Final = frozenset({"TEXT", "DOCUMENT", "MODALITY_UNSPECIFIED"})


def anthropic_usage(report: Json, *, writes_1h: bool) -> Usage | None:
    """Usage of an Anthropic message; `input_tokens` leaves the cache out.

    Args:
        report: the `usage` object; for a stream, the merged one.
        writes_1h: the request asked for one-hour cache writes: where the report does not split the writes, all of
            them are taken as such.
    """
    if not isinstance(report, dict):
        return None
    try:
        written = read_count(report, "cache_creation_input_tokens")
        split = read_details(report, "cache_creation")
        hour = read_count(split, "ephemeral_1h_input_tokens")
        five = read_count(split, "ephemeral_5m_input_tokens")
        unsplit = max(0, written - hour - five)
        if writes_1h:
            hour += unsplit
        else:
            five += unsplit
        speed = _ANTHROPIC_SPEEDS[read_word(report, "speed", frozenset(_ANTHROPIC_SPEEDS))]
        tier = read_word(report, "service_tier", _ANTHROPIC_TIERS)
        tools = read_details(report, "server_tool_use")
        output = read_count(report, "output_tokens", required=True)
        return Usage(
            input_tokens=read_count(report, "input_tokens", required=True),
            cache_read_tokens=read_count(report, "cache_read_input_tokens"),
            cache_write_5m_tokens=five,
            cache_write_1h_tokens=hour,
            output_tokens=output,
            reasoning_tokens=min(output, read_count(read_details(report, "output_tokens_details"), "thinking_tokens")),
            web_searches=read_count(tools, "web_search_requests"),
            service_tier=speed or tier,
            region=_ANTHROPIC_PLACES[read_word(report, "inference_geo", frozenset(_ANTHROPIC_PLACES))],
        )
    except UnusableError:
        return None


def converse_usage(report: Json, tier: Json, latency: Json, *, writes_1h: bool) -> Usage | None:
    """Usage of an answer of Bedrock's Converse; the input leaves the cache out.

    Args:
        report: the `usage` object.
        tier: the answer's `serviceTier`.
        latency: the answer's `performanceConfig`.
        writes_1h: where the report does not split cache writes, all of them are for one hour.
    """
    if not isinstance(report, dict):
        return None
    try:
        written = read_count(report, "cacheWriteInputTokens")
        hour, split = 0, 0
        for detail in read_entries(report, "cacheDetails"):
            tokens = read_count(detail, "inputTokens", required=True)
            hour += tokens * (read_word(detail, "ttl", _CACHE_TTLS) == "1h")
            split += tokens
        if not split and writes_1h:
            hour = written
        tiers = tier if isinstance(tier, dict) else {}
        read_word(latency if isinstance(latency, dict) else {}, "latency", frozenset({"", "standard"}))
        return Usage(
            input_tokens=read_count(report, "inputTokens", required=True),
            cache_read_tokens=read_count(report, "cacheReadInputTokens"),
            cache_write_5m_tokens=read_rest(written, hour),
            cache_write_1h_tokens=hour,
            output_tokens=read_count(report, "outputTokens", required=True),
            service_tier=read_word(tiers, "type", frozenset({"", "default", "flex", "priority"})),
        )
    except UnusableError:
        return None


def openai_usage(report: Json, tier: Json, *, prompt: str, completion: str) -> Usage | None:
    """Usage of an OpenAI answer; the input total includes what was read from and written to the cache.

    Args:
        report: the `usage` object.
        tier: the answer's `service_tier`.
        prompt: stem of the input's field names: "prompt" for chat and embeddings, "input" for responses.
        completion: stem of the output's field names: "completion" or "output".
    """
    if not isinstance(report, dict):
        return None
    try:
        total = read_count(report, f"{prompt}_tokens", required=True)
        details = read_details(report, f"{prompt}_tokens_details")
        output_details = read_details(report, f"{completion}_tokens_details")
        cached = read_count(details, "cached_tokens")
        written = read_count(details, "cache_write_tokens")
        long = read_count(read_details(details, "cache_write_tokens_details"), "ttl_12h_tokens")
        sound, pictures = read_count(details, "audio_tokens"), read_count(details, "image_tokens")
        spoken, painted = read_count(output_details, "audio_tokens"), read_count(output_details, "image_tokens")
        output = read_rest(read_count(report, f"{completion}_tokens"), spoken, painted)
        return Usage(
            input_tokens=read_rest(total, cached, written, sound, pictures),
            cache_read_tokens=cached,
            cache_write_5m_tokens=read_rest(written, long),
            cache_write_1h_tokens=long,
            output_tokens=output,
            reasoning_tokens=min(output, read_count(output_details, "reasoning_tokens")),
            service_tier=read_word({"tier": tier}, "tier", _OPENAI_TIERS),
            input_audio_tokens=sound,
            input_image_tokens=pictures,
            output_audio_tokens=spoken,
            output_image_tokens=painted,
        )
    except UnusableError:
        return None


def gemini_usage(report: Json) -> Usage | None:
    """Usage of a Gemini answer; the prompt includes what the cache served, thoughts come on top of the candidates."""
    if not isinstance(report, dict):
        return None
    try:
        prompt, cache, said = (
            _modalities(report, total, details)
            for total, details in (
                ("promptTokenCount", "promptTokensDetails"),
                ("cachedContentTokenCount", "cacheTokensDetails"),
                ("candidatesTokenCount", "candidatesTokensDetails"),
            )
        )
        found = _modalities(report, "toolUsePromptTokenCount", "toolUsePromptTokensDetails")
        if "promptTokenCount" not in report or found["AUDIO"] or found["IMAGE"]:
            return None
        thoughts = read_count(report, "thoughtsTokenCount")
        traffic = _GEMINI_TRAFFIC[read_word(report, "trafficType", frozenset(_GEMINI_TRAFFIC))]
        tier = _GEMINI_TIERS.get(str(report.get("serviceTier") or "").lower())
        if tier is None:
            return None
        return Usage(
            input_tokens=read_rest(prompt["TEXT"], cache["TEXT"]) + found["TEXT"],
            cache_read_tokens=cache["TEXT"],
            output_tokens=said["TEXT"] + thoughts,
            reasoning_tokens=thoughts,
            service_tier=traffic or tier,
            input_audio_tokens=read_rest(prompt["AUDIO"], cache["AUDIO"]),
            input_image_tokens=read_rest(prompt["IMAGE"], cache["IMAGE"]),
            cache_read_audio_tokens=cache["AUDIO"],
            cache_read_image_tokens=cache["IMAGE"],
            output_audio_tokens=said["AUDIO"],
            output_image_tokens=said["IMAGE"],
        )
    except UnusableError:
        return None


def _modalities(report: Object, total: str, details: str) -> dict[str, int]:
    """A count by what it is of. What its details leave out is text; video has a price that no route here can bound."""
    counts = {"TEXT": read_count(report, total), "AUDIO": 0, "IMAGE": 0}
    for entry in read_entries(report, details):
        modality = entry.get("modality", "TEXT")
        if modality in ("AUDIO", "IMAGE"):
            counts[modality] += read_count(entry, "tokenCount")
        elif not (isinstance(modality, str) and modality in _GEMINI_TEXT) and read_count(entry, "tokenCount"):
            raise UnusableError("modality")
    counts["TEXT"] = read_rest(counts["TEXT"], counts["AUDIO"], counts["IMAGE"])
    return counts
