"""Processor microseconds for one reserve and settle in the bare ledger: by live leases, and by levels drawn on.

Run as: python -m tests.bench.ledger_probe. In the first table each call draws on its lease, two windows and (half of
them) a parent. In the second, on so many budgets, all of them calendar windows or all rolling ones.
"""

import sys
import time
from collections.abc import Callable

from leasehold_broker.domain.amounts import ALL_METRICS, NO_CAPS, Amounts
from leasehold_broker.domain.ledger import AccountId, HoldId, Ledger, Leg
from leasehold_broker.domain.limits import soft_caps

CALLS = 50_000
HELD = Amounts(700, 100, 100, 1, 1)
USED = Amounts(150, 100, 10, 1, 0)
CAPS = NO_CAPS._replace(cost_micro_usd=10**15)
SOFT = soft_caps(CAPS, 80)
LEVELS = (1, 2, 4, 8, 16)
BUCKETS = 61


def calls(ledger: Ledger, legs_of: Callable[[int], tuple[Leg, ...]]) -> float:
    """Mean processor microseconds over `CALLS` calls."""
    ids = [HoldId(f"{number:024x}") for number in range(CALLS)]
    started = time.process_time()
    for number, hold in enumerate(ids):
        ledger.reserve(hold, legs_of(number), HELD)
        ledger.settle(hold, USED)
    return (time.process_time() - started) / CALLS * 1e6


def by_leases(leases: int) -> float:
    """Spread over all leases."""
    ledger = Ledger()
    windows = [AccountId("window:subject"), AccountId("window:key")]
    names = [AccountId(f"lease:{number}") for number in range(leases)]
    for name in (*windows, *names):
        ledger.open_account(name, CAPS, SOFT)
    legs = []
    for number, name in enumerate(names):
        drawn = [name, *windows, *([names[number // 2]] if number % 2 else [])]
        legs.append(tuple(Leg(account, ALL_METRICS) for account in drawn))
    return calls(ledger, lambda number: legs[number % leases])


def by_levels(levels: int, *, rolling: bool) -> float:
    """All on the same budgets; a rolling one has all its buckets."""
    ledger = Ledger()
    legs = []
    for level in range(levels):
        live = [AccountId(f"{level}|{bucket}") for bucket in range(BUCKETS)]
        if rolling:
            for bucket in live:
                ledger.open_account(bucket, CAPS)
            ledger.open_bucket(AccountId(f"{level}"), live[-1], lambda live=live: live, CAPS, SOFT)
        else:
            ledger.open_account(live[-1], CAPS, SOFT)
        legs.append(Leg(live[-1], ALL_METRICS))
    drawn = tuple(legs)
    return calls(ledger, lambda _: drawn)


def measure() -> None:
    """Measure and print."""
    sys.stdout.write("\nlive leases  us for a reserve and a settle in the bare ledger\n")
    for count in (1, 1000, 100_000):
        sys.stdout.write(f"{count:11}  {by_leases(count):.2f}\n")
    sys.stdout.write("\nlevels  calendar, us  rolling, us\n")
    for levels in LEVELS:
        calendar, rolling = (by_levels(levels, rolling=rolling) for rolling in (False, True))
        sys.stdout.write(f"{levels:6}  {calendar:12.2f}  {rolling:11.2f}\n")


if __name__ == "__main__":
    measure()
