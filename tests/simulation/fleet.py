"""`make simulate-fleet`: a collector and its sidecars on a virtual clock, seed after seed, with what was met.

Prints the first seed; the same one runs the same events. A failing seed ends the run and names its own command.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

from tests.simulation.fleet_world import NEEDED, FleetWorld, Settings

SECONDS = 150.0


def run_seed(seed: int, seconds: float = SECONDS, settings: Settings | None = None) -> FleetWorld:
    """One seed, to its healed end.

    Raises:
        AssertionError: with the command that shows it again.
    """
    world = FleetWorld(seed, settings or of_seed(seed))

    async def run() -> None:
        await world.begin()
        await world.run(seconds)
        await world.heal()

    try:
        asyncio.run(run())
    except Exception as failure:
        failure.add_note(f"reproduce: .venv/bin/python -m tests.simulation.fleet --seed {seed}")
        raise
    return world


def of_seed(seed: int) -> Settings:
    """The kind of fleet that this seed is."""
    chance = random.Random(f"settings {seed}")
    return Settings(
        sidecars=chance.choice([2, 3, 5, 8]),
        cap=chance.choice([4_000, 20_000, 60_000, 400_000]),
        fault_seconds=chance.choice([0.0, 0.4, 1.5, 1.5, 4.0, 4.0]),
        calls_per_second=chance.choice([2.0, 6.0]),
        skew=chance.choice([0.0, 1.0, 2.0]),
        worst_max=chance.choice([60, 400, 1200]),
    )


def missing(seen: Counter[str]) -> list[str]:
    """What should have been met and was not."""
    return [name for name in NEEDED if not seen[name]]


def main() -> int:
    """Run; 0 when every seed holds and everything was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.fleet", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, help="default: a random one, printed")
    parser.add_argument("--seed", type=int, help="run this one seed and nothing else")
    parser.add_argument("--large", action="store_true", help="one fleet of 1000 sidecars, for two minutes of its time")
    options = parser.parse_args()
    if options.large:
        settings = Settings(
            sidecars=1000, cap=40_000_000, fault_seconds=0.05, calls_per_second=0.3, skew=0.1, check_every=5000
        )
        seen = run_seed(options.seed or 1, 120.0, settings).seen
        _say(f"1000 sidecars hold: {dict(sorted(seen.items()))}")
        return 0
    if options.seed is not None:
        _say(f"seed {options.seed} holds: {dict(sorted(run_seed(options.seed).seen.items()))}")
        return 0
    first = random.SystemRandom().randrange(2**40) if options.first_seed is None else options.first_seed
    _say(f"{options.seeds} seeds from --first-seed {first}")
    seen: Counter[str] = Counter()
    started = time.monotonic()
    for seed in range(first, first + options.seeds):
        seen.update(run_seed(seed).seen)
    _say(f"{options.seeds} fleets, {time.monotonic() - started:.0f} s")
    for name, count in sorted(seen.items()):
        _say(f"  {name:32} {count}")
    if missing(seen):
        _say(f"never met: {', '.join(missing(seen))}")
        return 1
    _say("every event, every seed and every end holds")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
