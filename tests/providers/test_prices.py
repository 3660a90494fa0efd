"""The price book, against its source and by itself."""

import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import msgspec
import pytest

from leasehold_broker.domain.price import RATE_NAMES
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.prices import source
from leasehold_broker.providers.prices.book import shipped_table
from leasehold_broker.providers.prices.borrowed import BorrowedPrices
from leasehold_broker.providers.prices.table import read_table, write_table

BOOK = load_price_book(wall_ms=lambda: int(MOMENT.timestamp() * 1000))
MOMENT = datetime(2026, 11, 23, tzinfo=UTC)
TABLE = msgspec.json.decode(shipped_table())


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-opus-4-20250514", "claude-opus-4-0"),
        ("anthropic", "claude-3-5-haiku-20241022", "claude-3-5-haiku-latest"),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("openai", "gpt-6-sol-2026-09-01", "gpt-6-sol"),
        ("gemini", "gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("vertex", "claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("vertex", "claude-opus-5@default", "claude-opus-5"),
    ],
)
def test_documented_dated_names(provider: str, model: str, known_as: str) -> None:
    """A vendor's dated form of a known name has that name's price."""
    price = BOOK.price(provider, model)
    assert price is not None
    assert known_as == price.model


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "claude-sonnet-4-5-turbo"),
        ("anthropic", "claude-sonnet-4-5-20259999"),
        ("anthropic", "claude-sonnet-4-5-20250929-extra"),
        ("anthropic", "claude"),
        ("openai", "gpt-4o-2024-13-01"),
        ("openai", "gpt-5-ultra"),
        ("openai", "ft:gpt-4o:acme"),
        ("openai", "gpt-4o-search-preview"),
        ("openai", "o3-deep-research"),
        ("openai", "gpt-4o-realtime-preview"),
        ("gemini", "claude-sonnet-4-5"),
        ("gemini", "tunedModels/x"),
        ("nobody", "gpt-5"),
        ("openai", ""),
    ],
)
def test_unknown_stays_unknown(provider: str, model: str) -> None:
    """A name that only resembles a known one, another unit of charge, or another vendor's model has no price."""
    assert BOOK.price(provider, model) is None


def test_a_price_to_come_applies_on_its_day() -> None:
    """A price that rises on a known day applies from then on; near it, and without a clock, the dearer one does."""

    def rate(day: datetime) -> int:
        price = load_price_book(wall_ms=lambda: int(day.timestamp() * 1000)).price("gemini", "gemini-3.8-flash")
        assert price is not None
        return price.base.input

    assert rate(datetime(2026, 11, 23, tzinfo=UTC)) == 750_000
    assert rate(datetime(2026, 12, 31, 12, tzinfo=UTC)) == 1_500_000
    assert rate(datetime(2027, 3, 1, tzinfo=UTC)) == 1_500_000
    blind = load_price_book().price("gemini", "gemini-3.8-flash")
    assert blind is not None
    assert blind.base.input == 1_500_000


def test_one_hour_cache_writes_cost_twice_the_input() -> None:
    """Anthropic's documented rule holds in every row that has cache writes, derived or not."""
    for model in TABLE["providers"]["anthropic"]:
        for period in model["periods"]:
            for rates in (period["rates"], *(tier["rates"] for tier in period.get("tiers", ()))):
                if "cache_write_5m" in rates:
                    assert rates["cache_write_1h"] == 2 * rates["input"]


def test_embeddings_have_no_window() -> None:
    """An embedding's window is per text and must not cap the bound of a call with many texts."""
    for model in ("text-embedding-3-small", "text-embedding-3-large"):
        price = BOOK.price("openai", model)
        assert price is not None
        assert price.context_tokens_max == 0
        assert price.base.output is None


def test_override(tmp_path: Path) -> None:
    """An operator's price wins by its exact name, changes the version, and adds private models."""
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[price]]\nprovider = "openai"\nmodel = "gpt-5"\ninput = 1000000\noutput = 8000000\ncache_read = 100000\n'
        '[[price]]\nprovider = "openai"\nmodel = "private-1"\ninput = 7\noutput = 9\noutput_tokens_max = 100\n'
    )
    book = load_price_book(path)
    price = book.price("openai", "gpt-5")
    assert price is not None
    assert (price.base.input, price.base.output, price.base.cache_read) == (1_000_000, 8_000_000, 100_000)
    private = book.price("openai", "private-1")
    assert private is not None
    assert private.output_tokens_max == 100
    assert book.version != BOOK.version
    assert private.version == book.version


