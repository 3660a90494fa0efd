"""Vectors of budgeted quantities. Owns the five metrics and their arithmetic, all in integers.

Units: cost in micro-USD; tokens and requests as counts; concurrency as open calls.
"""

from enum import StrEnum
from typing import NamedTuple


class Metric(StrEnum):
    """What a budget caps. The value is the field name in `Amounts` and the name in events."""

    COST_MICRO_USD = "cost_micro_usd"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    REQUESTS = "requests"
    CONCURRENCY = "concurrency"


METRICS = tuple(Metric)
UNLIMITED = 2**62
"""As a cap: no cap. Larger than any sum that can be reached, small enough that sums stay in 64 bits."""
AMOUNT_MAX = 10**15
"""Largest cap that a request or a policy may state (a billion dollars in micro-USD): beyond is a mistake."""


_new = tuple.__new__


class Amounts(NamedTuple):
    """One amount for each metric, in the order of `METRICS`."""

    cost_micro_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    concurrency: int = 0

    # Written out by metric: these run a dozen times for every call, and a loop costs five times as much.

    def plus(self, other: "Amounts") -> "Amounts":
        """Sum by metric."""
        return _new(
            Amounts,
            (self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3], self[4] + other[4]),
        )

    def minus(self, other: "Amounts") -> "Amounts":
        """Difference by metric."""
        return _new(
            Amounts,
            (self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3], self[4] - other[4]),
        )

    def above(self, other: "Amounts") -> "Amounts":
        """By metric what is more than in the other; 0 where nothing is."""
        return Amounts(*(max(0, mine - its) for mine, its in zip(self, other, strict=True)))

    def masked(self, mask: "Mask") -> "Amounts":
        """Zero where the mask is off."""
        if mask is ALL_METRICS:
            return self
        return _new(
            Amounts,
            (
                self[0] if mask[0] else 0,
                self[1] if mask[1] else 0,
                self[2] if mask[2] else 0,
                self[3] if mask[3] else 0,
                self[4] if mask[4] else 0,
            ),
        )

    def fits(self, caps: "Amounts") -> bool:
        """True when no metric is above its cap."""
        return (
            self[0] <= caps[0]
            and self[1] <= caps[1]
            and self[2] <= caps[2]
            and self[3] <= caps[3]
            and self[4] <= caps[4]
        )


Mask = tuple[bool, bool, bool, bool, bool]

ZERO = Amounts()
NO_CAPS = Amounts(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)
ALL_METRICS: Mask = (True, True, True, True, True)
