"""`leasehold lease`: leases by hand, for scripts and for looking around."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from leasehold import LeaseHandle, LeaseInfo
from leasehold._amounts import usd
from leasehold.cli.options import (
    EXIT_CODES,
    Connection,
    as_json,
    fail,
    lease_json,
    lease_options,
    spent,
    table,
    to_sidecar,
)

_TOKEN_OUT = click.option(
    "--token-out",
    metavar="PATH",
    help="Write the lease token to a new file that only you can read; '-': standard output, alone. "
    "Without this the token is not shown anywhere, and the lease can only be inspected.",
)
_JSON = click.option("--json", "json_", is_flag=True, help="Print JSON.")


@click.group("lease", help="Acquire, inspect and end leases by hand.")
def lease_group() -> None:
    """Holds the commands below."""


@lease_group.command(
    "acquire", help="Acquire a lease and leave it to run until its end: nothing renews it." + EXIT_CODES
)
@to_sidecar
@lease_options
@click.option("--dry-run", is_flag=True, help="Only say what would be granted.")
@_TOKEN_OUT
@_JSON
def acquire(connection: Connection, asked: dict[str, Any], dry_run: bool, token_out: str | None, json_: bool) -> None:
    """Acquire."""
    if not asked["scopes"]:
        raise click.UsageError("--provider is missing; name at least one, like --provider anthropic")
    with connection.agent() as client:
        _hand_out(client.acquire(**asked, validate_only=dry_run, renew=False), token_out, json_=json_, dry_run=dry_run)


@lease_group.command(
    "delegate",
    help="Carve a narrower lease out of PARENT (a lease's name); it dies with its parent. Nothing renews it."
    + EXIT_CODES,
)
@to_sidecar
@lease_options
@click.option("--for-uid", type=click.IntRange(min=0), metavar="UID", help="User who may use it. Default: you.")
@_TOKEN_OUT
@_JSON
@click.argument("parent")
def delegate(
    connection: Connection, asked: dict[str, Any], parent: str, for_uid: int | None, token_out: str | None, json_: bool
) -> None:
    """Delegate."""
    with connection.agent() as client:
        lease = client.delegate(parent, binding_uid=for_uid, renew=False, **asked)
        _hand_out(lease, token_out, json_=json_, dry_run=False)


@lease_group.command("show", help="Show one lease of yours and how its budgets stand." + EXIT_CODES)
@to_sidecar
@_JSON
@click.argument("name")
def show(connection: Connection, name: str, json_: bool) -> None:
    """Show."""
    with connection.agent() as client:
        _print(client.get(name), json_=json_)


@lease_group.command("list", help="List your leases." + EXIT_CODES)
@to_sidecar
@click.option("--ended", is_flag=True, help="Also those that have ended.")
@_JSON
def list_(connection: Connection, ended: bool, json_: bool) -> None:
    """List."""
    with connection.agent() as client:
        infos = list(client.leases(include_ended=ended))
    if json_:
        for info in infos:
            click.echo(as_json(lease_json(info)))
        return
    rows = [("NAME", "STATE", "EXPIRES", "PROVIDERS", "PARENT", "PURPOSE")]
    rows += [
        (
            info.name,
            info.state,
            info.expire_time.isoformat(timespec="seconds"),
            ",".join(scope.provider for scope in info.scopes),
            info.parent or "-",
            info.purpose or "-",
        )
        for info in infos
    ]
    click.echo(table(rows))


@lease_group.command(
    "release", help="End a lease of yours and all delegated from it; quiet when it has ended." + EXIT_CODES
)
@to_sidecar
@_JSON
@click.argument("name")
def release(connection: Connection, name: str, json_: bool) -> None:
    """Release."""
    with connection.agent() as client:
        info = client.release(name)
    if json_:
        click.echo(as_json(lease_json(info)))
    else:
        click.echo(f"{info.name} {info.state}; {spent(info)}")


@lease_group.command("watch", help="Follow one lease of yours until it ends." + EXIT_CODES)
@to_sidecar
@_JSON
@click.argument("name")
def watch(connection: Connection, name: str, json_: bool) -> None:
    """Watch."""
    with connection.agent() as client:
        for info in client.watch(name):
            if json_:
                click.echo(as_json(lease_json(info)))
            else:
                why = f" ({info.reason})" if info.reason else ""
                click.echo(f"{info.name} {info.state}{why}, {info.ttl_seconds:.0f} s left; {spent(info)}")


def _hand_out(lease: LeaseHandle, token_out: str | None, *, json_: bool, dry_run: bool) -> None:
    if token_out not in {None, "-"} and not dry_run:
        _write_private(str(token_out), lease)
    lease.abandon()  # it is to outlive this command
    if token_out == "-" and not dry_run:  # noqa: S105 - the usual name of standard output
        sys.stdout.write(lease.token.reveal() + "\n")
        return
    _print(lease.info, json_=json_)
    if not json_ and not dry_run:
        for endpoint in lease.endpoints:
            click.echo(f"base url    {endpoint.base_url} ({endpoint.provider})")


def _write_private(path: str, lease: LeaseHandle) -> None:
    try:
        descriptor = os.open(Path(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        lease.release()
        fail(f"cannot create {path}: {error.strerror}; name a file that does not exist yet. The lease was not kept")
    with os.fdopen(descriptor, "w") as file:
        file.write(lease.token.reveal())


def _print(info: LeaseInfo, *, json_: bool) -> None:
    if json_:
        click.echo(as_json(lease_json(info)))
        return
    why = f" ({info.reason})" if info.reason else ""
    click.echo(f"name        {info.name or '(none: dry run)'}")
    click.echo(f"state       {info.state}{why}")
    end, last = (time.isoformat(timespec="seconds") for time in (info.expire_time, info.max_expire_time))
    click.echo(f"expires     {end}, at most {last}")
    for scope in info.scopes:
        models = ", ".join(scope.models) or "any model"
        click.echo(f"scope       {scope.provider}: {models}; key {scope.key or '-'}")
    for row in info.usage:
        click.echo(f"budget      {row.budget}: {_standing(row.metric, row.settled, row.held, row.cap)}")


def _standing(metric: str, settled: int, held: int, cap: int | None) -> str:
    of = "" if cap is None else f" of {_shown(metric, cap)}"
    return f"{_shown(metric, settled)}{of} spent, {_shown(metric, held)} held"


def _shown(metric: str, amount: int) -> str:
    return f"{usd(amount)} USD" if metric == "cost_micro_usd" else f"{amount} {metric}"
