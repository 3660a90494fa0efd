"""Compiles the open price source, genai-prices, into our integer table. Owns what is taken over and under which names.

Used by `leasehold-broker prices refresh`; the running broker never imports it. Rounds up what is no whole number of
pico-USD, and says so. Leaves out models without a price (free ones have none), with a unit of charge that no route of
ours can report, and models that search or act on their own: what a call to them costs has no bound.
"""

import hashlib
import json
import operator
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

from leasehold_broker.domain.scope import matches
from leasehold_broker.providers.prices.names import limit_names
from leasehold_broker.providers.prices.table import ModelRow, PeriodRow, ScheduleRow, Table, TierRow

VENDORS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "anthropic": ("anthropic", ("",)),
    "azure": ("azure", ("",)),
    "bedrock": ("aws", ("",)),
    "cohere": ("cohere", ("",)),
    "deepseek": ("deepseek", ("",)),
    "fireworks": ("fireworks", ("",)),
    "gemini": ("google", ("gemini-",)),
    "groq": ("groq", ("",)),
    "mistral": ("mistral", ("",)),
    "openai": ("openai", ("",)),
    "openrouter": ("openrouter", ("",)),
    "together": ("together", ("",)),
    "vertex": ("google", ("gemini-2.5", "gemini-3", "gemini-4", "claude-")),
    "xai": ("x-ai", ("",)),
}
"""Our provider to the source's, and how the names begin that are taken.

The source has one price for Gemini; before 2.5 Vertex AI had prices of its own (2.0 Flash: half as much again).
"""
_ACTS_ALONE: Final = [
    "computer-use",
    "cyber-preview",
    "deep-research",
    "extended",
    "ft-",
    "ft:",
    "instruct-0914",
    "live",
    "moderation",
    "omni",
    "realtime",
    "robotics",
    "rosalind",
    "search",
    "sonic",
    "sonar",
    "text-davinci",
    "vision",
    "voice",
]
"""Parts of names of models that charge for what they do unasked, run outside a call, or are long gone."""
_OLD: Final = frozenset(("ada", "babbage", "curie", "davinci", "babbage-002", "davinci-002"))
_UNITS: Final = {
    "input_mtok": ("input", 10**6),
    "output_mtok": ("output", 10**6),
    "cache_read_mtok": ("cache_read", 10**6),
    "cache_write_mtok": ("cache_write_5m", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h", 10**6),
    "output_reasoning_mtok": ("reasoning", 10**6),
    "input_audio_mtok": ("input_audio", 10**6),
    "cache_audio_read_mtok": ("cache_read_audio", 10**6),
    "output_audio_mtok": ("output_audio", 10**6),
    "input_image_mtok": ("input_image", 10**6),
    "cache_image_read_mtok": ("cache_read_image", 10**6),
    "output_image_mtok": ("output_image", 10**6),
    "input_mchars": ("character", 10**6),
    "audio_hours": ("audio_second", 3600),
    "requests_kcount": ("request", 1000),
    "web_searches_kcount": ("web_search", 1000),
    "storage_searches_kcount": ("file_search", 1000),
    "code_executions_kcount": ("code_execution", 1000),
    "rerank_searches_kcount": ("rerank_search", 1000),
}
_NOT_NEEDED: Final = frozenset(("input_audio_hours", "input_video_mtok"))
"""Said twice; and video, which no route of ours takes."""
_TIER_WORDS: Final = frozenset(("processing", "service_tier", "speed"))
"""Words of the source that stand for what we call a service tier."""


@dataclass(slots=True)
class _Taken:
    """What is known while one model is compiled."""

    provider: str
    today: date
    derived: set[str] = field(default_factory=set)


def source_table(today: date, document: bytes | None = None) -> Table:
    """The table that the source gives as of a day.

    Args:
        today: prices that end before it are left out.
        document: the source's own JSON (prices/new_data/v2/data.json of its repository); None: the data that the
            installed package brings.

    Raises:
        ImportError: the source is not installed (the extra `prices`).
        ValueError: the document is none of the source's, or a file of ours names a model that has no price.
    """
    from genai_prices import data  # noqa: PLC0415 - heavy, and not there in a running broker

    sources = {source.id: source for source in (data.providers if document is None else _read_source(document))}
    missing = {theirs for theirs, _ in VENDORS.values()} - set(sources)
    if missing:
        message = f"the document has no prices of {', '.join(sorted(missing))}"
        raise ValueError(message)
    limits = tomllib.loads(_ours("output_limits.toml"))
    regions = tomllib.loads(_ours("regions.toml"))["region"]
    providers = {}
    for provider, (source, prefixes) in VENDORS.items():
        rows = tuple(_rows(sources[source].models, _Taken(provider, today), prefixes, limits, regions))
        names = {name for row in rows for name in (row.name, *row.aliases)}
        ours = [
            *limits.get(provider, ()),
            *(m for entry in regions if entry["provider"] == provider for m in entry["models"]),
        ]
        gone = [name for name in ours if not any(matches(name, known) for known in names)]
        if gone:
            message = f"models of {provider} that we name have no price: {gone}"
            raise ValueError(message)
        providers[provider] = rows
    origin = "" if document is None else f", document {hashlib.sha256(document).hexdigest()[:12]}"
    return Table(f"genai-prices {version('genai-prices')} (MIT){origin}", today.isoformat(), providers)


def _read_source(document: bytes) -> list[Any]:
    from genai_prices import types  # noqa: PLC0415 - as above

    try:
        # The package has no public reader of its own document; its version is pinned.
        read: list[Any] = types._providers_from_raw(list(json.loads(document)))  # noqa: SLF001 - see above
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"not a document of genai-prices: {str(error)[:500]}"
        raise ValueError(message) from error
    return read


def _ours(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _rows(
    models: Iterable[Any],
    taken: _Taken,
    prefixes: tuple[str, ...],
    limits: Mapping[str, Mapping[str, int]],
    regions: Iterable[Mapping[str, Any]],
) -> Iterator[ModelRow]:
    wanted = [model for model in models if model.id.startswith(prefixes) and _wanted(model.id)]
    names = {model.id for model in wanted}
    for model in wanted:
        taken.derived = set()
        periods = tuple(_periods(model, taken))
        if not periods:
            continue
        also = _profiles(model) if taken.provider == "bedrock" else _equal_names(model.match)
        aliases = sorted(name for name in also if name not in names and _wanted(name))
        names.update(aliases)
        own = limits.get(taken.provider, {})
        known = (
            limits[vendor].get(name, 0) for vendor, name in limit_names(taken.provider, model.id) if vendor in limits
        )
        yield ModelRow(
            name=model.id,
            periods=periods,
            aliases=tuple(aliases),
            # An embedding's window is per text, not per call: left out.
            context=(model.context_window or 0) if "output" in periods[0].rates else 0,
            output=own.get(model.id) or next((limit for limit in known if limit), 0),
            regions={
                entry["name"]: entry["ten_thousandths"]
                for entry in regions
                if entry["provider"] == taken.provider and any(matches(each, model.id) for each in entry["models"])
            },
            derived=tuple(sorted(taken.derived)),
        )


def _profiles(model: Any) -> set[str]:
    """Names of a Bedrock model and of its inference profiles that cost the same.

    A "regional" row says for which places it holds. A plain row is the price of us-east-1: it holds for "us." alone.
    """
    regional, dot, plain = model.id.partition("regional.")
    if not dot:
        return set() if model.id.startswith("global.") else {f"us.{model.id}"}
    stem = re.sub(r"(?:-v\d+)?(?::\d+)?$", "", plain)
    places = {text[: -len(stem)] for text in _texts(model.match) if text.endswith(stem)}
    return {place + plain for place in places if place == regional or place.endswith(".")} - {model.id}


def _texts(clause: Any) -> Iterator[str]:
    """Every text that a clause compares with."""
    for part in getattr(clause, "or_", ()):
        yield from _texts(part)
    for kind in ("equals", "starts_with", "contains"):
        if hasattr(clause, kind):
            yield getattr(clause, kind)


def _wanted(name: str) -> bool:
    return name not in _OLD and not any(part in name for part in _ACTS_ALONE)


def _equal_names(clause: Any) -> set[str]:
    """Names that the source matches exactly; its prefixes are not taken over."""
    if hasattr(clause, "equals"):
        return {clause.equals}
    names: set[str] = set()
    for part in getattr(clause, "or_", ()):
        names |= _equal_names(part)
    return names


def _periods(model: Any, taken: _Taken) -> Iterator[PeriodRow]:
    """Today's price and the ones to come; it stops at one without a price, or with a unit that is not ours."""
    routes, tiers = _variants(model, taken.today)
    for start, every in _dated(model.prices, taken.today):
        if any(_foreign(prices) or not _fields(prices) for prices in every):
            return
        if len(every) > 1:
            taken.derived.add("time_of_day")
        if routes:
            taken.derived.add("dearest_route")
        plain = [_schedule(prices, own, taken) for prices in every for own in ({}, *routes)]
        variants = {
            name: ScheduleRow(
                *_dearest([_schedule(prices, {**route, **own}, taken) for prices in every for route in ({}, *routes)])
            )
            for name, own in tiers
        }
        yield PeriodRow(*_dearest(plain), variants, _ms(start))


def _dated(prices: Any, today: date) -> Iterator[tuple[date, list[Any]]]:
    """By the day from which they hold: prices of which each applies at some hour."""
    if not isinstance(prices, list):
        yield date.min, [prices]
        return
    starts = {date.min: prices[0].prices}
    hours = []
    for entry in prices:
        if hasattr(entry.constraint, "start_date"):
            starts[entry.constraint.start_date] = entry.prices
        elif entry.constraint is not None:
            hours.append(entry.prices)
    past = max(day for day in starts if day <= today)
    for day in (past, *sorted(day for day in starts if day > today)):
        yield (date.min if day == past else day), [starts[day], *hours]


def _variants(model: Any, today: date) -> tuple[list[Mapping[str, Any]], list[tuple[str, Mapping[str, Any]]]]:
    """What differs today: by the route that a reseller takes on its own, and by the service tier that is asked for."""
    latest: dict[tuple[str, str], tuple[date, Mapping[str, Any]]] = {}
    for variant in model.price_variants or ():
        start = getattr(variant.constraint, "start_date", date.min)
        if len(variant.when) == 1 and start <= today:
            (which,) = variant.when.items()
            if which not in latest or latest[which][0] < start:
                latest[which] = (start, _fields(variant.prices))
    routes = [own for (kind, _), (_, own) in latest.items() if kind == "route"]
    tiers = [(name, own) for (kind, name), (_, own) in latest.items() if kind in _TIER_WORDS and name != "default"]
    return routes, sorted(tiers, key=operator.itemgetter(0))


def _fields(prices: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(prices).items() if value is not None}


def _foreign(prices: Any) -> set[str]:
    return set(_fields(prices)) - set(_UNITS) - _NOT_NEEDED


def _schedule(prices: Any, own: Mapping[str, Any], taken: _Taken) -> tuple[dict[str, int], tuple[TierRow, ...]]:
    every = {name: value for name, value in {**_fields(prices), **own}.items() if name in _UNITS}
    starts = {tier.start for value in every.values() for tier in getattr(value, "tiers", ())}
    rates = _rates(every, -1, taken)
    return rates, tuple(TierRow(start, _rates(every, start, taken)) for start in sorted(starts))


def _rates(prices: Mapping[str, Any], above: int, taken: _Taken) -> dict[str, int]:
    known = {}
    for name, value in prices.items():
        unit, per = _UNITS[name]
        known[unit], rounded = _pico(_at(value, above), per)
        if rounded:
            taken.derived.add("rounded")
    if taken.provider == "anthropic" and "cache_write_5m" in known and "cache_write_1h" not in known:
        known["cache_write_1h"] = 2 * known["input"]  # documented: twice the base input price
        taken.derived.add("cache_write_1h")
    if taken.provider in {"openai", "gemini"} and "output" in known and "input" in known:
        for unit in ("cache_read", "cache_write_5m") if taken.provider == "openai" else ("cache_read",):
            if unit not in known:
                known[unit] = known["input"]  # no price of its own: billed as input
                taken.derived.add(unit)
    return known


def _at(value: Any, above: int) -> Decimal:
    """The rate for a call whose input is just above a threshold; -1 for the base."""
    chosen: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if above >= tier.start:
            chosen = tier.price
    return chosen


def _pico(value: Decimal, per: int) -> tuple[int, bool]:
    """USD per `per` units to pico-USD per unit, rounded up, and whether it had to be."""
    scaled = Fraction(value) * 10**12 / per
    whole = -(-scaled.numerator // scaled.denominator)
    return whole, whole != scaled


def _dearest(
    schedules: list[tuple[dict[str, int], tuple[TierRow, ...]]],
) -> tuple[dict[str, int], tuple[TierRow, ...]]:
    """The dearest of each unit, where the hour of the day or the route decides."""
    if len(schedules) == 1:
        return schedules[0]
    units = sorted({unit for rates, _ in schedules for unit in rates})

    def top(above: int) -> dict[str, int]:
        return {unit: max(_above(schedule, above).get(unit, 0) for schedule in schedules) for unit in units}

    starts = sorted({tier.above for _, tiers in schedules for tier in tiers})
    return top(-1), tuple(TierRow(start, top(start)) for start in starts)


def _above(schedule: tuple[dict[str, int], tuple[TierRow, ...]], above: int) -> dict[str, int]:
    rates, tiers = schedule
    for tier in tiers:
        if above >= tier.above:
            rates = tier.rates
    return rates


def _ms(day: date) -> int:
    if day == date.min:
        return 0
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
