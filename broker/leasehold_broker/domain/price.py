"""What usage costs, in integers. Owns rounding: always up, to the next whole micro-USD, once per call.

A rate is in pico-USD per unit, which is the same number as micro-USD per million units: 3 USD per million tokens is
3_000_000. Refuses floats, unknown units and guesses: a unit used without a rate is an error, never free.
"""

from dataclasses import dataclass

from leasehold_broker.domain.amounts import Amounts

PICO_PER_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider says one call used, normalised: no token is counted twice.

    Args:
        input_tokens: fresh input, neither read from nor written to a cache.
        cache_read_tokens: input served from a cache.
        cache_write_5m_tokens, cache_write_1h_tokens: input written to a cache, by its lifetime.
        output_tokens: everything billed as output, reasoning and thoughts included.
        reasoning_tokens: the part of output_tokens that was reasoning; informative, never priced again.
        web_searches: uses of the provider's own search.
        service_tier: as the provider reports it; empty when it does not.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    web_searches: int = 0
    service_tier: str = ""

    @property
    def all_input_tokens(self) -> int:
        """Input of every kind: what an input-token cap counts and what a long-context tier is judged by."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-USD per unit; None where the price source has no such price (then using it is refused or flagged)."""

    input: int
    output: int | None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    web_search: int | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that apply to the whole call once its input is larger than `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """The price of one model in one version of the table.

    Args:
        model: the table's own name of the model.
        base: rates below every tier.
        tiers: by rising threshold.
        context_tokens_max: largest input the model takes; 0 when unknown.
        output_tokens_max: largest answer the model gives; 0 when unknown.
        version: names the table, for the charge.
    """

    model: str
    base: Rates
    tiers: tuple[Tier, ...]
    context_tokens_max: int
    output_tokens_max: int
    version: str

    def rates_for(self, all_input_tokens: int) -> Rates:
        """The rates for a call with this much input."""
        rates = self.base
        for tier in self.tiers:
            if all_input_tokens > tier.above_input_tokens:
                rates = tier.rates
        return rates

    def dearest_rates(self, input_tokens_bound: int, *, cache_writes: bool = True) -> tuple[int, int]:
        """(input, output) pico-USD per token that no call with at most this much input can exceed.

        Args:
            input_tokens_bound: which tiers are reachable.
            cache_writes: False when the call cannot write to a prompt cache.
        """
        reachable = [self.base, *(tier.rates for tier in self.tiers if input_tokens_bound > tier.above_input_tokens)]
        dearest_input = max(
            rate
            for rates in reachable
            for rate, reached in (
                (rates.input, True),
                (rates.cache_read, True),
                (rates.cache_write_5m, cache_writes),
                (rates.cache_write_1h, cache_writes),
            )
            if rate is not None and reached
        )
        return dearest_input, max(rates.output or 0 for rates in reachable)


class UnpricedUnitError(Exception):
    """The provider reported a unit that the price table has no rate for. The hold is charged instead."""


def micro_usd(pico: int) -> int:
    """Pico-USD to micro-USD, rounded up."""
    return -(-pico // PICO_PER_MICRO)


def cost_micro_usd(usage: Usage, price: ModelPrice) -> int:
    """What `usage` costs, in micro-USD, rounded up once.

    Raises:
        UnpricedUnitError: a unit is used that has no rate.
    """
    rates = price.rates_for(usage.all_input_tokens)
    pico = 0
    for units, rate, unit in (
        (usage.input_tokens, rates.input, "input"),
        (usage.cache_read_tokens, rates.cache_read, "cache_read"),
        (usage.cache_write_5m_tokens, rates.cache_write_5m, "cache_write_5m"),
        (usage.cache_write_1h_tokens, rates.cache_write_1h, "cache_write_1h"),
        (usage.output_tokens, rates.output, "output"),
        (usage.web_searches, rates.web_search, "web_search"),
    ):
        if units:
            if rate is None:
                message = f"no {unit} rate for model {price.model}"
                raise UnpricedUnitError(message)
            pico += units * rate
    return micro_usd(pico)


def usage_amounts(usage: Usage, cost: int) -> Amounts:
    """The budget vector of one finished call."""
    return Amounts(cost, usage.all_input_tokens, usage.output_tokens, 1, 0)
