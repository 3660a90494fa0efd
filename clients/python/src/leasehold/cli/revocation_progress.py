"""How far a revocation has come: for `leasehold revoke` and `leasehold revocations NAME`. Owns table and waiting."""

import sys
from collections.abc import Iterator

import click

from leasehold import LeaseholdError
from leasehold.cli.options import as_json, table
from leasehold.errors import DEADLINE
from leasehold.operators import OperatorClient
from leasehold.v1 import revocation_service_pb2 as revocation

ROWS_MAX = 40
"""A longer table shows only who has not acknowledged, and no more of them than this."""

wait_option = click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the sidecars.",
)


def wait(
    client: OperatorClient,
    progress: revocation.RevocationProgress,
    wait_seconds: float,
    *,
    json_: bool,
    first_name: str = "",
) -> revocation.RevocationProgress:
    """Show how far it has come until it is complete or time is up. Ctrl-C is raised again, after the table.

    With `first_name`, what all from that one have ended is added up.
    """
    printed = 0
    try:
        for latest in _until_complete(client, progress, wait_seconds, first_name):
            progress = latest
            if json_:
                click.echo(as_json(as_dict(progress)))
            elif sys.stdout.isatty():
                printed = _redraw(progress, printed)
    except LeaseholdError as error:
        click.echo(f"leasehold: {_trouble(error, wait_seconds)}", err=True)
        if error.reason != DEADLINE and not json_:
            click.echo(f"the revocation {progress.entry.name} is in force all the same", err=True)
    except KeyboardInterrupt:
        if not json_ and not printed:
            click.echo(sidecars_table(progress))
        raise
    if not json_ and not printed:
        click.echo(sidecars_table(progress))
    return progress


def left(progress: revocation.RevocationProgress) -> str:
    """What to say when somebody stops to watch."""
    name = progress.entry.name
    return (
        f"leasehold: not watched any longer; {name} is in force all the same: 'leasehold revocations {name}' watches on"
    )


def _trouble(error: LeaseholdError, wait_seconds: float) -> str:
    if error.reason == DEADLINE:
        return f"not every sidecar has acknowledged within {wait_seconds:g} s"
    return str(error)


def _until_complete(
    client: OperatorClient, progress: revocation.RevocationProgress, wait_seconds: float, first_name: str
) -> Iterator[revocation.RevocationProgress]:
    yield progress
    if not progress.complete:
        yield from client.watch_progress(progress.entry.name, wait_seconds, first_name)


def _redraw(progress: revocation.RevocationProgress, printed: int) -> int:
    text = sidecars_table(progress)
    if printed:
        click.echo(f"\x1b[{printed}A\x1b[J", nl=False)
    click.echo(text)
    return text.count("\n") + 1


def sidecars_table(progress: revocation.RevocationProgress) -> str:
    """Who has acknowledged; of a large fleet, who has not."""
    if not progress.sidecars:
        return "no sidecar is known here" + ("" if progress.complete else " yet")
    epoch = progress.entry.epoch
    rows = [("SIDECAR", "STATE", "LEASES ENDED", "CALLS CUT", "LAST HEARD")]
    shown = list(progress.sidecars)
    if len(shown) > ROWS_MAX:
        # A page of those who are done hides the one who is not.
        shown = sorted((each for each in shown if each.applied_epoch < epoch), key=_heard_seconds)
    for each in shown[:ROWS_MAX]:
        applied = each.applied_epoch >= epoch
        state = "acknowledged" if applied else "waiting" if each.connected else "silent"
        heard = each.last_heard_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        counts = (str(each.leases_ended), str(each.calls_cut)) if applied else ("-", "-")
        rows.append((each.sidecar, state, *counts, heard))
    done = sum(each.applied_epoch >= epoch for each in progress.sidecars)
    summary = "complete" if progress.complete else "not complete"
    if len(shown) > ROWS_MAX:
        rows.append((f"and {len(shown) - ROWS_MAX} more", "", "", "", ""))
    if len(rows) == 1:
        return f"{done} of {len(progress.sidecars)} acknowledged; {summary}"
    return f"{table(rows)}\n{done} of {len(progress.sidecars)} acknowledged; {summary}"


def _heard_seconds(each: revocation.SidecarProgress) -> int:
    return each.last_heard_time.seconds


def as_dict(progress: revocation.RevocationProgress) -> dict[str, object]:
    """The same, for JSON."""
    return {
        "revocation": progress.entry.name,
        "complete": progress.complete,
        "sidecars": [
            {
                "sidecar": each.sidecar,
                "connected": each.connected,
                "acknowledged": each.applied_epoch >= progress.entry.epoch,
                "leases_ended": each.leases_ended,
                "calls_cut": each.calls_cut,
            }
            for each in progress.sidecars
        ],
    }
