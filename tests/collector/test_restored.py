"""A collector whose store is an older copy: its numbers mean other revocations than some sidecars have applied.

Real links, flows and stores of both sides' protocols; each scenario asks for R4: who speaks for the centre has applied
what the centre has issued, by content.
"""

import asyncio
import shutil
import uuid

import pytest
from tests.fakes.centre import Centre, MemoryBudgetSink, Sidecar, eventually
from tests.fakes.engines import PostgresEngine

from leasehold_broker.adapters.collector_link import BudgetTie
from leasehold_broker.adapters.collector_link.streams import LinkBrokenError
from leasehold_broker.adapters.collector_link.syncing import Sync
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetChangeHistory, BudgetRows, Direction
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.ledger import Ledger
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.revocation import ByLease, Revocation
from leasehold_broker.domain.sync import Push
from leasehold_broker.flows.apply_budget_changes import change_event
from leasehold_broker.flows.slices import Slices
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.wiring.collector_store import OpenStore


async def revoke(centre: Centre, name: str) -> Revocation:
    """Issue one that can be told from every other."""
    return await centre.issuer.issue(RevocationDraft(ByLease(f"leases/{name}"), name, "alice", str(uuid.uuid4()), 1))


def speaks(sidecar: Sidecar) -> bool:
    """It has authority."""
    return sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None


def applied(sidecar: Sidecar) -> list[str]:
    """What is in force under its numbers, by note."""
    return [entry.note for entry in sidecar.sink.applied]


class Loss:
    """Three revocations, of which the third is lost by the store: the second life begins after the second."""

    def __init__(self, folder) -> None:
        """In this folder."""
        self.before, self.after = folder / "before", folder / "after"
        self.before.mkdir()
        self.after.mkdir()

    async def happen(self, *sidecars: Sidecar, lost: int = 1) -> None:
        """Each of these sidecars applies all of it, the lost ones too."""
        async with Centre(self.before, "c1") as centre:
            for name in ("one", "two"):
                await revoke(centre, name)
        shutil.copy(self.before / "collector.db", self.after / "collector.db")
        async with Centre(self.before, "c2") as centre:
            for number in range(lost):
                await revoke(centre, f"lost-{number}")
            for sidecar in sidecars:
                sidecar.sink.applied.extend(await centre.store.after(0, 1000))


async def test_r4_a_number_alone_never_counts_as_applied(tmp_path):
    """The restored collector issues its own third: who has the lost third is refused, and acknowledges nothing."""
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    await loss.happen(sidecar)
    async with Centre(loss.after, "c3") as centre, asyncio.timeout(240):
        urgent = await revoke(centre, "urgent")
        assert urgent.epoch == 3 == sidecar.sink.applied_epoch()
        async with sidecar, Sidecar(centre.target, "sidecar-2") as fresh:
            await eventually(lambda: sidecar.link.counters.failures.get(Reason.CENTRE_BEHIND, 0) > 1)
            await fresh.sink.reached(3)
            await eventually(lambda: speaks(fresh))
            assert not speaks(sidecar)
            await revoke(centre, "more")  # beyond its number: still refused
            before = sidecar.link.counters.failures[Reason.CENTRE_BEHIND]
            await eventually(lambda: sidecar.link.counters.failures[Reason.CENTRE_BEHIND] > before + 1)
            assert not speaks(sidecar)
            assert applied(sidecar) == ["one", "two", "lost-0"]
        progress = await centre.issuer.progress(urgent.epoch)
        assert {row.sidecar: row.applied_epoch for row in progress.sidecars} == {"sidecar-2": 4}


@pytest.mark.parametrize(("lost", "issued"), [(1, 0), (1, 1), (1, 3), (5, 1), (250, 1), (1, 250)])
async def test_r4_a_sidecar_that_lost_its_centres_history_takes_the_whole_of_it(tmp_path, lost, issued):
    """With accept_gaps it sets aside what is unknown, applies what it lacks, then speaks again, and only then."""
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    await loss.happen(sidecar, lost=lost)
    async with Centre(loss.after, "c3", accept_gaps=True) as centre, asyncio.timeout(240):
        for number in range(issued):
            await revoke(centre, f"own-{number}")
        async with sidecar:
            await eventually(lambda: speaks(sidecar))
            own = [f"own-{number}" for number in range(issued)]
            assert applied(sidecar) == ["one", "two", *own]
            assert [entry.note for entry in sidecar.sink.kept_aside] == [f"lost-{number}" for number in range(lost)]
            last = await revoke(centre, "last")
            steps = [step async for step in centre.issuer.watch(last.epoch)]
            assert steps[-1].complete
            assert applied(sidecar) == ["one", "two", *own, "last"]
        (connected,) = await centre.store.page(EventFilter(type="sidecar.connected"), 0, 9)
        assert b'"snapshot":true' in connected.record.body.replace(b" ", b"")


