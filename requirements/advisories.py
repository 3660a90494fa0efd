"""Asks the advisory database about each pinned set: `python requirements/advisories.py`; `make audit-deps` runs it.

Owns the honest count: what was looked up, what was not, and what has a known flaw. Exits with 1 when there is a flaw,
or when some requirements were looked up and others were not. Where no database can be reached nothing was looked up:
that is said, and is no failure, because the floors kept by hand hold without a network; with ADVISORIES=required in the
environment, as for a release, it is one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SETS = ("runtime.txt", "stores.txt", "demo.txt", "dev.txt", "servers.txt")


def verdict(name: str, report: dict[str, list[dict[str, object]]], *, required: bool = False) -> tuple[str, bool]:
    """What is said of one set, and whether it passes.

    Args:
        name: of the set.
        report: the JSON that pip-audit prints: `dependencies`, each with `vulns`, or with a `skip_reason`.
        required: a set of which nothing was looked up does not pass.
    """
    found = report["dependencies"]
    asked = [one for one in found if "skip_reason" not in one]
    if not asked:
        return f"{name}: no advisory database was reached; nothing of {len(found)} was looked up", not required
    lines = [f"{name}: {len(asked)} of {len(found)} looked up"]
    flawed = [one for one in asked if one["vulns"]]
    lines += [f"  {one['name']} {one['version']}: {json.dumps(one['vulns'])[:400]}" for one in flawed]
    return "\n".join(lines), not flawed and len(asked) == len(found)


def main() -> int:
    """Ask about every set."""
    passed, required = True, os.environ.get("ADVISORIES") == "required"
    for name in SETS:
        command = [
            *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
            *("--disable-pip", "--no-deps", "-r", str(FOLDER / name)),
        ]
        answer = subprocess.run(command, capture_output=True, check=False, timeout=600)  # noqa: S603 - this program and this folder's files
        try:
            said, passes = verdict(name, json.loads(answer.stdout), required=required)
        except ValueError:
            said, passes = f"{name}: no advisory database was reached; nothing was looked up", not required
        sys.stdout.write(said + "\n")
        passed = passed and passes
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
