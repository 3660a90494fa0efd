"""leasehold-broker collector: the centre."""

from pathlib import Path

import click

from leasehold_broker.cli.process import check, say, serve


@click.command(short_help="Run the collector: audit log and revocations of all sidecars.")
@click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="TOML file; deploy/config/collector.toml explains every line.",
)
@click.option("--check", "only_check", is_flag=True, help="Load the configuration; start nothing.")
@click.option(
    "--make-checkpoint-key", "only_key", is_flag=True, help="Make the key that signs the log, for replicas to share."
)
def collector(path: Path, *, only_check: bool, only_key: bool) -> None:
    """Run the collector in the foreground, until SIGTERM or SIGINT. Logs are JSON lines on standard error.

    Exit codes: 0 stopped as told, 1 failed while running, 2 refused to start.
    """
    from leasehold_broker.wiring.run import check_collector, make_checkpoint_key, prepare_collector  # noqa: PLC0415 - `--help` is quick

    if only_check:
        check(lambda: check_collector(path), str(path))
    if only_key:
        say(lambda: make_checkpoint_key(path))
    serve(lambda: prepare_collector(path))
