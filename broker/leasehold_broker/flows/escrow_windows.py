"""The windows of fleet budgets at the centre: which is running, under which cap, with which escrow.

Owns the configured budgets, operators' changes of their caps, and how long a window is remembered. Refuses to decide
who gets what.

A rolling budget is counted in buckets: each is a window of its own, with slices of its own, and may grant what the cap
leaves beside all that was granted and not returned in the buckets that count still. So a slice's unspent part comes
back with its bucket's end, and what was spent of it when its bucket counts no more; a charge that comes late is of the
bucket that its call was admitted in.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from leasehold_broker.domain.amounts import METRICS, UNLIMITED, Metric
from leasehold_broker.domain.budget_changes import BudgetChange, changed_caps
from leasehold_broker.domain.escrow import Escrow, Slice, SliceState
from leasehold_broker.domain.escrow_shares import outlying
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.domain.time import Instant, SteadyTime
from leasehold_broker.domain.windows import ROLLING_SECONDS_MAX, Rolling, Window, window_at
from leasehold_broker.ports.budget_changes import BudgetChangeLog
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice

BUCKETS_MORE = 1
"""A bucket counts so many buckets longer than in a budget of one sidecar: the clocks of replicas are not one, and a
sidecar may act on the last word of a bucket a moment after it."""
OVER_SECONDS_MIN = 86_400
"""A window is remembered for so long after its end, or its own length if that is more: a wall clock that is set
forward and back again finds what was granted, not a fresh budget."""
UNKNOWN_SECONDS = ROLLING_SECONDS_MAX + OVER_SECONDS_MIN
"""The same for a window of a budget that is no longer configured: it may have been one that rolls."""
CHANGES_PAGE = 1000
NO_LIMIT_PERCENT = 100

Key = tuple[str, Metric]


@dataclass(slots=True)
class Running:
    """One budget in one metric and one window.

    Args:
        durable: of each slice what its holder may be told was granted.
        over_ns: boot reading since when its window is over; 0: it is not.
        share, share_left: what one sidecar may be granted, and what is left of that for each that was; None: no limit.
        seen_rights: what was granted when that was looked at.
        outlying: sidecars of which it was told that they have taken much more than others.
    """

    budget: FleetBudget
    metric: Metric
    window: Window
    escrow: Escrow
    durable: dict[int, int] = field(default_factory=dict)
    over_ns: int = 0
    share: int = UNLIMITED
    share_left: dict[str, int] | None = None
    seen_rights: int = 0
    outlying: set[str] = field(default_factory=set)

    def left_for(self, sidecar: str) -> int:
        """What may still be granted to it, as far as its share goes."""
        return UNLIMITED if self.share_left is None else self.share_left.get(sidecar, self.share)

    def granted(self, sidecar: str, amount: int) -> None:
        """So much less is left of its share."""
        if self.share_left is not None:
            self.share_left[sidecar] = self.left_for(sidecar) - amount

    @property
    def key(self) -> Key:
        """Without the window."""
        return self.budget.name, self.metric

    @property
    def rolling(self) -> Rolling | None:
        """Over what it rolls; None for a calendar window."""
        span = self.budget.budget.limit.span
        return span if isinstance(span, Rolling) else None

    def stored(self, fence: int) -> StoredSlice:
        """A slice of it, as it is to be found again."""
        one = self.escrow.slices[fence]
        return StoredSlice(
            self.budget.name,
            self.metric,
            self.window,
            one.fence,
            one.sidecar,
            one.life,
            one.granted,
            one.returned,
            one.reported,
            one.written_off,
            one.state,
        )

    def event(self, kind: EventType, one: Slice, amount: int, now: Instant) -> Event:
        """What has happened to a slice of it."""
        return Event(
            kind,
            now.wall_ms,
            Outcome.ALLOWED,
            details={
                "budget": self.budget.name,
                "metric": self.metric.value,
                "window_start_wall_ms": self.window.start_ms,
                "sidecar": one.sidecar,
                "fence": one.fence,
                "amount": amount,
                "granted": one.granted,
                "returned": one.returned,
                "spent": one.spent,
                "free": self.escrow.free,
            },
        )

    def outlying_event(self, sidecar: str, amount: int, now: Instant) -> Event:
        """This sidecar has taken much more of it than others have."""
        name, metric = self.budget.name, self.metric.value
        details: dict[str, Detail] = {
            "budget": name,
            "metric": metric,
            "sidecar": sidecar,
            "amount": amount,
            "message": f"{sidecar} has taken {amount} {metric} of {name}",
        }
        return Event(EventType.BUDGET_SHARE_OUTLYING, now.wall_ms, Outcome.ALLOWED, details=details)


@dataclass(slots=True)
class Draft:
    """What was decided and is not durable yet: told to nobody, and dropped when it cannot be stored.

    Args:
        changed: slices that are to be stored, by fence.
        events: that tell of it.
    """

    changed: dict[int, Running] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class EscrowWindows:
    """Every window of every fleet budget that is remembered, and how new that is.

    `fence` is the highest that was used, `version` counts the commits, `reads` how often the books were read.
    """

    def __init__(self, budgets: Sequence[FleetBudget], changes: BudgetChangeLog, clock: Clock) -> None:
        """Of these budgets, whose caps operators change there; the clock is for rolling ones."""
        self.budgets = tuple(budgets)
        self.keys = frozenset((budget.name, metric) for budget in budgets for metric in budget.metrics)
        self._by_name = {budget.name: budget for budget in budgets}
        self._changes = changes
        self._clock = clock
        self._steady: SteadyTime | None = None
        self.version = 0
        self.fence = 0
        self.reads = 0
        self._change = 0
        self._changed: dict[str, dict[Metric, BudgetChange]] = {}
        self._windows: dict[tuple[str, Metric, int], Running] = {}
        self._of_fence: dict[int, Running] = {}
        self._stale: list[int] = []

    def __repr__(self) -> str:
        """Counts only."""
        return f"EscrowWindows(budgets={len(self.budgets)}, slices={len(self._of_fence)})"

    def __iter__(self) -> Iterator[Running]:
        """All that are remembered."""
        return iter(tuple(self._windows.values()))

    def restore(self, books: EscrowBooks, wall_ms: int) -> None:
        """Forget what memory says, and take over what is durable."""
        self._windows.clear()
        self._of_fence.clear()
        self._stale.clear()
        self.take(books, wall_ms)

    def take(self, books: EscrowBooks, wall_ms: int) -> None:
        """Take over what is durable, in the place of what is known of it."""
        self._begin_steady(books.slices)
        self.version, self.fence = books.version, books.fence
        self.reads += 1
        for one in books.slices:
            budget = self._by_name.get(one.budget)
            if budget is not None and one.metric in budget.metrics:
                running = self._window(budget, one.metric, one.window, wall_ms)
                running.escrow.restore(_slice(one))
                running.durable[one.fence] = one.granted
                self._of_fence[one.fence] = running
            elif one.window.end_ms and wall_ms > one.window.end_ms + UNKNOWN_SECONDS * 1000:
                self._stale.append(one.fence)
            # Else it is no longer configured: it stays in the store, in case that was a mistake.

    def of_fence(self, fence: int) -> Running | None:
        """The window of a slice; None when it is not remembered."""
        return self._of_fence.get(fence)

    def opened(self, running: Running, fence: int) -> None:
        """A slice was made."""
        self._of_fence[fence] = running

    def running(self, budget: FleetBudget, metric: Metric, wall_ms: int) -> Running:
        """The window that is running."""
        span, zone = budget.budget.limit.span, budget.budget.limit.zone
        if isinstance(span, Rolling):
            start_ms = span.bucket_start_ms(self._steady_ms())
            window = Window(start_ms, start_ms + span.bucket_ms)
        else:
            window = window_at(span, zone, wall_ms)
        return self._window(budget, metric, window, wall_ms)

    def left_ms(self, running: Running, wall_ms: int) -> int:
        """How long until this window is over; negative when it is; only for one that ends."""
        return running.window.end_ms - (self._steady_ms() if running.rolling is not None else wall_ms)

    def whole(self, running: Running) -> Escrow:
        """The budget as operators see it: of a rolling one, all of its buckets that count."""
        if running.rolling is None:
            return running.escrow
        counting = [running, *self._others(running, running.rolling)]
        found = Escrow(running.escrow.cap + sum(one.escrow.rights for one in counting[1:]))
        for one in counting:
            for each in one.escrow.slices.values():
                found.restore(replace(each))
        return found

    def refresh_shares(self, running: Running, wall_ms: int) -> list[tuple[str, int]]:
        """Know what is left for each sidecar; gives those that have taken outlyingly much, with how much, once each."""
        limited = running.budget.sidecar_percent_max < NO_LIMIT_PERCENT
        if not limited and running.escrow.rights == running.seen_rights:
            return []
        running.seen_rights = running.escrow.rights
        rights, cap = self._rights(running), self._full_cap(running, wall_ms)
        if limited:
            running.share = max(0, cap) * running.budget.sidecar_percent_max // NO_LIMIT_PERCENT
            running.share_left = {name: max(0, running.share - right) for name, right in rights.items()}
        found = [(name, rights[name]) for name in outlying(cap, rights) if name not in running.outlying]
        running.outlying.update(name for name, _ in found)
        return found

    def _rights(self, running: Running) -> Counter[str]:
        """What each sidecar takes out of the cap, all its lives together; of a rolling budget in all that counts."""
        counting = [running] if running.rolling is None else [running, *self._others(running, running.rolling)]
        found: Counter[str] = Counter()
        for one in counting:
            for each in one.escrow.slices.values():
                found[each.sidecar] += each.right
        return found

    def _others(self, running: Running, span: Rolling) -> list[Running]:
        """The other buckets of the budget that count now."""
        now_ms = self._steady_ms()
        return [
            one
            for one in self._windows.values()
            if one is not running and one.key == running.key and now_ms < one.window.start_ms + counted_ms(span)
        ]

    def _steady_ms(self) -> int:
        """The time of rolling windows: setting the wall clock changes nothing. It begins behind no known bucket."""
        now = self._clock.now()
        if self._steady is None:
            self._steady = SteadyTime(now)
        return self._steady.ms(now)

    def _begin_steady(self, stored: Sequence[StoredSlice]) -> None:
        rolling = {one.name for one in self.budgets if isinstance(one.budget.limit.span, Rolling)}
        if self._steady is None and rolling:
            newest = max((one.window.start_ms for one in stored if one.budget in rolling), default=0)
            self._steady = SteadyTime(self._clock.now(), newest)

    def all_running(self, wall_ms: int) -> Mapping[Key, Running]:
        """The running window of every budget and metric."""
        return {
            (budget.name, metric): self.running(budget, metric, wall_ms)
            for budget in self.budgets
            for metric in budget.metrics
        }

    def refresh_cap(self, running: Running, wall_ms: int) -> None:
        """Put the cap in force that is right now."""
        running.escrow.cap = self._cap(running, wall_ms)

    def changed(self, budget: str, metric: Metric, wall_ms: int) -> bool:
        """True while an operator's change of this cap is in force."""
        change = self._changed.get(budget, {}).get(metric)
        return change is not None and change.in_force(wall_ms)

    async def read_changes(self) -> None:
        """Take over what operators have changed since.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        while self._change < self._changes.budget_change_number():
            page = await self._changes.budget_changes_after(self._change, CHANGES_PAGE)
            if not page or page[-1].number <= self._change:
                return
            for change in page:
                self._changed.setdefault(change.budget, {})[change.metric] = change
            self._change = page[-1].number

    def forgettable(self, wall_ms: int) -> tuple[list[int], list[Running]]:
        """Slices and windows that were over long ago and of which nothing is out."""
        gone = [
            one
            for one in self
            if self._long_over(one, wall_ms)
            and all(each.state is SliceState.WRITTEN_OFF for each in one.escrow.slices.values())
        ]
        return self._stale + [fence for one in gone for fence in one.escrow.slices], gone

    def forget(self, gone: Sequence[Running]) -> None:
        """They are dropped from the store."""
        self._stale.clear()
        for one in gone:
            del self._windows[one.budget.name, one.metric, one.window.start_ms]
            for fence in one.escrow.slices:
                del self._of_fence[fence]

    def _full_cap(self, running: Running, wall_ms: int) -> int:
        """The cap that is in force, of a rolling budget for all that counts."""
        caps = running.budget.budget.limit.caps_at(wall_ms)
        changes = self._changed.get(running.budget.name, {}).values()
        return changed_caps(caps, changes, wall_ms)[METRICS.index(running.metric)]

    def _cap(self, running: Running, wall_ms: int) -> int:
        cap = self._full_cap(running, wall_ms)
        if running.rolling is not None:
            cap -= sum(one.escrow.rights for one in self._others(running, running.rolling))
        return cap

    def _long_over(self, running: Running, wall_ms: int) -> bool:
        if running.rolling is not None:  # no clock that is set comes back to it
            kept_ms = counted_ms(running.rolling)
        else:
            kept_ms = max(OVER_SECONDS_MIN * 1000, running.window.end_ms - running.window.start_ms)
        return bool(running.window.end_ms) and self.left_ms(running, wall_ms) < -kept_ms

    def _window(self, budget: FleetBudget, metric: Metric, window: Window, wall_ms: int) -> Running:
        which = (budget.name, metric, window.start_ms)
        found = self._windows.get(which)
        if found is None:
            found = self._windows[which] = Running(budget, metric, window, Escrow(0))
            self.refresh_cap(found, wall_ms)
        return found


def counted_ms(span: Rolling) -> int:
    """For how long after the start of its bucket what was granted counts, in a fleet."""
    return span.counted_ms + BUCKETS_MORE * span.bucket_ms


def _slice(one: StoredSlice) -> Slice:
    return Slice(
        fence=one.fence,
        sidecar=one.sidecar,
        life=one.life,
        granted=one.granted,
        returned=one.returned,
        reported=one.reported,
        written_off=one.written_off,
        state=one.state,
    )
