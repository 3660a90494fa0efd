"""How the budgets of a sidecar stand, for operators: leases, and the windows that are running now. Changes nothing."""

from collections.abc import Iterator
from itertools import islice

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.budget_changes import BudgetRow, BudgetRows, changed_caps
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.limits import Level, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.windows import Period, Rolling, window_at
from leasehold_broker.flows.books import Books, lease_account
from leasehold_broker.flows.window_accounts import WINDOW_PREFIX, bucket_end_ms, budget_name, budget_of, running

ROWS_MAX = 2000
LEASES_MAX = 500
"""Of live leases; a lease that is not listed can be changed all the same."""


def limit_of(policy: Policy, budget: str) -> WindowLimit | None:
    """The limit of the policy behind a budget over time; None when the policy in force has none of this name."""
    for one in policy.budgets:
        if budget == budget_name(f"on:{one.on}", one.limit.span_name):
            return one.limit
    for grant in policy.grants:
        for limit in grant.windows:
            whose = f"{limit.level}:{grant.name}|"
            if limit.level is Level.LABEL:
                whose += f"{limit.label}="
            if budget.startswith(whose) and budget.endswith(f"|{limit.span_name}"):
                return limit
    return None


def base_caps(books: Books, policy: Policy, budget: str) -> Amounts | None:
    """The caps of a budget before any change by an operator; None when there is no such budget."""
    lease = books.leases.get(budget)
    if lease is not None:
        return None if lease.ended else lease.caps
    limit = limit_of(policy, budget)
    return None if limit is None else limit.caps


def budget_rows(books: Books, policy: Policy, now: Instant) -> BudgetRows:
    """Every budget, bounded: those over time first."""
    rows = [*_window_rows(books, policy, now)]
    # In a stable order: rows that only changed places would be reported anew.
    live = (name for names in books.live_of_subject.values() for name in sorted(names))
    for name in islice(live, LEASES_MAX):
        rows += _lease_rows(books, books.leases[name], now)
    unlisted = max(0, sum(map(len, books.live_of_subject.values())) - LEASES_MAX)
    return BudgetRows(tuple(rows[:ROWS_MAX]), len(rows) + unlisted)


def _lease_rows(books: Books, lease: Lease, now: Instant) -> Iterator[BudgetRow]:
    account = books.ledger.account(lease_account(lease.name))
    settled, held = (ZERO, ZERO) if account is None else (account.settled, account.held)
    yield from _rows(books, lease.name, lease.caps, settled, held, 0, now, hard=True)


def _window_rows(books: Books, policy: Policy, now: Instant) -> Iterator[BudgetRow]:
    steady = books.steady_ms(now)
    sums: dict[str, tuple[Amounts, Amounts]] = {
        budget_name(f"on:{one.on}", one.limit.span_name): (ZERO, ZERO) for one in policy.budgets
    }
    ends: dict[str, int] = {}
    for account in books.ledger.accounts():
        if account.id.startswith(WINDOW_PREFIX) and running(account.id, now.wall_ms, steady):
            budget = budget_of(account.id)
            settled, held = sums.get(budget, (ZERO, ZERO))
            sums[budget] = (settled.plus(account.settled), held.plus(account.held))
            ends[budget] = max(ends.get(budget, 0), bucket_end_ms(account.id) - steady)
    for budget, (settled, held) in sorted(sums.items()):
        limit = limit_of(policy, budget)
        if limit is None:
            continue
        reset = 0
        if isinstance(limit.span, Rolling):
            reset = now.wall_ms + ends[budget] if budget in ends else 0
        elif limit.span is not Period.TOTAL:
            reset = window_at(limit.span, limit.zone, now.wall_ms).end_ms
        yield from _rows(books, budget, limit.caps_at(now.wall_ms), settled, held, reset, now, hard=limit.hard)


def _rows(
    books: Books, budget: str, base: Amounts, settled: Amounts, held: Amounts, reset: int, now: Instant, *, hard: bool
) -> Iterator[BudgetRow]:
    changes = {one.metric: one for one in books.changes_of(budget) if one.in_force(now.wall_ms)}
    caps = changed_caps(base, changes.values(), now.wall_ms)
    for index, metric in enumerate(METRICS):
        if caps[index] < UNLIMITED or index == 0:
            yield BudgetRow(budget, metric, caps[index], settled[index], held[index], reset, hard, metric in changes)
