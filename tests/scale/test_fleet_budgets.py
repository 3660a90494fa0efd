"""One fleet budget over replicas on a real PostgreSQL: granted by all of them at once, cut off at any statement."""

import asyncio
import contextlib
from collections import Counter

import asyncpg
import pytest
from tests.collector.test_fleet_budgets import Caller
from tests.fakes.centre import ORIGIN, Sidecar, eventually
from tests.fakes.engines import PostgresEngine
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_escrow_log import fleet_budget
from tests.fakes.replicas import Replica, shared_key

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.fleet_budget import NO_FENCE, SliceReport
from leasehold_broker.flows.fleet_escrow import LOOK_SECONDS, FleetEscrow
from leasehold_broker.wire.event_body import decode_event

COST = Metric.COST_MICRO_USD
CAP = 60_000
BUDGET = fleet_budget(cost_micro_usd=CAP)
STATEMENTS_MIN, STATEMENTS_MAX = 10, 60
"""Of one round: so many at least belong to it, and so many at most are looked at."""
STATEMENTS = ("execute", "executemany", "fetch", "fetchrow", "fetchval", "copy_records_to_table")


class Side:
    """One replica's escrow over its own store, stepped by hand."""

    def __init__(self, store) -> None:
        """Over this store."""
        self.store, self.clock = store, ManualClock()
        self.escrow = FleetEscrow([BUDGET], 60.0, store.escrow, store, self.clock, shared=True)

    async def step(self) -> None:
        """A round that looks at everything."""
        self.clock.advance(LOOK_SECONDS)
        await self.escrow.step()

    def ask(self, name: str, need: int) -> None:
        """A new life of a sidecar needs so much."""
        self.escrow.joined(name, f"{name}/1")
        self.escrow.heard(name, f"{name}/1", [SliceReport(BUDGET.name, COST, NO_FENCE, want=need, need=need)])

    def told(self, name: str) -> int:
        """What that life may spend."""
        (one,) = self.escrow.told(name, f"{name}/1", self.clock.now())
        return one.granted


@contextlib.asynccontextmanager
async def two_sides(engine: PostgresEngine):
    """Two replicas over an empty database."""
    async with engine.open("a1", stream="collector-a") as one, engine.open("b1", stream="collector-b") as two:
        sides = Side(one), Side(two)
        for side in sides:
            await side.escrow.restore()
        yield sides


async def check_books(store) -> int:
    """E1 and A7 from the disk: rights within the cap, and events that tell each of them. Gives the sum of rights."""
    books = await store.escrow.slices()
    granted: Counter[int] = Counter()
    for one in await store.page(EventFilter(type="budget.slice_granted"), 0, 10_000):
        details = decode_event(one.record.body).details
        granted[details["fence"]] += details["amount"]
    rights = sum(one.granted - one.returned for one in books.slices)
    assert rights <= CAP, "E1"
    assert {one.fence: one.granted for one in books.slices} == dict(granted), "A7"
    return rights


@pytest.fixture(name="engine")
def over_postgres(postgres):
    """An empty schema of a real server."""
    return PostgresEngine(postgres)


async def test_e1_two_replicas_that_grant_at_once_never_exceed_the_cap(engine):
    """Round after round at the same time, each for its own sidecars: all is granted, and not one micro-USD more."""
    async with asyncio.timeout(120), two_sides(engine) as sides:
        for turn in range(30):
            for index, side in enumerate(sides):
                side.ask(f"s{index}-{turn}", 1_700)
            await asyncio.gather(*(side.step() for side in sides))
        rights = await check_books(sides[0].store)
        assert sum(side.escrow.conflicts for side in sides) > 0
        assert sum(side.escrow.failures for side in sides) == 0
        assert rights > CAP * 95 // 100
        told = sum(side.told(f"s{index}-{turn}") for index, side in enumerate(sides) for turn in range(30))
        assert told == rights


