"""Ban, readmit, evict: over the wire, with real links as sidecars, and over restarts."""

import asyncio
from uuid import uuid4

import grpc
import pytest
from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.memory_escrow_log import fleet_budget

from leasehold.v1 import fleet_service_pb2 as pb
from leasehold.v1 import revocation_service_pb2
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.revocation import BySidecar

pytestmark = pytest.mark.timeout(300)


def connected(sidecar):
    """It has the centre's authority."""
    return sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None


def ban(name, note=""):
    """The request."""
    return pb.BanSidecarRequest(sidecar=name, note=note)


async def types(centre):
    """Of all events of the collector's own stream."""
    return [one.type for one in await centre.store.page(EventFilter(stream="collector"), 0, 500)]


async def test_a_banned_sidecar_hears_of_its_revocation_and_has_no_authority(tmp_path):
    """The entry is pushed before the streams end; authority is gone at once; nothing more is taken."""
    async with Centre(tmp_path, authority_seconds=60.0) as centre, Operator(centre.target, "alice/responder") as alice:
        sidecar, other = Sidecar(centre.target), Sidecar(centre.target, "sidecar-2")
        async with sidecar, other:
            await eventually(lambda: connected(sidecar) and connected(other))
            answer = await alice.fleet.BanSidecar(ban("sidecar-1", "spoke nonsense"), **alice.how)
            await eventually(lambda: not connected(sidecar))
            sidecar.emit(2)
            await eventually(lambda: sidecar.link.counters.failures.get("SIDECAR_BANNED", 0) >= 3)
            assert connected(other)
    assert [entry.selector for entry in sidecar.sink.applied] == [BySidecar("sidecar-1")]
    assert sidecar.link.counters.records_acknowledged == 0
    assert answer.sidecar.ban.note == "spoke nonsense"
    assert answer.sidecar.ban.banned_by == "alice (https://issuer.test)"


async def test_a_ban_outlives_the_collector_and_ends_with_readmission(tmp_path):
    """Banned before it ever connected, over a restart; readmitted, it ships what it kept."""
    async with Centre(tmp_path) as centre, Operator(centre.target, "alice/responder") as alice:
        await alice.fleet.BanSidecar(ban("sidecar-1"), **alice.how)
    async with Centre(tmp_path, "c2") as centre, Operator(centre.target, "alice/responder") as alice:
        sidecar = Sidecar(centre.target)
        sidecar.emit(3)
        async with sidecar:
            await eventually(lambda: sidecar.link.counters.failures.get("SIDECAR_BANNED", 0) >= 2)
            assert not connected(sidecar)
            await alice.fleet.ReadmitSidecar(pb.ReadmitSidecarRequest(sidecar="sidecar-1"), **alice.how)
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        assert [name for name in await types(centre) if name.startswith("sidecar.")] == [
            "sidecar.banned",
            "sidecar.readmitted",
            "sidecar.connected",
        ]


async def test_a_ban_twice_is_one_ban_and_one_revocation(tmp_path):
    """The first note stays; no second event, no second entry."""
    async with Centre(tmp_path) as centre, Operator(centre.target, "alice/responder") as alice:
        await alice.fleet.BanSidecar(ban("sidecar-1", "first"), **alice.how)
        answer = await alice.fleet.BanSidecar(ban("sidecar-1", "second"), **alice.how)
        assert answer.sidecar.ban.note == "first"
        assert centre.store.epoch() == 1
        assert (await types(centre)).count("sidecar.banned") == 1


async def test_a_ban_whose_revocation_was_never_issued_is_finished_by_the_next_try(tmp_path, monkeypatch):
    """The collector died between the two: banned in the next life, and asking again issues the entry."""
    async with Centre(tmp_path) as centre, Operator(centre.target, "alice/responder") as alice:

        async def die(_draft):
            raise OSError

        monkeypatch.setattr(centre.issuer, "issue", die)
        with pytest.raises(grpc.aio.AioRpcError):
            await alice.fleet.BanSidecar(ban("sidecar-1"), **alice.how)
    async with Centre(tmp_path, "c2") as centre, Operator(centre.target, "alice/responder") as alice:
        assert centre.store.epoch() == 0
        sidecar = Sidecar(centre.target)
        async with sidecar:
            await eventually(lambda: sidecar.link.counters.failures.get("SIDECAR_BANNED", 0) >= 2)
        await alice.fleet.BanSidecar(ban("sidecar-1"), **alice.how)
        assert centre.store.epoch() == 1


