"""Our ledger held against what a provider says was used. Owns the comparison; reads neither.

What a provider tells by key is compared by key and day; the rest, which may be its money, by day. Providers count a
call on the UTC day it was made, we on the day it was settled, so calls around midnight may lie a day apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ALL_KEYS = "(all keys)"
INPUT, OUTPUT, BILLED, COST = "input_tokens", "output_tokens", "billed_calls", "cost_micro_usd"
BY_DAY: Final = (COST,)
"""What is compared over all keys."""


@dataclass(slots=True)
class Counted:
    """What one side says of a key and day.

    Args:
        input_tokens, output_tokens: of every kind.
        billed_calls: that cost money.
        cost_micro_usd: money.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    billed_calls: int = 0
    cost_micro_usd: int = 0

    def add(self, input_tokens: int, output_tokens: int, billed_calls: int = 0) -> None:
        """Count more calls."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.billed_calls += billed_calls


Statement = Mapping[tuple[str, str], Counted]
"""By (key, day as YYYY-MM-DD). The key `ALL_KEYS` holds the money of a day."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From when on a difference is drift: both of these must be passed.

    Args:
        permille: of the provider's number.
        tokens, micro_usd, calls: absolute.
    """

    permille: int
    tokens: int
    micro_usd: int
    calls: int = 0

    def floor(self, what: str) -> int:
        """The absolute one of a number."""
        return {COST: self.micro_usd, BILLED: self.calls}.get(what, self.tokens)


@dataclass(frozen=True, slots=True)
class Difference:
    """One number on both sides. `drift`: it is above the threshold; `unseen`: and the provider says more than we do."""

    key: str
    day: str
    what: str
    ours: int
    theirs: int
    drift: bool

    @property
    def unseen(self) -> bool:
        """The provider counted what we did not: worse than the reverse, which is a call charged at its hold."""
        return self.drift and self.theirs > self.ours


def reconcile(
    ours: Statement, theirs: Statement, threshold: Threshold, by_key: tuple[str, ...] = (INPUT, OUTPUT)
) -> list[Difference]:
    """Every number that either side has, by day and key.

    Args:
        ours: what the log says.
        theirs: what the provider says.
        threshold: when a difference is drift.
        by_key: what this provider tells of a key; `BY_DAY` is compared over all keys.
    """
    found: list[Difference] = []
    for key, day in sorted({*ours, *theirs}, key=lambda place: (place[1], place[0])):
        mine, their = ours.get((key, day), Counted()), theirs.get((key, day), Counted())
        for what in BY_DAY if key == ALL_KEYS else by_key:
            one, other = getattr(mine, what), getattr(their, what)
            gap = abs(one - other)
            drift = gap > threshold.floor(what) and gap * 1000 > other * threshold.permille
            found.append(Difference(key, day, what, one, other, drift))
    return found
