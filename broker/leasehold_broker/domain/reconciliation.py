"""Our ledger held against what a provider says was used. Owns the comparison; reads neither.

Tokens are compared by key and day, money by day: no provider tells money by key. Providers count a call on the UTC day
it was made, we on the day it was settled, so calls around midnight may lie a day apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ALL_KEYS = "(all keys)"


@dataclass(slots=True)
class Counted:
    """What one side says of a key and day. Money None: not told."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro_usd: int | None = None

    def add(self, input_tokens: int, output_tokens: int) -> None:
        """Count more tokens."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens


Statement = Mapping[tuple[str, str], Counted]
"""By (key, day as YYYY-MM-DD). The key `ALL_KEYS` holds the money of a day."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """From when on a difference is drift: both of these must be passed.

    Args:
        permille: of the provider's number.
        tokens: absolute.
        micro_usd: absolute.
    """

    permille: int
    tokens: int
    micro_usd: int


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


def reconcile(ours: Statement, theirs: Statement, threshold: Threshold) -> list[Difference]:
    """Every number that either side has, by day and key."""
    found: list[Difference] = []
    for key, day in sorted({*ours, *theirs}, key=lambda place: (place[1], place[0])):
        mine, their = ours.get((key, day), Counted()), theirs.get((key, day), Counted())
        if key == ALL_KEYS:
            pairs = [("cost_micro_usd", mine.cost_micro_usd or 0, their.cost_micro_usd or 0, threshold.micro_usd)]
        else:
            pairs = [
                ("input_tokens", mine.input_tokens, their.input_tokens, threshold.tokens),
                ("output_tokens", mine.output_tokens, their.output_tokens, threshold.tokens),
            ]
        for what, one, other, floor in pairs:
            gap = abs(one - other)
            found.append(
                Difference(key, day, what, one, other, gap > floor and gap * 1000 > other * threshold.permille)
            )
    return found
