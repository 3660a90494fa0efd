"""Which budgets a lease draws on. Owns the legs of a hold and the rows in which budgets are shown.

Levels: the lease; its parents for the metrics that are not carved; the windows of its grant, by subject or by label;
the budgets of the policy on its key, provider, environment, labels or everything; and the slices of fleet budgets.
"""

from collections.abc import Iterator
from dataclasses import replace

from leasehold_broker.domain.amounts import ALL_METRICS, METRICS, NO_CAPS, UNLIMITED, Amounts, Mask, Metric
from leasehold_broker.domain.budget_changes import changed_caps, ends_after
from leasehold_broker.domain.budget_usage import BudgetUsage
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.ledger import Account, Leg, Shortfall
from leasehold_broker.domain.limits import Level, WindowLimit, soft_caps
from leasehold_broker.domain.policy import Grant, Policy
from leasehold_broker.domain.reasons import Reason, Refusal, Violation
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.values import value
from leasehold_broker.domain.windows import Period, Rolling, window_at
from leasehold_broker.flows.books import Books, lease_account
from leasehold_broker.flows.slices import is_slice
from leasehold_broker.flows.window_accounts import bucket_account, budget_name, pool_account, window_account
from leasehold_broker.flows.window_wait import Drawn, wait_ms

FOUND_MAX = 20_000
"""Leases whose budgets are remembered."""
ALWAYS_SHOWN = (Metric.COST_MICRO_USD, Metric.REQUESTS)
"""Of the lease itself also without a cap: its holder wants to know what was spent."""
CONCURRENCY_WAIT_SECONDS = 1.0
"""When another call ends is not known: a caller looks again after this."""
_CONCURRENCY_ONLY: Mask = (False, False, False, False, True)
_FOR_EVER = 2**62


@value
class Drawing:
    """All that a call of one lease at one provider draws on, and for how long that stays true.

    Args:
        drawn: every budget that applies.
        legs: theirs, in the same order.
        lower_output: the grant wants the output limit lowered where the worst case does not fit.
    """

    drawn: tuple[Drawn, ...]
    legs: tuple[Leg, ...]
    lower_output: bool
    lease: Lease
    key: str
    policy: Policy
    closings: int
    change: int
    slices: int
    since_wall_ms: int
    until_wall_ms: int
    until_steady_ms: int
    until_boot_ns: int


