"""leasehold-broker honeytoken: lay leases and keys that nobody should use. A value is shown once, and kept nowhere."""

import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from leasehold_broker.adapters.honeytoken_file import add_honeytoken, read_honeytokens, remove_honeytoken
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.domain.honeytokens import (
    ENTROPY_BYTES,
    NAME,
    NAME_RULE,
    Honeytoken,
    HoneytokenKind,
    digest_of,
    make_honeytoken,
)

_file = click.option(
    "--file",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file with the digests; a sidecar's [honeytokens] names it.",
)


@click.group()
def honeytoken() -> None:
    """Leases and keys that nobody should use: any use is an alarm, and cuts off whoever did it."""


@honeytoken.command()
@click.argument("name")
@click.option(
    "--kind",
    required=True,
    type=click.Choice([kind.value for kind in HoneytokenKind]),
    help="What it looks like: a lease token, or a provider's key.",
)
@_file
def create(name: str, kind: str, path: Path) -> None:
    """Make one named after where you will lay it, and show its value: once, on standard output."""
    if not NAME.fullmatch(name):
        message = f"name {name!r} {NAME_RULE}"
        raise click.UsageError(message)
    value = make_honeytoken(HoneytokenKind(kind), secrets.token_bytes(ENTROPY_BYTES))
    fresh = Honeytoken(name, HoneytokenKind(kind), digest_of(value), time.time_ns() // 1_000_000)
    try:
        add_honeytoken(path, fresh)
    except (FilesRefusedError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(value)
    click.echo(f"kept: its digest, in {path}. Lay the value where only an intruder looks.", err=True)


@honeytoken.command("list")
@_file
def list_(path: Path) -> None:
    """Name, kind and age of each."""
    try:
        known = read_honeytokens(str(path))
    except FilesRefusedError as error:
        raise click.ClickException(str(error)) from None
    for one in known:
        made = datetime.fromtimestamp(one.create_wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        click.echo(f"{one.name:40} {one.kind:12} {made} sha256:{one.sha256[:16]}")


@honeytoken.command()
@click.argument("name")
@_file
def remove(name: str, path: Path) -> None:
    """Forget one: its use alarms nobody any more, and still opens nothing."""
    try:
        remove_honeytoken(path, name)
    except (FilesRefusedError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
