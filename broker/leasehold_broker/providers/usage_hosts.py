"""Usage reports of hosts that speak OpenAI's dialect, of transcriptions, and of Cohere, by the rules of `usage`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json
from leasehold_broker.providers.usage import openai_usage
from leasehold_broker.providers.usage_counts import (
    COUNT_MAX,
    Object,
    UnusableError,
    read_count,
    read_details,
    read_rest,
    read_word,
)

_COST_USD_MAX: Final = 10**6
"""A larger cost of one call is a mistake of the sender."""


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
        tier = (
            rules.tiers[read_word(answer, "service_tier", frozenset(rules.tiers))] if answer.get("service_tier") else ""
        )
        report = _as_openai(report, rules)
        reported = _reported_pico_usd(report) if rules.cost else None
    except UnusableError:
        return None
    usage = openai_usage(report, None, prompt="prompt", completion="completion")
    return None if usage is None else replace(usage, service_tier=tier, reported_pico_usd=reported)


def _as_openai(report: Object, rules: UsageRules) -> Object:
    details = dict(read_details(report, "prompt_tokens_details"))
    details.pop("image_tokens", None)
    for name in rules.cached:
        if details.get("cached_tokens") is None and report.get(name) is not None:
            details["cached_tokens"] = read_count(report, name)
    changed: Object = {**report, "prompt_tokens_details": details}
    if rules.reasoning_apart:
        prompt, completion = read_count(report, "prompt_tokens", required=True), read_count(report, "completion_tokens")
        reasoning = read_count(read_details(report, "completion_tokens_details"), "reasoning_tokens")
        total = read_count(report, "total_tokens", required=True)
        if total not in {prompt + completion, prompt + completion + reasoning}:
            raise UnusableError("total_tokens")
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
        pico += _usd(read_details(report, "cost_details").get("upstream_inference_cost"))
    return pico


def _usd(value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _COST_USD_MAX:
        raise UnusableError("cost")
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
        sound = read_count(read_details(report, "input_token_details"), "audio_tokens")
        return Usage(
            input_tokens=read_rest(read_count(report, "input_tokens", required=True), sound),
            input_audio_tokens=sound,
            output_tokens=read_count(report, "output_tokens"),
        )
    except UnusableError:
        return None


def heard_usage(answer: Object) -> Usage | None:
    """Usage of a Mistral transcription: whole seconds; its tokens have no price of their own."""
    report = answer.get("usage")
    try:
        seconds = read_count(report, "prompt_audio_seconds", required=True) if isinstance(report, dict) else None
    except UnusableError:
        return None
    return None if seconds is None else Usage(audio_seconds=seconds)


def lasting_usage(answer: Object, seconds_min: int) -> Usage | None:
    """Usage of a transcription that says how long the sound was, begun seconds, and no less than the least billed."""
    seconds = answer.get("duration")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= COUNT_MAX:
        return None
    return Usage(audio_seconds=max(math.ceil(seconds), seconds_min))


def _whole_numbers(units: Object) -> Object:
    """Cohere writes its counts as 5.0."""
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value for name, value in units.items()
    }


def billed_usage(report: Json) -> Usage | None:
    """Usage of a Cohere answer: the billed units, which leave out what the vendor adds to a prompt.

    Args:
        report: `usage` of a chat, or `meta` of an embedding.
    """
    units = report.get("billed_units") if isinstance(report, dict) else None
    if not isinstance(units, dict):
        return None
    try:
        known = _whole_numbers(units)
        if any(
            read_count(known, name) for name in ("images", "image_tokens", "search_units", "classifications", "pages")
        ):
            return None
        return Usage(
            input_tokens=read_count(known, "input_tokens", required=True),
            output_tokens=read_count(known, "output_tokens"),
        )
    except UnusableError:
        return None


def searched_usage(report: Json) -> Usage | None:
    """Usage of a Cohere reranking: the searches that are billed."""
    if not isinstance(report, dict):
        return None
    try:
        billed = read_details(report, "billed_units")
        return Usage(rerank_searches=read_count(_whole_numbers(billed), "search_units", required=True))
    except UnusableError:
        return None
