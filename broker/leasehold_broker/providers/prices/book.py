"""The price book: from (provider, model) to a `ModelPrice`. Owns days and overrides; refuses to guess.

A model is known by a name that the table lists, or by one of the vendor's documented forms of such a name.
"""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Final

from leasehold_broker.domain.price import ModelPrice, Schedule, Tier, dearest_of
from leasehold_broker.providers.prices.names import known_as
from leasehold_broker.providers.prices.overrides import NONE, discounted, read_overrides
from leasehold_broker.providers.prices.table import domain_price, read_table, table_version

_DAY_MS: Final = 86_400_000

_Dated = tuple[tuple[int, ModelPrice], ...]


class TableBook:
    """The port `PriceBook` over a table and an operator's overrides."""

    def __init__(self, table: bytes, override: bytes | None, wall_ms: Callable[[], int] | None) -> None:
        """Read both.

        Args:
            table: the table, JSON.
            override: an operator's TOML, or None.
            wall_ms: tells the date for prices that change on a known day; None: the dearest of all periods applies.

        Raises:
            ValueError: one of them is wrong; the message names what.
        """
        self.version = table_version(table, override)
        self.overrides = NONE if override is None else read_overrides(override, self.version)
        self.table = read_table(table)
        self._wall_ms = wall_ms
        self._dated: dict[tuple[str, str], _Dated] = {}
        for provider, models in self.table.providers.items():
            for model in models:
                ratio = self.overrides.ratio(provider, model.name)
                dated = tuple(
                    (period.from_ms, discounted(domain_price(model, period, self.version), ratio))
                    for period in model.periods
                )
                for name in (model.name, *model.aliases):
                    self._dated[provider, name] = dated

    def price(self, provider: str, model: str) -> ModelPrice | None:
        """See the port. An override wins over the table, by its exact name only."""
        found = self.overrides.fixed.get((provider, model))
        if found is not None:
            return found
        for name in known_as(provider, model):
            dated = self._dated.get((provider, name))
            if dated is not None:
                return self._at(dated)
        return None

    def _at(self, dated: _Dated) -> ModelPrice:
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


def _dearest(prices: list[ModelPrice]) -> ModelPrice:
    """One price that is at least each of them, whatever the usage. A service tier must have a price in all of them."""
    if len(prices) == 1:
        return prices[0]
    first = prices[0]
    standard = _dearest_schedule([Schedule(price.base, price.tiers) for price in prices])
    common = set(first.variants).intersection(*(price.variants for price in prices[1:]))
    variants = {name: _dearest_schedule([price.variants[name] for price in prices]) for name in common}
    return ModelPrice(
        first.model,
        standard.base,
        standard.tiers,
        first.context_tokens_max,
        first.output_tokens_max,
        first.version,
        variants,
        first.regions,
    )


def _dearest_schedule(schedules: list[Schedule]) -> Schedule:
    thresholds = sorted({tier.above_input_tokens for schedule in schedules for tier in schedule.tiers})
    tiers = tuple(
        Tier(above, dearest_of([schedule.rates_for(above + 1) for schedule in schedules])) for above in thresholds
    )
    return Schedule(dearest_of([schedule.base for schedule in schedules]), tiers)


def shipped_table() -> bytes:
    """The table that comes with the broker."""
    return resources.files(__package__).joinpath("table.json").read_bytes()


def load_price_book(
    override: Path | None = None, wall_ms: Callable[[], int] | None = None, table: Path | None = None
) -> TableBook:
    """A table, with an operator's file on top.

    Args:
        override: TOML, see `overrides`; None for none.
        wall_ms: Unix time in milliseconds, for prices that change on a known day; without it the dearer one applies.
        table: a table that `leasehold-broker prices refresh` wrote; None: the one that comes with the broker.

    Raises:
        ValueError: one of them is wrong; the message names what.
        OSError: one of them cannot be read.
    """
    data = shipped_table() if table is None else table.read_bytes()
    return TableBook(data, override.read_bytes() if override is not None else None, wall_ms)
