"""leasehold-broker keys audit: what is wrong with keys before anybody complains. For people, and for CI.

Exit codes: 0 nothing found, 1 refused (with the reason), 2 wrong usage, 3 something found.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from leasehold_broker.adapters.cron import next_time
from leasehold_broker.adapters.json_logs import set_up_logging
from leasehold_broker.adapters.key_marks_file import read_marks
from leasehold_broker.adapters.policy_files import load_policy
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.cli.process import read_passphrase
from leasehold_broker.config import SidecarConfig, load_collector, load_sidecar
from leasehold_broker.config.minters import admin_key_of
from leasehold_broker.config.rotations import RotationAt
from leasehold_broker.domain.key_audit import AuditLimits, Finding, Rotated
from leasehold_broker.domain.keys import KeyMark, KeyRecord
from leasehold_broker.domain.policy import Policy
from leasehold_broker.flows.audit_keys import Beside, audit_keys, audit_privileges
from leasehold_broker.wiring.run import REFUSALS_TO_START
from leasehold_broker.wiring.sidecar_keys import SidecarKeys

FOUND = 3
_days = click.IntRange(0, 3650)


@click.command("audit")
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The sidecar's TOML file.")
@click.option("--collector", type=click.Path(path_type=Path), help="The collector's TOML file, where it rotates keys.")
@click.option(
    "--beside",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another sidecar's TOML file, of another environment: its keys are only compared with ours. Repeatable.",
)
@click.option("--max-age-days", default=90, show_default=True, type=_days, help="Older stored keys are old.")
@click.option("--due-days", default=14, show_default=True, type=_days, help="So long before, they are due.")
@click.option("--unused-days", default=30, show_default=True, type=_days, help="Longer without a call: unused.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def audit(
    path: Path,
    collector: Path | None,
    beside: tuple[Path, ...],
    max_age_days: int,
    due_days: int,
    unused_days: int,
    *,
    as_json: bool,
) -> None:
    """List keys that are old, due, unused, over-scoped, shared, exposed, refused, spent, or unreadable.

    Reads every store that the sidecar's configuration names, its policy, and what the sidecar has written down of
    its keys' past. Two keys with the same secret are found by a digest under a random key, also across
    environments that have files of their own (--beside). Asks whether the logins may do more than they need
    ("wide"): Vault and Transit about everything, Google about changing our secrets and about other environments',
    AWS by harmless calls on a name that nobody has and on other environments' secrets, Azure on other
    environments' secrets alone. Exits with 3 when there is any finding.
    """
    try:
        config = load_sidecar(path)
        set_up_logging("warning", "keys audit")  # to standard error: what is printed is for a program, with --json
        policy = load_policy(str(config.policy.path), str(config.policy.cedar_dir or "")).policy
        marks = read_marks(config.state_dir)
        limits = AuditLimits(max_age_days, due_days, unused_days)
        rotations = config.rotations if collector is None else load_collector(collector).rotations
        others = {str(each): load_sidecar(each) for each in beside}
        found = asyncio.run(_audit(config, policy, marks, limits, rotations, others))
    except REFUSALS_TO_START as error:
        raise click.ClickException(str(error)) from None
    if marks is None:
        click.echo(f"no copy of the sidecar's state in {config.state_dir}: uses and exposures are not known", err=True)
    if as_json:
        click.echo(json.dumps([{"finding": each.kind.value, "key": each.key, "why": each.why} for each in found]))
    else:
        for each in found:
            click.echo(f"{each.kind.value:12} {each.key}: {each.why}")
        if not found:
            click.echo("nothing found")
    sys.exit(FOUND if found else 0)


async def _audit(
    config: SidecarConfig,
    policy: Policy,
    marks: list[KeyMark] | None,
    limits: AuditLimits,
    rotations: Sequence[RotationAt],
    beside: Mapping[str, SidecarConfig],
) -> tuple[Finding, ...]:
    clock, entropy = SystemClock(), SystemEntropy()
    async with contextlib.AsyncExitStack() as stack:
        keys = await _opened(config, stack)
        others = [
            Beside(where, (await _opened(other, stack)).ring, _configured(other)) for where, other in beside.items()
        ]
        # Its own, where it runs alone: a collector has logins of its own.
        wide = await audit_privileges(keys.privileged(), {each.key for each in config.rotations})
        found = await audit_keys(
            keys.ring, _configured(config), policy, marks, limits, clock, entropy, _rotated(rotations), others
        )
        return (*wide, *found)


async def _opened(config: SidecarConfig, stack: contextlib.AsyncExitStack) -> SidecarKeys:
    keys = SidecarKeys(config.keys, lambda: read_passphrase(sys.stdin), SystemClock(), SystemEntropy())
    stack.push_async_callback(keys.aclose)
    await keys.start(lambda _: None, lambda _: None)
    return keys


def _configured(config: SidecarConfig) -> Mapping[str, str]:
    """Keys that the file names, and where they are."""
    return {
        key.name: f"the store of environment {store.environment!r}"
        for store in config.keys.stores
        for key in store.keys
    }


def _rotated(rotations: Sequence[RotationAt]) -> Callable[[KeyRecord], Rotated | None]:
    by_name = {each.key: each for each in rotations}

    def rotated(record: KeyRecord) -> Rotated | None:
        at = by_name.get(record.name)
        if at is None:
            return None
        stored_ms = record.created_wall_ms
        due_ms = at.schedule.due_wall_ms(record.name, stored_ms, next_time) if stored_ms else None
        return Rotated(due_ms, admin_key_of(at.at))

    return rotated