class Cut:
    """Counts statements, and ends the connection at one of them: before it is sent, or when it has been answered."""

    def __init__(self, monkeypatch) -> None:
        """Nothing is cut."""
        self.at, self.seen, self.after = 0, 0, False
        self.counts = False
        for name in STATEMENTS:
            monkeypatch.setattr(asyncpg.Connection, name, self._cutting(getattr(asyncpg.Connection, name)))

    @contextlib.asynccontextmanager
    async def cutting(self, at: int, *, after: bool):
        """End the connection of this statement in the context."""
        self.at, self.seen, self.after, self.counts = at, 0, after, True
        yield
        self.counts = False

    def _cutting(self, real):
        async def statement(connection, *arguments, **settings):
            self.seen += self.counts
            if not self.counts or self.seen != self.at:
                return await real(connection, *arguments, **settings)
            if self.after:
                await real(connection, *arguments, **settings)
            connection.terminate()
            raise ConnectionResetError("cut off")

        return statement


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_e1_a_replica_that_dies_at_any_statement_leaves_all_of_a_grant_or_nothing(engine, monkeypatch, after):
    """Cut off at each statement of a round in turn, the commit included; the other one goes on from what is there."""
    cut = Cut(monkeypatch)
    async with asyncio.timeout(240), two_sides(engine) as (victim, other):
        died = 0
        for at in range(1, STATEMENTS_MAX):
            victim.ask(f"victim-{at}", 400)
            async with cut.cutting(at, after=after):
                await victim.step()
            died += victim.escrow.failures
            victim.escrow.failures = 0
            other.ask(f"other-{at}", 400)
            await other.step()
            await check_books(other.store)
            assert other.told(f"other-{at}") >= 400
            assert other.escrow.failures == 0
            if cut.seen < at:
                break  # the round has fewer statements: each of them was the last one
            await victim.step()
            assert victim.told(f"victim-{at}") >= 400
        assert at < STATEMENTS_MAX - 1
        assert died >= STATEMENTS_MIN


@pytest.fixture(name="built")
def replicas_of_one_log(engine, tmp_path):
    """Makes replicas that share a log, a key and a budget."""
    key = shared_key(tmp_path, ORIGIN)

    def build(name: str, door: str = "") -> Replica:
        folder = tmp_path / (door or name)
        return Replica(folder, engine.at, f"collector-{name}", f"{name}1", key=key, fleet_budgets=[BUDGET])

    return build


async def test_sidecars_of_two_replicas_spend_one_budget_to_the_last(built):
    """A hot one here and a mild one there: what one does not need the other gets, until nothing is left for either."""
    async with asyncio.timeout(120), built("a") as a, built("b") as b, contextlib.AsyncExitStack() as stack:
        callers = []
        for n, replica in enumerate((a, b), start=1):
            sidecar = Sidecar(replica.centre.target, f"sidecar-{n}", epoch=f"e{n}")
            callers.append(Caller(sidecar, f"life-{n}"))
            await stack.enter_async_context(sidecar)
        hot, mild = callers
        await mild.spend(5_000, 100)
        await hot.spend(40_000, 500)
        await mild.spend(19_900, 100)
        await hot.spend(40_100, 100)
        assert not hot.call(1)
        assert not mild.call(1)
        for replica in (a, b):
            await eventually(lambda replica=replica: next(iter(replica.centre.escrow.windows)).escrow.gone == CAP)
        assert hot.spent + mild.spent == CAP
        await check_books(a.centre.store)


async def test_a_sidecar_goes_on_with_its_slice_when_its_replica_dies(built, tmp_path):
    """It spends without any; another replica comes at the same address, and tells the same life of the same slice."""
    async with asyncio.timeout(120), contextlib.AsyncExitStack() as stack:
        sidecar = Sidecar(f"unix:{tmp_path / 'door' / 'collector.sock'}")
        caller = Caller(sidecar, "life-1")
        async with built("a", "door") as a:
            await stack.enter_async_context(sidecar)
            await caller.spend(2_000, 1_000)
            await eventually(lambda: next(iter(a.centre.escrow.windows)).escrow.gone == 2_000)
            fence = next(iter(a.centre.escrow.windows)).escrow.open_of["sidecar-1"]
            slices = sidecar.slices
            await eventually(lambda: any(slices._available(known) >= 100 for known in slices._known.values()))
        assert caller.call(100)
        async with built("b", "door") as b:
            await eventually(lambda: any(running.escrow.gone == 2_100 for running in b.centre.escrow.windows))
            assert next(iter(b.centre.escrow.windows)).escrow.open_of["sidecar-1"] == fence
            await caller.spend(10_000, 1_000)
            await check_books(b.centre.store)
