"""What usage costs, in integers. Owns units, rates and rounding: always up, to the next whole micro-USD, once per call.

A rate is in pico-USD per unit, which is the same number as micro-USD per million units: 3 USD per million tokens is
3_000_000. Refuses floats, unknown units and guesses: a unit, a service tier or a region used without a price is an
error, never free.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Final

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.values import value

PICO_PER_MICRO = 1_000_000
REGION_ONE: Final = 10_000
"""The multiplier of a region is in ten-thousandths: 11_000 is ten per cent more."""
STANDARD_TIERS: Final = frozenset(("", "standard", "default"))
"""Names of the tier that the base rates are for, and of its absence."""
STANDARD_REGIONS: Final = frozenset(("", "global"))
ANY: Final = "*"
"""In a plan: whichever tier or region the provider chooses."""
OUTPUT_RATES: Final = ("output", "output_audio", "output_image")


@value
class Usage:
    """What a provider says one call used, normalised: no token is counted twice.

    Args:
        input_tokens: fresh input that is text, or has no price of its own; neither read from nor written to a cache.
        cache_read_tokens: input served from a cache.
        cache_write_5m_tokens, cache_write_1h_tokens: input written to a cache, by its lifetime.
        output_tokens: everything billed as text output, reasoning and thoughts included.
        reasoning_tokens: the part of output_tokens that was reasoning; has a price of its own at few vendors.
        web_searches: uses of the provider's own search.
        service_tier: as the provider reports it, in the words of the price table ("flex", "priority", "fast", "batch");
            "", "standard" and "default" are the standard tier.
        region: where the call was served, in the words of the price table; "" and "global" cost the base rates.
        input_audio_tokens, input_image_tokens: fresh input of that kind.
        cache_read_audio_tokens, cache_read_image_tokens: input of that kind served from a cache.
        output_audio_tokens, output_image_tokens: output of that kind, beside output_tokens.
        input_images, output_images: pictures that are billed by the piece, not by their tokens.
        input_characters: characters billed as such (speech).
        audio_seconds: seconds of audio billed as such (transcription); begun seconds count.
        file_searches, code_executions, rerank_searches: uses of what the provider runs.
        reported_pico_usd: what the provider itself says that it charged; it stands over what the table says.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    web_searches: int = 0
    service_tier: str = ""
    region: str = ""
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    cache_read_audio_tokens: int = 0
    cache_read_image_tokens: int = 0
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    input_images: int = 0
    output_images: int = 0
    input_characters: int = 0
    audio_seconds: int = 0
    file_searches: int = 0
    code_executions: int = 0
    rerank_searches: int = 0
    reported_pico_usd: int | None = None

    @property
    def all_input_tokens(self) -> int:
        """Input of every kind: what an input-token cap counts and what a long-context tier is judged by."""
        return (
            self.input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
            + self.input_audio_tokens
            + self.input_image_tokens
            + self.cache_read_audio_tokens
            + self.cache_read_image_tokens
        )

    @property
    def all_output_tokens(self) -> int:
        """Output of every kind: what an output-token cap counts."""
        return self.output_tokens + self.output_audio_tokens + self.output_image_tokens

    @property
    def tool_uses(self) -> int:
        """Uses of tools that the provider runs."""
        return self.web_searches + self.file_searches + self.code_executions


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-USD per unit; None where there is no such price (then using it is refused or flagged).

    Args:
        input ... rerank_search: of the unit of `Usage` that has the same name.
        reasoning: None: reasoning costs what output costs.
        request: for each call, whatever it used; None: nothing.
    """

    input: int | None
    output: int | None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    web_search: int | None = None
    reasoning: int | None = None
    request: int | None = None
    input_audio: int | None = None
    input_image: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    output_audio: int | None = None
    output_image: int | None = None
    input_picture: int | None = None
    output_picture: int | None = None
    character: int | None = None
    audio_second: int | None = None
    file_search: int | None = None
    code_execution: int | None = None
    rerank_search: int | None = None


RATE_NAMES: Final = tuple(each.name for each in fields(Rates))
TOKEN_UNITS: Final = (
    ("input_tokens", "input"),
    ("cache_read_tokens", "cache_read"),
    ("cache_write_5m_tokens", "cache_write_5m"),
    ("cache_write_1h_tokens", "cache_write_1h"),
    ("output_tokens", "output"),
    ("input_audio_tokens", "input_audio"),
    ("input_image_tokens", "input_image"),
    ("cache_read_audio_tokens", "cache_read_audio"),
    ("cache_read_image_tokens", "cache_read_image"),
    ("output_audio_tokens", "output_audio"),
    ("output_image_tokens", "output_image"),
)
"""Fields of `Usage` and `Rates` that belong together; a region multiplies these."""
PIECE_UNITS: Final = (
    ("web_searches", "web_search"),
    ("input_images", "input_picture"),
    ("output_images", "output_picture"),
    ("input_characters", "character"),
    ("audio_seconds", "audio_second"),
    ("file_searches", "file_search"),
    ("code_executions", "code_execution"),
    ("rerank_searches", "rerank_search"),
)
"""As above; the same everywhere."""
_USED_TOKENS: Final = attrgetter(*(unit for unit, _ in TOKEN_UNITS))
_USED_PIECES: Final = attrgetter(*(unit for unit, _ in PIECE_UNITS))
_TOKEN_RATES: Final = tuple(name for _, name in TOKEN_UNITS)
_PIECE_RATES: Final = tuple(name for _, name in PIECE_UNITS)


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates that apply to the whole call once its input is larger than `above_input_tokens`."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Schedule:
    """Rates by the size of the input: `base` below every tier, tiers by rising threshold."""

    base: Rates
    tiers: tuple[Tier, ...] = ()

    def rates_for(self, all_input_tokens: int) -> Rates:
        """The rates for a call with this much input."""
        rates = self.base
        for tier in self.tiers:
            if all_input_tokens > tier.above_input_tokens:
                rates = tier.rates
        return rates

    def reachable(self, input_tokens_bound: int) -> list[Rates]:
        """Every set of rates that a call with at most this much input can have."""
        return [self.base, *(tier.rates for tier in self.tiers if input_tokens_bound > tier.above_input_tokens)]


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
        variants: what other service tiers cost, by their names.
        regions: multipliers in ten-thousandths, by their names; the standard ones are not among them.
    """

    model: str
    base: Rates
    tiers: tuple[Tier, ...]
    context_tokens_max: int
    output_tokens_max: int
    version: str
    variants: Mapping[str, Schedule] = field(default_factory=dict)
    regions: Mapping[str, int] = field(default_factory=dict)
    _known: dict[tuple[tuple[str, ...], tuple[str, ...]], Rates] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Answers of `dearest`."""

    @property
    def tiered(self) -> bool:
        """True when the price depends on the size of the input, in whatever service tier."""
        return bool(self.tiers) or any(variant.tiers for variant in self.variants.values())

    @property
    def window_tokens_max(self) -> int:
        """The most input that one reading can have; 0 when unknown, as where a tier begins at or above the window."""
        tiers = (*self.tiers, *(tier for variant in self.variants.values() for tier in variant.tiers))
        highest = max((tier.above_input_tokens for tier in tiers), default=0)
        return self.context_tokens_max if self.context_tokens_max > highest else 0

    def schedule(self, service_tier: str) -> Schedule:
        """Rates at a service tier.

        Raises:
            UnpricedUnitError: it has no price.
        """
        if service_tier in STANDARD_TIERS:
            return Schedule(self.base, self.tiers)
        found = self.variants.get(service_tier)
        if found is None:
            raise self._unpriced("service tier", service_tier)
        return found

    def rates_for(self, all_input_tokens: int, service_tier: str = "") -> Rates:
        """The rates for a call with this much input at this service tier.

        Raises:
            UnpricedUnitError: the service tier has no price.
        """
        if not self.tiers and service_tier in STANDARD_TIERS:
            return self.base
        return self.schedule(service_tier).rates_for(all_input_tokens)

    def multiplier(self, region: str) -> int:
        """What tokens cost in a region, in ten-thousandths of the rates.

        Raises:
            UnpricedUnitError: the region has no price.
        """
        if region in STANDARD_REGIONS:
            return REGION_ONE
        found = self.regions.get(region)
        if found is None:
            raise self._unpriced("region", region)
        return found

    def dearest(
        self, input_tokens_bound: int, service_tiers: Iterable[str] = ("",), regions: Iterable[str] = ("",)
    ) -> Rates:
        """Rates that no call with at most this much input, at one of these tiers, in one of these regions, can exceed.

        Args:
            input_tokens_bound: which long-context tiers are reachable.
            service_tiers: where the call may be served; `ANY` stands for every tier.
            regions: where the call may be served; `ANY` stands for every region.

        Raises:
            UnpricedUnitError: one of them has no price.
        """
        if self.tiered:
            return self._dearest(input_tokens_bound, service_tiers, regions)
        # Then the size of the input changes nothing, and there are few sets of priced tiers and regions to ask for.
        asked = (tuple(service_tiers), tuple(regions))
        found = self._known.get(asked)
        if found is None:
            found = self._known[asked] = self._dearest(input_tokens_bound, *asked)
        return found

    def _dearest(self, input_tokens_bound: int, service_tiers: Iterable[str], regions: Iterable[str]) -> Rates:
        tiers = {tier for name in service_tiers for tier in (("", *self.variants) if name == ANY else (name,))}
        multiplier = max(
            self.multiplier(place) for name in regions for place in (("", *self.regions) if name == ANY else (name,))
        )
        reachable = [rates for tier in tiers for rates in self.schedule(tier).reachable(input_tokens_bound)]
        return _multiplied(dearest_of(reachable), multiplier)

    def _unpriced(self, what: str, name: str) -> "UnpricedUnitError":
        return UnpricedUnitError(f"no price of {what} {name!r} for model {self.model}")


class UnpricedUnitError(Exception):
    """A unit, a service tier or a region that the price table has no price for. Refused, or charged at the hold."""


def dearest_of(rates: Iterable[Rates]) -> Rates:
    """The dearest rate of each unit among these; None only where none has one. At least one must be given."""
    every = list(rates)
    if len(every) == 1:
        return every[0]
    known = {name: [rate for each in every if (rate := getattr(each, name)) is not None] for name in RATE_NAMES}
    return replace(every[0], **{name: max(found) for name, found in known.items() if found})


def _multiplied(rates: Rates, multiplier: int) -> Rates:
    if multiplier == REGION_ONE:
        return rates
    names = (*(name for _, name in TOKEN_UNITS), "reasoning")
    known = ((name, rate) for name in names if (rate := getattr(rates, name)) is not None)
    return replace(rates, **{name: -(-rate * multiplier // REGION_ONE) for name, rate in known})


def micro_usd(pico: int) -> int:
    """Pico-USD to micro-USD, rounded up."""
    return -(-pico // PICO_PER_MICRO)


def _pico_usd(usage: Usage, rates: Rates, read: Callable[[Usage], tuple[int, ...]], names: Iterable[str]) -> int:
    total = 0
    for used, name in zip(read(usage), names, strict=True):
        if used:
            rate = getattr(rates, name)
            if rate is None:
                message = f"no {name} rate"
                raise UnpricedUnitError(message)
            total += used * rate
    return total


def _tokens_and_pieces(usage: Usage, rates: Rates) -> tuple[int, int]:
    """Pico-USD of what a region multiplies, and of the rest, the fee of the call included."""
    tokens = _pico_usd(usage, rates, _USED_TOKENS, _TOKEN_RATES)
    if rates.reasoning is not None and rates.output is not None:
        tokens += usage.reasoning_tokens * (rates.reasoning - rates.output)
    return tokens, _pico_usd(usage, rates, _USED_PIECES, _PIECE_RATES) + (rates.request or 0)


def call_pico_usd(usage: Usage, rates: Rates) -> int:
    """What a call with this usage costs at these rates, in pico-USD, its fee included.

    Raises:
        UnpricedUnitError: a unit is used that has no rate.
    """
    return sum(_tokens_and_pieces(usage, rates))


def dearest_output(rates: Rates, names: Iterable[str] = OUTPUT_RATES) -> int:
    """The dearest of these rates of output, in pico-USD per token; reasoning goes with plain output.

    Raises:
        UnpricedUnitError: the model has none of them.
    """
    found: list[int] = [rate for name in (*names, "reasoning") if (rate := getattr(rates, name)) is not None]
    if not found:
        message = "no output rate"
        raise UnpricedUnitError(message)
    return max(found)


def cost_micro_usd(usage: Usage, price: ModelPrice) -> int:
    """What `usage` costs, in micro-USD, rounded up once.

    Raises:
        UnpricedUnitError: a unit is used, or a tier or region reported, that has no price.
    """
    if usage.reported_pico_usd is not None:
        return micro_usd(usage.reported_pico_usd)
    rates = price.rates_for(usage.all_input_tokens, usage.service_tier)
    tokens, pieces = _tokens_and_pieces(usage, rates)
    scaled = tokens * price.multiplier(usage.region) + pieces * REGION_ONE
    return -(-scaled // (REGION_ONE * PICO_PER_MICRO))


def usage_amounts(usage: Usage, cost: int) -> Amounts:
    """The budget vector of one finished call."""
    return Amounts(cost, usage.all_input_tokens, usage.all_output_tokens, 1, 0)
