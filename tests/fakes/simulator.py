"""A seeded simulator of one sidecar: the real flows over a store in memory, with faults, checked after every step.

Nothing in it is random but its seed: the same seed gives the same steps, the same faults and the same verdict.
"""

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import dataclass

from tests.fakes.core import KEY, PEER, Core, fresh_id, identity, plan, request
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore
from tests.fakes.replay import replayed
from tests.fakes.simulator_budgets import check_caps, check_disk, counting, held_by_sum, policy_of, taken_at_start

from leasehold_broker.domain.amounts import METRICS, NO_CAPS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.audit_chain import GENESIS, broken_link
from leasehold_broker.domain.budget_changes import Direction, changed_caps
from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey, ByLease, ByProvider, BySubject, Everything, Revocation
from leasehold_broker.flows.ending import carve_hold


@dataclass
class Sent:
    """A call that was admitted: what the provider has really charged for it, and on whose tree."""

    call_id: str
    root: str
    held: Amounts
    cost: int


class Simulator:
    """One seed's world."""

    def __init__(self, seed: int, *, check_every: int = 1) -> None:
        """Start."""
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.disk = MemoryDisk()
        self.lives = 0
        self.check_every = check_every
        self.seen: Counter[str] = Counter()
        self.fault_rate = self.rng.choice((0.0, 0.01, 0.05))
        self.crash_rate = self.rng.choice((0.0, 0.005, 0.02))
        self.epoch = 0
        self.open: dict[str, Sent] = {}
        self.served: Counter[str] = Counter()
        self.tasks: set[asyncio.Task] = set()
        self.refused_last: Refusal | None = None
        self.strays: list[str] = []
        self.taken: dict[str, list[int]] = {}
        self.caps_divisor = 1

    async def start(self) -> None:
        """Open the disk as a new process would."""
        self.lives += 1
        self.store = self.open_store()
        self.core = Core(
            self.store,
            self.clock,
            policy_of(self.seed, self.lives, self.clock.wall_ms, self.caps_divisor),
            CountingEntropy(f"{self.seed}/{self.lives}"),
        )
        asyncio.get_running_loop().set_exception_handler(self._stray)
        await self.core.recover()
        self.open.clear()
        self.taken = taken_at_start(self.core.books)
        self.epoch = max(self.epoch, self.core.books.epoch)
        self.store.hold()
        self.check_durable()

    def open_store(self) -> MemoryStateStore:
        """The store of a new process on the disk."""
        return MemoryStateStore(self.disk, self.clock)

    async def reload(self) -> None:
        """Caps are raised or lowered while calls are open."""
        self.caps_divisor = self.rng.choice((1, 1, 1, 2, 7))
        self.core.policies.policy = policy_of(self.seed, self.lives, self.clock.wall_ms, self.caps_divisor)
        self.seen["reload"] += 1

    async def settle_down(self) -> None:
        """Let everything that can run do so."""
        for _ in range(4):
            await asyncio.sleep(0)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                refusal = task.exception()
                if not isinstance(refusal, Refusal):
                    raise refusal
                self.seen[f"refused {refusal.reason}"] += 1

    async def step(self) -> None:
        """One random action, then every check."""
        actions = (
            (self.admit, 30), (self.settle, 26), (self.flush, 30), (self.acquire, 4), (self.delegate, 8),
            (self.renew, 4), (self.release, 2), (self.revoke, 0.5), (self.time, 6), (self.cancel, 2), (self.prune, 0.2),
            (self.reload, 0.5), (self.jump, 0.3), (self.change_cap, 1),
        )  # fmt: skip
        (action,) = self.rng.choices([one for one, _ in actions], [weight for _, weight in actions])
        if self.rng.random() < self.crash_rate:
            action = self.crash
        if self.rng.random() < self.fault_rate:
            self.store.down = Refusal(Reason.STORE_UNAVAILABLE, "disk")
            self.store.full = self.rng.random() < 0.3
        elif self.rng.random() < 0.2:
            self.store.down, self.store.full = None, False
        if sum(not lease.ended for lease in self.core.books.leases.values()) < 5:
            await self.acquire()
        await action()
        await self.settle_down()
        self.check()

    def _stray(self, _: asyncio.AbstractEventLoop, context: dict) -> None:
        self.strays.append(f"{context['message']}: {context.get('exception')!r}")

    def spawn(self, work) -> None:
        """Run as a task of its own, as a door would."""
        self.tasks.add(asyncio.get_running_loop().create_task(work))

    def some_lease(self):
        """Any lease, more often a live one."""
        leases = list(self.core.books.leases.values())
        live = [lease for lease in leases if not lease.ended]
        return self.rng.choice(live if live and self.rng.random() < 0.95 else leases) if leases else None

    def caps(self) -> Amounts:
        """Small caps around whole calls, so that the edges are met."""
        cost = self.rng.choice((UNLIMITED, UNLIMITED, UNLIMITED, 699, 700, 701, 1400, 20_000, 20_000, 20_000, 90_000))
        requests = self.rng.choice((*[UNLIMITED] * 5, 1, 3, 30))
        output = self.rng.choice((*[UNLIMITED] * 5, 100, 1000))
        concurrency = self.rng.choice((*[UNLIMITED] * 6, 1, 2, 9))
        return NO_CAPS._replace(cost_micro_usd=cost, requests=requests, output_tokens=output, concurrency=concurrency)

    async def acquire(self) -> None:
        """A root lease."""
        wanted = request(self.caps(), self.rng.choice((None, 60, 600)))
        self.spawn(self.core.acquire.run(identity(), PEER, wanted, fresh_id(), validate_only=False))

    async def delegate(self) -> None:
        """A child of any lease."""
        parent = self.some_lease()
        if parent is not None:
            wanted = request(self.caps(), self.rng.choice((None, None, 30)), scopes=())
            self.spawn(self.core.delegate.run(identity(), PEER, parent.name, wanted, fresh_id(), None))

    async def renew(self) -> None:
        """Renew any lease."""
        lease = self.some_lease()
        if lease is not None:
            self.spawn(self.core.renew.run(identity(), PEER, lease.name, fresh_id(), None, None))

    async def release(self) -> None:
        """Release any lease."""
        lease = self.some_lease()
        if lease is not None:
            self.spawn(self.core.release.run(identity(), PEER, lease.name))

    async def admit(self) -> None:
        """One call; its cost at the provider is decided when it is sent, and is at most the hold."""
        lease = self.some_lease()
        if lease is None or lease.name in self.core.books.unborn:
            return
        wanted = plan(self.rng.choice((1, 100, 100, 300)), self.rng.choice((None, 1, 100, 100, 200)))
        must = self.must_admit(lease, wanted)
        self.refused_last = None
        self.spawn(self._call(lease, wanted))
        await asyncio.sleep(0)
        if must:
            self.seen["B10 asked"] += 1
            assert not self.refused_last, f"B10: {self.refused_last} though it fits"

    async def _call(self, lease, wanted) -> None:
        try:
            admitted = await self.core.calls.admit(lease, wanted, fresh_id(), lambda *_: self.seen.update(["cut"]))
        except Refusal as refusal:
            self.refused_last = refusal
            self.seen[f"admit {refusal.reason}"] += 1
            return
        hold = self.core.books.ledger.hold(admitted.call_id)
        assert admitted.call_id in self.disk.holds, "B6: the hold is durable before a byte may go"
        cost = self.rng.choice((0, 1, hold.amounts.cost_micro_usd // 2, hold.amounts.cost_micro_usd))
        self.open[admitted.call_id] = Sent(admitted.call_id, lease.root, hold.amounts, cost)
        self.served[lease.root] += cost
        self.seen["admitted"] += 1

    def must_admit(self, lease, wanted) -> bool:
        """True when by the oracle's own sums this call fits everywhere and nothing else forbids it (B10)."""
        books, now = self.core.books, self.clock.now()
        current = books.leases.get(lease.name)
        above = [current, *books.ancestors(current)] if current else []
        if not above or any(one.dead_reason(now) for one in above) or self.core.journal._failed:
            return False
        if self.store.down or self.store.full or wanted.output_tokens_stated is None:
            return False
        need = [wanted.input_tokens_bound * 2 + wanted.output_tokens_stated * 5, wanted.input_tokens_bound]
        need += [wanted.output_tokens_stated, 1, 1]
        policy = self.core.policies.current()
        scope = current.scope_for("anthropic")
        for drawn in self.core.calls._budgets.drawn_by(current, scope, policy, now).drawn:
            account = books.ledger.account(drawn.leg.account)
            if not account.counted.hard:
                continue
            caps = account.counted.caps
            if drawn.name == "lease":
                caps = changed_caps(current.caps, books.changes_of(current.name), now.wall_ms)
            members = (
                [account]
                if account.pool is None
                else list(counting(books, account.pool.total.id, drawn.limit.span, now))
            )
            for index in range(5):
                taken = sum(one.settled[index] + held_by_sum(books, one.id)[index] for one in members)
                if drawn.leg.mask[index] and taken + need[index] > caps[index]:
                    return False
        return True

    async def settle(self) -> None:
        """End one open call, in any of the ways a call ends."""
        if not self.open:
            return
        sent = self.open.pop(self.rng.choice(list(self.open)))
        outcome = self.outcome(sent)
        work = self.core.calls.settle(sent.call_id, outcome)
        self.spawn(work)
        if self.rng.random() < 0.1:
            self.spawn(self.core.calls.settle(sent.call_id, outcome))
        self.seen[f"end {outcome.end}"] += 1

    def outcome(self, sent: Sent) -> CallOutcome:
        """How the call ended; only a call that cost nothing may count as unsent or refused."""
        if sent.cost == 0 and self.rng.random() < 0.5:
            if self.rng.random() < 0.5:
                return CallOutcome(CallEnd.NOT_SENT, sent=False)
            return CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=400)
        if self.rng.random() < 0.3:
            return CallOutcome(self.rng.choice((CallEnd.CLIENT_GONE, CallEnd.CUT_BY_REVOCATION)), sent=True)
        output = min(sent.cost // 5, sent.held.output_tokens)
        usage = Usage(min(sent.cost - output * 5, sent.held.input_tokens), output_tokens=output)
        if usage.input_tokens + usage.output_tokens * 5 < sent.cost:
            return CallOutcome(CallEnd.UNKNOWN, sent=True)
        return CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=usage, usage_final=True)

    async def flush(self) -> None:
        """Some commits become durable."""
        self.store.flush(self.rng.choice((1, 2, 5, None)))
        self.check_durable()

    async def flush_all(self) -> None:
        """Everything that waits becomes durable."""
        self.store.flush()
        self.check_durable()

    async def revoke(self) -> None:
        """The next entry, and sometimes an old one again."""
        lease = self.some_lease()
        if lease is None:
            return
        self.epoch = self.core.books.epoch + 1
        selector = self.rng.choices(
            (ByLease(lease.name), BySubject("", "agent-*"), ByKey(KEY.name), ByProvider("openai"), Everything()),
            (20, 1, 1, 5, 1),
        )[0]
        entry = Revocation(self.epoch, selector, "", "sim", self.clock.wall_ms)
        self.spawn(self.core.revocations.apply([entry]))
        if self.rng.random() < 0.3:
            self.spawn(self.core.revocations.apply([entry]))

    async def time(self) -> None:
        """Time passes, and is swept."""
        self.clock.advance(self.rng.choice((0.01, 0.1, 1, 5, 20)))
        self.spawn(self.core.sweep.run(self.clock.now()))

    async def change_cap(self) -> None:
        """An operator raises or lowers a cap of a lease or a window, now and then the same change twice."""
        lease = self.some_lease()
        if lease is None:
            return
        budget = self.rng.choice((lease.name, lease.name, "on:key:anthropic-prod|hour", "on:anthropic|rolling-600s"))
        way = self.rng.choice((Direction.RAISE, Direction.LOWER))
        until = self.clock.wall_ms + self.rng.choice((1000, 60_000)) if way is Direction.RAISE else 0
        cap = self.rng.choice((0, 700, 701, 20_000, 150_000))
        wanted = (
            identity(),
            str(uuid.UUID(int=self.rng.getrandbits(128))),
            budget,
            "cost_micro_usd",
            way,
            cap,
            until,
            "n",
        )
        for _ in range(self.rng.choice((1, 1, 2))):
            self.spawn(self.core.budgets.run(*wanted))
        self.seen[f"cap {way}"] += 1

    async def jump(self) -> None:
        """Somebody sets the wall clock, either way; the boot clock knows nothing of it."""
        self.clock.wall_ms += self.rng.choice((-86_400_000, -3_600_000, -61_000, 61_000, 3_600_000, 86_400_000))
        self.seen["wall clock set"] += 1

    async def prune(self) -> None:
        """A long while passes."""
        self.clock.advance(self.rng.choice((60, 4000)))
        self.spawn(self.core.sweep.run(self.clock.now()))
        await asyncio.sleep(0)
        self.spawn(self.core.sweep.prune(self.clock.now()))

    async def cancel(self) -> None:
        """Whoever waits for an answer hangs up."""
        if self.tasks:
            self.rng.choice(sorted(self.tasks, key=lambda task: task.get_name())).cancel()
            self.seen["cancelled"] += 1

    async def crash(self) -> None:
        """Killed at a random commit; then a new process on the same disk."""
        self.store.flush(self.rng.randint(0, self.store.queued))
        self.check_durable()
        self.store.crash()
        await stop_everything_else()
        self.forget_tasks()
        self.seen["crash"] += 1
        await self.start()

    def forget_tasks(self) -> None:
        """Whoever called the dead process is gone; what those that had just ended were told is of no interest."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.exception()
        self.tasks.clear()

    async def quiesce(self) -> None:
        """Faults stop, calls end, leases end: then nothing may be held any more (B9)."""
        self.store.down, self.store.full = None, False
        self.store.release()
        for _ in range(3):
            await self.settle_down()
        while self.open:
            await self.settle()
        await self.core.sweep.run(self.clock.now())
        for _ in range(3):
            await self.settle_down()
        for lease in tuple(self.core.books.leases.values()):
            if not lease.ended and not lease.parent:
                await self.core.release.run(identity(), PEER, lease.name)
        await self.core.journal.drain()
        await self.settle_down()
        self.check()
        assert list(self.core.books.ledger.holds()) == [], "B9"
        assert self.disk.holds == {}, "B9 on disk"
        assert self.core.books.calls == {}
        assert set() == self.core.books.unborn
        assert self.core.journal._unwritten == {}
        self.check_replay()
        self.store.hold()

    def check(self) -> None:
        """Everything that must hold after every step."""
        assert self.strays == [], self.strays
        books = self.core.books
        sums: dict[str, list[int]] = {account.id: [0] * 5 for account in books.ledger.accounts()}
        for hold in books.ledger.holds():
            for leg in hold.legs:
                held = sums[leg.account]
                for index in range(5):
                    held[index] += hold.amounts[index] if leg.mask[index] else 0
        for account in books.ledger.accounts():
            assert account.overage == ZERO, "B4: no provider of ours exceeds a hold"
            assert tuple(sums[account.id]) == account.held, account.id
            assert min(account.settled) >= 0, "B2"
        self.taken |= check_caps(books, self.taken, self.seen)
        self.check_tree()
        self.check_served()

    def check_tree(self) -> None:
        """B14: what parents hold covers their children; children narrow."""
        books = self.core.books
        for name, children in books.children.items():
            parent, account = books.leases[name], books.ledger.account(f"lease:{name}")
            covered = [0] * 5
            for child in (books.leases[one] for one in children):
                assert child.expire_ns <= parent.expire_ns or parent.ended, "B14 expiry"
                assert child.ended or not parent.ended, "a child outlives its parent"
                own = books.ledger.account(f"lease:{child.name}")
                carve = books.ledger.hold(carve_hold(child.name))
                for index in range(4):
                    if carve is not None and child.carved[index]:
                        covered[index] += child.caps[index]
                    elif own is not None:
                        covered[index] += own.settled[index] + own.held[index]
            for index in range(4):
                have = 0 if account is None else account.settled[index] + account.held[index]
                assert have >= covered[index], f"B14 {name}: {have} < {covered[index]}"

    def check_served(self) -> None:
        """What the provider has really charged is settled or held at the root."""
        for root, cost in self.served.items():
            account = self.core.books.ledger.account(f"lease:{root}")
            if account is not None:
                assert account.settled.cost_micro_usd + account.held.cost_micro_usd >= cost, f"spent unseen: {root}"

    def check_durable(self) -> None:
        """B1 on the disk as it is now: whoever opened it here would find no budget overdrawn."""
        check_disk(self.disk)

    def check_replay(self) -> None:
        """A2 and A7: the log is gapless and chained, and says exactly what the books say."""
        expected, digest, epoch = 1, GENESIS, ""
        for one in self.disk.outbox:
            if one.record.epoch != epoch:
                expected, digest, epoch = 1, GENESIS, one.record.epoch
            assert broken_link(one.record, expected, digest) is None, "A2"
            expected, digest = expected + 1, one.record.digest
        replay = replayed(event for _, _, event in self.disk.events)
        books = self.core.books
        assert {hold.id for hold in books.ledger.holds()} == set(replay.holds), "A7 holds"
        for account in books.ledger.accounts():
            said = replay.settled.get(account.id, [0] * 5)
            assert list(account.settled) == said or account.id in self.disk.forgotten, f"A7 settled {account.id}"
            assert list(account.held) == replay.held(account.id), f"A7 held {account.id}"
        live = {lease.name: lease.expire_wall_ms for lease in books.leases.values() if not lease.ended}
        assert live == replay.live, "A7 grants"
        for account, warned in replay.warnings.items():
            self.seen["warned"] += len(warned)
            found = books.ledger.account(account)
            for metric, settled in warned.items():
                now = None if found is None else found.settled[METRICS.index(metric)]
                assert now is None or settled <= now, f"warned of more than was settled: {account}"
        assert books.epoch == replay.epoch, "A7 revocations"


async def stop_everything_else() -> None:
    """Cancel every other task of this loop and wait for it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    while others:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
