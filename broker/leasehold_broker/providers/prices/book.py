"""The price book: from (provider, model) to a `ModelPrice`. Owns names and dates; refuses to guess.

A model is known by a name that the table lists, or by one of the vendor's documented dated forms of such a name. A name
that merely starts like a known one is unknown: it may be another model at another price.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from leasehold_broker.domain.price import ModelPrice, Rates, Tier

_DAY_MS: Final = 86_400_000
_RATE_MAX: Final = 10**12
_ALIASES: Final = {
    "anthropic": re.compile(r"(?P<base>.+?)(?:-20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|-latest)"),
    "openai": re.compile(r"(?P<base>.+?)-20\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"),
    "gemini": re.compile(r"(?P<base>.+?)-00[1-9]"),
}
"""claude-sonnet-4-5-20250929, claude-3-7-sonnet-latest; gpt-4o-2024-08-06; gemini-2.0-flash-001."""


class _Rates(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    input: int
    output: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    web_search: int | None = None

    def domain(self) -> Rates:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _RATE_MAX:
                message = f"{name}: {value} is outside 0 to {_RATE_MAX} micro-USD per million"
                raise ValueError(message)
        return Rates(
            self.input, self.output, self.cache_read, self.cache_write_5m, self.cache_write_1h, self.web_search
        )


class _Tier(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    above: int
    rates: _Rates


class _Period(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rates: _Rates
    from_ms: int = 0
    tiers: tuple[_Tier, ...] = ()


class _Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    periods: tuple[_Period, ...]
    aliases: tuple[str, ...] = ()
    context: int = 0
    output: int = 0
    derived: tuple[str, ...] = ()


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    source: str
    generated: str
    providers: dict[str, tuple[_Model, ...]]


class _Override(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    provider: str
    model: str
    input: int
    output: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    web_search: int | None = None
    context_tokens_max: int = 0
    output_tokens_max: int = 0


class _Overrides(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    price: tuple[_Override, ...] = ()


class TableBook:
    """The port `PriceBook` over the shipped table and an operator's overrides."""

    def __init__(self, table: bytes, override: bytes | None, wall_ms: Callable[[], int] | None) -> None:
        """Read both.

        Args:
            table: the shipped table, JSON.
            override: an operator's TOML, or None.
            wall_ms: tells the date for prices that change on a known day; None: the dearest of all periods applies.

        Raises:
            ValueError: the override is wrong; the message names the field.
        """
        self.version = hashlib.sha256(table + b"\0" + (override or b"")).hexdigest()[:12]
        self._wall_ms = wall_ms
        self._dated: dict[tuple[str, str], tuple[tuple[int, ModelPrice], ...]] = {}
        self._override: dict[tuple[str, str], ModelPrice] = {}
        for provider, models in msgspec.json.decode(table, type=_Table).providers.items():
            for model in models:
                dated = tuple((period.from_ms, self._price(model, period)) for period in model.periods)
                for name in (model.name, *model.aliases):
                    self._dated[provider, name] = dated
        if override is not None:
            self._read_override(override)

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """See the port. An override wins over the table, by its exact name only."""
        found = self._override.get((provider, model))
        if found is not None:
            return found
        dated = self._dated.get((provider, model)) or self._dated_alias(provider, model)
        return None if dated is None else self._at(dated)

    def _dated_alias(self, provider: str, model: str) -> tuple[tuple[int, ModelPrice], ...] | None:
        pattern = _ALIASES.get(provider)
        match = pattern.fullmatch(model) if pattern is not None else None
        if match is None:
            return None
        base = match["base"]
        for known in (base, f"{base}-0", f"{base}-latest"):
            if (dated := self._dated.get((provider, known))) is not None:
                return dated
        return None

    def _at(self, dated: tuple[tuple[int, ModelPrice], ...]) -> ModelPrice:
        """The price of the day; within a day of a change (time zones), and without a clock, the dearer one."""
        if len(dated) == 1:
            return dated[0][1]
        if self._wall_ms is None:
            return _dearest([price for _, price in dated])
        now = self._wall_ms()
        ends = [start for start, _ in dated[1:]] + [2**62]
        live = [
            price for (start, price), end in zip(dated, ends, strict=True) if start - _DAY_MS <= now < end + _DAY_MS
        ]
        return _dearest(live or [dated[0][1]])

    def _price(self, model: _Model, period: _Period) -> ModelPrice:
        tiers = tuple(Tier(tier.above, tier.rates.domain()) for tier in period.tiers)
        return ModelPrice(model.name, period.rates.domain(), tiers, model.context, model.output, self.version)

    def _read_override(self, override: bytes) -> None:
        try:
            parsed = msgspec.convert(tomllib.loads(override.decode()), _Overrides)
        except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            message = f"price override file: {error}"
            raise ValueError(message) from error
        for entry in parsed.price:
            key = (entry.provider, entry.model)
            if key in self._override:
                message = f"price override file: {entry.provider}/{entry.model} is given twice; keep one"
                raise ValueError(message)
            if entry.context_tokens_max < 0 or entry.output_tokens_max < 0:
                message = f"price override file: {entry.provider}/{entry.model}: a limit is negative; use 0 for unknown"
                raise ValueError(message)
            rates = _Rates(
                entry.input,
                entry.output,
                entry.cache_read,
                entry.cache_write_5m,
                entry.cache_write_1h,
                entry.web_search,
            )
            try:
                base = rates.domain()
            except ValueError as error:
                message = f"price override file: {entry.provider}/{entry.model}: {error}"
                raise ValueError(message) from error
            self._override[key] = ModelPrice(
                entry.model, base, (), entry.context_tokens_max, entry.output_tokens_max, self.version
            )


def _dearest(prices: list[ModelPrice]) -> ModelPrice:
    """One price that is at least each of them, whatever the usage."""
    if len(prices) == 1:
        return prices[0]
    thresholds = sorted({tier.above_input_tokens for price in prices for tier in price.tiers})
    tiers = tuple(Tier(above, _dearest_rates([price.rates_for(above + 1) for price in prices])) for above in thresholds)
    first = prices[0]
    base = _dearest_rates([price.base for price in prices])
    return ModelPrice(first.model, base, tiers, first.context_tokens_max, first.output_tokens_max, first.version)


def _dearest_rates(rates: list[Rates]) -> Rates:
    def top(name: str) -> int | None:
        known = [value for entry in rates if (value := getattr(entry, name)) is not None]
        return max(known) if known else None

    return Rates(
        max(entry.input for entry in rates),
        top("output"),
        top("cache_read"),
        top("cache_write_5m"),
        top("cache_write_1h"),
        top("web_search"),
    )


def load_price_book(override: Path | None = None, wall_ms: Callable[[], int] | None = None) -> TableBook:
    """The shipped table, with an operator's file on top.

    Args:
        override: TOML with `[[price]]` entries: provider, model, and rates in micro-USD per million tokens.
        wall_ms: Unix time in milliseconds, for prices that change on a known day; without it the dearer one applies.

    Raises:
        ValueError: the override is wrong; the message names the field.
        OSError: the override cannot be read.
    """
    table = resources.files(__package__).joinpath("table.json").read_bytes()
    return TableBook(table, override.read_bytes() if override is not None else None, wall_ms)
