"""The ledger: reserve, settle, void over budgets, in integers. Owns invariants B1-B5, B7-B10 of the design notes.

A hold reserves the worst case at every budget that applies, in one atomic step: all or nothing. It ends exactly once,
by `settle` (replaced by the real amounts) or `void` (nothing was sent). A second ending returns the first result.

Accounts may count towards a pool, which is capped as a whole: the buckets of a rolling window. A settlement that goes
above an account's soft caps says so, once; nothing is refused for it.

Refuses to know leases, providers, prices, time or disks. Callers make the resulting facts durable before acting on
them; `holds` and `accounts` are what has to be stored, and `restore_*` puts them back.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NewType

from leasehold_broker.domain.amounts import METRICS, NO_CAPS, UNLIMITED, ZERO, Amounts, Mask, Metric
from leasehold_broker.domain.values import value

AccountId = NewType("AccountId", str)
HoldId = NewType("HoldId", str)

_CLOSED_HOLDS_MAX = 65_536
"""How many ended holds are remembered for idempotent second endings."""


@value
class Leg:
    """One budget that a hold draws on, for the metrics whose mask is on."""

    account: AccountId
    mask: Mask


@value
class Hold:
    """A reserved worst case, open until settled or voided."""

    id: HoldId
    legs: tuple[Leg, ...]
    amounts: Amounts


@dataclass(slots=True)
class Account:
    """One budget. No reserve takes `settled + held` above `caps` in any metric (B1).

    It may stand above them after a settlement with overage, or after its caps were lowered: then nothing new fits.

    Args:
        soft: what may be settled without a warning.
        hard: False: the caps are shown, and refuse nothing.
        pool: what this account counts towards, whose caps count instead of its own.
    """

    id: AccountId
    caps: Amounts
    settled: Amounts = ZERO
    held: Amounts = ZERO
    overage: Amounts = ZERO
    soft: Amounts = NO_CAPS
    hard: bool = True
    pool: "Pool | None" = None

    @property
    def counted(self) -> "Account":
        """What is compared with the caps: the pool's total, or the account itself."""
        return self if self.pool is None else self.pool.total

    def remaining(self) -> Amounts:
        """What a new hold may still take, by metric; never below zero."""
        cost, tokens_in, tokens_out, requests, calls = self.caps.minus(self.settled).minus(self.held)
        return Amounts(max(0, cost), max(0, tokens_in), max(0, tokens_out), max(0, requests), max(0, calls))


@dataclass(slots=True)
class Pool:
    """Accounts that are capped as a whole.

    Args:
        total: the sum of the members, with the caps.
        newest: the member that new holds draw on.
        members: all that count now.
        warned: metrics that were warned of, and the newest member then: not again while that one counts.
    """

    total: Account
    newest: AccountId
    members: dict[AccountId, Account] = field(default_factory=dict)
    warned: dict[Metric, AccountId] = field(default_factory=dict)

    def join(self, account: Account) -> None:
        """Count this account."""
        self.members[account.id] = account
        account.pool = self
        self.total.settled = self.total.settled.plus(account.settled)
        self.total.held = self.total.held.plus(account.held)

    def leave(self, account: Account) -> None:
        """Count it no longer."""
        del self.members[account.id]
        account.pool = None
        self.total.settled = self.total.settled.minus(account.settled)
        self.total.held = self.total.held.minus(account.held)
        for metric in [metric for metric, newest in self.warned.items() if newest == account.id]:
            del self.warned[metric]


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why a reserve was refused: the first budget and metric that did not fit."""

    account: AccountId
    metric: Metric
    cap: int
    remaining: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """A settlement took an account, or a pool's total, above its soft cap."""

    account: AccountId
    metric: Metric
    cap: int
    settled: int
    held: int


@value
class Settlement:
    """How a hold ended. `overage` is what was charged beyond the hold: must be zero for a truthful provider (B4)."""

    hold: HoldId
    charged: Amounts
    overage: Amounts
    voided: bool
    crossed: tuple[Crossing, ...] = ()


class LedgerError(RuntimeError):
    """A programmer error: an unknown account or hold, a hold id used twice, a non-positive hold."""


