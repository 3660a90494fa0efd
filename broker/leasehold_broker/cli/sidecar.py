"""leasehold-broker sidecar: the process next to an agent."""

import sys
from pathlib import Path

import click

from leasehold_broker.cli.process import check, read_passphrase, serve


@click.command(short_help="Run the sidecar next to an agent.")
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="TOML file; deploy/config/sidecar.toml explains every line.",
)
@click.option("--check", "only_check", is_flag=True, help="Load configuration, keys and policy; start nothing.")
def sidecar(path: Path, *, only_check: bool) -> None:
    """Run the sidecar next to an agent, in the foreground, until SIGTERM or SIGINT.

    SIGHUP reloads policy and prices, which are also looked at every second. Logs are JSON lines on standard error. When
    the configuration names no master key file, the passphrase of the key store is asked for, or read as one line from
    standard input.

    Exit codes: 0 stopped as told, 1 failed while running, 2 refused to start.
    """
    from leasehold_broker.wiring.run import check_sidecar, prepare_sidecar  # noqa: PLC0415 - `--help` is quick

    def passphrase() -> bytes:
        return read_passphrase(sys.stdin)

    if only_check:
        check(lambda: check_sidecar(path, passphrase), str(path))
    serve(lambda: prepare_sidecar(path, passphrase))
