"""The units of deploy/systemd: explained, sound for systemd's own checks, and their commands run as they stand.

Nothing is confined here as systemd would: it does not run in these tests. `systemd-analyze` is skipped with
the reason where it is not installed.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.fakes.collector_file import lay_down

from leasehold_broker.adapters.service_manager import READY, STOPPING

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
COMMAND = "/opt/leasehold/bin/leasehold-broker"
INSTALLED = Path(sys.executable).parent / "leasehold-broker"
EXPOSURE_MAX = 1.8
"""Of 10, as systemd counts: what a unit leaves open."""
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
pytestmark = pytest.mark.timeout(600)
NO_NEW_CODE = """import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])"""
"""As MemoryDenyWriteExecute=yes: PR_SET_MDWE, on kernels that have it (6.3)."""


def directives(unit: Path) -> list[tuple[str, str]]:
    """All of them, in order."""
    lines = [line for line in unit.read_text().splitlines() if line and line[0] not in "#["]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_group_of_lines_is_explained(unit):
    """Between two empty lines or section names, what stands begins with a comment; only what names itself does not."""
    named = {"Description", "WantedBy", "Documentation"}
    before = ""
    unexplained = []
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[" and (not before or before.startswith("[")):
            unexplained.append(line.partition("=")[0])
        before = line
    assert set(unexplained) <= named


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_nothing_of_root_is_left_and_nothing_is_writable_but_its_own(unit):
    """A user of its own, no capability, a read-only system, and no path of the host opened for writing."""
    found = dict(directives(unit))
    assert found["User"] == found["Group"] == unit.stem
    assert (found["CapabilityBoundingSet"], found["NoNewPrivileges"]) == ("", "yes")
    assert (found["ProtectSystem"], found["ProtectHome"], found["UMask"]) == ("strict", "yes", "0077")
    assert not {"ReadWritePaths", "BindPaths", "Environment", "EnvironmentFile"} & set(found)
    assert found["StateDirectory"] == unit.stem
    users = (FOLDER / "leasehold.sysusers").read_text()
    assert re.search(rf"^u {unit.stem} ", users, re.MULTILINE)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_no_fault(unit, tmp_path):
    """`systemd-analyze verify` knows every line, and `security` counts no more exposure than is stated."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(COMMAND, str(INSTALLED)))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False, timeout=120
    )
    ours = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, ours) == (0, [])
    threshold = f"--threshold={round(EXPOSURE_MAX * 10)}"
    asked = ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(copy)]
    judged = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120)
    assert judged.returncode == 0, judged.stdout[-400:]


@needs_systemd
def test_systemd_notices_a_line_that_is_wrong(tmp_path):
    """The check above can fail: a misspelt line and a missing wall are both noticed."""
    text = UNITS[0].read_text().replace(COMMAND, str(INSTALLED))
    wrong = tmp_path / UNITS[0].name
    wrong.write_text(text.replace("ProtectClock", "ProtectClocks"))
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(wrong)], capture_output=True, text=True, check=False, timeout=120
    )
    assert "ProtectClocks" in told.stderr
    wrong.write_text(re.sub("^(Protect|Private|Restrict|System).*", "", text, flags=re.MULTILINE))
    asked = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=18", str(wrong)]
    assert subprocess.run(asked, capture_output=True, check=False, timeout=120).returncode != 0


def test_the_collectors_command_says_when_it_is_ready_and_when_it_stops():
    """ExecStartPre and ExecStart as the unit has them: checked, READY=1 with its door open, STOPPING=1, exit code 0."""
    found = dict(directives(FOLDER / "leasehold-collector.service"))
    assert found["Type"] == "notify"
    with (
        tempfile.TemporaryDirectory(prefix="lh-") as name,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        folder = Path(name)
        manager.bind(f"{folder}/notify")
        manager.settimeout(120)
        lay_down(folder, "collector", folder / "state", folder / "run" / "collector.sock")

        def command(line: str) -> list[str]:
            adapted = line.replace(COMMAND, str(INSTALLED)).replace("/etc/leasehold", name)
            return adapted.split()

        checked = subprocess.run(command(found["ExecStartPre"]), capture_output=True, check=False, timeout=120)
        assert checked.returncode == 0, checked.stderr
        environment = os.environ | {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "300000"}
        confined = [sys.executable, "-c", NO_NEW_CODE, *command(found["ExecStart"])]
        running = subprocess.Popen(confined, env=environment, stderr=subprocess.PIPE)
        try:
            assert manager.recv(100).decode() == READY
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(f"{folder}/run/collector.sock")
            assert [manager.recv(100).decode() for _ in range(2)] == ["WATCHDOG=1"] * 2
            running.send_signal(signal.SIGTERM)
            word = "WATCHDOG=1"
            while word == "WATCHDOG=1":
                word = manager.recv(100).decode()
            assert word == STOPPING
            _, said = running.communicate(timeout=120)
            assert running.returncode == 0, said
        finally:
            running.kill()
            running.wait()
