"""A million steps of the ledger over a durable log: B1 to B10, B13, B14, A7 in random interleavings with crashes."""

import os

import pytest
from tests.simulation.volume import STEPS_PER_SEED, missing, run_seeds

STEPS = int(os.environ.get("VOLUME_STEPS", str(10**6)))
GROUPS = 4


@pytest.mark.parametrize("group", range(GROUPS))
def test_b1_to_b10_b13_b14_a7_hold_over_a_million_steps_of_the_ledger(group: int) -> None:
    """Each answer is the oracle's; each sum is the list's; every edge and transition was met."""
    seeds = STEPS // STEPS_PER_SEED // GROUPS
    seen = run_seeds(group * seeds, seeds)
    assert missing(seen) == [], "this run proves less than it says"
