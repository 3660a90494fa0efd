"""How a budget stands, as shown to its holder and to operators. Owns the row; the ledger owns the numbers."""

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.values import value


@value
class BudgetUsage:
    """One budget and metric that applies to a lease.

    Args:
        budget: "lease", "parent", "subject/day", "key/month": safe to show.
        metric: what is capped.
        cap, settled, held, remaining: in the metric's unit; remaining is never negative.
        reset_wall_ms: when the window starts anew; 0 when it never does.
    """

    budget: str
    metric: Metric
    cap: int
    settled: int
    held: int
    remaining: int
    reset_wall_ms: int
