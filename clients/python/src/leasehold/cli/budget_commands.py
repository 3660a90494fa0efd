"""`leasehold budget`: see how budgets stand, raise and lower caps, and what was spent."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from leasehold import InvalidRequest
from leasehold._amounts import micro_usd, ttl_seconds, usd
from leasehold.cli.budget_words import COST, amount, fleet_dict, fleet_words
from leasehold.cli.options import (
    EXIT_CODES,
    EXIT_INCOMPLETE,
    Connection,
    as_json,
    moment,
    printable,
    table,
    to_collector,
)
from leasehold.cli.plot import spend_svg
from leasehold.operators import OperatorClient
from leasehold.spend import GROUPS, Spent, spent_by
from leasehold.v1 import budget_service_pb2 as budget

LOOK_SECONDS = 0.2
_JSON = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")


@click.group("budget", help="See budgets, raise and lower caps, and see what was spent.")
def budget_group() -> None:
    """Holds the commands below."""


@budget_group.command(
    "show",
    help="Print how every budget stands at every sidecar, as it last reported, the budgets over all sidecars with what "
    "each of them holds, and the changes in force." + EXIT_CODES,
)
@to_collector
@click.option("--budget", "part", default="", metavar="TEXT", help="Only budgets whose name contains this.")
@_JSON
def show(connection: Connection, part: str, json_: bool) -> None:
    """Show."""
    with connection.operator() as client:
        answer = client.budgets()
    fleet = [one for one in answer.fleet_budgets if part in one.budget]
    changes = [change for change in answer.changes if part in change.budget]
    listed = [(one.sidecar, row) for one in answer.sidecars for row in one.budgets.rows if part in row.budget]
    if json_:
        rows = ({"sidecar": sidecar, **_row_dict(row)} for sidecar, row in listed)
        for found in (*rows, *map(fleet_dict, fleet), *map(_change_dict, changes)):
            click.echo(as_json(found))
        return
    for sidecar in answer.sidecars:
        unlisted = sidecar.budgets.total - len(sidecar.budgets.rows)
        if unlisted > 0:
            click.echo(f"leasehold: {sidecar.sidecar} has {unlisted} more than it could list", err=True)
    head = ("SIDECAR", "BUDGET", "METRIC", "CAP", "SETTLED", "HELD", "LEFT", "STARTS ANEW", "")
    if listed:
        click.echo(table([head, *((sidecar, *_row_words(row)) for sidecar, row in listed)]))
    elif not fleet:
        click.echo("no budget is reported")
    for line in (*(line for one in fleet for line in fleet_words(one)), *map(_change_words, changes)):
        click.echo(line)


def _cap_options(command: Any) -> Any:
    for option in (
        click.option("--wait", "wait_seconds", type=click.FloatRange(min=0), default=10.0, show_default=True,
                     metavar="SECONDS", help="How long to wait for the sidecars that are connected."),
        click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret."),
        click.option("--request-id", metavar="UUID", help="The same id is the same change. Default: a fresh one."),
        click.option("--until", metavar="TIME", help="Ends at this time: 2026-12-01T18:00:00Z."),
        click.option("--for", "duration", metavar="LENGTH", help="Ends after this: 90m, 2h, 7d."),
        click.option("--concurrency", type=click.IntRange(min=0), metavar="N", help="Cap on open calls."),
        click.option("--requests", type=click.IntRange(min=0), metavar="N", help="Cap on requests."),
        click.option("--output-tokens", type=click.IntRange(min=0), metavar="N", help="Cap on output tokens."),
        click.option("--input-tokens", type=click.IntRange(min=0), metavar="N", help="Cap on input tokens."),
        click.option("--usd", "cost", metavar="USD", help="Cap on money: 25 or 0.50."),
    ):  # fmt: skip
        command = option(command)
    return click.argument("name", metavar="BUDGET")(_JSON(to_collector(command)))


_RAISE = """Raise the cap of BUDGET, a name from 'leasehold budget show', to at least what is stated.

A raise of anything but a lease has an end: for good it belongs into the policy. Calls in flight are not touched. Of two
changes for the same budget and metric the later one counts alone.

\b
    leasehold budget raise 'on:key:anthropic-prod|month' --usd 2000 --for 8h --note 'incident 4711'

\b
Exit codes:
  0  in force at every connected sidecar
  1  refused, or nobody could be reached; the reason is on standard error
  2  wrong usage
  3  durable at the collector, but not yet acknowledged by every connected sidecar
