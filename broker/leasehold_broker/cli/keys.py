"""leasehold-broker keys: provider keys into and out of the local store. A value is read, never shown.

Values come from standard input or a hidden prompt: arguments and environment of a process can be read by others.
Exit codes: 0 done, 1 refused (with the reason), 2 wrong usage.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from leasehold_broker.adapters.keys_document import NAME, KeyStoreError
from leasehold_broker.adapters.keys_local import SECRET_BYTES_MAX, LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKey, MasterKeyError, PassphraseMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.cli.keys_audit import audit
from leasehold_broker.cli.provider_type import PROVIDER
from leasehold_broker.config import ConfigError
from leasehold_broker.config.keys import transit_of
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.secret import Secret

P = ParamSpec("P")


class Store:
    """Where the store is and how its master key is had."""

    def __init__(self, path: str, master_key_file: str | None, transit_of: str | None, *, passphrase: bool) -> None:
        """Take the options.

        Raises:
            click.UsageError: not exactly one way to the master key.
        """
        if [master_key_file is not None, transit_of is not None, passphrase].count(True) != 1:
            raise click.UsageError("give one of --master-key-file, --transit-of and --passphrase")
        self.path = path
        self.master_key_file = master_key_file
        self.transit_of = transit_of

    def open(self) -> LocalKeys:
        """The store, asking for the passphrase where there is one."""
        return LocalKeys(self.path, self._master_key(), SystemClock())

    def create(self) -> LocalKeys:
        """A new store; also a new master key file, unless that exists."""
        if Path(self.path).exists():
            message = f"{self.path} exists; a store is never overwritten"
            raise KeyStoreError(message)
        if self.transit_of is not None:
            return LocalKeys.create(self.path, self._master_key(), SystemClock())
        if self.master_key_file is None:
            prompted = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
            return LocalKeys.create(self.path, PassphraseMasterKey(prompted.encode()), SystemClock())
        if Path(self.master_key_file).exists():
            return LocalKeys.create(self.path, FileMasterKey(self.master_key_file), SystemClock())
        return LocalKeys.create(self.path, FileMasterKey.create(self.master_key_file), SystemClock())

    def _master_key(self) -> MasterKey:
        if self.transit_of is not None:
            from leasehold_broker.wiring.vault import transit_master_key  # noqa: PLC0415 - its client is large

            return transit_master_key(transit_of(Path(self.transit_of)), SystemClock())
        if self.master_key_file is not None:
            return FileMasterKey(self.master_key_file)
        return PassphraseMasterKey(click.prompt("Passphrase", hide_input=True, err=True).encode())


def _with_store(command: Callable[Concatenate[Store, P], None]) -> Callable[..., None]:
    """Give a command the store's options, and its refusals a sentence and exit code 1."""

    @click.option("--store", required=True, type=click.Path(dir_okay=False), help="The store's file.")
    @click.option("--master-key-file", type=click.Path(dir_okay=False), help="File with the master key.")
    @click.option(
        "--transit-of",
        "transit",
        type=click.Path(dir_okay=False),
        help="A sidecar's TOML file whose [keys.transit] is the master key.",
    )
    @click.option("--passphrase", is_flag=True, help="Ask for a passphrase instead of reading a master key file.")
    @wraps(command)
    def run(
        store: str,
        master_key_file: str | None,
        transit: str | None,
        passphrase: bool,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        try:
            command(Store(store, master_key_file, transit, passphrase=passphrase), *args, **kwargs)
        except (ConfigError, KeyStoreError, MasterKeyError) as error:
            raise click.ClickException(str(error)) from None

    return run


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def keys() -> None:
    """Provider keys in the encrypted local store."""


@keys.command()
@_with_store
def init(store: Store) -> None:
    """Create an empty store, and a master key file where there is none."""
    store.create()
    click.echo(f"created {store.path}; keep a copy of the master key apart from it: without it the keys are lost")


@keys.command()
@click.argument("name")
@click.option("--provider", required=True, type=PROVIDER, help="Whose key it is.")
@click.option("--environment", required=True, help="The only environment whose identities may lease it.")
@click.option("--replace", "replacing", is_flag=True, help="Store the next version of a key that is there.")
@_json
@_with_store
def add(store: Store, name: str, provider: str, environment: str, replacing: bool, as_json: bool) -> None:
    """Store a key. The value is read from standard input, or asked for when that is a terminal."""
    if not NAME.fullmatch(name):
        raise click.UsageError("NAME must be 1 to 64 of a-z, 0-9, '.', '_', '-'; the key's value is never an argument")
    opened = store.open()
    value = _read_value()
    try:
        _print([opened.add(name, provider, environment, value, replacing=replacing)], as_json=as_json)
    finally:
        value.wipe()


@keys.command("list")
@_json
@_with_store
def list_keys(store: Store, as_json: bool) -> None:
    """Show the public part of every key."""
    _print(list(store.open().records()), as_json=as_json)


@keys.command()
@click.argument("name")
@_json
@_with_store
def disable(store: Store, name: str, as_json: bool) -> None:
    """Stop a key from being leased or used; running sidecars notice within a second or two."""
    _print([store.open().set_state(name, KeyState.DISABLED)], as_json=as_json)


@keys.command()
@click.argument("name")
@_json
@_with_store
def enable(store: Store, name: str, as_json: bool) -> None:
    """Let a disabled key be leased and used again."""
    _print([store.open().set_state(name, KeyState.ENABLED)], as_json=as_json)


@keys.command()
@click.argument("name")
@click.confirmation_option(prompt="Forget this key for good?")
@_with_store
def remove(store: Store, name: str) -> None:
    """Forget a key. Leases that it serves are refused from then on."""
    store.open().remove(name)
    click.echo(f"removed {name}")


keys.add_command(audit)


def _read_value() -> Secret:
    raw = bytearray()
    try:
        if sys.stdin.isatty():
            raw += click.prompt("Key (hidden)", hide_input=True, err=True).encode()
        else:
            # As text: a passphrase that was piped in before it went through the same buffer.
            raw += sys.stdin.read(SECRET_BYTES_MAX + 2).encode("utf-8", "surrogateescape")
        for ending in (b"\n", b"\r"):
            if raw.endswith(ending):
                del raw[-1:]
        if not raw:
            raise click.ClickException("no value came; give the key at the prompt, or on standard input")
        if len(raw) > SECRET_BYTES_MAX:
            message = f"the value is longer than {SECRET_BYTES_MAX} bytes"
            raise click.ClickException(message)
        return Secret(raw)
    except ValueError:
        raise click.ClickException(
            "the value must be printable ASCII without white space, on one line; check what was piped in"
        ) from None
    finally:
        raw[:] = bytes(len(raw))


def _print(records: list[KeyRecord], *, as_json: bool) -> None:
    rows = [
        {
            "name": record.name,
            "provider": record.provider,
            "environment": record.environment,
            "state": str(record.state),
            "version": record.version,
            "stored": datetime.fromtimestamp(record.created_wall_ms // 1000, UTC).isoformat(),
        }
        for record in records
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("the store holds no keys")
        return
    table = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
