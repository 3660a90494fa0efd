"""Fleets on a virtual clock: A1 to A8, E1 to E9, R1 to R6 with every fault; a seed is one run, to the bit."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from tests.simulation.fleet.command import NEEDED, missing
from tests.simulation.fleet.run import run_seed
from tests.simulation.fleet.settings import Settings, of_seed

from leasehold_broker.domain.windows import Period, Rolling

SECONDS = float(os.environ.get("FLEET_SECONDS", "40"))
SEEDS = tuple(map(int, os.environ.get("FLEET_SEEDS", "1 2 8").split()))
SHORT = Settings(sidecars=2, fault_seconds=1.0, calls_per_second=2.0, lose=0.02, repeat=0.02, swap=0.02)
FORGETFUL = replace(SHORT, sidecars=3, fault_seconds=0.5, authority_seconds=10.0, forgets=True)
FORGETFUL_SEEDS = (2, 7)
DIGEST = "from tests.simulation.test_fleet import SHORT, run_seed\nprint(run_seed(5, SHORT, seconds=8.0).digest)"


@pytest.mark.parametrize("seed", SEEDS)
def test_a1_to_a8_e1_to_e9_r1_to_r6_hold_after_every_step_and_fleets_heal(seed: int) -> None:
    """Each turn of each process is followed by the checks; at the end all has converged and all books agree."""
    seen = run_seed(seed, seconds=SECONDS).seen
    assert seen["converged"] == seen["log verified offline"] == 1
    assert seen["admitted"]


def test_a_fleet_budget_that_rolls_holds_after_every_step_too() -> None:
    """Buckets of ten seconds, shorter than the authority: slices end and begin all the time, and all are served."""
    seen = run_seed(8, replace(of_seed(8), period=Rolling(600)), seconds=SECONDS / 2).seen
    assert seen["converged"] == 1
    assert seen["granted"] > 40


@pytest.mark.parametrize("seed", FORGETFUL_SEEDS)
def test_r1_to_r6_hold_while_the_centre_forgets_and_numbers_others_the_same(seed: int) -> None:
    """As one that is restored from an older copy: what it lost stays in force where it was, what it issues arrives."""
    seen = run_seed(seed, FORGETFUL, seconds=SECONDS).seen
    assert seen["converged"] == 1
    assert seen["centre forgot revocations"]
    assert seen["revocations set aside"]
    assert seen["admitted"]


def test_a_seed_is_the_same_run_again_in_another_process() -> None:
    """Nothing but the seed decides, not even the order in which sets of that process are walked."""
    found = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, timeout=900, check=True
        )
        found.add(run.stdout.strip())
    assert len(found) == 1, found
    assert len(found.pop()) == 32


def test_a_run_that_met_too_little_says_so() -> None:
    """A sweep that never revoked anything is told apart from one that did."""
    assert missing(Counter(NEEDED)) == []
    assert missing(Counter(NEEDED) - Counter(["stream cut"])) == ["stream cut"]


def test_a_fleet_with_skewed_demand_uses_the_cap_and_asks_nobody_while_it_calls() -> None:
    """Overshoot 0 and at least 95 % of the cap usable, as the issue asks; no message is sent on the path of a call."""
    settings = Settings(
        sidecars=12, cap=60_000, period=Period.TOTAL, fault_seconds=0.0, calls_per_second=12.0, skew=1.0,
        worst_max=300, agents=1,
    )  # fmt: skip
    spent: list[int] = []
    run_seed(1, settings, seconds=30.0, progress=lambda world: spent.append(sum(world.escrow.drawn.values())))
    assert max(spent) <= settings.cap
    assert max(spent) >= settings.cap * 95 // 100