class Ledger:
    """All budgets of one sidecar. Not thread-safe: one owner, one loop."""

    def __init__(self) -> None:
        """Start empty."""
        self._accounts: dict[AccountId, Account] = {}
        self._pools: dict[AccountId, Pool] = {}
        self._holds: dict[HoldId, Hold] = {}
        self._closed: dict[HoldId, Settlement] = {}
        self.closings = 0
        """How often an account was closed: who remembers accounts has to look again when this has changed."""

    def __repr__(self) -> str:
        """Counts only."""
        return f"Ledger(accounts={len(self._accounts)}, holds={len(self._holds)})"

    def open_account(
        self, account_id: AccountId, caps: Amounts, soft: Amounts | None = None, *, hard: bool = True
    ) -> Account:
        """The account with these caps now: made on first use, its caps replaced when they differ.

        What stands above lowered caps stays, and nothing new fits until it is below them. `soft` None: as it was.
        """
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = Account(account_id, caps)
        account.caps, account.hard = caps, hard
        if soft is not None:
            account.soft = soft
        return account

    def open_bucket(
        self,
        pool_id: AccountId,
        newest: AccountId,
        live: Callable[[], Iterable[AccountId]],
        caps: Amounts,
        soft: Amounts,
        *,
        hard: bool = True,
    ) -> Account:
        """The account `newest` of this pool; the pool's total has these caps now.

        `live` gives all that count now, `newest` among them; it is asked only when `newest` has changed. The total is
        stored nowhere: its members are.
        """
        pool = self._pools.get(pool_id)
        if pool is None or pool.newest != newest or newest not in self._accounts:
            if pool is None:
                pool = self._pools[pool_id] = Pool(Account(pool_id, caps), newest)
            pool.newest = newest
            self.open_account(newest, caps)
            counted = dict.fromkeys(live())
            for account in [one for one in pool.members.values() if one.id not in counted]:
                pool.leave(account)
            for one in counted:
                found = self._accounts.get(one)
                if found is not None and found.pool is None:
                    pool.join(found)
        pool.total.caps, pool.total.soft, pool.total.hard = caps, soft, hard
        return self._accounts[newest]

    def account(self, account_id: AccountId) -> Account | None:
        """The account, or None when it was never opened or has been closed."""
        return self._accounts.get(account_id)

    def close_account(self, account_id: AccountId) -> None:
        """Forget a budget whose lease or window has ended.

        Raises:
            LedgerError: it still has open holds.
        """
        account = self._accounts.get(account_id)
        if account is None:
            return
        if account.held != ZERO:
            message = f"account {account_id} still has open holds"
            raise LedgerError(message)
        pool = account.pool
        if pool is not None:
            pool.leave(account)
            if not pool.members:
                del self._pools[pool.total.id]
        del self._accounts[account_id]
        self.closings += 1

    def accounts(self) -> Iterable[Account]:
        """All budgets."""
        return self._accounts.values()

    def holds(self) -> Iterable[Hold]:
        """All open holds."""
        return self._holds.values()

    def hold(self, hold_id: HoldId) -> Hold | None:
        """The open hold, or None."""
        return self._holds.get(hold_id)

    def restore_account(self, account_id: AccountId, caps: Amounts, settled: Amounts, overage: Amounts) -> None:
        """Put a stored budget back; holds are added by `restore_hold`."""
        self._accounts[account_id] = Account(account_id, caps, settled, ZERO, overage)

    def restore_hold(self, hold: Hold) -> None:
        """Put a stored open hold back without asking the caps: it was granted before."""
        self._open(hold)

    def headroom(self, legs: Sequence[Leg]) -> Amounts:
        """What a new hold over these legs may take, by metric; UNLIMITED where no leg caps."""
        room = list(NO_CAPS)
        for leg in legs:
            account = self._known(leg.account).counted
            if account.caps == NO_CAPS or not account.hard:
                continue
            mask = leg.mask
            for index, free in enumerate(account.remaining()):
                if mask[index] and free < room[index]:
                    room[index] = free
        return Amounts(*room)

    def cost_headroom(self, legs: Sequence[Leg]) -> int:
        """`headroom(legs).cost_micro_usd`, without the rest of it."""
        left = UNLIMITED
        for leg in legs:
            if leg.mask[0]:
                account = self._known(leg.account).counted
                if account.caps[0] < UNLIMITED and account.hard:
                    left = min(left, max(0, account.caps[0] - account.settled[0] - account.held[0]))
        return left

    def reserve(self, hold_id: HoldId, legs: tuple[Leg, ...], amounts: Amounts) -> Hold | Shortfall:
        """Reserve `amounts` at every leg, or nothing at all.

        Returns:
            The hold, or the first shortfall.

        Raises:
            LedgerError: the id was used before, an account is unknown, or an amount is negative or all are zero.
        """
        if hold_id in self._holds or hold_id in self._closed:
            message = f"hold {hold_id} exists already"
            raise LedgerError(message)
        if min(amounts) < 0 or amounts == ZERO:
            message = f"hold {hold_id} must be positive"
            raise LedgerError(message)
        for leg in legs:
            shortfall = self._shortfall(leg, amounts)
            if shortfall is not None:
                return shortfall
        hold = Hold(hold_id, legs, amounts)
        self._open(hold)
        return hold

    def settle(self, hold_id: HoldId, actual: Amounts) -> Settlement:
        """Replace the hold by what the call really used. The concurrency it held is given back.

        Returns:
            The settlement; the first one again when the hold has ended already (B3, B7).
        """
        done = self._closed.get(hold_id)
        if done is not None:
            return done
        hold = self._known_hold(hold_id)
        if min(actual) < 0:
            message = f"settlement of {hold_id} must not be negative"
            raise LedgerError(message)
        charged = actual._replace(concurrency=0)
        over = ZERO
        if not charged.fits(hold.amounts):
            over = Amounts(*(max(0, real - held) for real, held in zip(charged, hold.amounts, strict=True)))
        crossed: tuple[Crossing, ...] = ()
        for leg in hold.legs:
            account = self._known(leg.account)
            held, spent = hold.amounts.masked(leg.mask), charged.masked(leg.mask)
            account.held = account.held.minus(held)
            account.settled = account.settled.plus(spent)
            if over != ZERO:
                account.overage = account.overage.plus(over.masked(leg.mask))
            if account.pool is not None:
                total = account.pool.total
                total.held = total.held.minus(held)
                total.settled = total.settled.plus(spent)
            counted = account.counted
            if not counted.settled.fits(counted.soft):
                crossed += _crossings(account, spent)
        return self._close(Settlement(hold_id, charged, over, voided=False, crossed=crossed))

    def void(self, hold_id: HoldId) -> Settlement:
        """Drop the hold: provably nothing reached the provider (B5)."""
        done = self._closed.get(hold_id)
        if done is not None:
            return done
        hold = self._known_hold(hold_id)
        for leg in hold.legs:
            account = self._known(leg.account)
            held = hold.amounts.masked(leg.mask)
            account.held = account.held.minus(held)
            if account.pool is not None:
                account.pool.total.held = account.pool.total.held.minus(held)
        return self._close(Settlement(hold_id, ZERO, ZERO, voided=True))

    def _shortfall(self, leg: Leg, amounts: Amounts) -> Shortfall | None:
        account = self._known(leg.account).counted
        taken = account.settled.plus(account.held)
        if taken.plus(amounts.masked(leg.mask)).fits(account.caps) or not account.hard:
            return None
        for index, metric in enumerate(METRICS):
            wanted = amounts[index]
            if wanted and leg.mask[index]:
                free = account.caps[index] - taken[index]
                if wanted > free:
                    return Shortfall(leg.account, metric, account.caps[index], max(0, free), wanted)
        return None

    def _open(self, hold: Hold) -> None:
        for leg in hold.legs:
            account = self._known(leg.account)
            held = hold.amounts.masked(leg.mask)
            account.held = account.held.plus(held)
            if account.pool is not None:
                account.pool.total.held = account.pool.total.held.plus(held)
        self._holds[hold.id] = hold

    def _close(self, settlement: Settlement) -> Settlement:
        del self._holds[settlement.hold]
        self._closed[settlement.hold] = settlement
        if len(self._closed) > _CLOSED_HOLDS_MAX:
            del self._closed[next(iter(self._closed))]
        return settlement

    def _known(self, account_id: AccountId) -> Account:
        account = self._accounts.get(account_id)
        if account is None:
            message = f"account {account_id} is not open"
            raise LedgerError(message)
        return account

    def _known_hold(self, hold_id: HoldId) -> Hold:
        hold = self._holds.get(hold_id)
        if hold is None:
            message = f"hold {hold_id} is unknown"
            raise LedgerError(message)
        return hold


def _crossings(account: Account, spent: Amounts) -> tuple[Crossing, ...]:
    """The soft caps that a settlement of `spent` has just passed, at what this account counts towards."""
    counted, pool = account.counted, account.pool
    found = []
    for index, metric in enumerate(METRICS):
        now = counted.settled[index]
        if now - spent[index] <= counted.soft[index] < now and (pool is None or metric not in pool.warned):
            found.append(Crossing(counted.id, metric, counted.caps[index], now, counted.held[index]))
            if pool is not None:
                pool.warned[metric] = pool.newest
    return tuple(found)
