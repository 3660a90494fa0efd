"""The list of planted bugs follows the code, and a bug that nobody notices is told."""

from pathlib import Path

import pytest
from tests.mutants.mutant import Mutant
from tests.mutants.planting import PACKAGE, ROOT, judge, plant
from tests.mutants.registry import EDGES, MUTANTS

INVARIANTS = [f"A{n}" for n in range(1, 9)] + [f"E{n}" for n in range(1, 10)] + [f"R{n}" for n in range(1, 7)]
SAMPLE = (
    "audit: a life is shipped while the life before is under way",
    "fleet: what was spent falls with an older report",
    "audit: a proof of consistency leaves its last node out",
)
"""Of those of the fleet, some that a quick suite notices; `make mutants` plants all."""

BUGS_MIN = 20
BEFORE = "self._holds: dict[HoldId, Hold] = {}"


def test_every_planted_bug_still_applies_and_differs() -> None:
    """Each line to change is there, once; each change is one; each names suites that exist."""
    assert len(MUTANTS) >= BUGS_MIN
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        text = (ROOT / PACKAGE / mutant.file).read_text()
        assert text.count(mutant.before) == 1, f"{mutant.name}: follow the code"
        assert mutant.before != mutant.after
        compile(text.replace(mutant.before, mutant.after), mutant.file, "exec")
        for suite in mutant.suites:
            assert (ROOT / suite.split("::")[0]).is_file()


@pytest.mark.parametrize(
    ("after", "killed"),
    [(f"{BEFORE}  # the same", False), (f"{BEFORE}\n        raise RuntimeError", True)],
)
def test_a_bug_is_noticed_and_none_is_not(tmp_path: Path, after: str, killed: bool) -> None:
    """The copy is what runs: a change without an effect survives, one with an effect is killed."""
    plant(Mutant("a trial", "-", "domain/ledger.py", BEFORE, after, (EDGES,)), tmp_path)
    assert judge(EDGES, tmp_path).killed is killed


@pytest.mark.parametrize("invariant", INVARIANTS)
def test_each_invariant_of_the_fleet_has_two_bugs_that_break_it(invariant: str) -> None:
    """A check that no planted bug would fail is not known to check anything."""
    assert len([mutant for mutant in MUTANTS if invariant in mutant.breaks.split(", ")]) >= 2


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_is_killed(tmp_path: Path, name: str) -> None:
    """Planted, and noticed by the quickest of its suites."""
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    plant(mutant, tmp_path)
    assert judge(next(suite for suite in mutant.suites if "simulation" not in suite), tmp_path).killed
