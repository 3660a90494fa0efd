"""`leasehold audit`: follow, search, copy and check the audit log."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import click

from leasehold import InvalidRequest
from leasehold._amounts import usd
from leasehold.audit import Record, head_line
from leasehold.audit_events import object_of, read_body, time_of
from leasehold.checkpoint import unverified_size
from leasehold.cli.audit_proof_commands import checkpoint, key, prove
from leasehold.cli.audit_verify_command import head_words, verify_
from leasehold.cli.options import EXIT_CODES, Connection, as_json, moment, printable, to_collector
from leasehold.operators import OperatorClient
from leasehold.tiles import write_copy

SAID_CHARACTERS_MAX = 200
_JSON = click.option("--json", "json_", is_flag=True, help="Print the whole events as JSON, one per line.")


@click.group("audit", help="Follow, search, copy and check the audit log.")
def audit_group() -> None:
    """Holds the commands below."""


@audit_group.command(
    "tail", help="Print events as they arrive, from now on or after a position; ends with Ctrl-C." + EXIT_CODES
)
@to_collector
@click.option("--after", type=click.IntRange(min=0), metavar="POSITION", help="Start after this position; 0: all.")
@_JSON
def tail(connection: Connection, after: int | None, json_: bool) -> None:
    """Tail."""
    with connection.operator() as client:
        for record in client.follow_events(after):
            print_record(record, json_=json_)


@audit_group.command("query", help="Print stored events that match every filter given, oldest first." + EXIT_CODES)
@to_collector
@click.option("--stream", default="", metavar="NAME", help="Events of this sidecar, or of the collector itself.")
@click.option("--type", "type_", default="", metavar="TYPE", help="lease.acquired, or a prefix that ends in '.': call.")
@click.option("--lease", default="", metavar="NAME", help="Events about this lease: leases/...")
@click.option("--subject", default="", metavar="SUBJECT", help="Events about this subject.")
@click.option("--key", default="", metavar="NAME", help="Events about this provider key.")
@click.option("--outcome", type=click.Choice(["allowed", "denied", "failed"]), help="How it went. Default: any way.")
@click.option("--since", metavar="TIME", help="Not before this time: 2026-11-23T10:00:00Z.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most this many.")
@_JSON
def query(
    connection: Connection,
    type_: str,
    since: str | None,
    until: str | None,
    limit: int | None,
    outcome: str | None,
    json_: bool,
    **filters: Any,
) -> None:
    """Query."""
    start, end = moment("--since", since), moment("--until", until)
    with connection.operator() as client:
        for count, record in enumerate(
            client.events(type=type_, outcome=outcome or "", start_time=start, end_time=end, **filters), start=1
        ):
            print_record(record, json_=json_)
            if count == limit:
                return


_EXPORT_HELP = """Copy the log, for 'leasehold audit verify'.

As JSON lines, or with --tiles as a folder: the newest signed checkpoint, hashes and entries as C2SP tlog-tiles lays
them out, and the events' bodies. Only the folder can be checked with nothing but the public key.
"""


@audit_group.command("export", help=_EXPORT_HELP + EXIT_CODES)
@to_collector
@click.option("--stream", default="", metavar="NAME", help="Only this stream; its chain stays whole.")
@click.option("--tiles", is_flag=True, help="The whole log up to its newest checkpoint, as a folder; needs --output.")
@click.option(
    "--output", "-o", default="-", metavar="PATH", help="A new file that only you can read. Default: standard output."
)
def export(connection: Connection, stream: str, output: str, *, tiles: bool) -> None:
    """Export."""
    if tiles and (stream or output == "-"):
        message = "--tiles copies the whole log into a folder: give --output, and no --stream"
        raise click.UsageError(message)
    with ExitStack() as stack:
        client = stack.enter_context(connection.operator())
        if tiles:
            _export_tiles(client, output)
            return
        file = sys.stdout if output == "-" else stack.enter_context(_new_file(output))
        count = 0
        for count, record in enumerate(client.events(stream=stream), start=1):  # noqa: B007 - used after the loop
            file.write(record.line() + "\n")
    click.echo(f"leasehold: {count} {'record' if count == 1 else 'records'} exported", err=True)


def _export_tiles(client: OperatorClient, output: str) -> None:
    note, _ = client.checkpoint()
    size, root = unverified_size(note)
    try:
        written = write_copy(Path(output), client.events(), note, size)
    except OSError as error:
        raise InvalidRequest.of_field("--output", f"{output} cannot be written: {error.strerror}") from None
    if written != root:
        raise InvalidRequest.of_field(
            "log", f"the events that the collector gave do not have the root that it signed; {output} shows it"
        )
    click.echo(f"leasehold: {size} {'record' if size == 1 else 'records'} exported", err=True)


@audit_group.command(
    "heads", help="Print the last record of each stream, to keep elsewhere for 'verify --heads'." + EXIT_CODES
)
@to_collector
@click.option("--json", "json_", is_flag=True, help="Print the form that 'verify --heads' reads.")
def heads(connection: Connection, json_: bool) -> None:
    """Heads."""
    with connection.operator() as client:
        for head in client.heads():
            click.echo(head_line(head) if json_ else head_words(head))


def print_record(record: Record, *, json_: bool) -> None:
    """One record on a line, whatever is in it."""
    event = read_body(record.body)
    if event is None:
        event = {"type": "(not an event)" if record.body else "(content dropped)"}
    if json_:
        place = {
            "position": record.position,
            "stream": record.stream,
            "epoch": record.epoch,
            "sequence": record.sequence,
        }
        click.echo(as_json({**place, "event": event}))
        return
    at = time_of(event).isoformat(timespec="milliseconds")
    words = [
        str(record.position),
        at.replace("+00:00", "Z"),
        record.stream,
        event.get("type", "?"),
        event.get("outcome", "?"),
        event.get("reason", ""),
        event.get("lease", ""),
        object_of(event, "subject").get("subject", ""),
        *_essence(event.get("details")),
    ]
    line = " ".join(str(word) for word in words if word)
    click.echo(printable(line))


def _essence(details: Any) -> Iterator[str]:
    """What an event's details come to, for a reader; --json has all of them."""
    if not isinstance(details, dict):
        return
    yield from (str(details[name]) for name in ("provider", "model", "operation", "end") if details.get(name))
    for name in ("held", "charged", "settled"):
        amounts = details.get(name)
        cost = amounts.get("cost_micro_usd") if isinstance(amounts, dict) else None
        if isinstance(cost, int):
            yield f"{name} {usd(cost)} USD{' (estimated)' if details.get('estimated') else ''}"
    yield " ".join(f"{name}={value}" for name, value in object_of(details, "selector").items())
    said = details.get("detail") or details.get("message")
    if isinstance(said, str):
        yield f"({said[:SAID_CHARACTERS_MAX]})"


def _new_file(path: str) -> TextIO:
    try:
        return open(path, "x", encoding="utf-8", opener=_private)
    except OSError as error:
        raise InvalidRequest.of_field(
            "--output", f"{path} cannot be created: {error.strerror}; name a file that does not exist yet"
        ) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


for command in (verify_, checkpoint, prove, key):
    audit_group.add_command(command)
