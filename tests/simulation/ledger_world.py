"""The real ledger over a durable log, for volume: random interleavings, repeats, crashes at every log position, jumps.

A step is one call of the ledger, one sync, one crash with recovery or one move of the clocks. Every answer is held
against the oracle at once; every sum at each crash and every `AUDIT_STEPS` steps. The log stands in for the store: it
loses what was not synced. (The real flows over the real store are simulated elsewhere, at a slower pace.)

Two phases: faults, then `heal`, after which nothing may be held and everything that fits must be granted.
"""

import random
from bisect import bisect
from collections import Counter
from itertools import accumulate

from tests.simulation.oracle import CONCURRENCY, Fact, Oracle, recomputed

from leasehold_broker.domain.amounts import ALL_METRICS, NO_CAPS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Ledger, LedgerError, Leg, Shortfall
from leasehold_broker.domain.windows import Rolling

AUDIT_STEPS = 97
POOL = "team|rolling-60s"
ROLLING = Rolling(60)
DAY_MS = 30_000
AIMED_MAX = 300
"""A hold aims at the cap when so little is left: the rest is filled in small steps."""
CARVED = (True, False, False, False, False)
NOT_CARVED = (False, True, True, True, True)


class Call:
    """One hold of a call, through its life."""

    __slots__ = ("amounts", "durable", "hold", "legs", "over", "root", "sent", "truth")

    def __init__(self, hold: str, legs: tuple[Leg, ...], amounts: Amounts, root: str) -> None:
        """Reserved just now."""
        self.hold, self.legs, self.amounts, self.root = hold, legs, amounts, root
        self.durable = self.sent = self.over = False
        self.truth = 0