def test_a_discount_is_exact_and_rounded_up(tmp_path: Path) -> None:
    """Every rate of what it covers, in every tier and variant, and nothing else; fixed prices are not discounted."""
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[discount]]\nprovider = "openai"\nmodels = ["gpt-5.4", "gpt-5.5*"]\nratio = "0.333"\n'
        '[[discount]]\nprovider = "openai"\nmodels = ["*"]\nratio = "2"\n'
        '[[price]]\nprovider = "openai"\nmodel = "gpt-4o"\ninput = 5\noutput = 7\n'
    )
    book = load_price_book(path)
    for model, ratio in (("gpt-5.4", Decimal("0.333")), ("gpt-5.5", Decimal("0.333")), ("gpt-4.1", Decimal(2))):
        listed, paid = BOOK.price("openai", model), book.price("openai", model)
        assert listed is not None
        assert paid is not None
        assert set(listed.variants) == set(paid.variants)
        for tier in ("", *listed.variants):
            for size in (1, 10**6):
                rates = listed.rates_for(size, tier), paid.rates_for(size, tier)
                for name in RATE_NAMES:
                    before, after = (getattr(each, name) for each in rates)
                    assert after == (None if before is None else int((before * ratio).to_integral_value(ROUND_CEILING)))
    assert BOOK.price("anthropic", "claude-opus-4-5").base == book.price("anthropic", "claude-opus-4-5").base
    assert book.price("openai", "gpt-4o").base.input == 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1.5\n', "input"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = -1\n', "input"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\ninpt = 1\n', "inpt"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\n', "input"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\n' * 2, "twice"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\noutput_tokens_max = -1\n', "negative"),
        ("[[price]\n", "price override file"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\noutput = 0\n', "output is 0"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\ntiers = [{above = 0, input = 1}]\n', "rise"),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\ntiers = [{above = 9, output = 1}]\n', "units"),
        (
            '[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\n[price.variants]\ndefault = {input = 1}\n',
            "standard",
        ),
        ('[[price]]\nprovider = "openai"\nmodel = "m"\ninput = 1\n[price.regions]\nus = 11\n', "region"),
        ('[[discount]]\nprovider = "openai"\nmodels = ["*"]\nratio = "0"\n', "ratio"),
        ('[[discount]]\nprovider = "openai"\nmodels = ["*"]\nratio = "cheap"\n', "ratio"),
        ('[[discount]]\nprovider = "openai"\nmodels = ["*"]\nratio = 0.5\n', "ratio"),
        ('[[discount]]\nprovider = "openai"\nmodels = []\nratio = "0.5"\n', "models"),
    ],
)
def test_wrong_override_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    """A wrong override names what is wrong."""
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=named):
        load_price_book(path)


def test_the_shipped_table_is_what_the_source_gives() -> None:
    """Compiled again for its own day, the table is the same, byte for byte."""
    assert write_table(source.source_table(date.fromisoformat(TABLE["generated"]))) == shipped_table()


def test_what_is_no_whole_number_is_rounded_up() -> None:
    """A rate between two pico-USD becomes the dearer one, and the row says so."""
    assert source._pico(Decimal("0.0375"), 10**6) == (37_500, False)
    assert source._pico(Decimal("0.0000001"), 10**6) == (1, True)


def test_the_broker_does_not_load_the_source() -> None:
    """Loading the providers and the book imports neither the price source nor pydantic."""
    code = (
        "import sys; from leasehold_broker.providers import load_price_book; load_price_book();"
        "sys.exit(bool({'genai_prices', 'pydantic', 'httpx2'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def broken(**changes) -> bytes:
    """The shipped table with one row changed."""
    table = msgspec.json.decode(shipped_table())
    table["providers"]["anthropic"][0] |= changes
    return msgspec.json.encode(table)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"{", "price table"),
        (b"[]", "price table"),
        (broken(periods=[{"rates": {"input": -1, "output": 1}}]), "anthropic/claude-2: input: -1"),
        (broken(periods=[{"rates": {"input": 0, "output": 1}}]), "input is 0"),
        (broken(periods=[{"rates": {"input": 1.5}}]), "int"),
        (broken(periods=[{"rates": {"inptu": 1}}]), "inptu is not a unit"),
        (broken(periods=[{"rates": {}}]), "no rate"),
        (broken(periods=[]), "no price"),
        (broken(periods=[{"rates": {"input": 1}}, {"rates": {"input": 1}}]), "days"),
        (broken(periods=[{"rates": {"input": 10**12 + 1}}]), "outside"),
        (broken(name="claude-opus-4-5"), "given twice"),
        (broken(context=-1), "limit"),
        (broken(output=10**10), "limit"),
        (broken(regions={"us": 1}), "region"),
        (broken(surprise=1), "surprise"),
    ],
)
def test_a_wrong_table_is_refused_by_name(data: bytes, named: str) -> None:
    """Nothing negative, no zero where a unit is used, no unknown unit, no name twice: and the message says where."""
    with pytest.raises(ValueError, match=named):
        read_table(data)


def test_prices_are_borrowed_where_there_are_none_of_ones_own() -> None:
    """A host's own price first, then that of the vendor named for it; without one, none."""
    book = load_price_book()
    borrowed = BorrowedPrices(book, {"own-llm": "groq", "groq": "xai", "own-free": ""})
    assert borrowed.price("own-llm", "openai/gpt-oss-120b") == book.price("groq", "openai/gpt-oss-120b")
    assert borrowed.price("groq", "openai/gpt-oss-120b") == book.price("groq", "openai/gpt-oss-120b")
    assert borrowed.price("groq", "grok-4.3") == book.price("xai", "grok-4.3")
    assert borrowed.price("own-free", "openai/gpt-oss-120b") is None
    assert borrowed.price("own-other", "openai/gpt-oss-120b") is None
