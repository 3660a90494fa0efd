"""`leasehold audit verify`: a copy or the collector's log, against its chain, its Merkle tree and kept checkpoints."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

import click

from leasehold.audit import (
    LINE_CHARACTERS_MAX,
    Head,
    Record,
    Verdict,
    digest_of,
    heads_of,
    integer_of,
    records_of,
    verify,
)
from leasehold.audit_copy import verify_copy
from leasehold.audit_tree import Roots, with_roots
from leasehold.checkpoint import Checkpoint
from leasehold.cli.options import EXIT_BROKEN, Connection, as_json, fail, printable, to_collector
from leasehold.note import ED25519, NOTE_BYTES_MAX, VerifierKey
from leasehold.tiles import CHECKPOINT
from leasehold.witnesses import WitnessPolicy, judge_witnesses

HEADS_BYTES_MAX = 64 * 1024 * 1024
POLICY_HELP = "A witness policy: the log's key, witnesses, and which of them must have cosigned a checkpoint."
KEY_HELP = "The log's public key, as text or as a file that holds it. Have it from whoever runs the collector."

_VERIFY_HELP = """Check a copy of the log offline, or the collector's log.

COPY is a folder of 'leasehold audit export --tiles', a file of JSON lines, or '-' for standard input. Every record must
follow the one before it and match its own digest, in every stream from its first record on; the first bad entry is
named. A folder must also have the root that its checkpoint signs: it needs --key, and nothing else. JSON lines are
not signed: there --key is for --checkpoint.

A body in which a name stands twice says different things to different readers: only a program that is not ours
writes one. It is told, and no bad entry: it is what was signed. A folder's bodies are read with --bodies.

A log that was rewritten as a whole and signed again, or cut at its end, is consistent in itself: it shows against what
was kept elsewhere. Give earlier checkpoints with --checkpoint (from 'leasehold audit checkpoint'), or heads with
--heads (from 'leasehold audit heads --json') or --head. Online, the collector's own heads are used as well.

With --policy, a checkpoint must be cosigned by the quorum of witnesses that the file asks for: the copy's own, or one
given with --checkpoint. The file also has the log's key, in place of --key.

\b
Exit codes:
  0  everything holds
  1  refused, no collector could be reached, or the copy cannot be read
  2  wrong usage
  4  a bad entry, a missing end, a fork, a rewritten log, or no quorum of witnesses
