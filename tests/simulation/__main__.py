"""`make simulate`: the ledger's world for as many steps as asked, on every core, with the rate and what was met.

Prints the first seed; the same one runs the same steps. A failing seed ends the run and names its own command.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from tests.simulation.volume import STEPS_PER_SEED, missing, run_seed, run_seeds

SEEDS_PER_JOB = 500


def main() -> int:
    """Run; 0 when every seed holds and everything was met."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=10**8, help="how many, about; default 10^8")
    parser.add_argument("--first-seed", type=int, help="default: a random one, printed")
    parser.add_argument("--seed", type=int, help="run this one seed and nothing else")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.seed is not None:
        _say(f"seed {options.seed}: {STEPS_PER_SEED} steps hold: {dict(sorted(run_seed(options.seed).items()))}")
        return 0
    first = random.SystemRandom().randrange(2**40) if options.first_seed is None else options.first_seed
    jobs = max(1, options.steps // (STEPS_PER_SEED * SEEDS_PER_JOB))
    _say(f"{jobs * SEEDS_PER_JOB} seeds of {STEPS_PER_SEED} steps from --first-seed {first}")
    seen: Counter[str] = Counter()
    started, done, said = time.monotonic(), 0, 0.0
    with ProcessPoolExecutor(options.processes) as pool:
        numbers = iter(range(jobs))
        waiting = [pool.submit(run_seeds, first + n * SEEDS_PER_JOB, SEEDS_PER_JOB) for n in islice(numbers, 8)]
        while waiting:
            seen.update(waiting.pop(0).result())
            waiting += [pool.submit(run_seeds, first + n * SEEDS_PER_JOB, SEEDS_PER_JOB) for n in islice(numbers, 1)]
            done += SEEDS_PER_JOB * STEPS_PER_SEED
            seconds = time.monotonic() - started
            if seconds - said > 30 or not waiting:
                said = seconds
                _say(f"{done} steps in {seconds:.0f} s, {done / seconds:.0f} a second")
    for name, count in sorted(seen.items()):
        _say(f"  {name:30} {count}")
    if missing(seen):
        _say(f"never met: {', '.join(missing(seen))}")
        return 1
    _say("every step, every seed and every end holds")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
