"""A clock of its own for a process: libfaketime moves its wall clock while it runs; what counts intervals stays true.

That is what a machine does whose clock is set: CLOCK_REALTIME jumps, CLOCK_MONOTONIC and CLOCK_BOOTTIME go on. Owns
the file that says how far the clock is off.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PRELOAD = ("LD_PRELOAD", "FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_NO_CACHE")
PROBE = """
import threading, time
real = float(input())
off = time.time() - real
threading.Event().wait(0.01); time.sleep(0.01)
print(off > 3000, abs(time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)) < 3000)
"""


MAIN = """import os, sys
for name in list(os.environ):
    if name.startswith(("LD_", "FAKETIME")):
        del os.environ[name]
sys.argv[0] = "leasehold-broker"
from leasehold_broker.cli import main
main()
"""
"""A process of ours starts itself anew without what is preloaded: so it is started as it would start itself."""


class FakedClock:
    """Of one process."""

    def __init__(self, folder: Path) -> None:
        """In a folder of its own; right at first."""
        self._home = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.set(0)

    def set(self, off_hours: float) -> None:
        """From now on its wall clock is off by so much."""
        new = self._home / "new"
        new.write_text(f"{off_hours * 3600:+.0f}\n")
        new.replace(self._home / ".faketimerc")

    def broker(self, *arguments: str) -> list[str]:
        """`leasehold-broker` with this clock."""
        return self.command("-I", "-X", "leasehold", "-c", MAIN, *arguments)

    def command(self, *arguments: str) -> list[str]:
        """Python with this clock."""
        told = (f"HOME={self._home}", *(f"{name}={value}" for name, value in _preload().items()))
        kept = ("env", "-i", f"PATH={os.environ['PATH']}", *told)
        return [*kept, sys.executable, *arguments]


def _preload() -> dict[str, str]:
    return dict(zip(PRELOAD, (str(library()), "1", "1"), strict=True))


def tidy() -> None:
    """Take away what killed processes left in shared memory: the next one with such a number would not start."""
    for left in Path("/dev/shm").glob("*faketime_*"):
        if not Path("/proc", left.name.rpartition("_")[2]).exists():
            left.unlink(missing_ok=True)


def library() -> Path | None:
    """The library, where its package is installed."""
    spec = find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.rglob("libfaketime.so*"), None)


def why_not(folder: Path) -> str:
    """Why no clock can be faked here; "" when it can."""
    if library() is None:
        return "libfaketime is not installed"
    clock = FakedClock(folder / "clock")
    clock.set(1)
    real = subprocess.run(["date", "+%s"], check=True, capture_output=True, text=True, timeout=60).stdout
    asked = clock.command("-c", PROBE)
    told = subprocess.run(asked, input=real, capture_output=True, text=True, check=False, timeout=60)
    return "" if told.stdout.split() == ["True", "True"] else "libfaketime does not work on this machine"
