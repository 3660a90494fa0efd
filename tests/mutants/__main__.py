"""`make mutants`: plant each bug of the registry, run the suites that must notice, print who did.

Exits with 1 when a bug survives its suites, or when a suite fails without any bug.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.planting import Verdict, judge, plant
from tests.mutants.registry import MUTANTS

SOUND = Mutant("no bug", "-", "domain/ledger.py", "class Ledger:\n", "class Ledger:\n", ())


def judged(mutant: Mutant, suites: tuple[str, ...], *, every: bool) -> list[Verdict]:
    """The suites one after the other: up to the first that fails, or all."""
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        plant(mutant, Path(directory))
        for suite in suites:
            verdicts.append(judge(suite, Path(directory)))
            if verdicts[-1].killed and not every:
                break
    return verdicts


def main() -> int:
    """Judge all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="mutants whose name contains this")
    parser.add_argument("--every", action="store_true", help="run every suite of a mutant, not only up to the first")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    suites = tuple(dict.fromkeys(suite for mutant in chosen for suite in mutant.suites))
    with ThreadPoolExecutor(options.processes) as pool:
        for verdict in pool.map(lambda suite: judged(SOUND, (suite,), every=True)[0], suites):
            if verdict.killed:
                _say(f"{verdict.suite} fails without any bug: {verdict.by}")
                return 1
        _say(f"{len(suites)} suites pass without any bug; {len(chosen)} bugs are planted")
        survivors = 0
        for mutant, verdicts in zip(
            chosen, pool.map(lambda one: judged(one, one.suites, every=options.every), chosen), strict=True
        ):
            killers = [verdict for verdict in verdicts if verdict.killed]
            survivors += not killers
            word = "killed" if killers else "SURVIVED"
            by = "; ".join(f"{Path(one.suite.split('::')[0]).name}::{one.by}" for one in killers)
            _say(f"{word:9}{mutant.breaks:11}{mutant.name:56}{sum(one.seconds for one in verdicts):5.0f} s  {by}")
    _say(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return 1 if survivors else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
