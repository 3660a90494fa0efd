"""The slices of fleet budgets that this process may spend: one more level in the tree of a call's budgets.

Owns which slice a call draws on, what is said to the centre of each, and what is given back. Nothing here waits for the
centre: a call that does not fit its slice is refused, and the centre is told by the next message that more is wanted.

Slices live in memory and end with the process: whoever starts from a copy of its disk has none (domain/escrow.py says
why). What was spent of them is in the ledger, durable, and told to the centre by the next life as well.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from leasehold_broker.domain.amounts import METRICS, NO_CAPS, UNLIMITED, ZERO, Amounts, Mask, Metric
from leasehold_broker.domain.fleet_budget import NO_FENCE, SliceReport, SliceTold
from leasehold_broker.domain.ledger import AccountId, Ledger, Leg, Shortfall
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.reasons import Reason, Refusal, Violation
from leasehold_broker.domain.slice import OwnSlice, Pace
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.domain.windows import Period
from leasehold_broker.flows.window_wait import Drawn

SLICE_PREFIX = "slice:"
GRANT_SECONDS = 1.0
"""When the centre is heard, a larger slice takes no longer than this; a caller is told to come back then."""
SILENT_SECONDS = 5.0
"""When the centre is not heard, nobody knows; a caller is told to look again after this."""
REPORT_SECONDS_MIN = 0.1
"""What is pressing is told at most this often, however many calls are refused meanwhile."""
LOW_SECONDS = 1
"""A slice that runs low is told of at most this often."""
OVER_SECONDS = 60.0
"""A slice that is over is told of for so long, and until its last report is answered."""
SILENCE_SHARE = 0.5
"""Of what an answer is good for: not heard for so long, the centre counts as silent."""

Key = tuple[str, Metric]


@dataclass(slots=True)
class _Known:
    """A fleet budget in one metric, as last told, and what this process has of it."""

    told: SliceTold
    budget: Budget
    own: OwnSlice | None = None
    before: int = 0
    """Settled in slices of this process that are over."""
    pace: Pace = field(default_factory=Pace)
    fresh_until_ns: int = 0


@dataclass(slots=True)
class _Over:
    """A slice that nothing is drawn on now. Not `ours`: of an earlier life of this sidecar, never to be spent."""

    own: OwnSlice
    since_ns: int
    ours: bool = True
    answered: SliceReport | None = None


class Slices:
    """All slices of one process. One owner: the event loop's thread."""

    def __init__(self, ledger: Ledger) -> None:
        """None yet; their accounts are in this ledger."""
        self._ledger = ledger
        self._known: dict[Key, _Known] = {}
        self._of_account: dict[AccountId, _Known] = {}
        self._over: dict[int, _Over] = {}
        self._newest: dict[Key, int] = {}
        self._told = True
        self._report_ns = 0
        self._pressing = False
        self.life = ""
        self.draining = False
        """The process is about to stop: nothing is wanted, and everything is given back."""
        self.version = 0
        """Grows when a call may draw on other accounts than before."""
        self.doubtful: Callable[[AccountId], Amounts] = lambda _: ZERO
        """Told by who makes calls: what is free of an account here, and may be charged by this sidecar's next life."""
        self.press: Callable[[], None] = lambda: None
        """Told when something should be said to the centre soon."""

    def __repr__(self) -> str:
        """Counts only."""
        return f"Slices(budgets={len(self._known)}, over={len(self._over)})"

    def recover(self, now: Instant) -> None:
        """Accounts of earlier lives: nothing is drawn on them any more, and the centre is told what was spent."""
        for account in self._ledger.accounts():
            named = _named(account.id)
            if named is not None and named[0] != NO_FENCE:
                fence, budget, metric = named
                self._over[fence] = _Over(OwnSlice(budget, metric, fence, over=True), now.boot_ns, ours=False)

    # What the centre says.

    def take(
        self, told: Sequence[SliceTold], sent: Instant | None, now: Instant, authority_seconds: float = 0.0
    ) -> None:
        """Put in force what the centre says.

        Args:
            told: every fleet budget there is; what is not among them is over.
            sent: when the heartbeat was sent that this answers; None: nothing is good for any time.
            now: the instant.
            authority_seconds: how long the answer is good for, whatever windows end within.
        """
        for key in [key for key in self._known if key not in {(one.budget, one.metric) for one in told}]:
            self._retire(self._known[key], now)
            del self._known[key]
            self.version += 1
        for one in told:
            self._take(one, sent, now, authority_seconds)

    def _take(self, told: SliceTold, sent: Instant | None, now: Instant, authority_seconds: float) -> None:
        key = (told.budget, told.metric)
        known = self._known.get(key)
        if known is None or _budget(told) != known.budget:
            if known is not None:
                self._retire(known, now)
            known = self._known[key] = _Known(told, _budget(told))
            self.version += 1
            self._press()
        known.told = told
        own = known.own
        if own is not None and own.fence != told.fence:
            self._retire(known, now)
            own = None
        if sent is not None:
            # At the end of its window a slice is good for a moment only, and the centre is not silent for that.
            good_seconds = max(told.seconds, authority_seconds)
            known.fresh_until_ns = max(known.fresh_until_ns, sent.after(good_seconds * SILENCE_SHARE))
        if told.fence == NO_FENCE:
            return
        if own is None:
            own = self._begin(known, told)
            if own is None:
                return
        had_ended = now.boot_ns >= own.until_ns
        own.take(told.granted, now.boot_ns if sent is None else sent.after(told.seconds))
        if had_ended:
            self.version += 1  # what was found while it had ended says nothing of when it ends now (E9)
        self._open(known, now)
        if self._give_back(own, told.keep):
            self._open(known, now)
            self._press()

    def _begin(self, known: _Known, told: SliceTold) -> OwnSlice | None:
        """A slice that was not listed before, or not any more; never one of an earlier life.

        Nor one that was forgotten here: what was spent and returned of it is no longer known. The centre lists such a
        one only when its wall clock was set back into a window that was over.
        """
        over = self._over.get(told.fence)
        key = (told.budget, told.metric)
        if over is None and told.fence > self._newest.get(key, NO_FENCE):
            self._newest[key] = told.fence
            known.own = OwnSlice(told.budget, told.metric, told.fence)
        elif over is not None and over.ours:
            del self._over[told.fence]
            over.own.resume()
            known.own = over.own
            known.before -= self._stand_of(known)[0]
        self.version += 1
        return known.own

    def _retire(self, known: _Known, now: Instant) -> None:
        own = known.own
        if own is None:
            return
        known.before += self._stand_of(known)[0]
        known.own = None
        self._of_account.pop(_account_of(own), None)
        own.finish()
        self._over[own.fence] = _Over(own, now.boot_ns)
        self.version += 1
        self._press()

    # What a call draws on.

    def drawn(
        self, provider: str, key: str, environment: str, labels: Mapping[str, str], now: Instant
    ) -> Iterator[Drawn]:
        """The slices that such a call draws on; without one, an account in which nothing fits."""
        for known in self._known.values():
            if known.budget.applies_to(provider, key, environment, labels):
                account = self._open(known, now)
                own = known.own
                yield Drawn(
                    Leg(account, _MASKS[known.told.metric]),
                    known.told.budget,
                    known.told.reset_wall_ms,
                    until_boot_ns=own.until_ns if own is not None and now.boot_ns < own.until_ns else _FOR_EVER,
                )

    def headroom(self, legs: Sequence[Leg]) -> Amounts:
        """What the whole fleet has left, by metric, at these legs: an answer is not cut short for a small slice."""
        room = list(NO_CAPS)
        for leg in legs:
            known = self._of_account.get(leg.account)
            if known is not None:
                index = METRICS.index(known.told.metric)
                room[index] = min(room[index], max(known.told.remaining, self._available(known)))
        return Amounts(*room)

    def refusal(self, shortfall: Shortfall, now: Instant) -> Refusal | None:
        """Why a call did not fit its slice, and when to come back; None when it is no slice that it did not fit.

        From here on the centre is asked for what the call would need.
        """
        known = self._of_account.get(shortfall.account)
        if known is None:
            return None
        told = known.told
        known.pace.refused(now.boot_ns, shortfall.wanted, known.before + sum(self._stand_of(known)))
        if shortfall.wanted <= told.remaining:
            self._press()  # else nobody has it: it is told with the next heartbeat
        violation = Violation(told.budget, f"{shortfall.metric}: {shortfall.remaining} left of this sidecar's part")
        if now.boot_ns >= known.fresh_until_ns:
            return Refusal(
                Reason.CENTRE_UNREACHABLE,
                f"this sidecar's part of the fleet budget {told.budget} is used up ({shortfall.remaining} "
                f"{shortfall.metric} left, this call could need {shortfall.wanted}), and the collector that could "
                "grant more does not answer; try again later",
                retry_after_seconds=SILENT_SECONDS,
                violations=(violation,),
            )
        if shortfall.wanted > told.remaining:
            reset = (told.reset_wall_ms - now.wall_ms) / 1000 if told.reset_wall_ms else None
            return Refusal(
                Reason.BUDGET_EXHAUSTED,
                f"the fleet budget {told.budget} has {told.remaining} {shortfall.metric} left for all sidecars, or in "
                f"this one's share of it, this call could need {shortfall.wanted}; lower the request's output limit or "
                "ask for a larger budget",
                retry_after_seconds=None if reset is None else max(0.001, reset),
                violations=(violation,),
            )
        return Refusal(
            Reason.BUDGET_EXHAUSTED,
            f"this sidecar's part of the fleet budget {told.budget} has {shortfall.remaining} {shortfall.metric} left, "
            f"this call could need {shortfall.wanted}; more has been asked for, try again shortly",
            retry_after_seconds=GRANT_SECONDS,
            violations=(violation,),
        )

    # What the centre is told.

    def due_seconds(self, now: Instant) -> float | None:
        """When something should be said: in so many seconds, 0 for now; None: with the next heartbeat."""
        for known in self._known.values():
            settled, held = self._sample(known, now)
            available = 0 if known.own is None else known.own.available(settled, held)
            if 2 * available < known.pace.want() and now.boot_ns >= self._report_ns + LOW_SECONDS * NANOS:
                self._pressing = True
        if not self._pressing:
            return None
        return max(0.0, REPORT_SECONDS_MIN - (now.boot_ns - self._report_ns) / NANOS)

    def reports(self, now: Instant) -> tuple[SliceReport, ...]:
        """How every slice stands. What is returned by this is never spent, whether or not anybody hears it (E5)."""
        self._pressing = False
        self._report_ns = now.boot_ns
        found: list[SliceReport] = []
        for known in self._known.values():
            settled, held = self._sample(known, now)
            own = known.own
            if own is not None and self.draining:
                self._give_back(own, 0)
                self._open(known, now)
            if not self.draining:
                want = known.pace.want()
                need = known.pace.need(now.boot_ns, known.before + settled + held, known.told.remaining)
                found.append(SliceReport(known.told.budget, known.told.metric, NO_FENCE, want=want, need=need))
            if own is not None:
                found.append(_report(own, settled, held))
        for over in self._over.values():
            self._give_back(over.own, 0)
            found.append(_report(over.own, *self._stand(over.own)))
        self._told = not self.draining
        return tuple(found)

    def answered(self, reports: Sequence[SliceReport]) -> None:
        """The centre has these."""
        self._told = self._told or self.draining
        for one in reports:
            over = self._over.get(one.fence)
            if over is not None:
                over.answered = one

    def forget(self, now: Instant) -> list[AccountId]:
        """Slices that were over for a while, of which the centre knows all: their accounts may be closed."""
        gone = []
        for fence, over in tuple(self._over.items()):
            own = over.own
            account = _account_of(own)
            known = self._ledger.account(account)
            if (
                over.answered == _report(own, *self._stand(own))
                and self.doubtful(account) == ZERO
                and (known is None or known.held == ZERO)
                and now.boot_ns >= over.since_ns + OVER_SECONDS * NANOS
            ):
                del self._over[fence]
                if known is not None:
                    gone.append(account)
        return gone

    def stop(self) -> None:
        """The process is about to end: what it holds would be lost with it, so give everything back."""
        self.draining = True
        self._told = not self._known
        self._press()

    @property
    def holding(self) -> bool:
        """True while something is held that was not returned, or whose return the centre has not answered."""
        return not self._told or any(self._returnable(known) > 0 for known in self._known.values())

    def _press(self) -> None:
        self._pressing = True
        self.press()

    def _open(self, known: _Known, now: Instant) -> AccountId:
        told, own = known.told, known.own
        account = _account(told.budget, told.metric, NO_FENCE if own is None else own.fence)
        cap = 0 if own is None else own.cap(now.boot_ns)
        self._ledger.open_account(account, NO_CAPS._replace(**{told.metric.value: cap}))
        self._of_account[account] = known
        return account

    def _give_back(self, own: OwnSlice, keep: int) -> int:
        return own.give_back(keep + self._doubtful(own), *self._stand(own))

    def _returnable(self, known: _Known) -> int:
        return 0 if known.own is None else self._available(known) - self._doubtful(known.own)

    def _doubtful(self, own: OwnSlice) -> int:
        """What the next life may charge is not given back: the centre must find it in this slice then (E5)."""
        return self.doubtful(_account_of(own))[METRICS.index(own.metric)]

    def _available(self, known: _Known) -> int:
        return 0 if known.own is None else known.own.available(*self._stand_of(known))

    def _stand_of(self, known: _Known) -> tuple[int, int]:
        return (0, 0) if known.own is None else self._stand(known.own)

    def _stand(self, own: OwnSlice) -> tuple[int, int]:
        found = self._ledger.account(_account_of(own))
        if found is None:
            return 0, 0
        index = METRICS.index(own.metric)
        return found.settled[index], found.held[index]

    def _sample(self, known: _Known, now: Instant) -> tuple[int, int]:
        settled, held = self._stand_of(known)
        known.pace.sample(now.boot_ns, known.before + settled, held)
        return settled, held


