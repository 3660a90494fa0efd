"""A whole sidecar under faults, step by step: B1 to B4, B6 to B10, B14, A2, A7, R1 and R2 in random interleavings."""

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.fakes.simulator import Simulator
from tests.fakes.simulator_sqlite import SqliteSimulator

STEPS = int(os.environ.get("SIMULATOR_STEPS", "500"))
SEEDS_PER_GROUP = 10
GROUPS = int(os.environ.get("SIMULATOR_GROUPS", "4"))
QUIESCE_EVERY = 250


SQLITE_STEPS = int(os.environ.get("SIMULATOR_SQLITE_STEPS", "300"))


async def run_seed(simulator: Simulator, steps: int) -> Counter[str]:
    """One seed; its number is in every failure."""
    try:
        await simulator.start()
        for step in range(1, steps + 1):
            await simulator.step()
            if step % QUIESCE_EVERY == 0:
                await simulator.quiesce()
        await simulator.quiesce()
    except AssertionError as failure:
        failure.add_note(f"reproduce with seed {simulator.seed}")
        raise
    return simulator.seen


@pytest.mark.parametrize("group", range(GROUPS))
def test_b1_b3_b9_b10_b14_a7_hold_after_every_step_of_a_sidecar_with_faults(group: int) -> None:
    """Whatever interleaving, cut, crash or failing disk: no cap is passed, nothing leaks, the log tells it all."""
    seen: Counter[str] = Counter()
    started = time.perf_counter()
    for seed in range(group * SEEDS_PER_GROUP, (group + 1) * SEEDS_PER_GROUP):
        seen.update(asyncio.run(run_seed(Simulator(seed), STEPS)))
    steps = STEPS * SEEDS_PER_GROUP
    rate = steps / (time.perf_counter() - started)
    print(f"{steps} steps, {rate:.0f} a second: {dict(sorted(seen.items()))}")  # noqa: T201 - shown with -rP
    for needed in (
        "admitted",
        "cut",
        "crash",
        "cancelled",
        "B10 asked",
        "admit BUDGET_EXHAUSTED",
        "admit STORE_UNAVAILABLE",
        "refused BUDGET_EXHAUSTED",
        "end not_sent",
        "end finished",
        "end unknown",
        "end provider_refused",
        "reload",
        "warned",
        "wall clock set",
        "cap raise",
        "cap lower",
        "cap met exactly",
    ):
        assert seen[needed] > 0, f"this run never met {needed!r}: it proves less than it says"


def test_a7_b6_b7_the_real_store_says_what_the_model_says_after_every_crash(tmp_path: Path) -> None:
    """The same world on SQLite: row for row what a store in memory holds, whatever a killed process left behind."""
    seen: Counter[str] = Counter()
    for seed in range(1000, 1006):
        directory = tmp_path / str(seed)
        directory.mkdir()
        seen.update(asyncio.run(run_seed(SqliteSimulator(seed, directory), SQLITE_STEPS)))
    for needed in ("admitted", "crash", "cut", "end finished", "admit BUDGET_EXHAUSTED", "admit STORE_UNAVAILABLE"):
        assert seen[needed] > 0, f"this run never met {needed!r}"
