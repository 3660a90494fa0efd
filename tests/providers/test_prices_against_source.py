"""Every shipped price against the engine of its open source: thousands of random usages, tiers, caches and variants."""

import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

import genai_prices
import msgspec
import pytest
from genai_prices import data

from leasehold_broker.domain.price import PIECE_UNITS, TOKEN_UNITS, Usage, cost_micro_usd
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.prices import source
from leasehold_broker.providers.prices.book import shipped_table
from leasehold_broker.providers.prices.table import ModelRow, Table

TABLE = msgspec.json.decode(shipped_table(), type=Table)
MOMENT = datetime.fromisoformat(TABLE.generated).replace(tzinfo=UTC, hour=12)
BOOK = load_price_book(wall_ms=lambda: int(MOMENT.timestamp() * 1000))
SOURCES = {each.id: each for each in data.providers}
USAGES_EACH = 20
SELECTED_BY = {"batch": "processing"}
UNITS = {name: unit for unit, name in (*TOKEN_UNITS, *PIECE_UNITS)}


def theirs(usage: Usage) -> genai_prices.Usage:
    """The same usage in the source's words: totals include their parts."""
    return genai_prices.Usage(
        input_tokens=usage.all_input_tokens,
        cache_read_tokens=usage.cache_read_tokens + usage.cache_read_audio_tokens + usage.cache_read_image_tokens,
        cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        input_audio_tokens=usage.input_audio_tokens + usage.cache_read_audio_tokens,
        cache_audio_read_tokens=usage.cache_read_audio_tokens,
        input_image_tokens=usage.input_image_tokens + usage.cache_read_image_tokens,
        cache_image_read_tokens=usage.cache_read_image_tokens,
        output_tokens=usage.all_output_tokens,
        output_audio_tokens=usage.output_audio_tokens,
        output_image_tokens=usage.output_image_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        input_characters=usage.input_characters,
        audio_seconds=usage.audio_seconds,
        web_searches=usage.web_searches,
        storage_searches=usage.file_searches,
    )


def context(model: Any, service_tier: str) -> dict[str, str]:
    """The source's price context for one of our tiers."""
    for variant in model.price_variants or ():
        if service_tier and list(variant.when.values()) == [service_tier]:
            return dict(variant.when)
    return {}


