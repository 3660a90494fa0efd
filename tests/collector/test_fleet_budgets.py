"""Fleet budgets over a real server, real links and a real store: granted, spent, returned, fenced."""

import asyncio
import contextlib
import uuid
from dataclasses import replace

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.memory_escrow_log import fleet_budget

from leasehold.v1 import budget_service_pb2 as pb
from leasehold_broker.adapters.collector_link.streams import reason_of
from leasehold_broker.domain.amounts import ZERO, Amounts, Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.ledger import Hold, HoldId, Shortfall
from leasehold_broker.domain.reasons import Reason

COST = Metric.COST_MICRO_USD
CAP = 100_000
BUDGET = fleet_budget(cost_micro_usd=CAP)


class Caller:
    """Calls through the slices of one sidecar, as the flow of a call makes them: nothing is awaited."""

    def __init__(self, sidecar: Sidecar, life: str) -> None:
        """Of this sidecar, in this life of it."""
        self.sidecar = sidecar
        self.slices = sidecar.slices
        self.ledger = self.slices._ledger
        self.slices.life = life
        self.calls = 0
        self.spent = 0

    def call(self, amount: int) -> bool:
        """One call that costs its worst case; False when it is refused."""
        now = self.sidecar.clock.now()
        legs = tuple(one.leg for one in self.slices.drawn("anthropic", "key", "prod", {}, now))
        if not legs:
            return False
        self.calls += 1
        hold = self.ledger.reserve(HoldId(str(self.calls)), legs, Amounts(amount))
        if isinstance(hold, Shortfall):
            assert self.slices.refusal(hold, now) is not None
            return False
        assert isinstance(hold, Hold)
        self.ledger.settle(hold.id, Amounts(amount))
        self.spent += amount
        return True

    async def spend(self, total: int, amount: int) -> None:
        """Call until this much was spent."""
        while self.spent < total:
            if not self.call(amount):
                await asyncio.sleep(0.005)


def escrow_of(centre: Centre):
    """The one escrow of the one budget."""
    return next(iter(centre.escrow.windows)).escrow


