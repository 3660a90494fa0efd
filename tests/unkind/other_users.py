"""Programs run as other users of the node, by an interpreter that they all may run. Needs root."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

BROKER, AGENT, OTHER, GROUP = 61001, 61002, 61003, 61009
ROOT = Path(__file__).parents[2]


def as_user(uid, *groups):
    """Settings of a process of this user, without any other right."""
    return {
        "user": uid,
        "group": uid,
        "extra_groups": list(groups),
        "cwd": "/",
        "env": {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": "/",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    }


def usable(python):
    """True when another user can run this interpreter with this checkout's code."""
    command = [python, "-c", "import leasehold_broker, leasehold, anthropic, tests.fakes.secret_scan"]
    try:
        return subprocess.run(command, **as_user(OTHER), capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


@cache
def interpreter():
    """This environment's interpreter; where other users may not enter its folder, one built on the system's; or ""."""
    if os.geteuid() != 0:
        return ""
    if usable(sys.executable):
        return sys.executable
    system = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not system.exists():
        return ""
    folder = Path(tempfile.mkdtemp(prefix="leasehold-venv-"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o755)
    subprocess.run([system, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    installed = (entry for entry in sys.path if entry.endswith("-packages"))
    ours = [*installed, str(ROOT / "broker"), str(ROOT / "clients/python/src")]
    next(folder.glob("lib/python3*/site-packages")).joinpath("ours.pth").write_text("\n".join(ours) + "\n")
    built = str(folder / "bin/python")
    return built if usable(built) else ""


def run_as(uid, program, *arguments, groups=()):
    """A program's output, run by this user."""
    done = subprocess.run(
        [interpreter(), "-c", program, *arguments],
        **as_user(uid, *groups),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