def exact_usd(provider: str, model: Any, usage: Usage) -> Decimal:
    """What the source's engine makes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        price = model.calc_price(
            theirs(usage),
            SOURCES[source.VENDORS[provider][0]],
            genai_request_timestamp=MOMENT,
            auto_update_timestamp=None,
            price_context=context(model, usage.service_tier),
        )
    return price.total_price


def usages(row: ModelRow, seed: str) -> Iterator[Usage]:
    """Random usages of the units that the source prices, in every service tier, on both sides of every threshold."""
    chance = random.Random(seed)
    period = row.periods[0]
    for tier, schedule in {"": period, **period.variants}.items():
        names = sorted(name for name in schedule.rates if name in UNITS and name not in row.derived)
        for _ in range(USAGES_EACH):
            size = chance.choice((10, 5_000, 150_000, 600_000)) + 1
            counts = {UNITS[name]: chance.randrange(size) if chance.random() < 0.7 else 0 for name in names}
            if counts.get("audio_seconds"):
                counts["audio_seconds"] += 10  # Groq bills ten seconds at least: its meter's part, not the table's
            usage = Usage(**counts, service_tier=tier)
            if "reasoning" in schedule.rates:
                usage = replace(usage, reasoning_tokens=chance.randrange(usage.output_tokens + 1))
            yield usage
        for edge in (above + step for each in schedule.tiers for above in (each.above,) for step in (0, 1)):
            read = chance.randrange(edge) if "cache_read" in names else 0
            yield Usage(edge - read, read, output_tokens=chance.randrange(edge), service_tier=tier)


@pytest.mark.parametrize("provider", sorted(TABLE.providers))
def test_every_model_costs_what_the_source_computes(provider: str) -> None:
    """To the micro-dollar, for every model of the table; at most one more where a rate had to be rounded up."""
    models = {model.id: model for model in SOURCES[source.VENDORS[provider][0]].models}
    compared = 0
    rows = [row for row in TABLE.providers[provider] if not {"time_of_day", "dearest_route"}.intersection(row.derived)]
    for row in rows:
        price = BOOK.price(provider, row.name)
        assert price is not None
        for usage in usages(row, f"{provider}/{row.name}"):
            exact = int((exact_usd(provider, models[row.name], usage) * 10**6).to_integral_value(ROUND_CEILING))
            ours = cost_micro_usd(usage, price)
            allowed = range(exact, exact + 2) if "rounded" in row.derived else (exact,)
            assert ours in allowed, (row.name, usage, exact, ours)
            compared += 1
    assert compared >= USAGES_EACH * len(rows) > 0


def test_hourly_prices_are_the_dearest_of_the_day() -> None:
    """Where the hour decides, no hour costs more than ours, and one costs as much."""
    rows = [row for row in TABLE.providers["deepseek"] if "time_of_day" in row.derived]
    assert rows
    models = {model.id: model for model in SOURCES["deepseek"].models}
    usage = Usage(1_000_000, 500_000, output_tokens=700_000)
    for row in rows:
        price = BOOK.price("deepseek", row.name)
        assert price is not None
        hours = set()
        for hour in range(24):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = models[row.name].calc_price(
                    theirs(usage),
                    SOURCES["deepseek"],
                    genai_request_timestamp=MOMENT.replace(hour=hour),
                    auto_update_timestamp=None,
                )
            hours.add(int(found.total_price * 10**6))
        assert cost_micro_usd(usage, price) >= max(hours)
        assert len(hours) > 1


def test_a_reseller_costs_what_its_dearest_route_costs() -> None:
    """Where the reseller chooses the route, no route costs more than ours, and one costs as much."""
    rows = [row for row in TABLE.providers["openrouter"] if "dearest_route" in row.derived]
    assert rows
    models = {model.id: model for model in SOURCES["openrouter"].models}
    usage = Usage(1_000, output_tokens=700)
    for row in rows:
        price = BOOK.price("openrouter", row.name)
        assert price is not None
        routes = [{}, *(dict(each.when) for each in models[row.name].price_variants if "route" in each.when)]
        costs = [
            models[row.name]
            .calc_price(
                theirs(usage),
                SOURCES["openrouter"],
                genai_request_timestamp=MOMENT,
                auto_update_timestamp=None,
                price_context=route,
            )
            .total_price
            for route in routes
        ]
        dearest = int((max(costs) * 10**6).to_integral_value(ROUND_CEILING))
        assert dearest <= cost_micro_usd(usage, price) <= dearest + 1


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "openai", "mistral", "groq", "xai", "together"])
def test_every_name_has_the_price_that_the_source_finds_for_it(provider: str) -> None:
    """An alias that we took over leads to the model that the source's own search finds."""
    usage = Usage(1000, output_tokens=100)
    for row in TABLE.providers[provider]:
        if "output" not in row.periods[0].rates or {"time_of_day", "dearest_route"}.intersection(row.derived):
            continue
        for name in row.aliases:
            price = BOOK.price(provider, name)
            assert price is not None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = genai_prices.calc_price(
                    theirs(usage), name, provider_id=source.VENDORS[provider][0], genai_request_timestamp=MOMENT
                )
            exact = int((found.total_price * 10**6).to_integral_value(ROUND_CEILING))
            assert cost_micro_usd(usage, price) in {exact, exact + ("rounded" in row.derived)}, name


@pytest.mark.parametrize(
    ("model", "known_as"),
    [
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("eu.anthropic.claude-opus-4-5-20251101-v1:0", "regional.anthropic.claude-opus-4-5-v1:0"),
        ("global.anthropic.claude-opus-4-6-v1", "global.anthropic.claude-opus-4-6-v1:0"),
        ("us.meta.llama3-1-70b-instruct-v1:0", "meta.llama3-1-70b-instruct-v1:0"),
        ("amazon.nova-pro-v1:0", "amazon.nova-pro-v1:0"),
        ("mistral.mistral-7b-instruct-v0:2", "mistral.mistral-7b-instruct-v0:2"),
        ("jp.anthropic.claude-haiku-4-5-20251001-v1:0", "regional.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("us.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
    ],
)
def test_bedrock_profiles_lead_to_the_price_of_their_reach(model: str, known_as: str) -> None:
    """A profile within one part of the world costs the regional price, a global one the global price."""
    price = BOOK.price("bedrock", model)
    assert price is not None
    assert price.model == known_as
    usage = Usage(1000, output_tokens=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = genai_prices.calc_price(theirs(usage), model, provider_id="aws", genai_request_timestamp=MOMENT)
    assert cost_micro_usd(usage, price) == int((found.total_price * 10**6).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(
    "model",
    [
        "global.meta.llama3-1-70b-instruct-v1:0",
        "xx.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "us.us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-sonnet-4-5-turbo",
        "eu.amazon.nova-lite-v1:0",
        "apac.amazon.nova-pro-v1:0",
        "eu.meta.llama3-2-1b-instruct-v1:0",
        "us-gov.amazon.nova-pro-v1:0",
        "mistral.mistral-7b-instruct-v0:3",
    ],
)
def test_bedrock_names_are_not_guessed(model: str) -> None:
    """No profile without a price of its own, no unknown place, no other model."""
    assert BOOK.price("bedrock", model) is None
