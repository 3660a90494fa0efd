"""`leasehold revoke`: kill leases, and see every sidecar acknowledge."""

import sys
from collections.abc import Iterator

import click

from leasehold import LeaseholdError
from leasehold.cli.options import EXIT_INCOMPLETE, Connection, as_json, table, to_collector
from leasehold.errors import DEADLINE
from leasehold.operators import OperatorClient, selector
from leasehold.v1 import revocation_service_pb2 as revocation

_HELP = """Revoke every lease that matches and was issued before now. Name exactly one selector.

\b
    leasehold revoke --collector unix:///run/leasehold/collector.sock --subject 'agent-7*' --note 'key in a paste'

Calls in flight are cut and settled. The table shows which sidecars have acknowledged, until all have, or until --wait
is over; a sidecar that is silent for longer than its limit refuses by itself.

\b
Exit codes:
  0  every known sidecar has acknowledged, or refuses by itself (--dry-run, --no-watch: the answer came)
  1  refused, or no collector could be reached; the reason is on standard error
  2  wrong usage
  3  revoked, but not every sidecar has acknowledged in time
"""


@click.command("revoke", help=_HELP)
@to_collector
@click.option("--lease", metavar="NAME", help="A lease and all delegated from it: leases/...")
@click.option("--subject", metavar="PATTERN", help="Leases of this subject; '*' at the end matches any ending.")
@click.option("--issuer", default="", metavar="ISSUER", help="With --subject: only of this issuer. Default: any.")
@click.option("--key", metavar="NAME", help="Leases that are served by this provider key.")
@click.option("--provider", metavar="NAME", help="Leases that reach this provider.")
@click.option("--environment", metavar="NAME", help="Leases of identities of this environment.")
@click.option("--all", "everything", is_flag=True, help="Every lease. Asks first, unless --yes.")
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@click.option("--dry-run", is_flag=True, help="Say which live leases match and change nothing.")
@click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret.")
@click.option("--watch/--no-watch", default=True, show_default=True, help="Wait for the sidecars.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the sidecars.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")
def revoke(
    connection: Connection,
    lease: str | None,
    subject: str | None,
    issuer: str,
    key: str | None,
    provider: str | None,
    environment: str | None,
    everything: bool,
    yes: bool,
    dry_run: bool,
    note: str,
    watch: bool,
    wait_seconds: float,
    json_: bool,
) -> None:
    """See _HELP."""
    try:
        chosen = selector(
            lease=lease,
            subject=subject,
            issuer=issuer,
            key=key,
            provider=provider,
            environment=environment,
            everything=everything,
        )
    except LeaseholdError as error:
        raise click.UsageError(error.message) from None
    if everything and not yes and not dry_run:
        _confirm()
    with connection.operator() as client:
        answer = client.revoke(chosen, note=note, validate_only=dry_run)
        _print_matching(answer, dry_run=dry_run, json_=json_)
        if dry_run:
            return
        progress = answer.progress
        if watch:
            progress = _wait(client, progress, wait_seconds, json_=json_)
        elif json_:
            click.echo(as_json(_as_dict(progress)))
    if watch and not progress.complete:
        sys.exit(EXIT_INCOMPLETE)


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--all revokes every lease and nobody can be asked here; add --yes")
    click.confirm("Revoke every lease of every agent?", abort=True, err=True)


def _print_matching(answer: revocation.RevokeLeasesResponse, *, dry_run: bool, json_: bool) -> None:
    names = list(answer.matching_leases)
    if json_:
        click.echo(as_json({"revocation": answer.progress.entry.name or None, "matching_leases": names}))
        return
    count = f"{len(names)} live {'lease matches' if len(names) == 1 else 'leases match'}"
    if dry_run:
        click.echo(f"{count}; nothing was changed")
        for name in names:
            click.echo(f"  {name}")
    else:
        click.echo(f"{answer.progress.entry.name} is in force; {count}, as last reported")


def _wait(
    client: OperatorClient, progress: revocation.RevocationProgress, wait_seconds: float, *, json_: bool
) -> revocation.RevocationProgress:
    printed = 0
    try:
        for latest in _until_complete(client, progress, wait_seconds):
            progress = latest
            if json_:
                click.echo(as_json(_as_dict(progress)))
            elif sys.stdout.isatty():
                printed = _redraw(progress, printed)
    except LeaseholdError as error:
        click.echo(f"leasehold: {_trouble(error, wait_seconds)}", err=True)
        if error.reason != DEADLINE and not json_:
            click.echo(f"the revocation {progress.entry.name} is in force all the same", err=True)
    if not json_ and not printed:
        click.echo(_sidecars(progress))
    return progress


def _trouble(error: LeaseholdError, wait_seconds: float) -> str:
    if error.reason == DEADLINE:
        return f"not every sidecar has acknowledged within {wait_seconds:g} s"
    return str(error)


def _until_complete(
    client: OperatorClient, progress: revocation.RevocationProgress, wait_seconds: float
) -> Iterator[revocation.RevocationProgress]:
    yield progress
    if not progress.complete:
        yield from client.watch_progress(progress.entry.name, wait_seconds)


def _redraw(progress: revocation.RevocationProgress, printed: int) -> int:
    text = _sidecars(progress)
    if printed:
        click.echo(f"\x1b[{printed}A\x1b[J", nl=False)
    click.echo(text)
    return text.count("\n") + 1


def _sidecars(progress: revocation.RevocationProgress) -> str:
    if not progress.sidecars:
        return "no sidecar is known here" + ("" if progress.complete else " yet")
    epoch = progress.entry.epoch
    rows = [("SIDECAR", "STATE", "LEASES ENDED", "CALLS CUT", "LAST HEARD")]
    for each in progress.sidecars:
        applied = each.applied_epoch >= epoch
        state = "acknowledged" if applied else "waiting" if each.connected else "silent"
        heard = each.last_heard_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        counts = (str(each.leases_ended), str(each.calls_cut)) if applied else ("-", "-")
        rows.append((each.sidecar, state, *counts, heard))
    done = sum(each.applied_epoch >= epoch for each in progress.sidecars)
    summary = "complete" if progress.complete else "not complete"
    return f"{table(rows)}\n{done} of {len(progress.sidecars)} acknowledged; {summary}"


def _as_dict(progress: revocation.RevocationProgress) -> dict[str, object]:
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
