"""The vendors' usage reports, normalised to `domain.price.Usage`. Owns the rules; refuses to repair a wrong report.

A report with a negative, absurd or non-integer count, or with a unit or a service tier that the price table does not
price, is no usage: the hold is charged and flagged, which errs on the charged side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json

Object = dict[str, Json]

COUNT_MAX: Final = 10**9
"""A larger count is a mistake of the sender."""
_COST_USD_MAX: Final = 10**6
"""As is a larger cost of one call."""


class _UnusableError(Exception):
    """The report cannot be used."""


def _count(report: Object, name: str, *, required: bool = False) -> int:
    value = report.get(name)
    if value is None and not required:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise _UnusableError(name)
    return value


def _details(report: Object, name: str) -> Object:
    value = report.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _UnusableError(name)
    return value


def _entries(report: Object, name: str) -> list[Object]:
    value = report.get(name)
    entries = [] if value is None else value
    if not isinstance(entries, list):
        raise _UnusableError(name)
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(objects) < len(entries):
        raise _UnusableError(name)
    return objects


def _rest(total: int, *parts: int) -> int:
    rest = total - sum(parts)
    if rest < 0:
        raise _UnusableError("parts are larger than their total")
    return rest


def _word(report: Object, name: str, priced: frozenset[str]) -> str:
    """A word that decides the price; one that the table does not price makes the report unusable."""
    value = report.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or value not in priced:
        raise _UnusableError(name)
    return value


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
        written = _count(report, "cache_creation_input_tokens")
        split = _details(report, "cache_creation")
        hour = _count(split, "ephemeral_1h_input_tokens")
        five = _count(split, "ephemeral_5m_input_tokens")
        unsplit = max(0, written - hour - five)
        if writes_1h:
            hour += unsplit
        else:
            five += unsplit
        speed = _ANTHROPIC_SPEEDS[_word(report, "speed", frozenset(_ANTHROPIC_SPEEDS))]
        tier = _word(report, "service_tier", _ANTHROPIC_TIERS)
        tools = _details(report, "server_tool_use")
        output = _count(report, "output_tokens", required=True)
        return Usage(
            input_tokens=_count(report, "input_tokens", required=True),
            cache_read_tokens=_count(report, "cache_read_input_tokens"),
            cache_write_5m_tokens=five,
            cache_write_1h_tokens=hour,
            output_tokens=output,
            reasoning_tokens=min(output, _count(_details(report, "output_tokens_details"), "thinking_tokens")),
            web_searches=_count(tools, "web_search_requests"),
            service_tier=speed or tier,
            region=_ANTHROPIC_PLACES[_word(report, "inference_geo", frozenset(_ANTHROPIC_PLACES))],
        )
    except _UnusableError:
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
        written = _count(report, "cacheWriteInputTokens")
        hour, split = 0, 0
        for detail in _entries(report, "cacheDetails"):
            tokens = _count(detail, "inputTokens", required=True)
            hour += tokens * (_word(detail, "ttl", _CACHE_TTLS) == "1h")
            split += tokens
        if not split and writes_1h:
            hour = written
        tiers = tier if isinstance(tier, dict) else {}
        _word(latency if isinstance(latency, dict) else {}, "latency", frozenset({"", "standard"}))
        return Usage(
            input_tokens=_count(report, "inputTokens", required=True),
            cache_read_tokens=_count(report, "cacheReadInputTokens"),
            cache_write_5m_tokens=_rest(written, hour),
            cache_write_1h_tokens=hour,
            output_tokens=_count(report, "outputTokens", required=True),
            service_tier=_word(tiers, "type", frozenset({"", "default", "flex", "priority"})),
        )
    except _UnusableError:
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
        total = _count(report, f"{prompt}_tokens", required=True)
        details = _details(report, f"{prompt}_tokens_details")
        output_details = _details(report, f"{completion}_tokens_details")
        cached = _count(details, "cached_tokens")
        written = _count(details, "cache_write_tokens")
        long = _count(_details(details, "cache_write_tokens_details"), "ttl_12h_tokens")
        sound, pictures = _count(details, "audio_tokens"), _count(details, "image_tokens")
        spoken, painted = _count(output_details, "audio_tokens"), _count(output_details, "image_tokens")
        output = _rest(_count(report, f"{completion}_tokens"), spoken, painted)
        return Usage(
            input_tokens=_rest(total, cached, written, sound, pictures),
            cache_read_tokens=cached,
            cache_write_5m_tokens=_rest(written, long),
            cache_write_1h_tokens=long,
            output_tokens=output,
            reasoning_tokens=min(output, _count(output_details, "reasoning_tokens")),
            service_tier=_word({"tier": tier}, "tier", _OPENAI_TIERS),
            input_audio_tokens=sound,
            input_image_tokens=pictures,
            output_audio_tokens=spoken,
            output_image_tokens=painted,
        )
    except _UnusableError:
        return None


@dataclass(frozen=True, slots=True)
class UsageRules:
    """Where a host that speaks OpenAI's dialect departs from it in its usage.

    Args:
        nested: name of an object of the chunk that holds the usage where the chunk itself has none.
        cached: names beside the details under which cached input may stand.
        reasoning_apart: reasoning may come on top of the completion; the total says whether it does.
        tiers: the host's words for service tiers, to ours.
        cost: the host says what it charged, in USD.
    """

    nested: str = ""
    cached: tuple[str, ...] = ()
    reasoning_apart: bool = False
    tiers: Mapping[str, str] = field(default_factory=dict)
    cost: bool = False


def compatible_usage(answer: Object, rules: UsageRules) -> Usage | None:
    """Usage of a chat answer or chunk, or of an embedding, of a host that speaks OpenAI's dialect.

    Pictures cost what text costs at these hosts, so they are not counted apart.
    """
    report = answer.get("usage")
    if report is None and rules.nested:
        inner = answer.get(rules.nested)
        report = inner.get("usage") if isinstance(inner, dict) else None
    if not isinstance(report, dict):
        return None
    try:
        tier = rules.tiers[_word(answer, "service_tier", frozenset(rules.tiers))] if answer.get("service_tier") else ""
        report = _as_openai(report, rules)
        reported = _reported_pico_usd(report) if rules.cost else None
    except _UnusableError:
        return None
    usage = openai_usage(report, None, prompt="prompt", completion="completion")
    return None if usage is None else replace(usage, service_tier=tier, reported_pico_usd=reported)


def _as_openai(report: Object, rules: UsageRules) -> Object:
    details = dict(_details(report, "prompt_tokens_details"))
    details.pop("image_tokens", None)
    for name in rules.cached:
        if details.get("cached_tokens") is None and report.get(name) is not None:
            details["cached_tokens"] = _count(report, name)
    changed: Object = {**report, "prompt_tokens_details": details}
    if rules.reasoning_apart:
        prompt, completion = _count(report, "prompt_tokens", required=True), _count(report, "completion_tokens")
        reasoning = _count(_details(report, "completion_tokens_details"), "reasoning_tokens")
        total = _count(report, "total_tokens", required=True)
        if total not in {prompt + completion, prompt + completion + reasoning}:
            raise _UnusableError("total_tokens")
        changed["completion_tokens"] = total - prompt
    return changed


def _reported_pico_usd(report: Object) -> int | None:
    """What the host charged, with what it made the caller's own account at the vendor pay; None where it says nothing.

    A JSON number is read as the decimal that it was written as, and rounded up.
    """
    if report.get("cost") is None:
        return None
    pico = _usd(report.get("cost"))
    if report.get("is_byok") is True:
        pico += _usd(_details(report, "cost_details").get("upstream_inference_cost"))
    return pico


def _usd(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _COST_USD_MAX:
        raise _UnusableError("cost")
    return math.ceil(Decimal(repr(value)) * 10**12)


def transcript_usage(report: Json) -> Usage | None:
    """Usage of an OpenAI transcription: begun seconds, or tokens of sound and text, as the report says."""
    if not isinstance(report, dict):
        return None
    try:
        if report.get("type") == "duration":
            seconds = report.get("seconds")
            if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= COUNT_MAX:
                return None
            return Usage(audio_seconds=math.ceil(seconds))
        if report.get("type") != "tokens":
            return None
        sound = _count(_details(report, "input_token_details"), "audio_tokens")
        return Usage(
            input_tokens=_rest(_count(report, "input_tokens", required=True), sound),
            input_audio_tokens=sound,
            output_tokens=_count(report, "output_tokens"),
        )
    except _UnusableError:
        return None


def heard_usage(answer: Object) -> Usage | None:
    """Usage of a Mistral transcription: whole seconds; its tokens have no price of their own."""
    report = answer.get("usage")
    try:
        seconds = _count(report, "prompt_audio_seconds", required=True) if isinstance(report, dict) else None
    except _UnusableError:
        return None
    return None if seconds is None else Usage(audio_seconds=seconds)


def lasting_usage(answer: Object, seconds_min: int) -> Usage | None:
    """Usage of a transcription that says how long the sound was, begun seconds, and no less than the least billed."""
    seconds = answer.get("duration")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= COUNT_MAX:
        return None
    return Usage(audio_seconds=max(math.ceil(seconds), seconds_min))


def billed_usage(report: Json) -> Usage | None:
    """Usage of a Cohere answer: the billed units, which leave out what the vendor adds to a prompt.

    Args:
        report: `usage` of a chat, or `meta` of an embedding.
    """
    units = report.get("billed_units") if isinstance(report, dict) else None
    if not isinstance(units, dict):
        return None
    try:
        known = {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in units.items()
        }
        if any(_count(known, name) for name in ("images", "image_tokens", "search_units", "classifications", "pages")):
            return None
        return Usage(
            input_tokens=_count(known, "input_tokens", required=True), output_tokens=_count(known, "output_tokens")
        )
    except _UnusableError:
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
        thoughts = _count(report, "thoughtsTokenCount")
        traffic = _GEMINI_TRAFFIC[_word(report, "trafficType", frozenset(_GEMINI_TRAFFIC))]
        tier = _GEMINI_TIERS.get(str(report.get("serviceTier") or "").lower())
        if tier is None:
            return None
        return Usage(
            input_tokens=_rest(prompt["TEXT"], cache["TEXT"]) + found["TEXT"],
            cache_read_tokens=cache["TEXT"],
            output_tokens=said["TEXT"] + thoughts,
            reasoning_tokens=thoughts,
            service_tier=traffic or tier,
            input_audio_tokens=_rest(prompt["AUDIO"], cache["AUDIO"]),
            input_image_tokens=_rest(prompt["IMAGE"], cache["IMAGE"]),
            cache_read_audio_tokens=cache["AUDIO"],
            cache_read_image_tokens=cache["IMAGE"],
            output_audio_tokens=said["AUDIO"],
            output_image_tokens=said["IMAGE"],
        )
    except _UnusableError:
        return None


def _modalities(report: Object, total: str, details: str) -> dict[str, int]:
    """A count by what it is of. What its details leave out is text; video has a price that no route here can bound."""
    counts = {"TEXT": _count(report, total), "AUDIO": 0, "IMAGE": 0}
    for entry in _entries(report, details):
        modality = entry.get("modality", "TEXT")
        if modality in ("AUDIO", "IMAGE"):
            counts[modality] += _count(entry, "tokenCount")
        elif not (isinstance(modality, str) and modality in _GEMINI_TEXT) and _count(entry, "tokenCount"):
            raise _UnusableError("modality")
    counts["TEXT"] = _rest(counts["TEXT"], counts["AUDIO"], counts["IMAGE"])
    return counts
