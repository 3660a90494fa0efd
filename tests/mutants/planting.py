"""Plants one bug in a copy of the tree and runs the suites that must notice. The tree itself is never touched."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path("broker/leasehold_broker")
SECONDS_MAX = 900
SMALL = {
    "VOLUME_STEPS": "40000",
    "SIMULATOR_GROUPS": "1",
    "SIMULATOR_STEPS": "300",
    "FLEET_SEEDS": "1 7 11 12 17 23",
    "FLEET_SECONDS": "100",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""The volume suites, cut down, and six fleets: a bug that needs a million steps to show would be one in the suites."""


@dataclass(frozen=True)
class Verdict:
    """What one suite said of a planted bug: `killed` when it failed, with its first failing test."""

    suite: str
    killed: bool
    by: str
    seconds: float


def plant(mutant: Mutant, copy: Path) -> None:
    """Copy package and tests, and change them.

    Raises:
        ValueError: the line to change is not there, or not once: the list has to follow the code.
    """
    shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "pyproject.toml", "clients", "deploy", "proto", "README.md"):
        (copy / name).symlink_to(ROOT / name)
    path = copy / PACKAGE / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1:
        message = f"{mutant.name!r}: {mutant.file} has its line {text.count(mutant.before)} times"
        raise ValueError(message)
    path.write_text(text.replace(mutant.before, mutant.after))


def judge(suite: str, copy: Path) -> Verdict:
    """Run one suite on a copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", suite]
    environment = {**os.environ, **SMALL, "PYTHONPATH": f"{copy / 'broker'}{os.pathsep}{copy}"}
    started = time.monotonic()
    try:
        run = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return Verdict(suite, killed=True, by="hangs", seconds=time.monotonic() - started)
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if run.returncode not in {0, 1}:
        message = f"{suite} could not run: {run.stdout[-800:]}{run.stderr[-800:]}"
        raise RuntimeError(message)
    by = failed[0].split("::")[-1].split(" - ")[0][:90] if failed else ""
    return Verdict(suite, run.returncode == 1, by, time.monotonic() - started)
