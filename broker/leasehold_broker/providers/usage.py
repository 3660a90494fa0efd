"""The vendors' usage reports, normalised to `domain.price.Usage`. Owns the rules; refuses to repair a wrong report.

A report with a negative, absurd or non-integer count, or with a unit or a service tier that the price table does not
price, is no usage: the hold is charged and flagged, which errs on the charged side.
"""

from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json

Object = dict[str, Json]

COUNT_MAX: Final = 10**9
"""A larger count is a mistake of the sender."""


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


_ANTHROPIC_TIERS: Final = frozenset({"standard"})
_ANTHROPIC_SPEEDS: Final = frozenset({"standard"})
_ANTHROPIC_PLACES: Final = frozenset({"", "global", "not_available"})
_OPENAI_TIERS: Final = frozenset({"", "default"})
_GEMINI_TRAFFIC: Final = frozenset({"ON_DEMAND", "TRAFFIC_TYPE_UNSPECIFIED"})
_GEMINI_TIERS: Final = frozenset({"standard", "unspecified", "STANDARD", "UNSPECIFIED"})
_GEMINI_MODALITIES: Final = frozenset({"TEXT", "IMAGE", "DOCUMENT", "MODALITY_UNSPECIFIED"})


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
        _word(report, "speed", _ANTHROPIC_SPEEDS)
        _word(report, "inference_geo", _ANTHROPIC_PLACES)
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
            service_tier=_word(report, "service_tier", _ANTHROPIC_TIERS),
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
        if _count(details, "audio_tokens") or _count(output_details, "audio_tokens"):
            return None
        cached = _count(details, "cached_tokens")
        written = _count(details, "cache_write_tokens")
        long = _count(_details(details, "cache_write_tokens_details"), "ttl_12h_tokens")
        output = _count(report, f"{completion}_tokens")
        return Usage(
            input_tokens=_rest(total, cached, written),
            cache_read_tokens=cached,
            cache_write_5m_tokens=_rest(written, long),
            cache_write_1h_tokens=long,
            output_tokens=output,
            reasoning_tokens=min(output, _count(output_details, "reasoning_tokens")),
            service_tier=_word({"tier": tier}, "tier", _OPENAI_TIERS),
        )
    except _UnusableError:
        return None


def gemini_usage(report: Json) -> Usage | None:
    """Usage of a Gemini answer; the prompt includes what the cache served, thoughts come on top of the candidates."""
    if not isinstance(report, dict):
        return None
    try:
        for name in ("promptTokensDetails", "candidatesTokensDetails", "toolUsePromptTokensDetails"):
            _modalities(report.get(name))
        prompt = _count(report, "promptTokenCount", required=True)
        cached = _count(report, "cachedContentTokenCount")
        thoughts = _count(report, "thoughtsTokenCount")
        _word(report, "trafficType", _GEMINI_TRAFFIC)
        return Usage(
            input_tokens=_rest(prompt, cached) + _count(report, "toolUsePromptTokenCount"),
            cache_read_tokens=cached,
            output_tokens=_count(report, "candidatesTokenCount") + thoughts,
            reasoning_tokens=thoughts,
            service_tier=_word(report, "serviceTier", _GEMINI_TIERS),
        )
    except _UnusableError:
        return None


def _modalities(details: Json) -> None:
    """Audio and video have prices of their own, which the table does not carry."""
    if details is None:
        return
    if not isinstance(details, list):
        raise _UnusableError("details")
    for entry in details:
        if not isinstance(entry, dict):
            raise _UnusableError("details")
        modality = entry.get("modality", "TEXT")
        if not (isinstance(modality, str) and modality in _GEMINI_MODALITIES) and _count(entry, "tokenCount"):
            raise _UnusableError("modality")
