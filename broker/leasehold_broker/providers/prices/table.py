"""The price table as a file: its shape, what is refused in it, and how a row becomes a `ModelPrice`. Owns no names.

JSON, one model a line. A rate is in pico-USD per unit, which is micro-USD per million units.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from leasehold_broker.domain.price import RATE_NAMES, STANDARD_TIERS, ModelPrice, Rates, Schedule, Tier

RATE_MAX: Final = 10**12
"""A USD per unit: a larger rate is a mistake."""
MULTIPLIERS: Final = range(1_000, 100_001)
"""A tenth to ten times the rates."""
TOKENS_MAX: Final = 10**9
TABLE_BYTES_MAX: Final = 32 * 1024 * 1024


class TierRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Rates above a size of input."""

    above: int
    rates: dict[str, int]


class ScheduleRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """Rates by size of input."""

    rates: dict[str, int]
    tiers: tuple[TierRow, ...] = ()


class PeriodRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What holds from a day on, by service tier; `from_ms` is Unix time."""

    rates: dict[str, int]
    tiers: tuple[TierRow, ...] = ()
    variants: dict[str, ScheduleRow] = {}
    from_ms: int = 0


class ModelRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """One model: its names, its periods by rising day, and what the source does not say but we do (`derived`)."""

    name: str
    periods: tuple[PeriodRow, ...]
    aliases: tuple[str, ...] = ()
    context: int = 0
    output: int = 0
    regions: dict[str, int] = {}
    derived: tuple[str, ...] = ()


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    source: str
    generated: str
    providers: dict[str, tuple[ModelRow, ...]]


def read_table(data: bytes) -> Table:
    """A table that can be used.

    Raises:
        ValueError: it cannot; the message names every place that is wrong, at most ten.
    """
    if len(data) > TABLE_BYTES_MAX:
        message = f"price table: larger than {TABLE_BYTES_MAX} bytes"
        raise ValueError(message)
    try:
        table = msgspec.json.decode(data, type=Table)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"price table: {error}"
        raise ValueError(message) from error
    wrong = list(table_faults(table))
    if wrong:
        message = "price table: " + "; ".join(wrong[:10]) + ("; and more" if len(wrong) > 10 else "")
        raise ValueError(message)
    return table


def write_table(table: Table) -> bytes:
    """The file of a table: one model a line, so that a change of a price is a change of a line."""
    head = msgspec.json.encode(table.source), msgspec.json.encode(table.generated)
    parts = [b'{"source": ' + head[0] + b', "generated": ' + head[1] + b', "providers": {\n']
    for at, (provider, models) in enumerate(sorted(table.providers.items())):
        rows = b",\n".join(msgspec.json.encode(model, order="sorted") for model in models)
        parts.append((b",\n" if at else b"") + msgspec.json.encode(provider) + b": [\n" + rows + b"\n]")
    return b"".join((*parts, b"\n}}\n"))


def table_version(data: bytes, override: bytes | None = None) -> str:
    """Names a table, with an operator's file on top, in every charge."""
    return hashlib.sha256(data + b"\0" + (override or b"")).hexdigest()[:12]


def domain_price(model: ModelRow, period: PeriodRow, version: str) -> ModelPrice:
    """The price of a row in one of its periods."""
    return ModelPrice(
        model.name,
        domain_rates(period.rates),
        _tiers(period.tiers),
        model.context,
        model.output,
        version,
        {name: Schedule(domain_rates(row.rates), _tiers(row.tiers)) for name, row in period.variants.items()},
        model.regions,
    )


def domain_rates(row: Mapping[str, int]) -> Rates:
    """The rates of a row, and what it leaves unsaid.

    A cached token costs what a fresh one costs, a picture's token what a token of input or output costs, and a cached
    one of these what a cached one costs, unless the row says otherwise; cached sound costs what sound costs. Sound
    itself has a price of its own or none.
    """
    known: dict[str, int | None] = dict(row)
    if "input" in known:
        known.setdefault("cache_read", known["input"])
    if "input_image" not in known and "input" in known:
        known["input_image"] = known["input"]
        known.setdefault("cache_read_image", known.get("cache_read", known["input"]))
    if "output" in known:
        known.setdefault("output_image", known["output"])
    for kind in ("image", "audio"):
        if f"input_{kind}" in known:
            known.setdefault(f"cache_read_{kind}", known[f"input_{kind}"])
    return Rates(**{"input": None, "output": None, **known})


def _tiers(rows: Iterable[TierRow]) -> tuple[Tier, ...]:
    return tuple(Tier(row.above, domain_rates(row.rates)) for row in rows)


def table_faults(table: Table) -> Iterable[str]:
    """What is wrong in a table, a sentence each."""
    for provider, models in table.providers.items():
        seen: set[str] = set()
        for model in models:
            for name in (model.name, *model.aliases):
                if not name or name in seen:
                    yield f"{provider}/{model.name}: the name {name!r} is given twice or empty"
                seen.add(name)
            yield from _wrong_model(model, f"{provider}/{model.name}")


def _wrong_model(model: ModelRow, where: str) -> Iterable[str]:
    if not model.periods:
        yield f"{where}: has no price"
    if not (0 <= model.context <= TOKENS_MAX and 0 <= model.output <= TOKENS_MAX):
        yield f"{where}: a limit is negative or absurd; use 0 for unknown"
    for region, factor in model.regions.items():
        if factor not in MULTIPLIERS:
            yield f"{where}: region {region!r}: {factor} ten-thousandths is outside 1000 to 100000"
    starts = [period.from_ms for period in model.periods]
    if starts != sorted(set(starts)):
        yield f"{where}: its days do not rise"
    for period in model.periods:
        yield from _wrong_period(period, where)


def _wrong_period(period: PeriodRow, where: str) -> Iterable[str]:
    yield from _wrong_schedule(period.rates, period.tiers, where)
    for name, variant in period.variants.items():
        if name in STANDARD_TIERS:
            yield f"{where}: {name!r} is the standard tier and cannot be another one"
        yield from _wrong_schedule(variant.rates, variant.tiers, f"{where} ({name})")


def _wrong_schedule(rates: Mapping[str, int], tiers: Iterable[TierRow], where: str) -> Iterable[str]:
    if not rates:
        yield f"{where}: has no rate; give input and output"
    yield from _wrong_rates(rates, where)
    above = 0
    for tier in tiers:
        if not above < tier.above <= TOKENS_MAX:
            yield f"{where}: thresholds must rise from 1"
        above = tier.above
        if set(tier.rates) != set(rates):
            yield f"{where}: above {tier.above} other units have rates than below"
        yield from _wrong_rates(tier.rates, f"{where} above {tier.above}")


def _wrong_rates(rates: Mapping[str, int], where: str) -> Iterable[str]:
    """Zero is a price only where all of them are zero: a model that is free."""
    free = not any(rates.values())
    for name, rate in rates.items():
        if name not in RATE_NAMES:
            yield f"{where}: {name} is not a unit; units are {', '.join(RATE_NAMES)}"
        elif not 0 <= rate <= RATE_MAX:
            yield f"{where}: {name}: {rate} is outside 0 to {RATE_MAX} micro-USD per million"
        elif rate == 0 and not free:
            yield f"{where}: {name} is 0 while other units cost something; leave it out, or give its price"
