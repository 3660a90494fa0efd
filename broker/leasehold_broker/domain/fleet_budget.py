"""Fleet budgets: caps over all sidecars of a collector, and what both sides say of the slices of one.

Owns the words. A slice is the part of one budget, metric and window that one life of one sidecar may spend alone; its
**fence** is a number that is never used again. What is said of a slice are running totals, so that a message that
comes twice, late or out of order changes nothing. Refuses to count anything: `escrow` does at the centre, `slice` at
the sidecar.
"""

from dataclasses import dataclass

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, Metric
from leasehold_broker.domain.limits import Budget

FLEET_PREFIX = "fleet:"
FLEET_BUDGETS_MAX = 100
FLEET_ROLLING_SECONDS_MIN = 3600
"""A slice lasts for a sixtieth of what its budget rolls over: a minute at least."""
NO_FENCE = 0
"""Of a budget of which a sidecar has no slice."""
KEEP_ALL = UNLIMITED
"""What a sidecar may keep when nothing is asked back."""


@dataclass(frozen=True, slots=True)
class FleetBudget:
    """One budget over the whole fleet: what it counts, over which span of time, with which caps.

    Args:
        budget: the same words as of one sidecar.
        sidecar_percent_max: of a cap, that one sidecar may be granted in one window, all its lives together. 100: it is
            not limited.
    """

    budget: Budget
    sidecar_percent_max: int = 100

    @property
    def name(self) -> str:
        """As operators name it: "fleet:key:anthropic-prod|month"."""
        return f"{FLEET_PREFIX}{self.budget.on}|{self.budget.limit.span_name}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it caps."""
        return tuple(metric for metric, cap in zip(METRICS, self.budget.limit.caps, strict=True) if cap < UNLIMITED)


@dataclass(frozen=True, slots=True)
class Applies:
    """Which calls a fleet budget counts, as a sidecar is told: the words of `Budget`."""

    level: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class SliceTold:
    """What the centre says of one budget in one metric to one sidecar.

    Args:
        budget, metric: which.
        applies: to which calls.
        fence: of the sidecar's slice; NO_FENCE: it has none, and may spend nothing.
        granted: in all, since the slice was made, in the metric's unit.
        keep: what is not spent and not held above this is to be returned; KEEP_ALL: nothing.
        remaining: of the whole budget, what somebody may still be granted, this sidecar among others.
        seconds: how long this is good for, from when the heartbeat was sent that the message answers.
        reset_wall_ms: when the budget starts anew; 0: never.
    """

    budget: str
    metric: Metric
    applies: Applies
    fence: int
    granted: int
    keep: int
    remaining: int
    seconds: float
    reset_wall_ms: int


@dataclass(frozen=True, slots=True)
class SliceReport:
    """What a sidecar says of one budget in one metric.

    Args:
        budget, metric: which.
        fence: of the slice that the totals are of; NO_FENCE: says what is wanted. Who says nothing is granted nothing.
        granted: the largest total that it was told: more than the centre knows means that the centre lost history.
        returned: in all; final: it will never spend it.
        spent: settled in all; never falls.
        held: by calls in flight.
        want: what it expects to draw soon, beyond what is held.
        need: the worst case of a call that it had to refuse for want of it; 0 for none.
    """

    budget: str
    metric: Metric
    fence: int
    granted: int = 0
    returned: int = 0
    spent: int = 0
    held: int = 0
    want: int = 0
    need: int = 0


@dataclass(frozen=True, slots=True)
class SharedAsk:
    """What a replica of the collector tells the others that one of its sidecars wants of one budget in one metric.

    Args:
        budget, metric: which.
        want, need: as the sidecar said.
        since_wall_ms: when that need arose.
        held: by calls in flight there: not available for another call.
    """

    budget: str
    metric: Metric
    want: int
    need: int
    since_wall_ms: int
    held: int
