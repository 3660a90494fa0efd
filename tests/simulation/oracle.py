"""A second ledger, written naively: a list of what happened, and sums. Knows nothing of the first but its words.

`Oracle` keeps running sums, so that it can say at each step what must be granted; `recomputed` sums the whole list from
scratch, and is what both are held against.
"""

from collections.abc import Iterable, Sequence

from leasehold_broker.domain.ledger import Leg

COST = 0
METRICS = range(5)
CONCURRENCY = 4
Legs = Sequence[Leg]
Fact = tuple[str, str, Legs, Sequence[int]]
"""("reserve" | "settle" | "void", hold, legs, amounts): the amounts of a settlement are what was charged."""


class Oracle:
    """Caps, and running sums by account."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.caps: dict[str, Sequence[int]] = {}
        self.taken: dict[str, list[int]] = {}
        self.pool_of: dict[str, str] = {}
        """Which accounts count as one: set by the world, which knows the time."""

    def cap(self, account: str) -> Sequence[int]:
        """The caps of an account, or of what it is pooled in."""
        return self.caps[self.pool_of.get(account, account)]

    def counted(self, account: str) -> list[int]:
        """Settled and held of an account, or of all that is pooled with it."""
        pool = self.pool_of.get(account)
        if pool is None:
            return self.taken.get(account) or [0] * 5
        members = [self.taken[one] for one, its in self.pool_of.items() if its == pool and one in self.taken]
        return [sum(column) for column in zip(*members, strict=True)] if members else [0] * 5

    def room(self, legs: Legs) -> int:
        """What the tightest leg still pays for, in money; negative above a lowered cap."""
        left = 2**62
        for leg in legs:
            if leg.mask[COST]:
                left = min(left, self.cap(leg.account)[COST] - self.counted(leg.account)[COST])
        return left

    def fits(self, legs: Legs, amounts: Sequence[int]) -> bool:
        """Whether a hold of these amounts must be granted: no more, no less (B1, B10)."""
        for leg in legs:
            caps, taken = self.cap(leg.account), self.counted(leg.account)
            for index in METRICS:
                if leg.mask[index] and amounts[index] and taken[index] + amounts[index] > caps[index]:
                    return False
        return True

    def add(self, legs: Legs, amounts: Sequence[int], sign: int) -> None:
        """Count amounts at every leg."""
        for leg in legs:
            taken = self.taken.setdefault(leg.account, [0] * 5)
            for index in METRICS:
                if leg.mask[index]:
                    taken[index] += sign * amounts[index]


def recomputed(facts: Iterable[Fact]) -> tuple[dict[str, list[int]], dict[str, list[int]], set[str]]:
    """Settled and held by account, and the open holds, after these facts, each of which is applied twice (B7)."""
    settled: dict[str, list[int]] = {}
    held: dict[str, list[int]] = {}
    open_holds: dict[str, tuple[Legs, Sequence[int]]] = {}
    ended: set[str] = set()
    for kind, hold, legs, amounts in (fact for fact in facts for _ in range(2)):
        if hold in ended:
            continue
        if kind == "reserve":
            open_holds[hold] = (legs, amounts)
            continue
        ended.add(hold)
        del open_holds[hold]
        if kind == "settle":
            for leg in legs:
                sums = settled.setdefault(leg.account, [0] * 5)
                for index in METRICS:
                    sums[index] += amounts[index] if leg.mask[index] and index != CONCURRENCY else 0
    for legs, amounts in open_holds.values():
        for leg in legs:
            sums = held.setdefault(leg.account, [0] * 5)
            for index in METRICS:
                sums[index] += amounts[index] if leg.mask[index] else 0
    return settled, held, set(open_holds)
