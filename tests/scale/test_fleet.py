"""One fleet over several replicas: who is connected where, what each has applied, who has lapsed."""

import asyncio
from dataclasses import replace

import pytest
from tests.fakes.engines import PostgresEngine
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.budget_changes import BudgetRows
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation_progress import LiveLease, LiveLeases
from leasehold_broker.flows.escrow_holders import EscrowHolders
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.share_fleet import ShareFleet
from leasehold_broker.ports.revocation_log import KnownSidecar

LEASE = LiveLease("leases/a", "", "leases/a", "i", "s", "prod", ("k",), ("anthropic",), (("team", "x"),))


class Side:
    """One replica's fleet, stepped by hand on a clock of its own."""

    def __init__(self, store) -> None:
        """Over this store's board."""
        self.clock = ManualClock()
        self.fleet = Fleet(10.0)
        self.holders = EscrowHolders(10.0)
        self.share = ShareFleet(self.fleet, self.holders, store.board, self.clock)

    def connect(self, name: str, epoch: int = 0) -> Member:
        """A session of a sidecar opens here."""
        known = KnownSidecar(name, "prod", "1", epoch, 5, 10_000)
        member = self.fleet.members.setdefault(name, Member(known, self.clock.now()))
        member.known, member.connected, member.heard = known, True, self.clock.now()
        member.session += 1
        return member

    def lapsed(self, name: str) -> bool:
        """Whether this replica counts on its refusing."""
        return self.fleet.lapsed(self.fleet.members[name], self.clock.now())


@pytest.fixture(name="sides")
async def two_sides(postgres):
    """Two replicas over an empty database."""
    engine = PostgresEngine(postgres)
    async with engine.open("a1", stream="collector-a") as one, engine.open("b1", stream="collector-b") as two:
        yield Side(one), Side(two)


async def test_each_replica_knows_the_sidecars_of_the_other(sides):
    """Applied epoch, live leases and budgets of a sidecar that is connected elsewhere, as it reports them."""
    here, there = sides
    member = here.connect("s1", epoch=3)
    member.live, member.budgets = LiveLeases((LEASE,), 1), BudgetRows((), 4)
    member.applied_budget_change = 2
    member.key_uses = {"openai-prod": KeyUse("openai-prod", 7, 6)}
    await here.share.step()
    await there.share.step()
    seen = there.fleet.members["s1"]
    assert (seen.connected, seen.known.applied_epoch, seen.live, seen.budgets) == (True, 3, member.live, member.budgets)
    assert seen.applied_budget_change == 2
    assert (seen.key_uses, seen.elsewhere) == (member.key_uses, True)
    member.known = replace(member.known, applied_epoch=4)
    await here.share.step()
    await there.share.step()
    assert there.fleet.members["s1"].known.applied_epoch == 4


async def test_a_sidecar_elsewhere_is_heard_while_its_replica_goes_on(sides):
    """Its replica's beat keeps it; when that stops it lapses after the whole authority time, and not before (R3)."""
    here, there = sides
    here.connect("s1")
    for _ in range(5):
        await here.share.step()
        there.clock.advance(4)
        await there.share.step()
    assert not there.lapsed("s1")
    there.clock.advance(10)
    await there.share.step()
    assert not there.lapsed("s1")
    there.clock.advance(0.2)
    await there.share.step()
    assert there.lapsed("s1")


async def test_a_sidecar_that_left_lapses_from_when_it_was_heard(sides):
    """What it had been silent for at its replica counts here too."""
    here, there = sides
    member = here.connect("s1")
    await here.share.step()
    await there.share.step()
    here.clock.advance(6)
    member.connected = False
    await here.share.step()
    await there.share.step()
    assert there.fleet.members["s1"].connected is False
    there.clock.advance(4)
    assert not there.lapsed("s1")
    there.clock.advance(0.2)
    assert there.lapsed("s1")


async def test_a_newer_session_elsewhere_ends_the_one_here(sides):
    """A sidecar, or a copy of it, that connects at another replica supersedes its session here."""
    here, there = sides
    member = here.connect("s1")
    number = member.session
    await here.share.step()
    there.connect("s1", epoch=1)
    await there.share.step()
    await here.share.step()
    assert (member.session, here.fleet.superseded) == (number + 1, 1)
    assert (member.connected, member.known.applied_epoch) == (True, 1)
    await there.share.step()
    assert there.fleet.superseded == 0


async def test_it_may_come_back(sides):
    """A to B and back to A: the last one that was opened counts, at both."""
    here, there = sides
    here.connect("s1")
    await here.share.step()
    there.connect("s1")
    await there.share.step()
    here.connect("s1", epoch=7)
    await here.share.step()
    await there.share.step()
    assert (here.fleet.superseded, there.fleet.superseded) == (0, 1)
    assert there.fleet.members["s1"].known.applied_epoch == 7


async def test_who_is_blind_declares_nobody_lapsed(sides):
    """While the board cannot be read, sidecars elsewhere count as heard."""
    here, there = sides
    here.connect("s1")
    there.connect("s2")
    await here.share.step()
    await there.share.step()

    async def fails():
        raise Refusal(Reason.STORE_UNAVAILABLE, "no")

    read, there.share._board.read = there.share._board.read, fails
    there.clock.advance(60)
    task = asyncio.create_task(there.share.run())
    async with asyncio.timeout(240):
        while there.lapsed("s1"):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    assert there.lapsed("s2")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    there.share._board.read = read
    await there.share.step()
    assert not there.lapsed("s1")


async def test_many_notes_come_in_pieces_and_none_is_passed_over(sides):
    """More sidecars than one statement takes, while others change: each is seen."""
    here, there = sides
    for number in range(1203):
        here.connect(f"s{number}")
    await asyncio.gather(here.share.step(), there.share.step())
    for number in range(0, 1203, 7):
        member = here.fleet.members[f"s{number}"]
        member.known = replace(member.known, applied_epoch=9)
    await asyncio.gather(here.share.step(), there.share.step())
    await there.share.step()
    assert len(there.fleet.members) == 1203
    assert sum(member.known.applied_epoch == 9 for member in there.fleet.members.values()) == len(range(0, 1203, 7))
