"""`leasehold revocations`: what was revoked, what blocks, and how far one revocation has come."""

import sys

import click
from google.protobuf.json_format import MessageToDict

from leasehold.cli.options import EXIT_INCOMPLETE, Connection, as_json, table, to_collector
from leasehold.cli.revocation_progress import left, wait, wait_option
from leasehold.operators import OperatorClient
from leasehold.v1 import revocation_service_pb2 as revocation

_HELP = """List revocations, newest first, and which of them block new leases.

With NAME, as revocations/7: which sidecars have acknowledged that one (of a large fleet, who has not), until all have
or --wait is over.

\b
Exit codes:
  0  done; with NAME: every known sidecar has acknowledged, or refuses by itself
  1  refused, or no broker could be reached; the reason is on standard error
  2  wrong usage
  3  not every sidecar has acknowledged NAME in time
"""


@click.command("revocations", help=_HELP)
@to_collector
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--blocks", is_flag=True, help="Only those that block new leases now.")
@wait_option
@click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")
def revocations(connection: Connection, name: str | None, blocks: bool, wait_seconds: float, json_: bool) -> None:
    """See _HELP."""
    if name is not None and blocks:
        raise click.UsageError("--blocks lists; it does not go with a NAME")
    with connection.operator() as client:
        if name is None:
            _list(client, blocks=blocks, json_=json_)
            return
        progress = client.progress(name)
        try:
            progress = wait(client, progress, wait_seconds, json_=json_)
        except KeyboardInterrupt:
            click.echo(left(progress), err=True)
    if not progress.complete:
        sys.exit(EXIT_INCOMPLETE)


def _list(client: OperatorClient, *, blocks: bool, json_: bool) -> None:
    entries = list(client.revocations())
    lifted = {entry.lifts_epoch for entry in entries}
    rows = [("NAME", "WHEN", "BY", "SELECTS", "BLOCKS", "NOTE")]
    for entry in entries:
        blocking = entry.block_new and entry.epoch not in lifted
        if blocks and not blocking:
            continue
        when = entry.create_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        if json_:
            told = MessageToDict(entry, preserving_proto_field_name=True)
            click.echo(as_json({**told, "blocks_now": blocking}))
        rows.append((entry.name, when, entry.revoked_by, _selects(entry), _blocks(entry, blocking), entry.note))
    if not json_:
        click.echo(table(rows) if len(rows) > 1 else "none")


def _selects(entry: revocation.RevocationEntry) -> str:
    if entry.lifts_epoch:
        return f"lifts revocations/{entry.lifts_epoch}"
    kind = entry.selector.WhichOneof("selector")
    if kind == "everything" or kind is None:
        return "everything"
    if kind == "subject":
        subject = entry.selector.subject
        return f"subject {subject.subject}" + (f" of {subject.issuer}" if subject.issuer else "")
    if kind == "label":
        return f"label {entry.selector.label.name}={entry.selector.label.value}"
    return f"{kind} {getattr(entry.selector, kind)}"


def _blocks(entry: revocation.RevocationEntry, blocking: bool) -> str:
    if not entry.block_new:
        return "-"
    if not blocking:
        return "lifted"
    return f"for {entry.block_duration.seconds} s" if entry.block_duration.seconds else "until lifted"
