"""The real flows on the real store while the world misbehaves: five hundred at once, a full disk, clocks that jump."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fakes.core import Core, caps, plan, used
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.limits import Level, WindowLimit
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.windows import Period, Rolling

CALLS = 500
HOLD = 700
"""Worst case of one call of `plan(100, 100)`: 100 tokens at 2 and 100 at 5 micro-USD."""
DAY_MS = 86_400_000


@asynccontextmanager
async def life(directory: Path, clock: ManualClock) -> AsyncIterator[Core]:
    """One life of a sidecar's heart on this directory."""
    store = SqliteStateStore(directory, "s", clock, StoreLimits())
    try:
        yield await Core(store, clock, entropy=SystemEntropy()).recover()
    finally:
        await store.close()


@pytest.mark.parametrize("lowered", [False, True])
async def test_b1_b10_five_hundred_calls_spend_the_cap_and_not_a_micro_dollar_more(
    tmp_path: Path, lowered: bool
) -> None:
    """A cap that pays for 40 %: never passed at any moment, 99 % of it usable, and every charge is what was served."""
    rng = random.Random(40)
    cap = CALLS * HOLD * 4 // 10
    clock, served, refusals = ManualClock(), [0], []
    async with life(tmp_path / "state", clock) as core:
        core.set_grant(lower_output=lowered)
        lease = await core.lease(caps(cost_micro_usd=cap))
        over = asyncio.Event()

        async def one() -> None:
            while not over.is_set():
                try:
                    admitted = await core.admit(lease, plan(100, 100))
                except Refusal as refusal:
                    refusals.append(refusal.reason)
                    if not core.books.calls:
                        over.set()  # nothing is held that could come back: what is left pays for no call
                    await asyncio.sleep(0)
                    continue
                held = core.books.ledger.hold(admitted.call_id).amounts
                account = core.account(lease)
                assert account.settled.cost_micro_usd + account.held.cost_micro_usd <= cap, "B1"
                output = rng.randint(0, held.output_tokens)
                served[0] += 100 + 5 * output
                await asyncio.sleep(rng.random() * 0.002)
                await core.calls.settle(admitted.call_id, used(100, output))

        await asyncio.gather(*(one() for _ in range(CALLS)))
        account = core.account(lease)
        assert account.held.cost_micro_usd == 0, "B9"
        assert account.settled.cost_micro_usd == served[0]
        assert cap * 99 // 100 <= served[0] <= cap, f"{served[0]} of {cap}"
        assert set(refusals) == {Reason.BUDGET_EXHAUSTED}
        assert len(refusals) > CALLS, "the cap was never contended for"
    async with life(tmp_path / "state", clock) as core:
        assert core.account(lease).settled.cost_micro_usd == served[0]


async def carried(core: Core, lease, calls: int, served: list[int], after: Callable[[int], None]) -> list[Reason]:
    """Calls in eight lanes; what was refused, and why. `after` is told at each call what was served by then."""
    refused: list[Reason] = []

    async def lane() -> None:
        for _ in range(calls // 8):
            try:
                admitted = await core.admit(lease, plan(100, 10))
            except Refusal as refusal:
                refused.append(refusal.reason)
                await asyncio.sleep(0)
                continue
            served[0] += 150
            after(served[0])
            await core.calls.settle(admitted.call_id, used(100, 10))

    await asyncio.gather(*(lane() for _ in range(8)))
    return refused


@pytest.mark.parametrize("killed", [False, True])
async def test_b1_b9_a_disk_that_fills_loses_no_charge(tmp_path: Path, killed: bool) -> None:
    """Full in the middle of calls: what was served stays charged; freed, all is written; killed before, it is held."""
    clock, served = ManualClock(), [0]
    store = SqliteStateStore(tmp_path / "state", "s", clock, StoreLimits())
    core = await Core(store, clock, entropy=SystemEntropy()).recover()
    lease = await core.lease(caps(cost_micro_usd=10_000_000))

    def fill(spent: int) -> None:
        if spent == 150 * 40:
            store._connection.execute("PRAGMA max_page_count = 1")

    refused = await carried(core, lease, 800, served, fill)
    assert set(refused) <= {Reason.STORE_UNAVAILABLE, Reason.AUDIT_SPOOL_FULL}
    assert len(refused) > 100
    assert core.account(lease).settled.cost_micro_usd == served[0]
    assert core.account(lease).held.cost_micro_usd == 0
    if not killed:
        store._connection.execute("PRAGMA max_page_count = 1000000")
        assert await core.journal.retry()
        assert await carried(core, lease, 16, served, lambda _: None) == []
    await store.close()
    async with life(tmp_path / "state", clock) as again:
        settled = again.account(lease).settled.cost_micro_usd
        assert [hold.id for hold in again.books.ledger.holds()] == []
        slack = 8 * (250 - 150) if killed else 0
        assert served[0] <= settled <= served[0] + slack, "spent unseen, or charged more than what was open"


@pytest.mark.parametrize("jump_ms", [-2 * DAY_MS, -3_600_000, 3_600_000, 2 * DAY_MS])
@pytest.mark.parametrize("restarted", [False, True])
async def test_b13_a_clock_that_jumps_moves_no_charge_and_opens_no_budget(
    tmp_path: Path, jump_ms: int, restarted: bool
) -> None:
    """Set while a call is open, also over a restart: charged in the window of its reserve; set back, it is found."""
    clock = ManualClock()
    day = WindowLimit(Level.SUBJECT, Period.DAY, NO_CAPS._replace(cost_micro_usd=1000))
    hour = WindowLimit(Level.SUBJECT, Rolling(3600), NO_CAPS._replace(cost_micro_usd=1000))

    def charged(core: Core) -> dict[str, int]:
        found = {
            one.id: one.settled.cost_micro_usd for one in core.books.ledger.accounts() if one.id.startswith("window:")
        }
        return {name: amount for name, amount in found.items() if amount}

    store = SqliteStateStore(tmp_path / "state", "s", clock, StoreLimits())
    core = await Core(store, clock, entropy=SystemEntropy()).recover()
    core.set_grant(windows=(day, hour), lower_output=False)
    lease = await core.lease()
    call = await core.admit(lease)
    windows = {leg.account for leg in core.books.ledger.hold(call.call_id).legs if leg.account.startswith("window:")}
    clock.wall_ms += jump_ms
    if not restarted:
        await core.calls.settle(call.call_id, used(100, 100))
    await core.sweep.prune(clock.now())
    await store.close()
    async with life(tmp_path / "state", clock) as again:
        again.set_grant(windows=(day, hour), lower_output=False)
        assert charged(again) == dict.fromkeys(windows, HOLD if restarted else 600)
        assert not again.now_lease(lease).ended, "the wall clock ends no lease"
        clock.wall_ms -= jump_ms
        with pytest.raises(Refusal) as refused:
            await again.admit(lease)
        assert refused.value.reason is Reason.BUDGET_EXHAUSTED
        assert charged(again) == dict.fromkeys(windows, HOLD if restarted else 600)