"""
_LOWER = _RAISE.replace("Raise the cap", "Lower the cap").replace("to at least", "to at most").replace(
    "A raise of anything but a lease has an end: for good it belongs into the policy. Calls",
    "What is spent or held above the new cap stays, and nothing new fits until it is below. Calls",
).replace("budget raise", "budget lower").replace("--usd 2000 --for 8h", "--usd 20")  # fmt: skip


@budget_group.command("raise", help=_RAISE)
@_cap_options
def raise_(**options: Any) -> None:
    """See _RAISE."""
    _change(raises=True, **options)


@budget_group.command("lower", help=_LOWER)
@_cap_options
def lower(**options: Any) -> None:
    """See _LOWER."""
    _change(raises=False, **options)


def _change(
    connection: Connection,
    name: str,
    duration: str | None,
    until: str | None,
    note: str,
    request_id: str | None,
    wait_seconds: float,
    json_: bool,
    *,
    raises: bool,
    **caps: Any,
) -> None:
    metric, cap = _one_cap(**caps)
    if duration and until:
        raise click.UsageError("--for and --until are two ends; give one")
    end = moment("--until", until)
    if duration:
        end = datetime.now(UTC) + timedelta(seconds=ttl_seconds(duration))
    with connection.operator() as client:
        change = client.change_budget(name, metric, cap, raises=raises, end_time=end, note=note, request_id=request_id)
        waiting, known = _waited(client, change, wait_seconds)
    click.echo(as_json({**_change_dict(change), "waiting": waiting}) if json_ else _change_words(change))
    if not known:
        click.echo(f"leasehold: no sidecar reports {name}; is that its name?", err=True)
    if waiting:
        click.echo(f"leasehold: not yet acknowledged by {', '.join(waiting)}", err=True)
        sys.exit(EXIT_INCOMPLETE)


def _one_cap(cost: str | None, **counts: int | None) -> tuple[str, int]:
    given = {metric: cap for metric, cap in counts.items() if cap is not None}
    if cost is not None:
        given[COST] = 0 if cost == "0" else micro_usd(cost, "--usd")
    if len(given) != 1:
        raise click.UsageError("state exactly one of --usd, --input-tokens, --output-tokens, --requests, --concurrency")
    return next(iter(given.items()))


def _waited(client: OperatorClient, change: budget.BudgetChange, seconds: float) -> tuple[list[str], bool]:
    """The connected sidecars that have not applied the change by then, and whether any reports such a budget."""
    ends = time.monotonic() + seconds
    while True:
        answer = client.budgets()
        sidecars = answer.sidecars
        waiting = [one.sidecar for one in sidecars if one.connected and one.applied_number < change.number]
        if not waiting or time.monotonic() >= ends:
            known = any(one.budget == change.budget for one in answer.fleet_budgets) or any(
                one.budgets.total > len(one.budgets.rows)
                or any(row.budget == change.budget for row in one.budgets.rows)
                for one in sidecars
            )
            return waiting, known
        time.sleep(LOOK_SECONDS)


_SPEND = """Print what was spent, summed from the audit log, the largest first.

\b
    leasehold budget spend --by subject --by model --since 2026-11-01T00:00:00Z
    leasehold budget spend --by key --by day --plot spend.svg

