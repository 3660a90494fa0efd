"""The search after the suite finds a planted key wherever a test left it, and says so with a failing exit code."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.fakes.planted import on_purpose
from tests.planted_search import _contents, hits_below

ROOT = Path(__file__).resolve().parents[2]
HOOKS = "from tests.planted_search import pytest_configure\n"
LEAVES = """
import base64, logging, pathlib, sqlite3, subprocess, sys, tempfile
import pytest
from tests.fakes.planted import MARKER, on_purpose, planted

KEY = planted("left")

def test_clean(tmp_path):
    (tmp_path / "file").write_text("nothing of it")
    on_purpose(tmp_path / "input").write_text(KEY)
    folder = on_purpose(tmp_path / "inputs")
    folder.mkdir()
    (folder / "file").write_text(KEY)
"""
WAYS = {
    "as it is": '(tmp_path / "deep").mkdir(); (tmp_path / "deep" / "state.db").write_bytes(b"x" * 100 + KEY.encode())',
    "in base64": '(tmp_path / "file").write_bytes(base64.b64encode(b"ab" + KEY.encode()))',
    "in hexadecimal": '(tmp_path / "file").write_text(KEY.encode().hex())',
    "over a chunk": '(tmp_path / "file").write_bytes(b"x" * ((8 << 20) - 9) + KEY.encode())',
    "in a name": "(tmp_path / KEY).touch()",
    "of the stand-in": '(tmp_path / "file").write_text("sk-stand-in-openai-0123abcd")',
    "in a write-ahead log": """log = sqlite3.connect(tmp_path / "a.db"); log.execute("PRAGMA journal_mode=WAL")
    log.execute("CREATE TABLE a (b)"); log.execute("INSERT INTO a VALUES (?)", (KEY,)); log.commit()
    (tmp_path / "copy").write_bytes((tmp_path / "a.db-wal").read_bytes()); log.close()
    (tmp_path / "a.db").unlink()""",
    "in a folder that is removed": """with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name, "file").write_text(KEY)""",
    "in output": "print(KEY)",
    "in a log at debug level": 'logging.getLogger("any").debug("with %s", KEY)',
    "in output of a process": 'subprocess.run([sys.executable, "-c", f"print({KEY!r})"], check=True)',
}


def run(folder, *options):
    """A suite of its own with these hooks, in a folder that our own search leaves out."""
    base = on_purpose(folder / "base")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-c", str(folder / "pytest.ini")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    command += ["--basetemp", str(base), "-p", "no:cacheprovider", *options, str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=folder
    )


@pytest.fixture
def suite():
    """A folder for a suite, left out of our own search."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        folder = on_purpose(Path(name))
        (folder / "conftest.py").write_text(HOOKS)
        (folder / "pytest.ini").write_text("[pytest]\nlog_level = DEBUG\n")
        yield folder


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "with workers"])
def test_each_way_of_leaving_a_key_fails_the_run(suite, workers):
    """Every one of them is found, by its test, and nothing else; the tests themselves pass."""
    tests = [f"def test_{number}(tmp_path):\n    {way}\n" for number, way in enumerate(WAYS.values())]
    (suite / "test_leaves.py").write_text(LEAVES + "\n".join(tests))
    done = run(suite, *workers)
    assert done.returncode == 1, done.stdout
    at_once = list(WAYS).index("in a folder that is removed")
    assert f"1 failed, {len(WAYS)} passed" in done.stdout
    assert f"FAILED test_leaves.py::test_{at_once}" in done.stdout
    said = done.stdout.partition("planted keys found")[2]
    missed = [way for number, way in enumerate(WAYS) if f"test_{number}" not in said]
    assert missed == []
    assert "test_clean" not in said


def test_what_goes_meanwhile_is_no_fault(tmp_path):
    """A file or a folder that another process removes while it is looked for; and what is closed is opened."""
    closed = on_purpose(tmp_path / "closed")
    closed.mkdir()
    (closed / "file").write_text("nothing")
    (closed / "file").chmod(0)
    closed.chmod(0)
    assert hits_below(closed) == []
    assert hits_below(tmp_path / "gone") == []
    assert list(_contents(closed / "file")) == [b"nothing"]


def test_a_clean_run_passes(suite):
    """With what an operator put there left out; the key itself is never said."""
    (suite / "test_clean.py").write_text(LEAVES)
    done = run(suite)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout
    assert "planted keys found" not in done.stdout
