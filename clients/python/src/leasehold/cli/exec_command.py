"""`leasehold exec`: run a program with a lease instead of keys."""

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from leasehold import LeaseHandle, LeaseholdError
from leasehold.cli import child
from leasehold.cli.options import Connection, lease_options, spent, to_sidecar
from leasehold.credentials import credential_environment
from leasehold.http import child_environment

_HELP = """Run COMMAND with a lease in its environment, and release the lease when it ends.

\b
    leasehold exec --provider anthropic --budget 2.50 --ttl 30m -- python agent.py

The command gets the variables that the official SDKs and the frameworks on them read (base URL and API key of each
provider, the key being the lease token), LEASEHOLD_LEASE with the lease's name, and NO_PROXY for the loopback address.
For SDKs that read no address (Mistral's, xAI's, OpenRouter's) and for hosts of your own there are
LEASEHOLD_<NAME>_BASE_URL and LEASEHOLD_<NAME>_API_KEY, to be handed to them.
Provider keys that are in the environment are taken out of it, and named on standard error.

A database user, made for this lease by a secret engine and dropped when it ends, is in LEASEHOLD_<NAME>_USERNAME and
LEASEHOLD_<NAME>_PASSWORD; with --postgres in PGUSER and PGPASSWORD too:

\b
    leasehold exec --provider own-orders-db --mode minted --postgres -- psql -h db.internal orders

The lease is renewed while the command lives. If it is lost, by revocation or because no broker answered until its end,
that is said on standard error; the command goes on, its calls are refused. At the end one line says what was spent.

Signals that are sent to leasehold (HUP, INT, QUIT, TERM, USR1, USR2) are passed on; those of the terminal reach the
command directly.

\b
Exit codes:
  N      the command's own exit code
  128+N  signal N ended the command
  125    no lease, or leasehold was stopped before the command began
  126    the command cannot be executed
  127    the command was not found
  2      wrong usage
"""


@click.command("exec", help=_HELP, context_settings={"allow_interspersed_args": False})
@to_sidecar
@lease_options
@click.option(
    "--mode",
    type=click.Choice(["brokered", "minted", "disclosed"]),
    default="brokered",
    show_default=True,
    help="How the command reaches the provider: through the broker; or itself, where the policy allows it, with a "
    "short-lived credential of its own, or with the key.",
)
@click.option(
    "--postgres",
    is_flag=True,
    help="Put a minted database user into PGUSER and PGPASSWORD, for psql and libpq.",
)
@click.option(
    "--end-with-process",
    is_flag=True,
    help="End the lease also when leasehold itself is killed. Needs a sidecar that sees this process's id.",
)
@click.option("--quiet", is_flag=True, help="Only say what went wrong.")
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARGUMENT]...", type=click.UNPROCESSED)
def exec_command(
    connection: Connection,
    asked: dict[str, Any],
    mode: str,
    postgres: bool,
    end_with_process: bool,
    quiet: bool,
    command: Sequence[str],
) -> None:
    """See _HELP."""
    if not asked["scopes"]:
        raise click.UsageError("--provider is missing; name at least one, like --provider anthropic")
    if postgres and mode != "minted":
        raise click.UsageError("--postgres is for a database user that was made for this lease: it needs --mode minted")
    asked |= {"mode": mode, "end_with_process": end_with_process}
    # Before any thread exists: see the module child.
    hold = child.SignalHold()
    try:
        sys.exit(_run(connection, asked, command, hold, postgres=postgres, quiet=quiet))
    except LeaseholdError as error:
        _say(str(error))
        sys.exit(child.EXIT_OURS)


def _run(
    connection: Connection,
    asked: dict[str, Any],
    command: Sequence[str],
    hold: child.SignalHold,
    *,
    postgres: bool,
    quiet: bool,
) -> int:
    with connection.agent() as client:
        lease = client.acquire(**asked)
        try:
            return _with_lease(lease, command, hold, postgres=postgres, quiet=quiet)
        finally:
            _settle(lease, quiet=quiet)


def _with_lease(
    lease: LeaseHandle, command: Sequence[str], hold: child.SignalHold, *, postgres: bool, quiet: bool
) -> int:
    arrived = hold.pending()
    if arrived is not None:
        _say(f"stopped by signal {arrived} before the command began")
        return child.EXIT_OURS
    environment, removed = child_environment(lease, os.environ)
    environment.update(credential_environment(lease, postgres=postgres))
    if removed and not quiet:
        _say(f"removed from the command's environment: {', '.join(removed)}")
    try:
        process = child.start(command, environment, hold)
    except OSError as error:
        _say(f"cannot run {command[0]!r}: {error.strerror}")
        return child.exit_code_of(error)
    # A watch hears of a revocation at once; renewal alone would notice it at half the lease's life.
    threading.Thread(target=_watch, args=(lease,), name="leasehold-watch", daemon=True).start()
    return child.wait(process)


def _watch(lease: LeaseHandle) -> None:
    try:
        for _ in lease.watch():
            pass
    except LeaseholdError:
        # Renewal goes on by itself; what it finds is logged, and so shown.
        return


def _settle(lease: LeaseHandle, *, quiet: bool) -> None:
    providers = ", ".join(scope.provider for scope in lease.info.scopes)
    try:
        info = lease.release()
    except LeaseholdError as error:
        _say(f"{lease.name} could not be released and ends by itself within {lease.seconds_left:.0f} s: {error}")
        return
    if not quiet:
        _say(f"{spent(info)} ({providers}), lease {info.name} {info.state}")


def _say(sentence: str) -> None:
    # One write, so that it is not mixed into a line of the command's.
    sys.stderr.write(f"leasehold: {sentence}\n")
    sys.stderr.flush()