A call counts once, on the UTC day it was settled. With --plot, a chart of every day is written as well, stacked by the
groups besides the day."""


@budget_group.command("spend", help=_SPEND + EXIT_CODES)
@to_collector
@click.option("--by", "groups", multiple=True, type=click.Choice(GROUPS), help="Sum by this; may be repeated.")
@click.option("--since", metavar="TIME", help="Settled not before this time: 2026-11-23T10:00:00Z.")
@click.option("--until", metavar="TIME", help="Settled before this time.")
@click.option("--subject", default="", metavar="SUBJECT", help="Only this subject.")
@click.option("--key", default="", metavar="NAME", help="Only this provider key.")
@click.option("--plot", "plot_path", metavar="PATH", help="Write a chart to this new file (SVG).")
@_JSON
def spend(
    connection: Connection,
    groups: tuple[str, ...],
    since: str | None,
    until: str | None,
    subject: str,
    key: str,
    plot_path: str | None,
    json_: bool,
) -> None:
    """See _SPEND."""
    shown = groups or ("subject", "model")
    summed = tuple(dict.fromkeys((*shown, "day"))) if plot_path else shown
    start, end = moment("--since", since), moment("--until", until)
    with connection.operator() as client:
        records = client.events(type="call.", start_time=start, end_time=end, subject=subject, key=key)
        found = spent_by(records, summed)
    if plot_path:
        _write_plot(plot_path, summed, found)
    _print_spend(shown, _narrowed(summed, shown, found), json_=json_)


def _narrowed(
    summed: tuple[str, ...], shown: tuple[str, ...], found: dict[tuple[str, ...], Spent]
) -> dict[tuple[str, ...], Spent]:
    places = [summed.index(group) for group in shown]
    sums: dict[tuple[str, ...], Spent] = {}
    for name, one in found.items():
        total = sums.setdefault(tuple(name[place] for place in places), Spent())
        total.cost_micro_usd += one.cost_micro_usd
        total.input_tokens += one.input_tokens
        total.output_tokens += one.output_tokens
        total.calls += one.calls
        total.estimated += one.estimated
    return dict(sorted(sums.items(), key=lambda one: (-one[1].cost_micro_usd, one[0])))


def _write_plot(path: str, summed: tuple[str, ...], found: dict[tuple[str, ...], Spent]) -> None:
    place = summed.index("day")
    costs: dict[tuple[str, str], int] = {}
    for name, one in found.items():
        rest = " · ".join(part for index, part in enumerate(name) if index != place) or "all"
        costs[name[place], rest] = costs.get((name[place], rest), 0) + one.cost_micro_usd
    words = " and ".join(group for group in summed if group != "day")
    text = spend_svg(f"Spent by {words}" if words else "Spent", costs)
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
    except OSError as error:
        raise InvalidRequest.of_field(
            "--plot", f"{path} cannot be created: {error.strerror}; name a file that does not exist yet"
        ) from None


def _print_spend(groups: tuple[str, ...], found: dict[tuple[str, ...], Spent], *, json_: bool) -> None:
    if json_:
        for name, one in found.items():
            sums = {field: getattr(one, field) for field in one.__slots__}
            click.echo(as_json({**dict(zip(groups, name, strict=True)), **sums}))
        return
    head = (*(group.upper() for group in groups), "USD", "INPUT TOKENS", "OUTPUT TOKENS", "CALLS", "ESTIMATED")
    click.echo(table([head, *_spend_rows(found.items())]))
    total = sum(one.cost_micro_usd for one in found.values())
    click.echo(f"{usd(total)} USD in {sum(one.calls for one in found.values())} calls")


def _spend_rows(found: Iterable[tuple[tuple[str, ...], Spent]]) -> Iterator[tuple[str, ...]]:
    for name, one in found:
        counts = (one.input_tokens, one.output_tokens, one.calls, one.estimated)
        yield (*map(printable, name), usd(one.cost_micro_usd), *map(str, counts))


def _row_words(row: budget.BudgetRow) -> tuple[str, ...]:
    capped = row.HasField("cap")
    left = max(0, row.cap - row.settled - row.held)
    reset = row.reset_time.ToDatetime().isoformat(timespec="seconds") + "Z" if row.HasField("reset_time") else "-"
    marks = [mark for mark, on in (("changed", row.changed), ("soft", not row.hard)) if on]
    return (
        printable(row.budget),
        row.metric,
        amount(row.metric, row.cap) if capped else "none",
        amount(row.metric, row.settled),
        amount(row.metric, row.held),
        amount(row.metric, left) if capped else "-",
        reset,
        " ".join(marks),
    )


def _row_dict(row: budget.BudgetRow) -> dict[str, Any]:
    return {
        "budget": row.budget,
        "metric": row.metric,
        "cap": row.cap if row.HasField("cap") else None,
        "settled": row.settled,
        "held": row.held,
        "hard": row.hard,
        "changed": row.changed,
        "reset_time": row.reset_time.ToJsonString() if row.HasField("reset_time") else None,
    }


def _change_dict(change: budget.BudgetChange) -> dict[str, Any]:
    return {
        "change": change.name,
        "budget": change.budget,
        "metric": change.metric,
        "direction": _way(change),
        "cap": change.cap,
        "end_time": change.end_time.ToJsonString() if change.HasField("end_time") else None,
        "changed_by": change.changed_by,
        "note": change.note,
    }


def _way(change: budget.BudgetChange) -> str:
    return "raise" if change.direction == budget.BUDGET_DIRECTION_RAISE else "lower"


def _change_words(change: budget.BudgetChange) -> str:
    way = "raised to at least" if _way(change) == "raise" else "lowered to at most"
    end = f" until {change.end_time.ToJsonString()}" if change.HasField("end_time") else ""
    note = f": {change.note}" if change.note else ""
    return printable(
        f"{change.name}: {change.budget} {change.metric} {way} {amount(change.metric, change.cap)}{end}, "
        f"by {change.changed_by}{note}"
    )