async def test_a_sidecar_that_may_hold_authority_is_not_evicted(tmp_path):
    """Connected, or silent for less than its authority: refused, with how long it takes."""
    async with Centre(tmp_path, authority_seconds=30.0) as centre, Operator(centre.target, "alice/responder") as alice:
        async with Sidecar(centre.target) as sidecar:
            await eventually(lambda: connected(sidecar))
            with pytest.raises(grpc.aio.AioRpcError, match=r"may hold authority for another \d+ s;"):
                await alice.fleet.EvictSidecar(pb.EvictSidecarRequest(sidecar="sidecar-1"), **alice.how)
        assert "sidecar.evicted" not in await types(centre)
        assert list(centre.fleet.members) == ["sidecar-1"]


async def test_an_evicted_sidecar_holds_up_no_revocation_and_may_come_back(tmp_path):
    """Nobody waits for it, also after a restart; its events stay; it can enrol anew."""
    async with Centre(tmp_path, authority_seconds=0.2) as centre, Operator(centre.target, "alice/responder") as alice:
        async with Sidecar(centre.target) as sidecar:
            await eventually(lambda: connected(sidecar))
            sidecar.emit(1)
            await sidecar.outbox.empty()
        member = centre.fleet.members["sidecar-1"]
        await eventually(lambda: centre.fleet.lapsed(member, centre.clock.now()) and not member.connected)
        await alice.fleet.EvictSidecar(pb.EvictSidecarRequest(sidecar="sidecar-1", note="node is gone"), **alice.how)
        assert centre.fleet.members == {}
        assert (await types(centre))[-1] == "sidecar.evicted"
    async with Centre(tmp_path, "c2") as centre, Operator(centre.target, "alice/responder") as alice:
        assert centre.fleet.members == {}
        request = revocation_service_pb2.RevokeLeasesRequest(
            request_id=str(uuid4()), selector=revocation_service_pb2.RevocationSelector(everything=True)
        )
        progress = (await alice.revocations.RevokeLeases(request, **alice.how)).progress
        assert progress.complete
        async with Sidecar(centre.target, epoch="e2") as sidecar:
            await eventually(lambda: connected(sidecar))
        assert len(await centre.store.page(EventFilter(stream="sidecar-1"), 0, 10)) == 1