class LedgerWorld:
    """One seed's world."""

    def __init__(self, seed: int) -> None:
        """Draw the rates and open the budgets."""
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.ledger = Ledger()
        self.oracle = Oracle()
        self.facts: list[Fact] = []
        self.rows: list[tuple] = []
        """What the store would be told with each fact: the hold, or the hold's end and the accounts' new values."""
        self.synced = 0
        self.calls: dict[str, Call] = {}
        self.ever: dict[str, Call] = {}
        """Every call, also one that a crash has made the ledger forget: what the provider knows."""
        self.ended: dict[str, object] = {}
        self.served: Counter[str] = Counter()
        self.wall_ms = rng.randrange(10**6) * 1000
        self.steady_ms = self.wall_ms
        self.number = 0
        self.children: dict[str, str] = {}
        self.levels = [rng.random() < 0.6 for _ in range(3)]
        self.roots = [f"root{index}" for index in range(rng.randint(1, 3))]
        for account in (*self.roots, "all", "day", POOL):
            self.oracle.caps[account] = self.some_caps(roomy=account == "all")
        weights = {
            self.reserve: 34, self.settle: 24, self.void: 4, self.sync: 16, self.send: 24, self.again: 4,
            self.move: rng.choice((1, 4, 10)), self.lower_or_raise: rng.choice((1, 2, 4)),
            self.crash: rng.choice((0.2, 0.5, 2)), self.carve: rng.choice((0, 1, 2)), self.give_back: 1,
            self.overrun: rng.choice((0, 0, 0, 0.5)),
        }  # fmt: skip
        self.actions, self.cumulative = list(weights), list(accumulate(weights.values()))

    def run(self, steps: int) -> Counter[str]:
        """So many steps with faults, then heal. The coverage."""
        actions, cumulative, rng = self.actions, self.cumulative, self.rng
        total = cumulative[-1]
        for step in range(steps):
            actions[bisect(cumulative, rng.random() * total)]()
            if step % AUDIT_STEPS == 0:
                self.audit()
        self.heal()
        return self.seen

    def some_caps(self, *, roomy: bool = False) -> Amounts:
        """Small caps, so that their edges are met all the time."""
        rng = self.rng
        if roomy:
            return NO_CAPS._replace(cost_micro_usd=rng.randrange(200, 6000), concurrency=rng.randrange(5, 40))
        return Amounts(
            rng.choice((0, 300, 3000, 3000, 3000)) + rng.randrange(60),
            rng.choice((UNLIMITED, UNLIMITED, rng.randrange(300))),
            rng.choice((UNLIMITED, UNLIMITED, rng.randrange(300))),
            rng.choice((UNLIMITED, UNLIMITED, rng.randrange(100))),
            rng.choice((UNLIMITED, UNLIMITED, rng.randrange(2, 20))),
        )

    def legs(self, lease: str) -> tuple[Leg, ...]:
        """All that a call of this lease draws on now, opened with the caps of now."""
        ledger, caps = self.ledger, self.oracle.caps
        root = self.children.get(lease)
        found = []
        if root is not None:
            ledger.open_account(AccountId(lease), caps[lease])
            found.append(Leg(AccountId(lease), ALL_METRICS))
        ledger.open_account(AccountId(root or lease), caps[root or lease])
        found.append(Leg(AccountId(root or lease), NOT_CARVED if root else ALL_METRICS))
        if self.levels[0]:
            day = f"day@{self.wall_ms // DAY_MS}"
            caps[day] = caps["day"]
            ledger.open_account(AccountId(day), caps[day])
            found.append(Leg(AccountId(day), ALL_METRICS))
        if self.levels[1]:
            found.append(Leg(self.bucket(), ALL_METRICS))
        if self.levels[2]:
            ledger.open_account(AccountId("all"), caps["all"])
            found.append(Leg(AccountId("all"), ALL_METRICS))
        return tuple(found)

    def bucket(self) -> AccountId:
        """The running bucket of the rolling window; the oracle is told by name and time alone which ones count."""
        start = ROLLING.bucket_start_ms(self.steady_ms)
        newest = AccountId(f"{POOL}@{start}")
        oldest = self.steady_ms - self.steady_ms % ROLLING.bucket_ms - ROLLING.counted_ms
        pool = {newest: POOL}
        for account in self.oracle.taken:
            if account.startswith(POOL) and oldest < int(account.rpartition("@")[2]) <= start:
                pool[AccountId(account)] = POOL
        self.oracle.pool_of = pool
        self.ledger.open_bucket(
            AccountId(POOL),
            newest,
            lambda: [AccountId(f"{POOL}@{one}") for one in ROLLING.live_starts_ms(self.steady_ms)],
            self.oracle.caps[POOL],
            NO_CAPS,
        )
        return newest

    def reserve(self) -> None:
        """A hold, often aimed at what is left, or one less, or one more."""
        rng, seen = self.rng, self.seen
        lease = rng.choice((*self.roots, *self.children)) if self.children else rng.choice(self.roots)
        legs = self.legs(lease)
        room = self.oracle.room(legs)
        aim = rng.random()
        cost = rng.randint(1, 15)
        if aim < 0.12 and 0 < room < AIMED_MAX:
            cost = room + (-1, 0, 1)[int(aim * 25)]
        amounts = Amounts(cost, rng.randint(0, 6), rng.randint(0, 6), 1, 1)
        hold = HoldId(f"h{self.number}")
        self.number += 1
        must = self.oracle.fits(legs, amounts)
        answer = self.ledger.reserve(hold, legs, amounts)
        assert must == isinstance(answer, Hold), f"B1, B10: {answer} where the oracle says {must}"
        if isinstance(answer, Shortfall):
            seen["none -> refused"] += 1
            seen["cap + 1 refused"] += cost == room + 1
            assert answer.wanted > answer.remaining
            return
        seen["none -> held"] += 1
        seen["cap met exactly"] += cost == room
        seen["cap - 1"] += cost == room - 1
        self.calls[hold] = self.ever[hold] = Call(hold, legs, amounts, self.children.get(lease, lease))
        self.note("reserve", hold, legs, amounts, answer)
        self.oracle.add(legs, amounts, 1)
        for leg in legs:
            account = self.ledger.account(leg.account).counted
            for want, on, one, more, cap in zip(
                amounts, leg.mask, account.settled, account.held, account.caps, strict=True
            ):
                assert not (want and on) or one + more <= cap, f"B1 {account}"

    def note(self, kind: str, hold: str, legs: tuple[Leg, ...], amounts: Amounts, row: object) -> None:
        """Append to the log; not durable before the next sync."""
        self.facts.append((kind, hold, legs, amounts))
        self.rows.append((kind, hold, row, legs))

    def some_call(self, *, sent: bool) -> Call | None:
        """An open call that was (not) sent; where there is none, the step goes to a new hold instead."""
        found = [call for call in self.calls.values() if call.sent is sent]
        if not found:
            self.reserve()
            return None
        return self.rng.choice(found)

    def send(self) -> None:
        """A byte goes upstream, if the hold is durable (B6); from then on the provider bills what it likes up to it."""
        call = self.some_call(sent=False)
        if call is not None and call.durable:
            call.sent = True
            most = call.amounts.cost_micro_usd
            call.truth = self.rng.choice((0, min(1, most), most // 2, most, most))
            self.served[call.root] += call.truth

    def settle(self) -> None:
        """A sent call ends: with the provider's word, or without one, at its hold."""
        call = self.some_call(sent=True)
        if call is not None:
            known = self.rng.random() < 0.7
            held = call.amounts
            actual = Amounts(
                call.truth if known else held.cost_micro_usd,
                self.rng.randint(0, held.input_tokens) if known else held.input_tokens,
                self.rng.randint(0, held.output_tokens) if known else held.output_tokens,
                1,
                1,
            )
            self.close(call, actual, "held -> settled")

    def overrun(self) -> None:
        """A provider bills more than it could: charged all the same, and said (B4)."""
        call = self.some_call(sent=True)
        if call is not None:
            more = self.rng.randint(1, 5)
            call.over = True
            actual = call.amounts._replace(cost_micro_usd=call.amounts.cost_micro_usd + more)
            self.served[call.root] += actual.cost_micro_usd - call.truth
            call.truth = actual.cost_micro_usd
            overage = self.close(call, actual, "overrun").overage
            assert overage == Amounts(more), "B4"

    def close(self, call: Call, actual: Amounts, seen: str):
        """Settle in ledger, oracle and log."""
        settlement = self.ledger.settle(HoldId(call.hold), actual)
        charged = actual._replace(concurrency=0)
        assert settlement.charged == charged
        assert call.over or settlement.overage == ZERO, "B4"
        self.oracle.add(call.legs, call.amounts, -1)
        self.oracle.add(call.legs, charged, 1)
        self.finish(call, "settle", charged, settlement, seen)
        return settlement

    def finish(self, call: Call, kind: str, charged: Amounts, settlement: object, seen: str) -> None:
        """Out of the open calls, into the log."""
        del self.calls[call.hold]
        self.ended[call.hold] = settlement
        self.note(kind, call.hold, call.legs, charged, self.values(call.legs))
        self.seen[seen] += 1

    def values(self, legs: tuple[Leg, ...]) -> list[tuple]:
        """What the store is told of these accounts."""
        found = [self.ledger.account(leg.account) for leg in legs]
        return [(one.id, one.settled, one.overage) for one in found]

    def void(self) -> None:
        """A call ends unsent (B5)."""
        call = self.some_call(sent=False)
        if call is not None:
            settlement = self.ledger.void(HoldId(call.hold))
            self.oracle.add(call.legs, call.amounts, -1)
            self.finish(call, "void", ZERO, settlement, "held -> voided")

    def again(self) -> None:
        """A second ending, of either kind, changes nothing and gives the first result (B3, B7)."""
        if self.ended:
            hold, first = self.rng.choice(list(self.ended.items()))
            voids = self.rng.random() < 0.5
            again = self.ledger.void(HoldId(hold)) if voids else self.ledger.settle(HoldId(hold), Amounts(10**6))
            assert again is first, "B3, B7"
            self.seen[f"{'voided' if first.voided else 'settled'} -> {'void' if voids else 'settle'} again"] += 1

    def sync(self) -> None:
        """What was logged is durable."""
        for kind, hold, _, _ in self.rows[self.synced :]:
            if kind == "reserve" and hold in self.calls:
                self.calls[hold].durable = True
        self.synced = len(self.rows)

    def move(self) -> None:
        """Time passes; the wall clock may jump, either way. Windows that nothing holds any more are forgotten."""
        self.steady_ms += self.rng.choice((200, 1000, 15_000))
        self.wall_ms += self.rng.choice((200, 1000, 15_000, -20_000, 90_000))
        for account in list(self.ledger.accounts()):
            name, _, start = account.id.rpartition("@")
            if name == POOL and account.held == ZERO and int(start) + ROLLING.counted_ms <= self.steady_ms:
                self.ledger.close_account(account.id)
                self.seen["window closed"] += 1

    def lower_or_raise(self) -> None:
        """Caps change while calls are open; what stands above lowered ones stays, and nothing new fits."""
        account = self.rng.choice((*self.roots, "day", "all", POOL))
        self.oracle.caps[account] = self.some_caps(roomy=account == "all")
        self.seen["caps changed"] += 1

    def carve(self) -> None:
        """A child lease with money of its own, held at its root (B14)."""
        root = self.rng.choice(self.roots)
        self.ledger.open_account(AccountId(root), self.oracle.caps[root])
        child = f"child{self.number}"
        self.number += 1
        amounts = Amounts(self.rng.randint(1, 60))
        legs = (Leg(AccountId(root), CARVED),)
        must = self.oracle.fits(legs, amounts)
        answer = self.ledger.reserve(HoldId(f"carve:{child}"), legs, amounts)
        assert must == isinstance(answer, Hold), "B1, B10 of a carve"
        if isinstance(answer, Hold):
            self.oracle.add(legs, amounts, 1)
            self.oracle.caps[child] = NO_CAPS._replace(cost_micro_usd=amounts.cost_micro_usd)
            self.children[child] = root
            self.note("reserve", answer.id, legs, amounts, answer)
            self.seen["carved"] += 1

    def give_back(self, child: str = "") -> None:
        """A child that nothing draws on ends: its carve is settled at what it spent."""
        child = child or (self.rng.choice(list(self.children)) if self.children else "")
        if not child or any(leg.account == child for call in self.calls.values() for leg in call.legs):
            return
        carve = self.ledger.hold(HoldId(f"carve:{child}"))
        account = self.ledger.account(AccountId(child))
        spent = ZERO if account is None else account.settled.masked(CARVED)
        settlement = self.ledger.settle(carve.id, spent)
        self.oracle.add(carve.legs, carve.amounts, -1)
        self.oracle.add(carve.legs, spent, 1)
        self.note("settle", carve.id, carve.legs, spent, self.values(carve.legs))
        self.ended[carve.id] = settlement
        del self.children[child]
        self.seen["given back"] += 1

    def crash(self) -> None:
        """The process dies with any part of the unsynced log on the disk; a new one recovers by rule."""
        kept = self.rng.randint(self.synced, len(self.rows))
        lost = {hold for kind, hold, _, _ in self.rows[kept:] if kind == "reserve"}
        ends_lost = [hold for kind, hold, _, _ in self.rows[kept:] if kind != "reserve"]
        del self.rows[kept:], self.facts[kept:]
        for hold in lost:
            call = self.calls.pop(hold, None)
            assert call is None or not call.sent, "B6: sent before its hold was durable"
            self.children.pop(hold.removeprefix("carve:"), None)
            self.seen["held -> never was"] += 1
        self.ended.clear()
        self.restore()
        for hold in self.rng.sample(ends_lost, min(2, len(ends_lost))):
            if self.ledger.hold(HoldId(hold)) is None:
                self.refuses_the_unknown(hold)
        self.seen["crash"] += 1
        self.charge_what_was_open()
        self.rebuild_oracle()
        self.sync()
        self.audit()

    def restore(self) -> None:
        """A fresh ledger from what the store was told."""
        accounts: dict[str, tuple[Amounts, Amounts]] = {}
        holds: dict[str, Hold] = {}
        for kind, hold, row, legs in self.rows:
            for leg in legs:
                accounts.setdefault(leg.account, (ZERO, ZERO))
            if kind == "reserve":
                holds[hold] = row
            else:
                del holds[hold]
                accounts |= {account: (settled, overage) for account, settled, overage in row}
        self.ledger = Ledger()
        for account, (settled, overage) in accounts.items():
            caps = self.oracle.caps.get(account, NO_CAPS)
            self.ledger.restore_account(AccountId(account), caps, settled, overage)
        for hold in self.rng.sample(list(holds.values()), len(holds)):
            self.ledger.restore_hold(hold)

    def charge_what_was_open(self) -> None:
        """Recovery's rule: an open call may have reached the provider, so its hold is charged."""
        for hold in list(self.ledger.holds()):
            if hold.id.startswith("carve:"):
                child = hold.id.removeprefix("carve:")
                self.children.setdefault(child, hold.legs[0].account)
                continue
            self.calls.pop(hold.id, None)
            call = self.ever[hold.id]
            charged = hold.amounts._replace(concurrency=0)
            settlement = self.ledger.settle(hold.id, hold.amounts)
            if call.over:
                # The provider broke its word and the crash took ours: the hold is all that is known of it.
                self.served[call.root] -= call.truth - charged.cost_micro_usd
                call.truth, call.over = charged.cost_micro_usd, False
            self.note("settle", hold.id, hold.legs, charged, self.values(hold.legs))
            self.ended[hold.id] = settlement
            self.seen["held -> charged at recovery"] += 1

    def refuses_the_unknown(self, hold: str) -> None:
        """What recovery has not found cannot be ended."""
        try:
            self.ledger.settle(HoldId(hold), ZERO)
        except LedgerError:
            return
        message = f"B3: {hold} was ended though it is unknown"
        raise AssertionError(message)

    def rebuild_oracle(self) -> None:
        """The oracle forgets what was lost: it knows the list only."""
        settled, held, _ = recomputed(self.facts)
        names = {*settled, *held}
        self.oracle.taken = {
            name: [one + two for one, two in zip(settled.get(name, [0] * 5), held.get(name, [0] * 5), strict=True)]
            for name in names
        }

    def audit(self) -> None:
        """A7: the list of facts, summed from scratch, is what ledger and running sums say. B2; nothing spent unseen."""
        settled, held, open_holds = recomputed(self.facts)
        assert {hold.id for hold in self.ledger.holds()} == open_holds, "A7 holds"
        pools: dict[str, list[int]] = {}
        for account in self.ledger.accounts():
            assert list(account.settled) == settled.get(account.id, [0] * 5), f"A7 settled {account.id}"
            assert list(account.held) == held.get(account.id, [0] * 5), f"A7 held {account.id}"
            assert account.settled[CONCURRENCY] == 0
            running = self.oracle.taken.get(account.id, [0] * 5)
            assert [a + b for a, b in zip(account.settled, account.held, strict=True)] == running
            if account.pool is not None:
                sums = pools.setdefault(account.pool.total.id, [0] * 5)
                for index, one in enumerate(account.settled.plus(account.held)):
                    sums[index] += one
        for account in self.ledger.accounts():
            if account.pool is not None:
                total = account.pool.total
                assert list(total.settled.plus(total.held)) == pools[total.id], "the pool is the sum of its buckets"
        for root in self.roots:
            known = self.ledger.account(AccountId(root))
            if known is not None:
                covered = known.settled.cost_micro_usd + known.held.cost_micro_usd + self.beyond_carves(root)
                assert covered >= self.served[root], f"spent, but neither settled nor held: {root}"
        for child in self.children:
            own = self.ledger.account(AccountId(child))
            carve = self.ledger.hold(HoldId(f"carve:{child}"))
            if own is not None:
                spent = own.settled.cost_micro_usd + own.held.cost_micro_usd - own.overage.cost_micro_usd
                assert spent <= carve.amounts.cost_micro_usd, "B14: a child spends what was carved for it"
        self.conserved(settled)

    def beyond_carves(self, root: str) -> int:
        """What children were charged beyond their carves (B4): passed on when they give back."""
        own = [self.ledger.account(AccountId(child)) for child, its in self.children.items() if its == root]
        return sum(one.overage.cost_micro_usd for one in own if one is not None)

    def conserved(self, settled: dict[str, list[int]]) -> None:
        """B13: each charge is in one window; all windows together are what was charged through them."""
        for prefix in ("day@", f"{POOL}@"):
            windows = sum(sums[0] for account, sums in settled.items() if account.startswith(prefix))
            charged = sum(
                amounts[0]
                for kind, _, legs, amounts in self.facts
                if kind == "settle" and any(leg.account.startswith(prefix) for leg in legs)
            )
            assert windows == charged, "B13"

    def heal(self) -> None:
        """Faults stop: every call ends, every child gives back, all is synced; nothing is held, and what fits goes."""
        self.sync()
        for call in list(self.calls.values()):
            if call.sent:
                self.close(call, call.amounts._replace(cost_micro_usd=call.truth), "held -> settled")
            else:
                settlement = self.ledger.void(HoldId(call.hold))
                self.oracle.add(call.legs, call.amounts, -1)
                self.finish(call, "void", ZERO, settlement, "held -> voided")
        for child in list(self.children):
            self.give_back(child)
        self.sync()
        self.audit()
        assert list(self.ledger.holds()) == [], "B9"
        for root in self.roots:
            known = self.ledger.account(AccountId(root))
            spent = 0 if known is None else known.settled.cost_micro_usd
            beyond = sum(
                amounts[0] - self.ever[hold].truth
                for kind, hold, _, amounts in self.facts
                if kind == "settle" and hold in self.ever and self.ever[hold].root == root
            )
            assert spent == self.served[root] + beyond, "charged what never was, or spent unseen"
            legs = self.legs(root)
            room = self.oracle.room(legs)
            if 0 < room < UNLIMITED and self.oracle.fits(legs, Amounts(room)):
                hold = self.ledger.reserve(HoldId(f"last:{root}"), legs, Amounts(room))
                assert isinstance(hold, Hold), "B10: what is left can be spent to the last"
                self.ledger.void(hold.id)
                self.seen["spendable to the last"] += 1
