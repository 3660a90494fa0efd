"""`leasehold audit checkpoint`, `prove`, `key`: signed heads of the log, and proofs against them."""

import sys
from pathlib import Path

import click

from leasehold import InvalidRequest
from leasehold.checkpoint import Checkpoint, unverified_size
from leasehold.cli.audit_verify_command import KEY_HELP, POLICY_HELP, log_key, read_bytes, verifier_key
from leasehold.cli.options import (
    EXIT_BROKEN,
    EXIT_CODES,
    EXIT_INCOMPLETE,
    Connection,
    fail,
    printable,
    to_collector,
)
from leasehold.merkle import consistent, leaf_hash, root_from_inclusion
from leasehold.note import SignedNote, VerifierKey
from leasehold.operators import OperatorClient
from leasehold.witnesses import WitnessPolicy
from leasehold.witnessing import have_witnessed

_INCOMPLETE = """  3  not cosigned by a quorum of the policy; what is kept stays as it was
"""
_BROKEN = """  4  what the collector shows does not agree with what it signed before
"""

_CHECKPOINT_HELP = """Print the newest signed head of the log, or keep it in a file.

With --keep, a checkpoint that the file holds already must be proven to be a beginning of the newest before it is
replaced: run it now and then from another machine, and nobody can rewrite what you have seen. With --policy, the
witnesses of that file are asked to cosign it (C2SP tlog-witness): then nobody can show others another history, either.
"""


@click.command("checkpoint", help=_CHECKPOINT_HELP + EXIT_CODES + _INCOMPLETE + _BROKEN)
@to_collector
@click.option("--keep", metavar="PATH", help="File of the newest checkpoint that was seen; needs --key.")
@click.option("--key", "key_text", metavar="KEY", help=KEY_HELP)
@click.option("--policy", "policy_file", metavar="PATH", help=POLICY_HELP)
def checkpoint(connection: Connection, keep: str | None, key_text: str | None, policy_file: str | None) -> None:
    """See _CHECKPOINT_HELP."""
    policy, key = log_key(policy_file, key_text)
    if (keep is not None and key is None) or (keep is None and policy is not None):
        message = "--keep needs --key: what is kept must be worth keeping; --policy needs --keep"
        raise click.UsageError(message)
    with connection.operator() as client:
        if keep is None or key is None:
            note, _ = client.checkpoint()
            if key is not None:
                Checkpoint.of_note(note, key)
            unverified_size(note)
            click.echo("".join(f"{printable(line)}\n" for line in note.decode().split("\n")[:-1]), nl=False)
            return
        path = Path(keep)
        earlier, note = _grown(client, path, key)
        if policy is not None:
            note = _cosigned(client, path, policy, 0 if earlier is None else earlier.size, note)
        _replace(path, note)
        newest = Checkpoint.of_note(note, key)
        if earlier is None:
            click.echo(f"the checkpoint of {newest.size} events is kept; there was none before")
        else:
            click.echo(f"the log grew from {earlier.size} to {newest.size} events; nothing before was changed")


def _grown(client: OperatorClient, path: Path, key: VerifierKey) -> tuple[Checkpoint | None, bytes]:
    """What is kept, None for nothing, and the newest checkpoint's note, proven to have grown from it."""
    if not path.exists():
        return None, client.checkpoint()[0]
    earlier = Checkpoint.of_note(read_bytes(str(path)), key, str(path))
    try:
        note, proof = client.prove_growth(earlier.size)
    except InvalidRequest as refused:
        fail(f"the log does not reach the {earlier.size} events signed before: {refused}", EXIT_BROKEN)
    newest = Checkpoint.of_note(note, key)
    if not consistent(earlier.size, earlier.root, newest.size, newest.root, proof):
        fail(
            f"the log of {newest.size} events does not begin with the {earlier.size} that were signed before: it was "
            f"rewritten or forked. Both notes are evidence: {path} and {_beside(path, note)}",
            EXIT_BROKEN,
        )
    return earlier, note


def _cosigned(client: OperatorClient, path: Path, policy: WitnessPolicy, seen: int, note: bytes) -> bytes:
    """This checkpoint, or a newer one that has grown from it, with the cosignatures of a quorum.

    Ends the command where there is none: what is kept stays, since a quorum may have cosigned it.
    """
    first = Checkpoint.of_note(note, policy.log)

    def prove(old: int) -> tuple[bytes, list[bytes]]:
        shown, proof = client.prove_growth(old)
        newest = Checkpoint.of_note(shown, policy.log)
        if old == first.size and not consistent(old, first.root, newest.size, newest.root, proof):
            fail(f"the log changed while it was looked at; {_beside(path, shown)} is evidence", EXIT_BROKEN)
        return shown, proof

    found = have_witnessed(policy, prove, first.size, seen)
    for name, why in found.failed.items():
        click.echo(f"leasehold: not cosigned by {printable(f'{name}: {why}')}", err=True)
    if found.contradicted:
        fail(f"a witness saw another log; {_beside(path, found.note)} is evidence", EXIT_BROKEN)
    size = Checkpoint.of_note(found.note, policy.log).size
    click.echo(printable(f"the checkpoint of {size} events is cosigned by {', '.join(found.cosigners) or 'nobody'}"))
    if not policy.satisfied(policy.cosigners(SignedNote.of_bytes(found.note, "checkpoint"))):
        fail(f"that is no quorum of the policy; {path} is left as it was", EXIT_INCOMPLETE)
    return found.note


def _beside(path: Path, note: bytes) -> Path:
    """Where a note is put that contradicts what is kept."""
    beside = path.with_name(path.name + ".contradicts")
    try:
        beside.write_bytes(note)
    except OSError as error:
        raise InvalidRequest.of_field("--keep", f"{beside} cannot be written: {error.strerror}") from None
    return beside


def _replace(path: Path, note: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    try:
        fresh.write_bytes(note)
        fresh.replace(path)
    except OSError as error:
        raise InvalidRequest.of_field("--keep", f"{path} cannot be written: {error.strerror}") from None


@click.command(
    "prove",
    help="Show that the event at POSITION is in the log that the newest checkpoint signs." + EXIT_CODES + _BROKEN,
)
@click.argument("position", type=click.IntRange(min=1))
@to_collector
@click.option("--key", "key_text", required=True, metavar="KEY", help=KEY_HELP)
def prove(connection: Connection, position: int, key_text: str) -> None:
    """Prove."""
    key = verifier_key(key_text)
    with connection.operator() as client:
        record, note, proof = client.prove_event(position)
    newest = Checkpoint.of_note(note, key)
    whole = not record.body or record.digest == record.computed_digest()
    root = root_from_inclusion(leaf_hash(record.entry()), position - 1, newest.size, proof)
    if record.position != position or not whole or root != newest.root:
        click.echo(f"leasehold: the event shown at position {position} is not the one that was signed", err=True)
        sys.exit(EXIT_BROKEN)
    what = record.event().get("type", "?") if record.body else "retained hash only"
    click.echo(
        printable(f"event {position} ({record.stream}, sequence {record.sequence}: {what}) ")
        + f"is in the checkpoint of {newest.size} events, by {len(proof)} hashes"
    )


_KEY_HELP = """Print the log's public key as the collector tells it.

Compare it with the one that whoever runs the collector gives you by another way: the file checkpoint.pub.
"""


@click.command("key", help=_KEY_HELP + EXIT_CODES)
@to_collector
def key(connection: Connection) -> None:
    """See _KEY_HELP."""
    with connection.operator() as client:
        click.echo(printable(client.checkpoint()[1]))