class Budgets:
    """Finds and opens the accounts that a call of a lease draws on."""

    def __init__(self, books: Books) -> None:
        """Work on these books."""
        self._books = books
        self._found: dict[tuple[str, str], Drawing] = {}

    def drawn_by(self, lease: Lease, scope: Scope, policy: Policy, now: Instant) -> Drawing:
        """Every budget that a call of `lease` within `scope` draws on now; opens those that are new.

        Remembered for the next call of the lease: the answer changes only with the lease, the policy, the end of a
        window or a bucket, or the beginning or end of a raise.

        Raises:
            Refusal: POLICY_DENIED when the policy in force no longer has the lease's grant.
        """
        which = (lease.name, scope.provider)
        found = self._found.get(which)
        if (
            found is None
            or found.lease is not lease
            or found.policy is not policy
            or found.key != scope.key
            or found.closings != self._books.ledger.closings
            or found.change != self._books.caps_version
            or found.slices != self._books.slices.version
            or now.boot_ns >= found.until_boot_ns
            or not found.since_wall_ms <= now.wall_ms < found.until_wall_ms
            or self._books.steady_ms(now) >= found.until_steady_ms
        ):
            found = self._found[which] = self._find(lease, scope, policy, now)
            while len(self._found) > FOUND_MAX:
                del self._found[next(iter(self._found))]
        return found

    def _find(self, lease: Lease, scope: Scope, policy: Policy, now: Instant) -> Drawing:
        grant = policy.grant(lease.grant)
        if grant is None:
            raise Refusal(
                Reason.POLICY_DENIED,
                f"the grant {lease.grant!r} of this lease is no longer in the policy; acquire a new lease",
            )
        labels = lease.subject.labels
        drawn = [*self._tree(lease, now, grant)]
        drawn += [self._window(limit, _holder(grant, limit, lease), now) for limit in grant.windows]
        drawn += [
            self._window(budget.limit, f"on:{budget.on}", now)
            for budget in policy.budgets
            if budget.applies_to(scope.provider, scope.key, lease.subject.environment, labels)
        ]
        drawn += self._books.slices.drawn(scope.provider, scope.key, lease.subject.environment, labels, now)
        return Drawing(
            drawn=tuple(drawn),
            legs=tuple(budget.leg for budget in drawn),
            lower_output=grant.lower_output,
            lease=lease,
            key=scope.key,
            policy=policy,
            closings=self._books.ledger.closings,
            change=self._books.caps_version,
            slices=self._books.slices.version,
            since_wall_ms=now.wall_ms,
            until_wall_ms=min((budget.until_wall_ms for budget in drawn), default=_FOR_EVER),
            until_steady_ms=min((budget.until_steady_ms for budget in drawn), default=_FOR_EVER),
            until_boot_ns=min((budget.until_boot_ns for budget in drawn), default=_FOR_EVER),
        )

    def legs_above(self, lease: Lease, mask: Mask, now: Instant) -> tuple[Leg, ...]:
        """The legs of a budget carved out of `lease`: the lease, and its parents where it is not carved itself."""
        return tuple(
            Leg(drawn.leg.account, masked)
            for drawn in self._tree(lease, now)
            if any(masked := _both(drawn.leg.mask, mask))
        )

    def headroom(self, drawing: Drawing) -> Amounts:
        """What a call may hold at most, by metric: of a fleet budget what all sidecars together have left."""
        room = self._books.ledger.headroom([leg for leg in drawing.legs if not is_slice(leg.account)])
        fleet = self._books.slices.headroom(drawing.legs)
        return Amounts(*map(min, room, fleet))

    def rows(self, lease: Lease, policy: Policy, now: Instant) -> tuple[BudgetUsage, ...]:
        """What applies to the lease, as its holder sees it: each capped budget and metric, and what it spent itself."""
        found: dict[tuple[str, Metric], BudgetUsage] = {}
        for scope in lease.scopes:
            try:
                drawn = self.drawn_by(lease, scope, policy, now).drawn
            except Refusal:
                drawn = tuple(self._tree(lease, now))
            for budget in drawn:
                account = self._books.ledger.account(budget.leg.account)
                if account is not None:
                    for row in _rows_of(budget, account.counted):
                        found[account.id, row.metric] = row
        return tuple(found.values())

    def refusal(self, shortfall: Shortfall, drawn: tuple[Drawn, ...], wanted: Amounts, now: Instant) -> Refusal:
        """The refusal for a budget that did not fit, with when to come back where that helps.

        Args:
            shortfall: what did not fit first.
            drawn: all that would have been drawn on.
            wanted: what would have been drawn.
            now: the instant.
        """
        of_slice = self._books.slices.refusal(shortfall, now)
        if of_slice is not None:
            return of_slice
        drawn = tuple(budget for budget in drawn if not is_slice(budget.leg.account))  # those are granted in a moment
        budget = next(budget for budget in drawn if budget.leg.account == shortfall.account)
        reason = Reason.BUDGET_EXHAUSTED
        wait = wait_ms(self._books.ledger, drawn, wanted, now.wall_ms, self._books.steady_ms(now))
        retry_after = None if wait is None else max(0.001, wait / 1000)
        if shortfall.metric is Metric.CONCURRENCY:
            reason = Reason.CONCURRENCY_EXCEEDED
            retry_after = retry_after and max(CONCURRENCY_WAIT_SECONDS, retry_after)
        elif budget.limit is not None and budget.limit.is_rate:
            reason = Reason.RATE_LIMITED
        message = (
            f"budget {budget.name} has {shortfall.remaining} of {shortfall.cap} {shortfall.metric} left, "
            f"this call could need {shortfall.wanted}; lower the request's output limit or ask for a larger budget"
        )
        violation = Violation(budget.name, f"{shortfall.metric}: {shortfall.remaining} left of {shortfall.cap}")
        return Refusal(reason, message, retry_after_seconds=retry_after, violations=(violation,))

    def _tree(self, lease: Lease, now: Instant, grant: Grant | None = None) -> Iterator[Drawn]:
        ledger = self._books.ledger
        mask = ALL_METRICS
        name = "lease"
        for one in (lease, *self._books.ancestors(lease)):
            if any(mask):
                changes = self._books.changes_of(one.name)
                caps = changed_caps(one.caps, changes, now.wall_ms) if changes else one.caps
                soft = None if grant is None else soft_caps(caps, grant.soft_percent)
                ledger.open_account(lease_account(one.name), caps, soft)
                until = min(ends_after(changes, now.wall_ms), default=_FOR_EVER)
                leg = Leg(lease_account(one.name), mask)
                yield Drawn(leg, name, caps=one.caps, changes=changes, until_wall_ms=until)
            mask = _except(mask, one.carved)
            name = "parent"

    def _window(self, limit: WindowLimit, whose: str, now: Instant) -> Drawn:
        changes = self._books.changes_of(budget_name(whose, limit.span_name))
        caps = limit.caps_at(now.wall_ms)
        if changes:
            caps = changed_caps(caps, changes, now.wall_ms)
        soft = soft_caps(caps, limit.soft_percent)
        edges = (*limit.changes_after(now.wall_ms), *ends_after(changes, now.wall_ms))
        until = min(edges, default=_FOR_EVER)
        if isinstance(limit.span, Rolling):
            drawn = self._bucket(limit, limit.span, whose, caps, soft, until, now)
            return replace(drawn, changes=changes) if changes else drawn
        window = window_at(limit.span, limit.zone, now.wall_ms)
        account = window_account(whose, limit, window)
        self._books.ledger.open_account(account, caps, soft, hard=limit.hard)
        mask = ALL_METRICS
        if limit.span is Period.TOTAL:
            # Nothing but open calls: such an account is empty when none is open, and need not be kept for ever.
            mask = _CONCURRENCY_ONLY if caps[:4] == NO_CAPS[:4] else mask
        else:
            until = min(until, window.end_ms)
        return Drawn(Leg(account, mask), limit.name, window.end_ms, limit, None, changes, until)

    def _bucket(
        self, limit: WindowLimit, rolling: Rolling, whose: str, caps: Amounts, soft: Amounts, until: int, now: Instant
    ) -> Drawn:
        steady = self._books.steady_ms(now)
        start = rolling.bucket_start_ms(steady)
        account = bucket_account(whose, rolling, start)
        pool = pool_account(whose, rolling)
        self._books.ledger.open_bucket(
            pool,
            account,
            lambda: [bucket_account(whose, rolling, one) for one in rolling.live_starts_ms(steady)],
            caps,
            soft,
            hard=limit.hard,
        )
        gone = now.wall_ms + start + rolling.counted_ms - steady
        return Drawn(Leg(account, ALL_METRICS), limit.name, gone, limit, None, (), until, start + rolling.bucket_ms)