_FOR_EVER = UNLIMITED
_MASKS: dict[Metric, Mask] = {
    Metric.COST_MICRO_USD: (True, False, False, False, False),
    Metric.INPUT_TOKENS: (False, True, False, False, False),
    Metric.OUTPUT_TOKENS: (False, False, True, False, False),
    Metric.REQUESTS: (False, False, False, True, False),
    Metric.CONCURRENCY: (False, False, False, False, True),
}


def is_slice(account: AccountId) -> bool:
    """True for the account of a slice."""
    return account.startswith(SLICE_PREFIX)


def _account(budget: str, metric: Metric, fence: int) -> AccountId:
    return AccountId(f"{SLICE_PREFIX}{fence}|{budget}|{metric}")


def _account_of(own: OwnSlice) -> AccountId:
    return _account(own.budget, own.metric, own.fence)


def _named(account: AccountId) -> tuple[int, str, Metric] | None:
    if not is_slice(account):
        return None
    fence, _, rest = account.removeprefix(SLICE_PREFIX).partition("|")
    budget, _, metric = rest.rpartition("|")
    return int(fence), budget, Metric(metric)


def _budget(told: SliceTold) -> Budget:
    limit = WindowLimit(Level(told.applies.level), Period.TOTAL, NO_CAPS, label=told.applies.label)
    return Budget(told.applies.value, limit)


def _report(own: OwnSlice, settled: int, held: int) -> SliceReport:
    return SliceReport(own.budget, own.metric, own.fence, own.granted, own.returned, settled, held)
