"""Many seeds of the ledger's world, one after the other: so many steps, what they met, and which seed failed."""

from collections import Counter

from tests.simulation.ledger_world import LedgerWorld

STEPS_PER_SEED = 400
NEEDED = (
    "none -> held",
    "none -> refused",
    "held -> settled",
    "held -> voided",
    "held -> charged at recovery",
    "held -> never was",
    "settled -> settle again",
    "settled -> void again",
    "voided -> settle again",
    "voided -> void again",
    "cap - 1",
    "cap met exactly",
    "cap + 1 refused",
    "spendable to the last",
    "caps changed",
    "window closed",
    "carved",
    "given back",
    "overrun",
    "crash",
)
"""Every transition of B3, the edges of the caps, and every kind of step: a run that never met one proves less."""


def run_seed(seed: int) -> Counter[str]:
    """One seed, to its healed end.

    Raises:
        AssertionError: with the command that shows it again.
    """
    try:
        return LedgerWorld(seed).run(STEPS_PER_SEED)
    except Exception as failure:
        failure.add_note(f"reproduce: .venv/bin/python -m tests.simulation --seed {seed}")
        raise


def run_seeds(first: int, count: int) -> Counter[str]:
    """Seeds from `first` on."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        seen.update(run_seed(seed))
    return seen


def missing(seen: Counter[str]) -> list[str]:
    """What should have been met and was not."""
    return [name for name in NEEDED if not seen[name]]
