"""How long to wait for a budget. Owns one answer: the earliest moment at which the same call would be admitted.

It holds if nothing else is admitted, no open call ends and the policy stays as it is. Calls that end, and so give back
what they did not use, can only make it earlier.
"""

from leasehold_broker.domain.amounts import ZERO, Amounts
from leasehold_broker.domain.budget_changes import BudgetChange, changed_caps, ends_after
from leasehold_broker.domain.ledger import Account, Ledger, Leg
from leasehold_broker.domain.limits import WindowLimit
from leasehold_broker.domain.values import value
from leasehold_broker.flows.window_accounts import bucket_end_ms

_FOR_EVER = 2**62
_ROUNDS_MAX = 64
"""Times that budgets with raises may push one another back before waiting is no longer advised."""


@value
class Drawn:
    """One budget that applies.

    Args:
        leg: where it is drawn on.
        name: as shown to callers.
        reset_wall_ms: when it starts anew, or a rolling window has given back all that counts now; 0: never.
        limit: of the policy; None for leases.
        caps: of leases, before changes; None: what the account says.
        changes: of operators, that count for it.
        until_wall_ms, until_steady_ms, until_boot_ns: when `leg` or the caps have to be looked up anew.
    """

    leg: Leg
    name: str
    reset_wall_ms: int = 0
    limit: WindowLimit | None = None
    caps: Amounts | None = None
    changes: tuple[BudgetChange, ...] = ()
    until_wall_ms: int = _FOR_EVER
    until_steady_ms: int = _FOR_EVER
    until_boot_ns: int = _FOR_EVER


def wait_ms(ledger: Ledger, drawn: tuple[Drawn, ...], wanted: Amounts, wall_ms: int, steady_ms: int) -> int | None:
    """Milliseconds until `wanted` fits every budget at once, concurrency aside; None when it never will.

    Args:
        ledger: as it is now.
        drawn: the budgets.
        wanted: what the call has to hold.
        wall_ms: now, for calendar windows and raises.
        steady_ms: now, for rolling windows.
    """
    wanted = wanted._replace(concurrency=0)
    ahead = steady_ms - wall_ms
    waits = [_Wait(ledger, budget, wanted.masked(budget.leg.mask), ahead) for budget in drawn]
    at = wall_ms
    for _ in range(_ROUNDS_MAX):
        moments = [wait.next_fit(at) for wait in waits]
        if None in moments:
            return None
        latest = max((moment for moment in moments if moment is not None), default=at)
        if latest == at:
            return at - wall_ms
        at = latest
    return None


class _Wait:
    """What one budget says."""

    def __init__(self, ledger: Ledger, budget: Drawn, wanted: Amounts, ahead_ms: int) -> None:
        account = ledger.account(budget.leg.account)
        self._account = Account(budget.leg.account, wanted) if account is None else account
        self._budget = budget
        self._wanted = wanted
        self._ends: dict[int, Amounts] = {}
        """What a rolling window gives back, by when on the wall clock."""
        pool = self._account.pool
        if pool is not None:
            for member in pool.members.values():
                self._ends[bucket_end_ms(member.id) - ahead_ms] = member.settled.plus(member.held)

    def next_fit(self, at: int) -> int | None:
        """The first moment from `at` on at which the budget has room."""
        limit = self._budget.limit
        moments = {at, *(end for end in self._ends if end > at)}
        if limit is not None:
            moments.update(limit.changes_after(at))
        moments.update(ends_after(self._budget.changes, at))
        if limit is not None and self._account.pool is None and self._budget.reset_wall_ms > at:
            moments.add(self._budget.reset_wall_ms)
        return next((moment for moment in sorted(moments) if self._fits(moment)), None)

    def _fits(self, at: int) -> bool:
        account, limit = self._account.counted, self._budget.limit
        if not account.hard:
            return True
        caps = (self._budget.caps or account.caps) if limit is None else limit.caps_at(at)
        caps = changed_caps(caps, self._budget.changes, at)
        taken = account.settled.plus(account.held)
        if self._account.pool is not None:
            for end, amounts in self._ends.items():
                if end <= at:
                    taken = taken.minus(amounts)
        elif self._budget.reset_wall_ms and at >= self._budget.reset_wall_ms:
            taken = ZERO
        return all(not want or want <= cap - used for want, cap, used in zip(self._wanted, caps, taken, strict=True))
