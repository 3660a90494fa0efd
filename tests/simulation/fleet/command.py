"""The command: one seed, a sweep of seeds, or one large fleet. Prints what decides a run and what it met."""

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from tests.simulation.fleet.run import Outcome, run_seed
from tests.simulation.fleet.settings import Settings, of_seed
from tests.simulation.fleet.world import World

from leasehold_broker.flows.fleet_escrow import GATHER_SECONDS, STEP_SHARE

PROGRESS_SECONDS = 15.0
ROUND_SECONDS = 10e-6
"""What a round of sharing takes a real centre for each sidecar and budget."""
MEDDLED = ("lost", "repeated", "reordered")
NEEDED = (
    "admitted",
    "admitted without the centre",
    "refused: part used up",
    "refused: all used up",
    "refused CENTRE_UNREACHABLE",
    "refused AUDIT_SPOOL_FULL",
    "refused SUBJECT_BLOCKED",
    "granted",
    "returned",
    "written off",
    "asked back",
    "taken over",
    "last unit spent",
    "cap raised",
    "cap lowered",
    "budget added",
    "budget removed",
    "revoked ByLease",
    "revoked BySubject",
    "revoked ByKey",
    "revoked BySidecar",
    "revoked Everything",
    "block lifted",
    "stream cut",
    "connection deafened",
    "banned",
    "readmitted",
    "evicted",
    "sidecar crashed",
    "sidecar dies after a commit",
    "sidecar dies before a commit",
    "sidecar stopped in order",
    "sidecar copied",
    "sidecar restored",
    "centre crashed",
    "centre dies after a commit",
    "centre dies before a commit",
    "older copy of the centre refused",
    "centre forgot revocations",
    "revocations set aside",
    "disk full",
    "disk failed",
    "long outage",
    "partition",
    "partition up only",
    "partition down only",
    "connection reset",
    "message lost in a break",
    *(f"{kind} {way} {how}" for kind in ("sync", "audit") for way in ("up", "down") for how in MEDDLED),
    "clock jumped",
    "consistency proven",
    "tail unknown",
    "converged",
    "log verified offline",
    "books are what the log says",
)
"""What a sweep must have met, or it proves less than it says."""


def missing(seen: Counter[str]) -> list[str]:
    """What should have been met and was not."""
    return [name for name in NEEDED if not seen[name]]


def large(sidecars: int) -> Settings:
    """A fleet of this many sidecars, most of them quiet, with every kind of fault."""
    return Settings(
        sidecars=sidecars,
        cap=40_000 * sidecars,
        requests_cap=200 * sidecars,
        fault_seconds=max(0.1, 60 / sidecars),
        calls_per_second=0.6,
        skew=0.2,
        agents=2,
        lose=0.002,
        repeat=0.005,
        swap=0.002,
        complete_every=max(1000, 20 * sidecars),
        gather_seconds=max(GATHER_SECONDS, STEP_SHARE * ROUND_SECONDS * sidecars),
    )


def main() -> int:
    """Run; 0 when every invariant held and everything was met."""
    parser = argparse.ArgumentParser(prog="make simulate-fleet", description=__doc__)
    parser.add_argument("--seed", type=int, help="this seed and nothing else")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds, from --first-seed (default 100)")
    parser.add_argument("--first-seed", type=int, help="default: a random one, printed")
    parser.add_argument("--sidecars", type=int, default=0, help="one fleet of this many (up to 1000)")
    parser.add_argument("--steps", type=int, default=0, help="turns of the loop under faults, instead of 150 s")
    options = parser.parse_args()
    if options.sidecars or options.seed is not None:
        seed = random.SystemRandom().randrange(2**40) if options.seed is None else options.seed
        settings = large(options.sidecars) if options.sidecars else of_seed(seed)
        _say(f"SEED={seed} {settings}")
        _told(run_seed(seed, settings, steps=options.steps, progress=_progress()))
        return 0
    first = random.SystemRandom().randrange(2**40) if options.first_seed is None else options.first_seed
    _say(f"{options.seeds} seeds from --first-seed {first}")
    return sweep(first, options.seeds, options.steps)


def sweep(first: int, count: int, steps: int) -> int:
    """Many seeds, also after one that failed; 1 when any did, or when they never met what they should."""
    seen: Counter[str] = Counter()
    failed: list[int] = []
    turns, seconds, started, said = 0, 0.0, time.monotonic(), 0.0
    for number, seed in enumerate(range(first, first + count), start=1):
        try:
            outcome = run_seed(seed, steps=steps)
        except Exception as failure:  # noqa: BLE001 - whatever it was, it is told, and the sweep fails for it
            failed.append(seed)
            _say("".join(traceback.format_exception(failure)))
            continue
        seen.update(outcome.seen)
        turns += outcome.steps
        seconds += outcome.seconds
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            _say(f"  {number} of {count} seeds, {turns} steps, {said - started:.0f} s")
    held = f"A1-A8, E1-E9, R1-R6 hold after each step of {count - len(failed)} seeds"
    _say(f"{held}: {turns} steps, {seconds:.0f} s of virtual time, {time.monotonic() - started:.0f} s")
    for name, times in sorted(seen.items()):
        _say(f"  {name:36} {times}")
    if missing(seen):
        _say(f"never met: {', '.join(missing(seen))}")
    if failed:
        _say(f"failed: {', '.join(map(str, failed))}")
    return 1 if failed or missing(seen) else 0


def _progress() -> Callable[[World], None]:
    started = said = time.monotonic()

    def told(world: World) -> None:
        nonlocal said
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            events = len(world.audit.entries)
            _say(
                f"  {world.loop.time():7.1f} s of its time, {world.steps} steps, {events} events in the log, "
                f"{world.seen['admitted']} calls, {said - started:.0f} s{', healing' if world.healed else ''}"
            )

    return told


def _told(outcome: Outcome) -> None:
    for name, times in sorted(outcome.seen.items()):
        _say(f"  {name:36} {times}")
    _say(f"digest {outcome.digest}: {outcome.steps} steps, {outcome.seconds:.0f} s of virtual time, healed")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
