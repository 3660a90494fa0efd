"""Witnesses of another make: torchwood cosigns what a collector signs, and reads our policy and what was kept."""

import asyncio
import contextlib
import json
import os
import subprocess

from click.testing import CliRunner
from tests.fakes.centre import Centre, Sidecar, eventually

from leasehold.cli.app import leasehold
from leasehold_broker.domain.collector_rules import Role


@contextlib.asynccontextmanager
async def served(outsider, key, name):
    """A witness of this log, a process of its own; gives its URL and key."""
    process = await asyncio.create_subprocess_exec(
        outsider, "witness", key, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


def _published(centre):
    """The size of the newest checkpoint; 0 before the first."""
    return centre.publish.newest.head.size if centre.publish.newest else 0


async def test_torchwood_cosigns_and_reads_what_was_kept(outsider, tmp_path):
    """From nothing, over growth, and after one of two has stayed behind; the policy file is the same for both."""
    kept, policy = tmp_path / "kept", tmp_path / "policy"
    uids = {os.getuid(): frozenset({Role.AUDITOR})}
    async with asyncio.timeout(300), Centre(tmp_path, uids=uids) as centre:
        key = centre.plan.verifier_key_file.read_text().strip()
        async with (
            served(outsider, key, "witness.example/left") as left,
            served(outsider, key, "witness.example/right") as right,
            Sidecar(centre.target) as sidecar,
        ):
            both = {"left": left, "right": right}
            for names in (["left"], ["left", "right"], ["left", "right"]):
                sidecar.emit(300)
                await sidecar.outbox.empty()
                position = centre.store.last_position()
                await eventually(lambda at=position: _published(centre) >= at)
                lines = [f"witness {name} {both[name]['key']} {both[name]['url']}" for name in names]
                policy.write_text("\n".join([f"log {key}", *lines, f"group g all {' '.join(names)}", "quorum g\n"]))
                command = ["audit", "checkpoint", "--keep", kept, "--policy", policy, "--collector", centre.target]
                done = await asyncio.to_thread(CliRunner().invoke, leasehold, [*map(str, command), "--timeout", "60"])
                assert (done.exit_code, done.stderr) == (0, "")
                asked = [outsider, "witnessed", policy, kept]
                told = await asyncio.to_thread(subprocess.run, asked, capture_output=True, text=True, check=False)
                assert (told.returncode, told.stderr) == (0, "")
                assert (
                    f"the checkpoint of {told.stdout.strip()} events is cosigned by {', '.join(names)}" in done.stdout
                )
