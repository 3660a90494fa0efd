"""What `make audit-deps` says of the advisory database's answers."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "requirements" / "advisories.py"


@pytest.fixture
def advisories():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("advisories", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"name": "a", "version": "1", "vulns": []}
FLAWED = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "said", "passes"),
    [
        ([GOOD, GOOD], "x: 2 of 2 looked up", True),
        ([GOOD, FLAWED], "PYSEC-1", False),
        ([GOOD, SKIPPED], "x: 1 of 2 looked up", False),
        ([SKIPPED, SKIPPED], "nothing of 2 was looked up", True),
    ],
)
def test_the_verdict_counts_what_was_looked_up(advisories, found, said, passes):
    """A flaw fails, a set that was looked up in part fails, and where nobody was asked it is said."""
    text, passed = advisories.verdict("x", {"dependencies": found})
    assert said in text
    assert passed is passes


def test_a_release_can_ask_for_the_look_up(advisories):
    """Where it is required, nothing looked up is a failure; what was looked up and is good passes as before."""
    assert not advisories.verdict("x", {"dependencies": [SKIPPED]}, required=True)[1]
    assert advisories.verdict("x", {"dependencies": [GOOD]}, required=True)[1]


def test_every_set_that_runs_is_asked_about(advisories):
    """What a broker runs on, what the demo adds, and what builds and tests it."""
    assert set(advisories.SETS) >= {"runtime.txt", "demo.txt", "dev.txt"}
    assert all((FILE.parent / name).is_file() for name in advisories.SETS)
