"""The demo, as a newcomer runs it: every claim in it is checked by itself; here its exit code, words and tidiness."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(240)]
SECONDS_MAX = 200
DEMO = "from leasehold_broker.cli.demo import demo; demo()"


def start(tmp_path, code, *arguments, **variables):
    """The demo as a process, with a temporary folder of its own."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def tmp_path():
    """A temporary folder with a path that is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield Path(folder)


def processes_below(folder):
    """Processes whose command line or environment names this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(command)
    return found


def test_the_demo_holds_every_claim(tmp_path):
    """It ends with 0, tells every chapter, uses no key of the environment under --stand-in, and leaves nothing."""
    demo = start(tmp_path, DEMO, "--stand-in", "--no-color", ANTHROPIC_API_KEY="sk-never-used")
    out, _ = demo.communicate(timeout=SECONDS_MAX)

    assert demo.returncode == 0, out
    for number in range(1, 11):
        assert f"\n{number}. " in out
    assert "BUDGET_EXHAUSTED" in out
    assert "2 of 2 acknowledged; complete" in out
    assert "first bad entry" in out
    assert "sk-never-used" not in out
    assert not list(tmp_path.iterdir())
    assert not processes_below(tmp_path)


def test_a_claim_that_does_not_hold_fails_the_demo(tmp_path):
    """When a process refuses to start, the demo says so, shows its last words, and ends with 1."""
    broken = f"from leasehold_broker.demo import files; files.policy = lambda issuer: 'version = 2'; {DEMO}"
    demo = start(tmp_path, broken, "--no-color")
    out, _ = demo.communicate(timeout=SECONDS_MAX)

    assert demo.returncode == 1, out
    assert "refused to start" in out
    assert "must be" in out
    assert not list(tmp_path.iterdir())
    assert not processes_below(tmp_path)


def test_a_stopped_demo_leaves_no_process(tmp_path):
    """A signal in the middle ends every process that the demo started, and removes its folder."""
    demo = start(tmp_path, DEMO, "--no-color")
    deadline = time.monotonic() + 60
    for line in demo.stdout:
        if line.startswith("2. ") or time.monotonic() > deadline:
            break
    demo.send_signal(signal.SIGTERM)
    out = demo.stdout.read()  # not communicate(): it would lose what the loop above has read ahead
    demo.stdout.close()

    assert demo.wait(60) == 130, out
    assert not list(tmp_path.iterdir())
    assert not processes_below(tmp_path)


def test_a_path_too_long_for_sockets_is_said_at_once(tmp_path):
    """A folder that cannot hold the sockets is wrong usage, in words."""
    demo = start(tmp_path, DEMO, "--keep", str(tmp_path / ("x" * 90)))
    out, _ = demo.communicate(timeout=60)

    assert demo.returncode == 2
    assert "too long for Unix sockets" in out
    assert not list(tmp_path.iterdir())
