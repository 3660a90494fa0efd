"""An operator's prices on top of the table: fixed ones, and discounts. Owns the file's shape and what is refused in it.

TOML. `[[price]]`: provider, model, a rate for each unit in micro-USD per million (the units of `domain.price.Rates`),
`context_tokens_max`, `output_tokens_max`, and, where they apply, `tiers` (a list of tables: `above` and every rate),
`variants` (a table of rates for each service tier) and `regions` (multipliers in ten-thousandths). `[[discount]]`:
provider, models (names of the table, or patterns that end in "*") and `ratio`, a decimal in quotes: what is paid of the
table's price.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import msgspec

from leasehold_broker.domain.price import RATE_NAMES, ModelPrice, Rates, Schedule, Tier
from leasehold_broker.domain.scope import matches
from leasehold_broker.domain.toml_faults import toml_fault
from leasehold_broker.providers.prices.table import (
    ModelRow,
    PeriodRow,
    ScheduleRow,
    Table,
    TierRow,
    domain_price,
    table_faults,
)

OVERRIDE_BYTES_MAX: Final = 1024 * 1024
_RATIO_MAX: Final = 10


class _Tier(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    above: int
    rates: dict[str, int]


class _Price(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    provider: str
    model: str
    rates: dict[str, int]
    tiers: tuple[_Tier, ...] = ()
    variants: dict[str, dict[str, int]] = {}
    regions: dict[str, int] = {}
    context_tokens_max: int = 0
    output_tokens_max: int = 0

    def row(self) -> ModelRow:
        """As a row of the table."""
        tiers = tuple(TierRow(tier.above, tier.rates) for tier in self.tiers)
        variants = {name: ScheduleRow(rates) for name, rates in self.variants.items()}
        period = PeriodRow(self.rates, tiers, variants)
        limits = self.context_tokens_max, self.output_tokens_max
        return ModelRow(self.model, (period,), (), *limits, self.regions)


class _Discount(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    provider: str
    models: tuple[str, ...]
    ratio: str


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    price: tuple[_Price, ...] = ()
    discount: tuple[_Discount, ...] = ()


@dataclass(frozen=True, slots=True)
class Discount:
    """What is paid of the table's prices of some models."""

    provider: str
    models: tuple[str, ...]
    ratio: Fraction

    def covers(self, provider: str, model: str) -> bool:
        """True when it is about this model of the table."""
        return provider == self.provider and any(matches(pattern, model) for pattern in self.models)


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one file says."""

    fixed: Mapping[tuple[str, str], ModelPrice]
    discounts: tuple[Discount, ...]

    def ratio(self, provider: str, model: str) -> Fraction:
        """What is paid of the table's price of this model: of two discounts that cover it, the first in the file."""
        return next((each.ratio for each in self.discounts if each.covers(provider, model)), Fraction(1))


NONE: Final = Overrides({}, ())


def read_overrides(data: bytes, version: str) -> Overrides:
    """What the file says.

    Args:
        data: the file.
        version: of the prices, for the charge.

    Raises:
        ValueError: something in it is wrong; the message names it.
    """
    if len(data) > OVERRIDE_BYTES_MAX:
        wrong = [f"larger than {OVERRIDE_BYTES_MAX} bytes"]
        raise _fault(*wrong)
    try:
        text = data.decode()
        raw = tomllib.loads(text)
        for entry in raw.get("price", ()):
            _gather(entry)
        file = msgspec.convert(raw, _File)
    except tomllib.TOMLDecodeError as error:
        raise _fault(toml_fault(text, str(error))) from error
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _fault(str(error)) from error
    wrong = [*_twice(file.price), *table_faults(_as_table(file.price))]
    if wrong:
        raise _fault(*wrong[:10])
    fixed = {}
    for entry in file.price:
        row = entry.row()
        fixed[entry.provider, entry.model] = domain_price(row, row.periods[0], version)
    return Overrides(fixed, tuple(_discount(entry) for entry in file.discount))


def discounted(price: ModelPrice, ratio: Fraction) -> ModelPrice:
    """The price with every rate multiplied, rounded up to the next pico-USD."""
    if ratio == 1:
        return price
    variants = {
        name: Schedule(_scaled(found.base, ratio), _scaled_tiers(found.tiers, ratio))
        for name, found in price.variants.items()
    }
    return replace(price, base=_scaled(price.base, ratio), tiers=_scaled_tiers(price.tiers, ratio), variants=variants)


def _scaled(rates: Rates, ratio: Fraction) -> Rates:
    known = {name: rate for name in RATE_NAMES if (rate := getattr(rates, name)) is not None}
    up = {name: -(-rate * ratio.numerator // ratio.denominator) for name, rate in known.items()}
    return replace(rates, **up)


def _scaled_tiers(tiers: Iterable[Tier], ratio: Fraction) -> tuple[Tier, ...]:
    return tuple(Tier(tier.above_input_tokens, _scaled(tier.rates, ratio)) for tier in tiers)


def _gather(entry: Any) -> None:
    """The rates of an entry, which stand beside its other members, into one member."""
    if not isinstance(entry, dict):
        return
    for place in (entry, *(tier for tier in entry.get("tiers", ()) if isinstance(tier, dict))):
        rates = {name: place.pop(name) for name in RATE_NAMES if name in place}
        for name, rate in rates.items():
            if isinstance(rate, bool) or not isinstance(rate, int):
                wrong = f"{entry.get('provider')}/{entry.get('model')}: {name}: {rate!r} is no whole number"
                raise _fault(wrong)
        place["rates"] = rates


def _twice(entries: Iterable[_Price]) -> Iterable[str]:
    seen = set()
    for entry in entries:
        key = (entry.provider, entry.model)
        if key in seen:
            yield f"{entry.provider}/{entry.model} is given twice; keep one"
        seen.add(key)


def _as_table(entries: Iterable[_Price]) -> Table:
    unique = {(entry.provider, entry.model): entry for entry in entries}
    providers: dict[str, tuple[ModelRow, ...]] = {}
    for (provider, _), entry in unique.items():
        providers[provider] = (*providers.get(provider, ()), entry.row())
    return Table("", "", providers)


def _discount(entry: _Discount) -> Discount:
    where = f"discount of {entry.provider}: "
    try:
        ratio = Fraction(entry.ratio)
    except (ValueError, ZeroDivisionError) as error:
        wrong = where + f'ratio {entry.ratio!r} is no decimal such as "0.85"'
        raise _fault(wrong) from error
    if not 0 < ratio <= _RATIO_MAX:
        wrong = where + f"ratio {entry.ratio} is not above 0 and at most {_RATIO_MAX}"
        raise _fault(wrong)
    if not entry.models:
        wrong = where + 'models is empty; for all of them, give ["*"]'
        raise _fault(wrong)
    return Discount(entry.provider, entry.models, ratio)


def _fault(*what: str) -> ValueError:
    return ValueError("price override file: " + "; ".join(what))