def _holder(grant: Grant, limit: WindowLimit, lease: Lease) -> str:
    """Whose account of a grant's window this lease draws on. Subjects without the label share one."""
    if limit.level is Level.LABEL:
        return f"label:{grant.name}|{limit.label}={lease.subject.labels.get(limit.label, '')}"
    return f"subject:{grant.name}|{lease.subject.issuer}|{lease.subject.subject}"


def remaining_micro_usd(books: Books, legs: tuple[Leg, ...]) -> int | None:
    """What all these budgets still pay for, in micro-USD; None when none caps money."""
    left = books.ledger.cost_headroom(legs)
    return None if left >= UNLIMITED else left


def _rows_of(budget: Drawn, account: Account) -> Iterator[BudgetUsage]:
    remaining = account.remaining()
    for index, metric in enumerate(METRICS):
        shown = account.caps[index] < UNLIMITED or (budget.name == "lease" and metric in ALWAYS_SHOWN)
        if shown and budget.leg.mask[index]:
            yield BudgetUsage(
                budget.name,
                metric,
                account.caps[index],
                account.settled[index],
                account.held[index],
                remaining[index],
                budget.reset_wall_ms,
            )


def _except(mask: Mask, carved: Mask) -> Mask:
    first, second, third, fourth, fifth = (on and not off for on, off in zip(mask, carved, strict=True))
    return (first, second, third, fourth, fifth)


def _both(mask: Mask, other: Mask) -> Mask:
    first, second, third, fourth, fifth = (one and two for one, two in zip(mask, other, strict=True))
    return (first, second, third, fourth, fifth)
