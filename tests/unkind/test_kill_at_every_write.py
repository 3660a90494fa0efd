"""Killed at every write of a call, by system call injection: whatever was the last to reach the disk, the rules hold.

Each run starts from the same prepared state, carries one call of a lease and one of its child, and dies on entering one
write, sync or truncation. What is left is opened, held against what was served, recovered, and looked at again.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.unkind.test_kill9 import ROOT, Found, inspect

SYSCALLS = ("pwrite64", "fdatasync", "write", "ftruncate", "unlink")
EVERY = int(os.environ.get("KILL_EVERY", "4"))
"""Every so many of them; 1: each. The whole is `make crash`."""
STRACE = shutil.which("strace")
pytestmark = [
    pytest.mark.skipif(STRACE is None, reason="strace is not installed"),
    pytest.mark.timeout(1800),
]


def child(directory: Path, served: Path, mode: str, *strace: str) -> int:
    """Run the child, under strace if told; its exit code, -9 when it was killed."""
    command = [sys.executable, "-m", "tests.unkind.kill9_child", str(directory), str(served), mode]
    if strace:
        command = [STRACE or "strace", "-f", "-qq", *strace, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    return done.returncode


def counted(directory: Path, served: Path, log: Path) -> Counter[str]:
    """How often one thread of a child that is not killed makes each of these calls, at most."""
    assert child(directory, served, "one", "-o", str(log), "-e", f"trace={','.join(SYSCALLS)}") == 0
    calls: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found is not None:
            calls[found[1], found[2]] += 1
    most: Counter[str] = Counter()
    for (_, name), count in calls.items():
        most[name] = max(most[name], count)
    return most


def may_trace(folder: Path) -> bool:
    """True where this process may trace its children at all."""
    return subprocess.run([STRACE or "", "-o", str(folder / "probe"), "true"], check=False).returncode == 0


def test_b5_b6_b9_a1_a7_hold_after_a_kill_at_every_write_of_a_call(tmp_path: Path) -> None:
    """At each write: a served call is settled or held, nothing is held after recovery, chain and replay agree."""
    if not may_trace(tmp_path):
        pytest.skip("tracing is not permitted here")
    prepared = tmp_path / "prepared"
    assert child(prepared, tmp_path / "none", "prepare") == 0
    trial = tmp_path / "trial"
    shutil.copytree(prepared, trial)
    totals = counted(trial, tmp_path / "trial-served", tmp_path / "trace")
    assert totals["pwrite64"] > 10
    assert totals["fdatasync"] > 1
    points = [(name, number) for name in SYSCALLS for number in range(1, totals[name] + 1)][::EVERY]
    killed = 0
    for place, (name, number) in enumerate(points):
        directory, served = tmp_path / f"{place}", tmp_path / f"{place}-served"
        shutil.copytree(prepared, directory)
        served.touch()
        inject = ("-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
        killed += child(directory, served, "one", *inject) != 0
        asyncio.run(inspect(directory, served, Found()))
        shutil.rmtree(directory)
    print(f"{killed} kills at {len(points)} of {sum(totals.values())} writes: {dict(totals)}")  # noqa: T201 - shown with -rP
    assert killed >= len(points) * 0.9
