"""leasehold-broker prices: makes, checks and shows price tables. Owns the words and the file; prices nothing itself.

Exit codes: 0 done, 1 a file is wrong or the source is missing, 2 wrong usage, 3 what was asked for has no price.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Final

import click

from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.config import ConfigError, load_sidecar
from leasehold_broker.config.sidecar import PricesAt
from leasehold_broker.domain.price import RATE_NAMES, ModelPrice, Rates, Schedule
from leasehold_broker.providers import TableBook, shipped_table
from leasehold_broker.providers.prices.changes import Change, changes
from leasehold_broker.providers.prices.table import Table, read_table, table_version, write_table
from leasehold_broker.wiring.sidecar_prices import load_prices

WRONG, UNPRICED = 1, 3
LARGE: Final = 2
"""A price that changes by more than this factor is marked: look at it before you use the table."""


@click.group()
def prices() -> None:
    """Make, check and show price tables."""


def _books(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which prices; it gets them as `book`."""

    @click.option("--config", type=click.Path(path_type=Path), help="Those of this sidecar's configuration.")
    @click.option("--table", type=click.Path(path_type=Path), help="This table instead of the shipped one.")
    @click.option("--override", type=click.Path(path_type=Path), help="An operator's prices on top.")
    @wraps(command)
    def wrapped(*, config: Path | None, table: Path | None, override: Path | None, **rest: object) -> None:
        if config is not None and (table is not None or override is not None):
            message = "give --config, or --table and --override"
            raise click.UsageError(message)
        try:
            at = load_sidecar(config).prices if config is not None else PricesAt(table, override)
            book = load_prices(at, lambda: int(datetime.now(UTC).timestamp() * 1000))
        except (ConfigError, FilesRefusedError) as error:
            click.echo(f"refused: {error}", err=True)
            sys.exit(WRONG)
        command(book=book, **rest)

    return wrapped


@prices.command()
@_books
def check(book: TableBook) -> None:
    """Say whether table and override can be used, and what is in them."""
    click.echo(f"version {book.version}: {book.table.source}, made {book.table.generated}")
    for provider, rows in sorted(book.table.providers.items()):
        click.echo(f"  {provider}: {len(rows)} models")
    click.echo(f"  fixed by the override: {len(book.overrides.fixed)}; discounts: {len(book.overrides.discounts)}")


@prices.command()
@click.argument("provider")
@click.argument("model", required=False)
@_books
def show(book: TableBook, provider: str, model: str | None) -> None:
    """Show the prices of a provider, or all there is to know about one model.

    USD per million units, whatever the unit: tokens, characters, seconds, pictures, searches.
    """
    names = (
        [model]
        if model
        else sorted({row.name for row in book.table.providers.get(provider, ())} | _own(book, provider))
    )
    found = [(name, book.price(provider, name)) for name in names]
    unknown = [name for name, price in found if price is None]
    for name, price in found:
        if price is not None:
            click.echo("\n".join(_lines(name, price) if model else [_line(price)]))
    if unknown or not found:
        click.echo(f"no price: {provider} {model or ''}".rstrip() + "; a call to it is refused", err=True)
        sys.exit(UNPRICED)


@prices.command()
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="A folder, or the file to write.")
@click.option(
    "--from",
    "origin",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A table of ours, or the data.json of genai-prices; without it, the data that the installed package brings.",
)
@click.option(
    "--against", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Compare with this table."
)
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="The day as of which; today without it.")
def refresh(target: Path, origin: Path | None, against: Path | None, day: datetime | None) -> None:
    """Make a price table, show what changed, and write it to a file that [prices] table_file can name.

    Nothing is fetched: the prices come with the package genai-prices (pip install 'leasehold-broker[prices]', and again
    to have newer ones), or from a file. A price that changes by more than twice is marked with "!".
    """
    today = day.date() if day is not None else datetime.now(UTC).date()
    try:
        table = _compiled(origin, today)
        data = write_table(table)
        read_table(data)
        before = read_table(against.read_bytes() if against is not None else shipped_table())
    except (ImportError, ValueError, OSError) as error:
        click.echo(f"refused: {error}", err=True)
        sys.exit(WRONG)
    lines = [_changed(change) for change in changes(before, table)]
    click.echo("\n".join(lines) if lines else "no price changed")
    version = table_version(data)
    path = target / f"prices-{table.generated}-{version}.json" if target.is_dir() else target
    _write(path, data)
    click.echo(f"{path}: version {version}, {len(lines)} changes, {sum(map(len, table.providers.values()))} models")


def _compiled(origin: Path | None, today: date) -> Table:
    if origin is not None:
        data = origin.read_bytes()
        if data.lstrip()[:1] == b"{":
            return read_table(data)
    try:
        from leasehold_broker.providers.prices.source import source_table  # noqa: PLC0415 - of an extra

        return source_table(today, None if origin is None else data)
    except ImportError as error:
        message = "the price source is not installed: pip install 'leasehold-broker[prices]'"
        raise ImportError(message) from error


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a sidecar may be looking."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        click.echo(f"refused: {path} cannot be written: {error.strerror}", err=True)
        sys.exit(WRONG)


def _own(book: TableBook, provider: str) -> set[str]:
    return {model for known, model in book.overrides.fixed if known == provider}


def _changed(change: Change) -> str:
    where = f"{change.provider} {change.model}"
    if change.what == "model":
        return f"  {where}: {'new' if change.before is None else 'gone'}"
    if change.what.startswith(("alias", "context", "largest", "region")):
        return f"  {where}: {change.what}: {change.before} -> {change.after}"
    low, high = sorted((change.before or 0, change.after or 0))
    mark = "!" if high > LARGE * low else " "
    return f"{mark} {where}: {change.what}: {_money(change.before)} -> {_money(change.after)}"


def _money(pico: int | None) -> str:
    """Micro-USD per million units, as USD per million."""
    return "none" if pico is None else f"{Decimal(pico).scaleb(-6).normalize():f}"


def _line(price: ModelPrice) -> str:
    rates = price.base
    shown = (f"{name} {_money(rate)}" for name in RATE_NAMES[:5] if (rate := getattr(rates, name)) is not None)
    more = "".join((" tiers" * bool(price.tiers), "".join(f" {name}" for name in price.variants)))
    return f"{price.model}: {', '.join(shown)}{more}"


def _lines(name: str, price: ModelPrice) -> Iterator[str]:
    yield f"{name}: priced as {price.model}, version {price.version}"
    yield f"  context {price.context_tokens_max or 'unknown'}, largest answer {price.output_tokens_max or 'unknown'}"
    for tier, schedule in {"standard": Schedule(price.base, price.tiers), **price.variants}.items():
        yield f"  {tier}:"
        yield from _rates(schedule.base, "")
        for each in schedule.tiers:
            yield from _rates(each.rates, f" above {each.above_input_tokens} tokens of input")
    for region, factor in price.regions.items():
        yield f"  in region {region}: tokens cost {factor / 100:g} %"


def _rates(rates: Rates, where: str) -> Iterator[str]:
    for name in RATE_NAMES:
        rate = getattr(rates, name)
        if rate is not None:
            yield f"    {name}{where}: {_money(rate)} USD per million"
