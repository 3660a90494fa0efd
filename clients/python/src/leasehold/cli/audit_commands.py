"""`leasehold audit`: follow, search, copy and check the audit log."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from leasehold import InvalidRequest
from leasehold.audit import Head, Record, Verdict, head_line, heads_of, records_of, verify
from leasehold.cli.options import EXIT_BROKEN, EXIT_CODES, Connection, as_json, fail, to_collector

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
            _print(record, json_=json_)


@audit_group.command("query", help="Print stored events that match every filter given, oldest first." + EXIT_CODES)
@to_collector
@click.option("--stream", default="", metavar="NAME", help="Events of this sidecar, or of the collector itself.")
@click.option("--type", "type_", default="", metavar="TYPE", help="lease.acquired, or a prefix that ends in '.': call.")
@click.option("--lease", default="", metavar="NAME", help="Events about this lease: leases/...")
@click.option("--subject", default="", metavar="SUBJECT", help="Events about this subject.")
@click.option("--key", default="", metavar="NAME", help="Events about this provider key.")
@click.option("--outcome", default="", type=click.Choice(["", "allowed", "denied", "failed"]), help="How it went.")
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
    json_: bool,
    **filters: Any,
) -> None:
    """Query."""
    start, end = _time("--since", since), _time("--until", until)
    with connection.operator() as client:
        for count, record in enumerate(client.events(type=type_, start_time=start, end_time=end, **filters), start=1):
            _print(record, json_=json_)
            if count == limit:
                return


@audit_group.command(
    "export", help="Copy the log as JSON lines that 'leasehold audit verify FILE' can check." + EXIT_CODES
)
@to_collector
@click.option("--stream", default="", metavar="NAME", help="Only this stream; its chain stays whole.")
@click.option(
    "--output", "-o", default="-", metavar="PATH", help="A new file that only you can read. Default: standard output."
)
def export(connection: Connection, stream: str, output: str) -> None:
    """Export."""
    with ExitStack() as stack:
        client = stack.enter_context(connection.operator())
        file = sys.stdout if output == "-" else stack.enter_context(_new_file(output))
        count = 0
        for count, record in enumerate(client.events(stream=stream), start=1):  # noqa: B007 - used after the loop
            file.write(record.line() + "\n")
    click.echo(f"leasehold: {count} {'record' if count == 1 else 'records'} exported", err=True)


@audit_group.command(
    "heads", help="Print the last record of each stream, to keep elsewhere for 'verify --heads'." + EXIT_CODES
)
@to_collector
@click.option("--json", "json_", is_flag=True, help="Print the form that 'verify --heads' reads.")
def heads(connection: Connection, json_: bool) -> None:
    """Heads."""
    with connection.operator() as client:
        for head in client.heads():
            click.echo(head_line(head) if json_ else _head_words(head))


_VERIFY_HELP = """Check the chain of an exported FILE ('-': standard input) offline, or of the collector's log.

Every record must follow the one before it and match its own digest, in every stream from its first record on. The first
bad entry is named. That the end of a log is missing shows only against heads that were kept elsewhere: give them with
--heads (a file from 'leasehold audit heads --json') or --head. Online, the collector's own heads are used as well.

\b
Exit codes:
  0  everything holds
  1  refused, no collector could be reached, or the file cannot be read
  2  wrong usage
  4  a bad entry, a missing end, or a rewritten log