@pytest.mark.parametrize("token", ["bob/auditor", "bob/treasurer", "bob"])
async def test_only_responders_ban_readmit_and_evict(tmp_path, token):
    """An auditor may look; nobody else may change."""
    async with Centre(tmp_path) as centre, Operator(centre.target, token) as bob:
        for call, request in (
            (bob.fleet.BanSidecar, ban("sidecar-1")),
            (bob.fleet.ReadmitSidecar, pb.ReadmitSidecarRequest(sidecar="sidecar-1")),
            (bob.fleet.EvictSidecar, pb.EvictSidecarRequest(sidecar="sidecar-1")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request, **bob.how)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert await centre.store.register.bans() == []
        assert not {"sidecar.banned", "sidecar.readmitted", "sidecar.evicted"} & {*await types(centre)}


@pytest.mark.parametrize("request_", [ban(""), ban("x" * 300), ban("a\nb"), ban("a", "two\nlines")])
async def test_a_ban_of_nothing_or_with_a_bad_note_is_refused(tmp_path, request_):
    """Nothing is written."""
    async with Centre(tmp_path) as centre, Operator(centre.target, "alice/responder") as alice:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await alice.fleet.BanSidecar(request_, **alice.how)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await centre.store.register.bans() == []


async def test_the_list_tells_who_is_connected_silent_and_banned(tmp_path):
    """One line for each known or banned sidecar."""
    async with (
        Centre(tmp_path, authority_seconds=60.0) as centre,
        Operator(centre.target, "bob/auditor") as bob,
        Operator(centre.target, "alice/responder") as alice,
        Sidecar(centre.target) as sidecar,
    ):
        async with Sidecar(centre.target, "sidecar-2") as second:
            await eventually(lambda: connected(sidecar) and connected(second))
        await alice.fleet.BanSidecar(ban("sidecar-9", "stolen"), **alice.how)
        await eventually(lambda: not centre.fleet.members["sidecar-2"].connected)
        answer = await bob.fleet.ListSidecars(pb.ListSidecarsRequest(), **bob.how)
    shown = [(one.name, one.connected, one.lapsed, one.ban.note) for one in answer.sidecars]
    assert shown == [
        ("sidecar-1", True, False, ""),
        ("sidecar-2", False, False, ""),
        ("sidecar-9", False, True, "stolen"),
    ]


def slices_of(centre):
    """State and what is written off of each, by holder."""
    return {
        one.sidecar: (one.state, one.written_off)
        for running in centre.escrow.windows
        for one in running.escrow.slices.values()
    }


def holding(centre, name="sidecar-1", epoch="e1"):
    """A sidecar with a life, which slices belong to."""
    sidecar = Sidecar(centre.target, name, epoch=epoch)
    sidecar.slices.life = f"life of {name}"
    return sidecar


async def test_e6_a_ban_writes_the_slices_of_its_sidecar_off_at_once(tmp_path):
    """What it holds counts as spent, its neighbour keeps its own; the next life of the collector finishes a ban."""
    budgets = [fleet_budget(cost_micro_usd=64_000)]
    async with (
        Centre(tmp_path, fleet_budgets=budgets) as centre,
        Operator(centre.target, "alice/responder") as alice,
        holding(centre) as one,
        holding(centre, "sidecar-2", "e2"),
    ):
        await eventually(lambda: len(slices_of(centre)) == 2)
        await alice.fleet.BanSidecar(ban("sidecar-1"), **alice.how)
        await eventually(lambda: slices_of(centre)["sidecar-1"][0] is SliceState.WRITTEN_OFF)
        assert slices_of(centre)["sidecar-1"][1] > 0
        assert slices_of(centre)["sidecar-2"] == (SliceState.OPEN, 0)
        await eventually(lambda: not connected(one))
        async with asyncio.timeout(240):
            while "budget.slice_written_off" not in await types(centre):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
    async with Centre(tmp_path, "c2", fleet_budgets=budgets) as centre:
        await centre.enrolment.restore()
        await centre.escrow.step()
        assert slices_of(centre)["sidecar-1"][0] is SliceState.WRITTEN_OFF


async def test_e6_a_ban_that_its_collector_did_not_survive_writes_off_in_the_next_life(tmp_path, monkeypatch):
    """The ban is durable and the collector dies before the slices are written off: the next one does it."""
    budgets = [fleet_budget(cost_micro_usd=64_000)]
    async with (
        Centre(tmp_path, fleet_budgets=budgets) as centre,
        Operator(centre.target, "alice/responder") as alice,
        holding(centre) as one,
    ):
        await eventually(lambda: "sidecar-1" in slices_of(centre))
        monkeypatch.setattr(centre.escrow, "expelled", lambda _: None)
        await alice.fleet.BanSidecar(ban("sidecar-1"), **alice.how)
        await eventually(lambda: not connected(one))
        assert slices_of(centre)["sidecar-1"][0] is SliceState.OPEN
    async with Centre(tmp_path, "c2", fleet_budgets=budgets) as centre:
        await centre.enrolment.restore()
        await eventually(lambda: slices_of(centre)["sidecar-1"][0] is SliceState.WRITTEN_OFF)


async def test_e6_an_evicted_sidecar_is_written_off_before_its_silence_would(tmp_path):
    """It has no authority any more: nobody waits for calls that it may have left."""
    budgets = [fleet_budget(cost_micro_usd=64_000)]
    async with (
        Centre(tmp_path, authority_seconds=1.0, fleet_budgets=budgets) as centre,
        Operator(centre.target, "alice/responder") as alice,
    ):
        async with holding(centre):
            await eventually(lambda: "sidecar-1" in slices_of(centre))
        assert slices_of(centre)["sidecar-1"][0] is SliceState.OPEN

        def lapsed():
            return centre.fleet.lapsed(centre.fleet.members["sidecar-1"], centre.clock.now())

        await eventually(lapsed)
        await alice.fleet.EvictSidecar(pb.EvictSidecarRequest(sidecar="sidecar-1"), **alice.how)
        await eventually(lambda: slices_of(centre)["sidecar-1"][0] is SliceState.WRITTEN_OFF)
