"""The budgets of the simulated sidecar, at every level, and what must hold for them, summed from scratch."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from zoneinfo import ZoneInfo

from tests.fakes.core import GRANT, KEY
from tests.fakes.memory_state_store import MemoryDisk

from leasehold_broker.domain.amounts import NO_CAPS, UNLIMITED, ZERO, Amounts
from leasehold_broker.domain.ledger import Account
from leasehold_broker.domain.limits import Budget, Level, Raise, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.windows import Period, Rolling
from leasehold_broker.flows.books import Books

ROLLING_WORD = "|rolling-"
BERLIN = ZoneInfo("Europe/Berlin")
RATE = WindowLimit(Level.SUBJECT, Rolling(60), NO_CAPS._replace(requests=100))
WINDOWS = (
    RATE,
    WindowLimit(Level.SUBJECT, Period.DAY, NO_CAPS._replace(cost_micro_usd=400_000)),
    WindowLimit(Level.LABEL, Rolling(7200), NO_CAPS._replace(cost_micro_usd=300_000), label="team"),
)
BUDGETS = (
    Budget(KEY.name, WindowLimit(Level.KEY, Period.HOUR, NO_CAPS._replace(cost_micro_usd=100_000))),
    Budget("anthropic", WindowLimit(Level.PROVIDER, Rolling(600), NO_CAPS._replace(cost_micro_usd=120_000))),
    Budget("prod", WindowLimit(Level.ENVIRONMENT, Period.DAY, NO_CAPS._replace(output_tokens=150_000), BERLIN)),
    Budget("", WindowLimit(Level.EVERYTHING, Period.TOTAL, NO_CAPS._replace(concurrency=40))),
    Budget("", WindowLimit(Level.EVERYTHING, Period.WEEK, NO_CAPS._replace(cost_micro_usd=500_000), hard=False)),
)


def policy_of(seed: int, lives: int, wall_ms: int, caps_divisor: int) -> Policy:
    """The policy with every cap divided, and in every second life with one raised for ten minutes from now on."""
    raised = Raise(wall_ms, wall_ms + 600_000, NO_CAPS._replace(cost_micro_usd=120_000))

    def scaled(limit: WindowLimit) -> WindowLimit:
        caps = Amounts(*(cap if cap == UNLIMITED else cap // caps_divisor for cap in limit.caps))
        return replace(limit, caps=caps, raises=(raised,) if limit.level is Level.KEY and not lives % 2 else ())

    grant = replace(GRANT, windows=tuple(map(scaled, WINDOWS)), lower_output=seed % 4 > 0)
    return Policy("p", (grant,), tuple(replace(one, limit=scaled(one.limit)) for one in BUDGETS))


def counting(books: Books, pool: str, rolling: Rolling, now: Instant) -> Iterator[Account]:
    """The buckets of a rolling window that count now, found by their names alone."""
    steady = books.steady_ms(now)
    oldest = steady - steady % rolling.bucket_ms - rolling.counted_ms
    for account in books.ledger.accounts():
        name, _, times = account.id.rpartition("|")
        if name == pool and int(times.split("+")[0]) * 1000 > oldest:
            yield account


def held_by_sum(books: Books, account: str) -> list[int]:
    """Held amounts of an account, summed over the open holds."""
    sums = [0] * 5
    for hold in books.ledger.holds():
        for leg in hold.legs:
            if leg.account == account:
                sums = [one + (more if on else 0) for one, more, on in zip(sums, hold.amounts, leg.mask, strict=True)]
    return sums


def taken_at_start(books: Books) -> dict[str, list[int]]:
    """What is taken when a life begins, buckets by their window: settlements that a crash took are holds again."""
    taken: dict[str, list[int]] = {}
    for account in books.ledger.accounts():
        whose = account.id.rpartition("|")[0] if ROLLING_WORD in account.id else account.id
        sums = taken.setdefault(whose, [0] * 5)
        for index, amount in enumerate(account.settled.plus(account.held)):
            sums[index] += amount
    return taken


def check_caps(books: Books, before: dict[str, list[int]], seen: Counter[str]) -> dict[str, list[int]]:
    """B1: nothing is above its cap, but what was there already when the cap was lowered. Gives what is taken now."""
    taken: dict[str, list[int]] = {}
    pools = {}
    for account in books.ledger.accounts():
        counted = account.counted
        if account.pool is not None:
            pools[counted.id] = account.pool
            assert account.id in account.pool.members
        elif ROLLING_WORD in account.id:
            continue  # a bucket that no call has asked for since the start: its window is what is capped
        if counted.hard and "|week|" not in counted.id and counted.id not in taken:  # soft, also before it is reopened
            now = [settled + held for settled, held in zip(counted.settled, counted.held, strict=True)]
            taken[counted.id] = now
            for one, cap, was in zip(now, counted.caps, before.get(counted.id, [0] * 5), strict=True):
                assert one <= max(cap, was), f"B1 {counted.id}: {one} of {cap}, before {was}"
                seen["above a lowered cap"] += one > cap
                seen["cap met exactly"] += one == cap
    for pool in pools.values():
        for name in ("settled", "held"):
            sums = [sum(column) for column in zip(*(getattr(one, name) for one in pool.members.values()), strict=True)]
            assert sums == list(getattr(pool.total, name)), f"pool {pool.total.id}"
    return taken


def check_disk(disk: MemoryDisk) -> None:
    """B1 on the disk as it is now: no lease that is stored there is overdrawn."""
    held: dict[str, list[int]] = {}
    for put in disk.holds.values():
        for leg in put.hold.legs:
            sums = held.setdefault(leg.account, [0] * 5)
            for index in range(5):
                sums[index] += put.hold.amounts[index] if leg.mask[index] else 0
    for lease, _, _ in disk.leases.values():
        name = f"lease:{lease.name}"
        settled = disk.accounts[name].settled if name in disk.accounts else ZERO
        raised = [one.cap for one in disk.budget_changes.values() if one.budget == lease.name]
        caps = lease.caps._replace(cost_micro_usd=max([lease.caps.cost_micro_usd, *raised]))
        for one, more, cap in zip(settled, held.get(name, ZERO), caps, strict=True):
            assert one + more <= cap, f"B1 on disk: {name}"
