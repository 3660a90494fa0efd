"""Prices that change while a sidecar runs: a good file is taken, a bad one is not, and either is said."""

from pathlib import Path

import pytest

from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.config.sidecar import PricesAt
from leasehold_broker.providers import load_price_book, shipped_table
from leasehold_broker.wiring.sidecar_prices import CurrentPrices

GOOD = '[[price]]\nprovider = "openai"\nmodel = "m"\ninput = {}\noutput = 9\n'


class Told:
    """What the hooks were told."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.loaded: list[str] = []
        self.rejected: list[tuple[str, ...]] = []


def written(path: Path, text: str) -> Path:
    """A file that only its owner may write, new in every respect."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


async def test_a_good_file_is_taken_and_a_bad_one_keeps_the_old(tmp_path: Path) -> None:
    """Each version has a name of its own; what was refused says why, and changes nothing."""
    override, told = written(tmp_path / "prices.toml", GOOD.format(7)), Told()
    prices = CurrentPrices(PricesAt(None, override), lambda: 0, told.loaded.append, told.rejected.append)
    first = prices.version
    assert prices.price("openai", "m").base.input == 7
    assert prices.price("openai", "m").version == first
    await prices._files.look()
    assert (told.loaded, told.rejected) == ([], [])

    written(override, GOOD.format(8))
    await prices._files.look()
    assert prices.price("openai", "m").base.input == 8
    assert told.loaded == [prices.version] != [first]

    second = prices.version
    for bad in (GOOD.format(-1), "[[", GOOD.format("0")):
        written(override, bad)
        await prices._files.look()
        assert (prices.version, prices.price("openai", "m").base.input) == (second, 8)
    assert len(told.rejected) == 3
    assert "input: -1" in told.rejected[0][0]
    override.unlink()
    await prices._files.look()
    assert "cannot be read" in told.rejected[3][0]
    assert prices.price("openai", "m").base.input == 8
    assert told.loaded == [second]


async def test_a_table_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    """A refreshed table is used as it is; one that others may write is not."""
    table = tmp_path / "t.json"
    table.write_bytes(shipped_table().replace(b'"input":3000000', b'"input":3000001'))
    table.chmod(0o644)
    told = Told()
    prices = CurrentPrices(PricesAt(table, None), lambda: 0, told.loaded.append, told.rejected.append)
    assert prices.price("anthropic", "claude-sonnet-4-5").base.input == 3_000_001
    assert prices.version != load_price_book().version
    table.chmod(0o666)
    await prices._files.look()
    assert "written by others" in told.rejected[0][0]
    with pytest.raises(FilesRefusedError, match="written by others"):
        CurrentPrices(PricesAt(table, None), lambda: 0, told.loaded.append, told.rejected.append)