async def test_a_collector_that_knows_everything_sets_nothing_aside(tmp_path):
    """accept_gaps changes nothing for a sidecar that agrees, however far behind it is."""
    async with Centre(tmp_path, "c1", accept_gaps=True) as centre, asyncio.timeout(240):
        for name in ("one", "two", "three"):
            await revoke(centre, name)
        sidecar = Sidecar(centre.target)
        sidecar.sink.applied.extend(await centre.store.after(0, 2))
        async with sidecar:
            await sidecar.sink.reached(3)
            await eventually(lambda: speaks(sidecar))
        assert sidecar.sink.kept_aside == []


async def test_a_collector_that_was_replaced_by_an_empty_one(tmp_path):
    """Nothing is agreed; all is set aside, and the first of its own arrives under number 1."""
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    await loss.happen(sidecar)
    (loss.after / "collector.db").unlink()
    async with Centre(loss.after, "c3", accept_gaps=True) as centre, asyncio.timeout(240):
        async with sidecar:
            await eventually(lambda: speaks(sidecar))
            assert (applied(sidecar), len(sidecar.sink.kept_aside)) == ([], 3)
            await revoke(centre, "first")
            await sidecar.sink.reached(1)
        assert applied(sidecar) == ["first"]


async def test_r4_a_replica_over_postgresql_refuses_by_content_too(postgres, tmp_path):
    """The same rule over the other store: another third under the same number is refused, until accepted."""
    (tmp_path / "lost").mkdir()
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    engine = PostgresEngine(postgres)
    for accept_gaps in (False, True):
        async with engine.open(f"c{accept_gaps}", accept_gaps=accept_gaps) as store, asyncio.timeout(240):
            opened = OpenStore(store, escrow=store.escrow)
            async with Centre(loss.after, opened=opened, accept_gaps=accept_gaps) as centre:
                if not accept_gaps:
                    for name in ("one", "two"):
                        await revoke(centre, name)
                    sidecar.sink.applied.extend(await store.after(0, 9))
                    sidecar.sink.applied.append(Revocation(3, ByLease("leases/lost"), "lost", "alice", 1))
                    await revoke(centre, "urgent")
                async with sidecar:
                    if accept_gaps:
                        await eventually(lambda: speaks(sidecar))
                        assert applied(sidecar) == ["one", "two", "urgent"]
                    else:
                        await eventually(lambda: Reason.CENTRE_BEHIND in sidecar.link.counters.failures)
                        assert not speaks(sidecar)


def change(number: int, cap: int) -> BudgetChange:
    """One that can be told from every other."""
    return BudgetChange(
        number, "b", Metric.COST_MICRO_USD, Direction.LOWER, cap, 0, "", "alice", f"request {number} {cap}", 1
    )


async def issue(centre: Centre, number: int, cap: int) -> BudgetChange:
    """The collector's next change."""
    issued = await centre.store.change_budget(
        change(0, cap), lambda made: change_event(EventType.BUDGET_CHANGE_ISSUED, made, 1)
    )
    assert issued.number == number
    centre.fleet.issued()
    return issued


async def lost_changes(loss: Loss, sidecar: Sidecar, *, lost: int) -> None:
    """Two changes that both sides have, and some that the store has lost."""
    async with Centre(loss.before, "c1") as centre:
        both = [await issue(centre, number, number) for number in (1, 2)]
    shutil.copy(loss.before / "collector.db", loss.after / "collector.db")
    sidecar.budget_sink.applied += [*both, *(change(number, 900 + number) for number in range(3, 3 + lost))]


@pytest.mark.parametrize(("lost", "issued"), [(1, 0), (1, 1), (1, 3), (3, 1)])
async def test_r4_a_number_of_a_changed_cap_never_counts_alone(tmp_path, lost, issued):
    """A sidecar that has applied another change under that number has no authority, whoever knows more of them."""
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    await lost_changes(loss, sidecar, lost=lost)
    async with Centre(loss.after, "c2") as centre, asyncio.timeout(40):
        for number in range(3, 3 + issued):
            await issue(centre, number, number)
        async with sidecar, Sidecar(centre.target, "sidecar-2") as fresh:
            await eventually(lambda: sidecar.link.counters.failures.get(Reason.CENTRE_BEHIND, 0) > 1)
            await eventually(lambda: speaks(fresh))
            assert not speaks(sidecar)
            assert len(sidecar.budget_sink.applied) == 2 + lost


