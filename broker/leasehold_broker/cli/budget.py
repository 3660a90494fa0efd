"""leasehold-broker budget: holds our ledger against the providers' own accounts. Owns the words and the exit codes.

Exit codes: 0 within the threshold, 1 something could not be read, 2 wrong usage, 3 drift above the threshold.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from leasehold import LeaseholdError
from leasehold._amounts import usd
from leasehold.operators import COLLECTOR_VARIABLE, OperatorClient
from leasehold.spend import spent_by
from leasehold_broker.adapters.private_files import read_private
from leasehold_broker.adapters.usage_reports_http import HttpUsageReports
from leasehold_broker.domain.reconciliation import ALL_KEYS, COST, Counted, Difference, Threshold, reconcile
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.usage_report import UsageReportError
from leasehold_broker.providers.usage_reports import DAYS_MAX, VENDORS

UNREADABLE, DRIFT = 1, 3
ADMIN_KEY_BYTES_MAX = 4096
ORIGINS = {"openai": "https://api.openai.com", "anthropic": "https://api.anthropic.com"}


@click.group()
def budget() -> None:
    """Hold our ledger against the providers' own accounts."""


@budget.command("reconcile")
@click.option("--collector", required=True, envvar=COLLECTOR_VARIABLE, metavar="TARGET", help="Whose audit log.")
@click.option("--provider", required=True, type=click.Choice(sorted(VENDORS)), help="Whose account.")
@click.option("--admin-key-file", required=True, type=click.Path(path_type=Path), help="Its admin key, a private file.")
@click.option("--key", "keys", multiple=True, metavar="NAME=ID", help="Our key's name and the provider's id of it.")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=7, show_default=True, help="Whole UTC days.")
@click.option("--until", metavar="DAY", help="Up to, not including, this day: 2026-11-01. Default: today.")
@click.option("--threshold-percent", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Of theirs.")
@click.option("--threshold-tokens", type=click.IntRange(0), default=1000, show_default=True, help="And more than this.")
@click.option(
    "--threshold-micro-usd", type=click.IntRange(0), default=10_000, show_default=True, help="The same of money."
)
@click.option("--threshold-calls", type=click.IntRange(0), default=5, show_default=True, help="The same of calls.")
@click.option("--origin", metavar="URL", help="Of the provider's API. Default: the public one.")
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")
def reconcile_(
    collector: str,
    provider: str,
    admin_key_file: Path,
    keys: Sequence[str],
    days: int,
    until: str | None,
    threshold_percent: float,
    threshold_tokens: int,
    threshold_micro_usd: int,
    threshold_calls: int,
    origin: str | None,
    json_: bool,
) -> None:
    """Compare, by key and day, what we charged with what the provider's own reports say.

    OpenAI tells tokens, calls and money by key; Anthropic tokens by key, and money by day only. A call that was charged
    at its hold is more with us than with them; more with them than with us was spent unseen. Keys that --key does not
    name are listed by the provider's id, and count as drift: somebody uses the account without the broker.
    """
    names = _names(keys)
    first = _first(until, days)
    threshold = Threshold(round(threshold_percent * 10), threshold_tokens, threshold_micro_usd, threshold_calls)
    try:
        admin_key = Secret(read_private(admin_key_file, ADMIN_KEY_BYTES_MAX).strip())
        reports = HttpUsageReports(origin or ORIGINS[provider])
        theirs = reports.carry(VENDORS[provider].statement(first.date(), days), admin_key)
        ours = _ours(collector, provider, first, days)
    except (UsageReportError, LeaseholdError, OSError, ValueError, RuntimeError) as error:
        click.echo(f"nothing was compared: {error}", err=True)
        sys.exit(UNREADABLE)
    named = {(names.get(key, key), day): counted for (key, day), counted in theirs.items()}
    found = reconcile(ours, named, threshold, VENDORS[provider].by_key)
    _print(found, json_=json_)
    if any(one.drift for one in found):
        sys.exit(DRIFT)


def _names(pairs: Iterable[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for pair in pairs:
        name, equals, identifier = pair.partition("=")
        if not (name and equals and identifier):
            message = f"--key {pair!r} is not NAME=ID"
            raise click.UsageError(message)
        names[identifier] = name
    return names


def _first(until: str | None, days: int) -> datetime:
    try:
        end = datetime.fromisoformat(until).replace(tzinfo=UTC) if until else datetime.now(UTC)
    except ValueError:
        message = f"--until {until!r} is no day; write it like 2026-11-01"
        raise click.UsageError(message) from None
    return end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days)


def _ours(collector: str, provider: str, first: datetime, days: int) -> dict[tuple[str, str], Counted]:
    with OperatorClient(collector) as client:
        records = client.events(type="call.", start_time=first, end_time=first + timedelta(days=days))
        spent = spent_by(records, ("provider", "key", "day"))
    found: dict[tuple[str, str], Counted] = {}
    for (whose, key, day), one in spent.items():
        if whose == provider:
            counted = found.setdefault((key, day), Counted())
            counted.add(one.input_tokens, one.output_tokens, one.billed)
            for each in (counted, found.setdefault((ALL_KEYS, day), Counted())):
                each.cost_micro_usd += one.cost_micro_usd
    return found


def _print(found: Sequence[Difference], *, json_: bool) -> None:
    if json_:
        for one in found:
            click.echo(msgspec.json.encode({**msgspec.structs.asdict(_Row.of(one))}).decode())
        return
    for one in found:
        mark = "UNSEEN" if one.unseen else "drift" if one.drift else "ok"
        amounts = (usd(one.ours), usd(one.theirs)) if one.what == COST else (str(one.ours), str(one.theirs))
        unit = "USD" if one.what == COST else one.what
        click.echo(f"{mark:7}{one.day}  {one.key}  {unit}: ours {amounts[0]}, theirs {amounts[1]}")
    drifted = sum(one.drift for one in found)
    click.echo(f"{len(found)} numbers compared, {drifted} apart by more than the threshold")


class _Row(msgspec.Struct):
    key: str
    day: str
    what: str
    ours: int
    theirs: int
    drift: bool
    unseen: bool

    @classmethod
    def of(cls, one: Difference) -> "_Row":
        """The row of a difference."""
        return cls(one.key, one.day, one.what, one.ours, one.theirs, one.drift, one.unseen)
