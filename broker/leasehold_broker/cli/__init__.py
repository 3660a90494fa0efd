"""The command leasehold-broker. Owns the list of its commands; each is imported only when it is called.

A command that will hold secrets runs in an isolated process that nobody can look into, from before its first line.
"""

import importlib
import sys
from collections.abc import Mapping
from typing import Any, cast

import click

from leasehold_broker.adapters.isolated_start import NotIsolatedError, isolate
from leasehold_broker.adapters.process_hardening import harden_process

_COMMANDS: Mapping[str, str] = {
    "budget": "leasehold_broker.cli.budget:budget",
    "honeytoken": "leasehold_broker.cli.honeytoken:honeytoken",
    "keys": "leasehold_broker.cli.keys:keys",
    "policy": "leasehold_broker.cli.policy:policy",
    "prices": "leasehold_broker.cli.prices:prices",
    "sidecar": "leasehold_broker.cli.sidecar:sidecar",
    "collector": "leasehold_broker.cli.collector:collector",
    "demo": "leasehold_broker.cli.demo:demo",
}
"""Name of the command to "module:attribute". Some of the modules take a fifth of a second to import."""
_WITH_SECRETS = frozenset({"budget", "honeytoken", "keys", "sidecar", "collector"})
REFUSED_TO_START = 2


class LazyGroup(click.Group):
    """A group whose commands are imported when they are looked up, not before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as this process's command, or, with arguments of its own, as any function."""
        if not args and not kwargs and _WITH_SECRETS.intersection(sys.argv[1:2]):
            _make_safe()
        return super().__call__(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of that name."""
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = target.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))


def _make_safe() -> None:
    from leasehold.http import STRIPPED_VARIABLES  # noqa: PLC0415 - commands without secrets do not need it

    try:
        isolate(name for name in STRIPPED_VARIABLES if name.endswith(("_KEY", "_TOKEN")))
        harden_process(lock_memory=False)
    except (NotIsolatedError, RuntimeError, OSError) as error:
        click.echo(f"refused to start: {error}", err=True)
        sys.exit(REFUSED_TO_START)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leasehold-broker")
def main() -> None:
    """Run a credential broker: AI agents call paid APIs under leases and never hold a key."""
