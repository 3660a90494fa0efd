"""The root of the command."""

from typing import Any

import click

from leasehold.cli.audit_commands import audit_group
from leasehold.cli.budget_commands import budget_group
from leasehold.cli.exec_command import exec_command
from leasehold.cli.key_commands import key_group
from leasehold.cli.lease_commands import lease_group
from leasehold.cli.revocations_command import revocations
from leasehold.cli.revoke_command import lift, revoke
from leasehold.cli.session_commands import login, logout, whoami
from leasehold.cli.sidecar_commands import sidecar_group, sidecars

_HELP = """Capped leases on paid APIs instead of keys.

Agents: 'leasehold exec' runs a program with a lease; 'leasehold lease' works with leases by hand.
Responders: 'leasehold revoke', 'lift', 'revocations', 'sidecars', 'sidecar'. Auditors: 'leasehold audit'.
Treasurers: 'leasehold budget'. Custodians and pipelines: 'leasehold keys'. All of these sign in with 'leasehold login'.
"""


class _Root(click.Group):
    """Says in words that an argument cannot be sent: what is not UTF-8 comes in, and no message can hold it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError as error:
            message = f"an argument is not text in UTF-8: character {error.start + 1} of it is none. Write it as UTF-8"
            raise click.UsageError(message, ctx) from None


@click.group("leasehold", cls=_Root, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leasehold", prog_name="leasehold")
def leasehold() -> None:
    """See _HELP."""


leasehold.add_command(exec_command)
leasehold.add_command(lease_group)
leasehold.add_command(login)
leasehold.add_command(logout)
leasehold.add_command(whoami)
leasehold.add_command(revoke)
leasehold.add_command(lift)
leasehold.add_command(revocations)
leasehold.add_command(sidecars)
leasehold.add_command(sidecar_group)
leasehold.add_command(audit_group)
leasehold.add_command(budget_group)
leasehold.add_command(key_group)