async def test_two_sidecars_spend_one_budget_to_the_last_and_not_beyond(tmp_path):
    """A hot and a lukewarm one: what one does not need the other gets; at the end the cap is spent to the last."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path, fleet_budgets=[BUDGET]) as centre,
        contextlib.AsyncExitStack() as stack,
    ):
        callers = []
        for n in (1, 2):
            sidecar = Sidecar(centre.target, f"sidecar-{n}", epoch=f"e{n}")
            callers.append(Caller(sidecar, f"life-{n}"))
            await stack.enter_async_context(sidecar)
        hot, mild = callers
        await mild.spend(5_000, 100)
        await hot.spend(80_000, 500)
        await mild.spend(19_900, 100)
        assert not hot.call(200)
        await hot.spend(80_100, 100)
        assert not hot.call(1)
        assert not mild.call(1)
        await eventually(lambda: escrow_of(centre).gone == CAP)
        assert hot.spent + mild.spent == CAP
        granted = await centre.store.page(EventFilter(type="budget.slice_granted"), 0, 500)
        assert granted


async def test_what_a_sidecar_holds_lasts_without_the_centre_and_is_fenced_when_a_copy_comes(tmp_path):
    """The centre gone: the slice is spent on; back again: the same life goes on, another life gets its own slice."""
    async with asyncio.timeout(240), contextlib.AsyncExitStack() as stack:
        sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}")
        caller = Caller(sidecar, "life-1")
        async with Centre(tmp_path, fleet_budgets=[BUDGET]) as centre:
            await stack.enter_async_context(sidecar)
            await caller.spend(1000, 1000)
            await eventually(lambda: escrow_of(centre).gone == 1000)
            fence = escrow_of(centre).open_of["sidecar-1"]
            right = escrow_of(centre).slices[fence].right
            assert right > 1100
        assert caller.call(100)
        async with Centre(tmp_path, "c2", fleet_budgets=[BUDGET]) as centre:
            await eventually(lambda: escrow_of(centre).gone == 1100)
            assert escrow_of(centre).open_of["sidecar-1"] == fence
            copy = Sidecar(centre.target, epoch="e2")
            double = Caller(copy, "life-2")
            async with copy:
                await double.spend(100, 100)
                escrow = escrow_of(centre)
                assert escrow.open_of["sidecar-1"] > fence
                fenced = replace(escrow.slices[fence])
                assert fenced.right >= right  # it may have been given more until the copy came
                assert fenced.returned == 0
                await double.spend(200, 100)
                assert escrow.slices[fence] == fenced


async def test_a_sidecar_that_knows_no_fleet_budgets_is_served_and_told_of_none(tmp_path):
    """An older build gives no life: its session works as before, and no slice is made for it."""
    async with asyncio.timeout(240), Centre(tmp_path, fleet_budgets=[BUDGET]) as centre, Sidecar(centre.target) as old:
        await eventually(lambda: old.link.authority_lapsed_seconds(old.clock.now()) is None)
        assert list(old.slices.drawn("anthropic", "key", "prod", {}, old.clock.now())) == []
        assert all(not running.escrow.slices for running in centre.escrow.windows)


async def test_a_collector_without_fleet_budgets_limits_nobody(tmp_path):
    """A sidecar that knows them is told that there are none; what it was told before is over."""
    async with asyncio.timeout(240), contextlib.AsyncExitStack() as stack:
        sidecar = Sidecar(f"unix:{tmp_path / 'collector.sock'}")
        caller = Caller(sidecar, "life-1")
        async with Centre(tmp_path, fleet_budgets=[BUDGET]):
            await stack.enter_async_context(sidecar)
            await caller.spend(100, 100)
        async with Centre(tmp_path, "c2"):
            await eventually(
                lambda: not list(sidecar.slices.drawn("anthropic", "key", "prod", {}, sidecar.clock.now()))
            )
        assert all(account.held == ZERO for account in caller.ledger.accounts())


@pytest.mark.parametrize("idle", [False, True])
async def test_idle_sidecars_give_back_and_a_stopping_one_gives_everything(tmp_path, idle):
    """Returned by its own word, in its own life: it is free again at once."""
    async with asyncio.timeout(240), Centre(tmp_path, fleet_budgets=[BUDGET]) as centre:
        sidecar = Sidecar(centre.target)
        caller = Caller(sidecar, "life-1")
        async with sidecar:
            await caller.spend(20_000, 10_000)
            if idle:
                other = Sidecar(centre.target, "sidecar-2", epoch="e2")
                greedy = Caller(other, "life-2")
                async with other:
                    await greedy.spend(79_000, 79_000)
            else:
                sidecar.slices.stop()
                await eventually(lambda: not sidecar.slices.holding)
                await eventually(lambda: escrow_of(centre).free == CAP - 20_000)


async def test_operators_see_and_change_a_fleet_budget_while_slices_are_out(tmp_path):
    """Free, out, spent and written off, by sidecar; raised and lowered by its name; an unknown one is refused."""
    async with (
        asyncio.timeout(240),
        Centre(tmp_path, fleet_budgets=[BUDGET]) as centre,
        Operator(centre.target, "alice/treasurer") as alice,
    ):
        sidecar = Sidecar(centre.target)
        caller = Caller(sidecar, "life-1")
        async with sidecar:
            await caller.spend(10_000, 10_000)
            await eventually(lambda: escrow_of(centre).gone == 10_000)

            async def shown() -> pb.FleetBudget:
                (one,) = (await alice.budgets.ListBudgets(pb.ListBudgetsRequest(), **alice.how)).fleet_budgets
                return one

            one = await shown()
            assert (one.budget, one.metric, one.cap, one.spent, one.written_off) == (BUDGET.name, COST, CAP, 10_000, 0)
            assert one.free + one.outstanding + one.spent == CAP
            (row,) = one.slices
            assert (row.sidecar, row.state, row.spent) == ("sidecar-1", "open", 10_000)
            await alice.budgets.ChangeBudget(change(CAP // 2), **alice.how)
            await eventually(lambda: escrow_of(centre).cap == CAP // 2)
            one = await shown()
            assert one.changed
            assert one.free + one.outstanding + one.spent == CAP // 2
            await caller.spend(CAP // 2 - 100, 100)
            await alice.budgets.ChangeBudget(change(2 * CAP, raises=True), **alice.how)
            await caller.spend(CAP, 1000)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await alice.budgets.ChangeBudget(change(1, budget="fleet:everything|week"), **alice.how)
            assert reason_of(failed.value) is Reason.FIELD_INVALID


def change(cap: int, *, raises: bool = False, budget: str = BUDGET.name) -> pb.ChangeBudgetRequest:
    """Of the fleet budget, for an hour."""
    end = Timestamp()
    end.GetCurrentTime()
    end.seconds += 3600
    way = pb.BUDGET_DIRECTION_RAISE if raises else pb.BUDGET_DIRECTION_LOWER
    return pb.ChangeBudgetRequest(
        request_id=str(uuid.uuid4()), budget=budget, metric=COST, direction=way, cap=cap, end_time=end, note="n"
    )
