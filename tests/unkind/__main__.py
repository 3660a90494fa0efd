"""`make unkind`: faults of the machine on real processes, the wide versions, in a world of their own.

    python -m tests.unkind [PART ...] [--pulses 20] [--list]

Owns the order and what each part may take. Where it may (as root, with `unshare`), everything runs in namespaces for
processes, mounts and network: however this ends, by ctrl-C or kill -9, the kernel ends every process in them and
takes away every mount, wire and file, so it can be started again at once. Elsewhere parts that need them are skipped.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path("tests/unkind")
WORLD = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--net")
MEMORY = Path("/dev/shm")
"""A fresh one, of this world alone."""
INSIDE = "--inside"
END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Part:
    """Tests of one kind of fault. `minutes`: what it takes on two idle cores; it is ended after four times that."""

    name: str
    files: tuple[str, ...]
    minutes: int


PARTS = (
    Part("packets", ("filtered_packets", "filtered_servers", "partitioned"), 5),
    Part("stopped", ("stopped_processes", "stopped_servers"), 3),
    Part("disks", ("full_disks", "failing_files"), 4),
    Part("syscalls", ("failing_syscalls",), 25),
    Part("clocks", ("faked_clocks",), 5),
)
MINUTES = sum(part.minutes for part in PARTS)


def main() -> int:
    """Run it; 0 when every part has passed."""
    parser = argparse.ArgumentParser(prog="make unkind", description=f"All parts: {MINUTES} min on two idle cores.")
    names = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all when none is named")
    parser.add_argument("--pulses", type=int, default=20, help="resets in the middle of shipping")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(names):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if not asked.inside and _possible():
        os.execvp(WORLD[0], [*WORLD, sys.executable, "-m", "tests.unkind", INSIDE, *sys.argv[1:]])
    if asked.inside:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "leasehold-unkind", str(MEMORY)], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        os.environ["TMPDIR"] = str(MEMORY)
    else:
        _say("not in a world of its own (root, unshare and ip are needed): some parts are skipped")
    chosen = [part for part in PARTS if not asked.parts or part.name in asked.parts]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(chosen, asked.pulses)
    except KeyboardInterrupt:
        _say("interrupted; nothing is left behind")
        return 130


def _possible() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, (WORLD[0], "ip", "mount"))):
        return False
    return subprocess.run([*WORLD, "true"], check=False, capture_output=True, timeout=60).returncode == 0


def _run(parts: Sequence[Part], pulses: int) -> int:
    began, left, failed = time.monotonic(), sum(part.minutes for part in parts), []
    for number, part in enumerate(parts, 1):
        _say(f"{number} of {len(parts)}, {part.name}: about {part.minutes} min, {left} min to go")
        if not _passed(part, pulses):
            failed.append(part.name)
        left -= part.minutes
    took = (time.monotonic() - began) / 60
    _say(f"{len(parts) - len(failed)} of {len(parts)} parts passed in {took:.0f} min" + _again(failed))
    return 1 if failed else 0


def _again(failed: Sequence[str]) -> str:
    return f"; failed: {', '.join(failed)}. Again: make unkind UNKIND='{' '.join(failed)}'" if failed else ""


def _passed(part: Part, pulses: int) -> bool:
    files = [str(HERE / f"test_{name}.py") for name in part.files]
    options = ["-v", "-rs", "--timeout=600", "-o", "console_output_style=count"]
    told = {**os.environ, "UNKIND_PULSES": str(pulses), "SYSCALLS": "all", "CLOCKS": "all", "FAULTS": "all"}
    with subprocess.Popen([sys.executable, "-m", "pytest", *options, *files], env=told) as tests:
        try:
            return tests.wait(240 * part.minutes) == 0
        except subprocess.TimeoutExpired:
            _say(f"{part.name} has not ended within {4 * part.minutes} min and is ended")
            return False
        finally:
            _end(tests)


def _end(tests: subprocess.Popen[bytes]) -> None:
    """It is given time to end what it started; what it leaves, the kernel ends with this world."""
    if tests.poll() is None:
        tests.send_signal(signal.SIGINT)
        try:
            tests.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            tests.kill()


def _say(what: str) -> None:
    sys.stdout.write(f"unkind: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