@pytest.mark.parametrize(("lost", "issued"), [(1, 0), (1, 1), (1, 3), (3, 1), (1, 250)])
async def test_r4_with_accepted_gaps_a_sidecar_takes_the_changes_there_are(tmp_path, lost, issued):
    """It sets aside what is unknown, applies what it lacks, and only then speaks again."""
    loss, sidecar = Loss(tmp_path), Sidecar(f"unix:{tmp_path}/after/collector.sock")
    await lost_changes(loss, sidecar, lost=lost)
    async with Centre(loss.after, "c2", accept_gaps=True) as centre, asyncio.timeout(40):
        for number in range(3, 3 + issued):
            await issue(centre, number, number)
        async with sidecar:
            await eventually(lambda: speaks(sidecar))
            assert [one.cap for one in sidecar.budget_sink.applied] == list(range(1, 3 + issued))
            assert [one.cap for one in sidecar.budget_sink.kept_aside] == [900 + n for n in range(3, 3 + lost)]
            await issue(centre, 3 + issued, 9077)
            await eventually(lambda: sidecar.budget_sink.applied[-1].cap == 9077)
            assert speaks(sidecar)
        (connected,) = await centre.store.page(EventFilter(type="sidecar.connected"), 0, 9)
        assert b'"budget_snapshot":true' in connected.record.body


async def test_a_collector_that_knows_every_change_sets_none_aside(tmp_path):
    """accept_gaps changes nothing for a sidecar that agrees, however far behind it is."""
    sidecar = Sidecar(f"unix:{tmp_path}/collector.sock")
    async with Centre(tmp_path, "c1", accept_gaps=True) as centre, asyncio.timeout(40):
        sidecar.budget_sink.applied.append(await issue(centre, 1, 1))
        await issue(centre, 2, 2)
        async with sidecar:
            await eventually(lambda: speaks(sidecar))
        assert [one.cap for one in sidecar.budget_sink.applied] == [1, 2]
        assert sidecar.budget_sink.kept_aside == []


async def test_r4_a_change_of_a_cap_over_postgresql_counts_by_content_too(postgres, tmp_path):
    """The same rule over the other store: refused, until accepted."""
    sidecar = Sidecar(f"unix:{tmp_path}/collector.sock")
    engine = PostgresEngine(postgres)
    for accept_gaps in (False, True):
        async with engine.open(f"c{accept_gaps}", accept_gaps=accept_gaps) as store, asyncio.timeout(60):
            opened = OpenStore(store, escrow=store.escrow)
            async with Centre(tmp_path, opened=opened, accept_gaps=accept_gaps) as centre:
                if not accept_gaps:
                    sidecar.budget_sink.applied += [await issue(centre, 1, 1), change(2, 902)]
                    await issue(centre, 2, 2)
                async with sidecar:
                    if accept_gaps:
                        await eventually(lambda: speaks(sidecar))
                        assert [one.cap for one in sidecar.budget_sink.applied] == [1, 2]
                    else:
                        await eventually(lambda: Reason.CENTRE_BEHIND in sidecar.link.counters.failures)
                        assert not speaks(sidecar)


async def test_r4_a_sidecar_takes_no_authority_from_a_centre_of_other_changes():
    """Whatever the collector lets pass: with the number alone there is none, and none before all are in force."""
    sink = MemoryBudgetSink()
    sync = Sync(None, None, tuple, BudgetTie(sink, lambda: BudgetRows((), 0), Slices(Ledger())), None, None, None, None)
    sink.applied.append(change(1, 5))
    others = BudgetChangeHistory([change(1, 6), change(2, 7)])
    with pytest.raises(LinkBrokenError, match="numbers other changes of caps up to 1"):
        await sync._take_budget_changes(Push(0, (), 60.0, 1, 1, budget_history=others.digest_at(1)))
    same = BudgetChangeHistory([change(1, 5), change(2, 7), change(3, 8)]).digest_at(3)
    with pytest.raises(LinkBrokenError, match="what follows 1 did not come"):
        await sync._take_budget_changes(Push(0, (), 60.0, 1, 3, budget_history=same))
    assert not await sync._take_budget_changes(Push(0, (), 60.0, 1, 3, (change(2, 7),), budget_history=same))
    assert await sync._take_budget_changes(Push(0, (), 60.0, 1, 3, (change(3, 8),), budget_history=same))
