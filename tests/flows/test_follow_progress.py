"""What a watcher of a revocation is told: everything once, then what has changed, and to the end who is waited for."""

from dataclasses import replace

import pytest
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.domain.revocation import Everything
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.flows import fleet_revocations
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport

NAMES = [f"s{number}" for number in range(4)]


class World:
    """A fleet of four whose sidecars say what the test lets them say."""

    def __init__(self, store: CollectorStore) -> None:
        """All were heard just now, and have applied nothing."""
        self.clock, self.fleet, self.store = ManualClock(), Fleet(60.0), store
        self.fleet.restore([KnownSidecar(name, "prod", "1", 0, 0) for name in NAMES], self.clock.now())
        self.issuer = FleetRevocations(self.fleet, store, self.clock)

    async def issue(self) -> int:
        """Revoke everything; the epoch."""
        number = self.store.epoch() + 1
        return (await self.issuer.issue(RevocationDraft(Everything(), "", "alice", f"r-{number}", 1))).epoch

    async def applies(self, name: str, epoch: int, *ended: AppliedRevocation) -> None:
        """It has applied everything up to this, which is durable before anybody is told."""
        member = self.fleet.members[name]
        known = replace(member.known, applied_epoch=epoch)
        await self.store.heard([SidecarReport(known, ended)])
        member.known, member.heard = known, self.clock.now()
        self.fleet.changed(name)


@pytest.fixture
async def world(tmp_path, monkeypatch):
    """Watchers are told without a pause."""
    monkeypatch.setattr(fleet_revocations, "PROGRESS_ROWS_PER_SECOND", 10**9)
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    yield World(store)
    await store.close()


def shown(progress) -> dict[str, tuple[int, int, int]]:
    """What it tells of each sidecar."""
    return {row.sidecar: (row.applied_epoch, row.leases_ended, row.calls_cut) for row in progress.sidecars}


async def test_after_the_first_answer_only_changes_are_told(world):
    """Each sidecar is told once at least, with what was ended there; the last answer is complete."""
    epoch = await world.issue()
    watch = world.issuer.watch(epoch, changes_only=True)
    first = await anext(watch)
    assert (first.changes_only, first.complete, list(shown(first))) == (False, False, NAMES)

    await world.applies("s2", epoch, AppliedRevocation(epoch, 3, 1))
    second = await anext(watch)
    assert (second.changes_only, second.complete, shown(second)) == (True, False, {"s2": (epoch, 3, 1)})

    for name in ("s0", "s1", "s3"):
        await world.applies(name, epoch)
    last = await anext(watch)
    assert (last.complete, list(shown(last))) == (True, ["s0", "s1", "s3"])
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_watcher_that_asks_for_everything_gets_it_each_time(world):
    """A client of an earlier build knows of no changes."""
    epoch = await world.issue()
    watch = world.issuer.watch(epoch)
    await anext(watch)
    await world.applies("s2", epoch, AppliedRevocation(epoch, 3, 1))
    second = await anext(watch)
    assert not second.changes_only
    assert shown(second) == {name: (epoch, 3, 1) if name == "s2" else (0, 0, 0) for name in NAMES}


async def test_what_several_entries_have_ended_is_added_up(world):
    """From the first of them to the last; what came before and after is not counted."""
    for _ in range(4):
        await world.issue()
    ended = [AppliedRevocation(epoch, epoch, 10 * epoch) for epoch in range(1, 5)]
    await world.applies("s1", 4, *ended)
    progress = await world.issuer.progress(3, 2)
    assert shown(progress)["s1"] == (4, 2 + 3, 20 + 30)
    assert shown(await world.issuer.progress(3))["s1"] == (4, 3, 30)
    assert await world.issuer.progress(5) is None


async def test_a_sidecar_that_is_forgotten_is_told_by_telling_everything(world):
    """No row of it is left at the watcher, and nobody waits for it."""
    epoch = await world.issue()
    watch = world.issuer.watch(epoch, changes_only=True)
    await anext(watch)
    world.fleet.forget("s3")
    second = await anext(watch)
    assert (second.changes_only, list(shown(second))) == (False, NAMES[:3])
    for name in NAMES[:3]:
        await world.applies(name, epoch)
    assert (await anext(watch)).complete


async def test_who_gave_up_what_it_had_applied_is_waited_for_again(world):
    """A number falls where a restored centre had lost what it meant: then it is behind, and its counts are void."""
    epoch = await world.issue()
    watch = world.issuer.watch(epoch, changes_only=True)
    await anext(watch)
    await world.applies("s0", epoch, AppliedRevocation(epoch, 5, 5))
    assert shown(await anext(watch)) == {"s0": (epoch, 5, 5)}
    member = world.fleet.members["s0"]
    member.known = replace(member.known, applied_epoch=0)
    world.fleet.changed("s0")
    assert shown(await anext(watch)) == {"s0": (0, 0, 0)}
    for name in NAMES:
        await world.applies(name, epoch)
    last = await anext(watch)
    assert (last.complete, shown(last)["s0"]) == (True, (epoch, 5, 5))


async def test_behind_are_those_who_may_still_admit(world):
    """Not who has applied the newest entry, and not who has been silent for so long that it refuses by itself."""
    for _ in range(3):
        await world.issue()
    world.clock.advance(50.0)
    await world.applies("s0", 3)
    await world.applies("s1", 1)
    await world.applies("s2", 2)
    assert (world.issuer.behind().names(3), world.issuer.behind().complete_to(3)) == (["s1", "s2", "s3"], 0)
    world.clock.advance(20.0)  # s3 was heard 70 s ago
    behind = world.issuer.behind()
    assert (behind.names(3), behind.names(2), behind.names(1)) == (["s1", "s2"], ["s1"], [])
    assert (behind.complete_to(3), behind.known) == (1, 4)