"""


@audit_group.command("verify", help=_VERIFY_HELP)
@click.argument("file", required=False)
@to_collector
@click.option("--heads", "heads_file", metavar="PATH", help="Heads kept elsewhere.")
@click.option("--head", "head_texts", multiple=True, metavar="STREAM/EPOCH/SEQUENCE/DIGEST", help="One kept head.")
@click.option("--partial", is_flag=True, help="FILE may begin in the middle of a stream.")
@click.option("--json", "json_", is_flag=True, help="Print the verdict as JSON.")
def verify_(
    connection: Connection,
    file: str | None,
    heads_file: str | None,
    head_texts: tuple[str, ...],
    partial: bool,
    json_: bool,
) -> None:
    """See _VERIFY_HELP."""
    kept = [_head(text) for text in head_texts]
    if heads_file is not None:
        kept += heads_of(_read(heads_file))
    if file is None:
        with connection.operator() as client:
            # Heads first: what arrives while we read comes after them.
            kept += client.heads()
            numbered = ((f"position {record.position}", record) for record in client.events())
            verdict = verify(numbered, kept, partial=partial)
    else:
        with ExitStack() as stack:
            verdict = verify(records_of(_lines(file, stack)), kept, partial=partial)
    _print_verdict(verdict, json_=json_)
    if not verdict.holds:
        sys.exit(EXIT_BROKEN)


def _print_verdict(verdict: Verdict, *, json_: bool) -> None:
    if json_:
        flaw = verdict.flaw
        click.echo(
            as_json(
                {
                    "holds": verdict.holds,
                    "records": verdict.records,
                    "first_bad": None if flaw is None else {"where": flaw.where, "what": flaw.what},
                    "missing": verdict.unseen,
                    "streams": [
                        {
                            "stream": head.stream,
                            "epoch": head.epoch,
                            "sequence": head.sequence,
                            "digest": head.digest.hex(),
                        }
                        for head in verdict.heads.values()
                    ],
                }
            )
        )
        return
    streams = f"{verdict.records} records in {len(verdict.heads)} {'stream' if len(verdict.heads) == 1 else 'streams'}"
    if verdict.holds:
        click.echo(f"the chain holds: {streams}")
    for head in verdict.heads.values():
        click.echo(f"  {_head_words(head)}")
    if verdict.flaw is not None:
        click.echo(f"leasehold: first bad entry: {verdict.flaw.where}: {verdict.flaw.what}", err=True)
    for missing in verdict.unseen:
        click.echo(f"leasehold: the end is missing: {missing}", err=True)


def _head_words(head: Head) -> str:
    return f"{head.stream} epoch {head.epoch}: up to {head.sequence}, digest {head.digest.hex()}"


def _print(record: Record, *, json_: bool) -> None:
    event = record.event()
    if json_:
        place = {
            "position": record.position,
            "stream": record.stream,
            "epoch": record.epoch,
            "sequence": record.sequence,
        }
        click.echo(as_json({**place, "event": event}))
        return
    moment = datetime.fromtimestamp(event.get("wall_ms", 0) / 1000, UTC).isoformat(timespec="milliseconds")
    subject: Any = event.get("subject") or {}
    words = [
        str(record.position),
        moment.replace("+00:00", "Z"),
        record.stream,
        event.get("type", "?"),
        event.get("outcome", "?"),
        event.get("reason", ""),
        event.get("lease", ""),
        subject.get("subject", "") if isinstance(subject, dict) else "",
    ]
    # What is printed came from callers: nothing in it may move the cursor of an auditor's terminal.
    line = " ".join(str(word) for word in words if word)
    click.echo("".join(character if character.isprintable() else "?" for character in line))


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = f"{option} {text!r} is no time with a zone; write it like 2026-11-23T10:00:00Z"
        raise click.UsageError(message)
    return moment


def _head(text: str) -> Head:
    parts = text.rsplit("/", 3)
    try:
        stream, epoch, sequence, digest = parts
        return Head(stream, epoch, int(sequence), bytes.fromhex(digest))
    except ValueError:
        message = f"--head {text!r} is not STREAM/EPOCH/SEQUENCE/DIGEST"
        raise click.UsageError(message) from None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text'}")


def _lines(path: str, stack: ExitStack) -> Iterator[str]:
    if path == "-":
        return iter(sys.stdin)
    try:
        return iter(stack.enter_context(Path(path).open(encoding="utf-8", errors="surrogateescape")))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")


def _new_file(path: str) -> TextIO:
    try:
        return open(path, "x", encoding="utf-8", opener=_private)
    except OSError as error:
        raise InvalidRequest.of_field(
            "--output", f"{path} cannot be created: {error.strerror}; name a file that does not exist yet"
        ) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