"""


@click.command("verify", help=_VERIFY_HELP)
@click.argument("copy", required=False)
@to_collector
@click.option("--key", "key_text", metavar="KEY", help=KEY_HELP)
@click.option("--policy", "policy_file", metavar="PATH", help=POLICY_HELP)
@click.option(
    "--checkpoint", "notes", multiple=True, metavar="PATH", help="A checkpoint that was kept; may be repeated."
)
@click.option("--heads", "heads_file", metavar="PATH", help="Heads kept elsewhere.")
@click.option("--head", "head_texts", multiple=True, metavar="STREAM/EPOCH/SEQUENCE/DIGEST", help="One kept head.")
@click.option("--partial", is_flag=True, help="A file of JSON lines may begin in the middle of a stream.")
@click.option("--bodies", is_flag=True, help="Of a folder: read every body too, for names that stand twice in it.")
@click.option("--json", "json_", is_flag=True, help="Print the verdict as JSON.")
def verify_(
    connection: Connection,
    copy: str | None,
    key_text: str | None,
    policy_file: str | None,
    notes: tuple[str, ...],
    heads_file: str | None,
    head_texts: tuple[str, ...],
    partial: bool,
    bodies: bool,
    json_: bool,
) -> None:
    """See _VERIFY_HELP."""
    policy, key = log_key(policy_file, key_text)
    if key is None and notes:
        message = "--checkpoint needs --key: a checkpoint is worth what its signature is"
        raise click.UsageError(message)
    kept = [_head(text) for text in head_texts]
    if heads_file is not None:
        noted = heads_of(_read(heads_file))
        if not noted:
            fail(f"{heads_file} has no head: nothing would be held against it; give what 'audit heads --json' wrote")
        kept += noted
    given = {path: read_bytes(path) for path in notes}
    earlier = [] if key is None else [Checkpoint.of_note(note, key, path) for path, note in given.items()]
    if copy is not None and copy != "-" and _is(Path(copy).is_dir):
        if key is None or partial:
            message = f"{copy} is a folder: checking it needs --key, and goes without --partial"
            raise click.UsageError(message)
        verdict = verify_copy(Path(copy), key, earlier, kept, bodies=bodies)
    else:
        if partial and earlier:
            message = "--checkpoint speaks for whole logs, and --partial is not one"
            raise click.UsageError(message)
        if copy is not None and key_text is not None and not earlier:
            message = (
                "--key would check nothing: JSON lines are not signed. Give a checkpoint that was kept (--checkpoint),"
                " or a folder of 'audit export --tiles'"
            )
            raise click.UsageError(message)
        verdict = _by_record(connection, copy, key, earlier, kept, partial=partial)
    if policy is not None:
        own = Path(copy or "") / CHECKPOINT
        judge_witnesses(policy, given | ({str(own): read_bytes(str(own))} if _is(own.is_file) else {}), verdict)
    _print_verdict(verdict, json_=json_)
    if not verdict.holds:
        sys.exit(EXIT_BROKEN)


def _by_record(
    connection: Connection,
    copy: str | None,
    key: VerifierKey | None,
    earlier: Iterable[Checkpoint],
    kept: list[Head],
    *,
    partial: bool,
) -> Verdict:
    with ExitStack() as stack:
        records: Iterator[tuple[str, Record]]
        if copy is None:
            client = stack.enter_context(connection.operator())
            if key is not None:
                earlier = [*earlier, Checkpoint.of_note(client.checkpoint()[0], key, "the collector's checkpoint")]
            # Heads first: what arrives while we read comes after them.
            kept = kept + client.heads()
            records = ((f"position {record.position}", record) for record in client.events())
        else:
            records = records_of(_lines(copy, stack))
        roots = Roots(earlier)
        verdict = verify(with_roots(records, roots), kept, partial=partial)
    if verdict.flaw is None:
        roots.finish(verdict.records)
    verdict.wrong += roots.verdict.wrong
    verdict.held += roots.verdict.held
    if verdict.holds and not verdict.records and not verdict.held:
        fail(f"{copy or 'the log'} has no record: nothing was checked")
    return verdict


def _print_verdict(verdict: Verdict, *, json_: bool) -> None:
    if json_:
        _print_json(verdict)
        return
    streams = f"{verdict.records} records in {len(verdict.heads)} {'stream' if len(verdict.heads) == 1 else 'streams'}"
    if verdict.holds:
        click.echo(f"the chain holds: {streams}")
    signed = (f"as signed: the checkpoint of {size} events" for size in verdict.held)
    for words in (*signed, *(f"witnessed: {printable(seen)}" for seen in verdict.witnessed)):
        click.echo(f"  {words}")
    if verdict.hash_only:
        click.echo(f"  retained hash only: {verdict.hash_only} records; their content is gone, their place is proven")
    _print_twofold(verdict)
    for gap in verdict.gaps:
        click.echo(f"  declared lost by the collector: {printable(gap)}")
    for head in verdict.heads.values():
        click.echo(f"  {head_words(head)}")
    if verdict.flaw is not None:
        click.echo(f"leasehold: first bad entry: {printable(f'{verdict.flaw.where}: {verdict.flaw.what}')}", err=True)
    for wrong in verdict.wrong:
        click.echo(f"leasehold: not as signed: {printable(wrong)}", err=True)
    for missing in verdict.unseen:
        click.echo(f"leasehold: the end is missing: {printable(missing)}", err=True)


def _print_twofold(verdict: Verdict) -> None:
    if verdict.twofold.count:
        click.echo(f"  may be read in two ways: {verdict.twofold.count} records; {printable(verdict.twofold.first)}")


def _print_json(verdict: Verdict) -> None:
    flaw = verdict.flaw
    streams = [
        {"stream": head.stream, "epoch": head.epoch, "sequence": head.sequence, "digest": head.digest.hex()}
        for head in verdict.heads.values()
    ]
    click.echo(
        as_json(
            {
                "holds": verdict.holds,
                "records": verdict.records,
                "first_bad": None if flaw is None else {"where": flaw.where, "what": flaw.what},
                "missing": verdict.unseen,
                "not_as_signed": verdict.wrong,
                "checkpoints_held": verdict.held,
                "witnessed": verdict.witnessed,
                "hash_only": verdict.hash_only,
                "declared_lost": verdict.gaps,
                "read_in_two_ways": verdict.twofold.count,
                "first_read_in_two_ways": verdict.twofold.first,
                "streams": streams,
            }
        )
    )


def head_words(head: Head) -> str:
    """One head, for people."""
    tail = "; more may have existed: its end is not known" if head.tail_unknown else ""
    return printable(f"{head.stream} epoch {head.epoch}: up to {head.sequence}, digest {head.digest.hex()}{tail}")


def _head(text: str) -> Head:
    parts = text.rsplit("/", 3)
    try:
        stream, epoch, sequence, digest = parts
        return Head(stream, epoch, integer_of(json.loads(sequence)), digest_of(digest))
    except ValueError:
        message = f"--head {text!r} is not STREAM/EPOCH/SEQUENCE/DIGEST"
        raise click.UsageError(message) from None


def _read(path: str) -> str:
    try:
        return read_bytes(path, HEADS_BYTES_MAX).decode()
    except UnicodeDecodeError:
        fail(f"cannot read {path}: it is not text")


def _lines(path: str, stack: ExitStack) -> Iterator[str]:
    if path == "-":
        return bounded(sys.stdin)
    try:
        return bounded(stack.enter_context(Path(path).open(encoding="utf-8", errors="surrogateescape")))
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")


def bounded(file: TextIO) -> Iterator[str]:
    """Lines; of one that is too long, no more than shows it: a file without line ends is not read into memory."""
    return iter(lambda: file.readline(LINE_CHARACTERS_MAX + 1), "")


def verifier_key(text: str, algorithm: int = ED25519) -> VerifierKey:
    """The key as given: its text, or the file that holds it."""
    if _is(Path(text).is_file):
        return VerifierKey.of_text(_read(text), algorithm)
    if "+" not in text:
        fail(f"key {text!r} is no verifier key (NAME+ID+KEY in one line was expected), and no file that holds one")
    return VerifierKey.of_text(text, algorithm)


def log_key(policy_file: str | None, key_text: str | None) -> tuple[WitnessPolicy | None, VerifierKey | None]:
    """The policy in this file, and the log's key; a key that is given beside a policy must be the same."""
    key = None if key_text is None else verifier_key(key_text)
    if policy_file is None:
        return None, key
    policy = WitnessPolicy.of_text(_read(policy_file))
    if key not in {None, policy.log}:
        message = "--key is another key than that of the log in --policy"
        raise click.UsageError(message)
    return policy, policy.log


def read_bytes(path: str, bytes_max: int = NOTE_BYTES_MAX) -> bytes:
    """A whole file, or what comes through a pipe; ends the command when it cannot be read, or is too long to be it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    if len(data) > bytes_max:
        fail(f"cannot read {path}: it is longer than {bytes_max} bytes, the most that such a file can have")
    return data


def _is(kind: Callable[[], bool]) -> bool:
    """A text that cannot be the name of a file is the name of none."""
    try:
        return kind()
    except OSError:
        return False
