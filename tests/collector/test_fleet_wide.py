"""What a revocation costs a large fleet: who hears first, who tells when, what a watcher is sent."""

import asyncio
import uuid

import pytest
from tests.fakes.centre import Centre, Operator, Sidecar, eventually

from leasehold.v1 import revocation_service_pb2 as pb
from leasehold.v1 import sidecar_service_pb2
from leasehold_broker.adapters.collector_link.rest import Rest
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import BySubject, Everything
from leasehold_broker.domain.revocation_progress import LiveLease
from leasehold_broker.domain.sync import REPORT_SPREAD_SECONDS_MAX, Push, report_spread
from leasehold_broker.flows import fleet_revocations
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.wire.sync import push_from_proto, push_to_proto


def draft(selector=None) -> RevocationDraft:
    """One revocation."""
    return RevocationDraft(selector or Everything(), "", "alice", str(uuid.uuid4()), 1)


def lease(name: str, subject: str) -> LiveLease:
    """As a sidecar reports it."""
    return LiveLease(name, "", name, "https://issuer.test", subject, "prod", ("key",), ("anthropic",))


@pytest.mark.parametrize(("leases_max", "first"), [(10_000, {"sidecar-2"}), (0, set())])
async def test_sidecars_that_hold_what_is_revoked_hear_first(tmp_path, monkeypatch, leases_max, first):
    """The centre pushes to them before the others; of a fleet with too many leases it does not look."""
    monkeypatch.setattr(fleet_revocations, "HOLDERS_LEASES_MAX", leases_max)
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        named: list[set[str]] = []
        sidecars = [Sidecar(centre.target, f"sidecar-{number}") for number in (1, 2)]
        for sidecar, subject in zip(sidecars, ("agents/a", "agents/b"), strict=True):
            sidecar.leases = [lease(f"leases/{sidecar.name}", subject)]
        async with sidecars[0], sidecars[1]:
            await eventually(lambda: sum(member.live.total for member in centre.fleet.members.values()) == 2)
            centre.fleet.issued = lambda holders: named.append(set(holders))

            await centre.issuer.issue(draft(BySubject("", "agents/b")))

        assert named == [first]


async def test_nobody_waits_for_a_count(tmp_path):
    """Sessions are woken before the leases that match are counted, and the count is of what was reported by then."""
    async with Centre(tmp_path) as centre, Sidecar(centre.target) as sidecar, asyncio.timeout(240):
        sidecar.leases = [lease("leases/1", "agents/a")]
        await eventually(lambda: centre.fleet.members and centre.fleet.members["sidecar-1"].live.total == 1)
        order: list[str] = []
        matching, issued = centre.issuer.matching, centre.fleet.issued

        async def noting_matching(selector):
            order.append("counted")
            return await matching(selector)

        def noting_issued(holders) -> None:
            order.append("woken")
            issued(holders)

        centre.issuer.matching, centre.fleet.issued = noting_matching, noting_issued
        async with Operator(centre.target, "alice/responder") as operator:
            request = pb.RevokeLeasesRequest(
                request_id=str(uuid.uuid4()), selector=pb.RevocationSelector(everything=True)
            )
            answer = await operator.revocations.RevokeLeases(request, **operator.how)

        assert order == ["woken", "counted"]
        assert list(answer.matching_leases) == ["leases/1"]


async def test_a_count_leaves_the_loop_to_others(tmp_path, monkeypatch):
    """Of many leases a share is looked at in a turn: a push goes out meanwhile."""
    monkeypatch.setattr(fleet_revocations, "LEASES_A_TURN", 1)
    async with Centre(tmp_path) as centre, asyncio.timeout(240):
        async with Sidecar(centre.target):
            await eventually(lambda: centre.fleet.session_count == 1)
        turns = 0

        async def turning() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(turning())
        await asyncio.sleep(0)
        before = turns
        await centre.issuer.matching(Everything())
        other.cancel()

        assert turns > before


async def test_what_only_tells_asks_for_no_answer(tmp_path):
    """An acknowledgement is taken without a push in return; the next heartbeat is answered as ever."""
    async with Centre(tmp_path) as centre, Sidecar(centre.target) as sidecar, asyncio.timeout(240):
        await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
        session = centre.sync._open["sidecar-1"]
        beats = [session._heartbeat]
        heard = session.heard

        async def noting(message) -> None:
            beats.append(message.heartbeat if message.applied else max(beats))
            await heard(message)

        session.heard = noting
        entry = await centre.issuer.issue(draft())
        await eventually(lambda: centre.fleet.members["sidecar-1"].known.applied_epoch == entry.epoch)
        assert beats[-1] == 0
        answered = session._heartbeat
        await eventually(lambda: session._heartbeat > answered)


async def test_a_fleet_tells_over_a_while_what_it_has_applied_at_once(tmp_path, monkeypatch):
    """With a spread, an entry is in force at once, and its acknowledgement and events come at the moment drawn."""
    monkeypatch.setattr("leasehold_broker.flows.sync_sidecar.report_spread", lambda _count: 2.0)
    async with Centre(tmp_path, authority_seconds=60.0) as centre, asyncio.timeout(240):
        sidecar = Sidecar(centre.target)
        sidecar.link._rest = Rest(lambda: 0.5)
        async with sidecar:
            await eventually(lambda: centre.fleet.session_count == 1)
            first = await centre.issuer.issue(draft())
            await sidecar.sink.reached(first.epoch)
            sidecar.emit(1)
            second = await centre.issuer.issue(draft())
            await sidecar.sink.reached(second.epoch)
            assert sidecar.link._rest.seconds_left() > 0
            assert centre.fleet.members["sidecar-1"].known.applied_epoch == 0
            assert sidecar.link.counters.records_acknowledged == 0

            await eventually(lambda: centre.fleet.members["sidecar-1"].known.applied_epoch == second.epoch)
            await sidecar.outbox.empty()


async def test_a_moment_that_is_waited_for_is_not_put_off():
    """Revocation upon revocation: somebody is told all the same."""
    rest = Rest(lambda: 1.0)
    rest.begin(0.0)
    assert rest.seconds_left() == 0
    rest.begin(1.0)
    until = rest._until
    rest.begin(1.0)
    assert rest._until == until


def test_the_spread_grows_with_the_fleet_and_ends():
    """Three sidecars tell at once; a thousand within a second; no number of them in more than two."""
    assert report_spread(3) < 0.01
    assert report_spread(1000) == 1.0
    assert report_spread(1_000_000) == REPORT_SPREAD_SECONDS_MAX


@pytest.mark.parametrize("seconds", [0.0, 0.003, REPORT_SPREAD_SECONDS_MAX])
def test_the_spread_crosses_the_wire(seconds):
    """As it was said; none is none."""
    push = Push(1, (), 60.0, 1, report_spread_seconds=seconds)
    assert push_from_proto(push_to_proto(push)).report_spread_seconds == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [-1, int(REPORT_SPREAD_SECONDS_MAX) + 1, 2**60])
def test_a_spread_beyond_its_bound_is_refused(seconds):
    """No centre makes a sidecar silent."""
    message = sidecar_service_pb2.SyncStateResponse(revocation_epoch=1)
    message.authority_ttl.seconds = 60
    message.report_spread.seconds = seconds
    with pytest.raises(Refusal, match="report_spread"):
        push_from_proto(message)


async def test_a_watcher_is_told_in_shares(tmp_path, monkeypatch):
    """Between two answers of a watch there is a pause that grows with the fleet; the last answer comes all the same."""
    monkeypatch.setattr(fleet_revocations, "PROGRESS_ROWS_PER_SECOND", 10)
    async with Centre(tmp_path, sidecars=5) as centre, asyncio.timeout(240), asyncio.TaskGroup() as group:
        sidecars = [Sidecar(centre.target, f"sidecar-{number}") for number in range(1, 6)]
        for sidecar in sidecars:
            await sidecar.__aenter__()
        await eventually(lambda: centre.fleet.connected_count() == 5)
        entry = await centre.issuer.issue(draft())
        seen = [progress async for progress in centre.issuer.watch(entry.epoch)]
        for sidecar in sidecars:
            group.create_task(sidecar.__aexit__())

    assert seen[-1].complete
    assert len(seen) <= 3


async def test_a_burst_goes_out_in_few_pushes_and_none_of_it_is_passed_over(tmp_path):
    """Entries that come while a session waits for its turn are one push; each is applied once, in order (R1, R5)."""
    async with Centre(tmp_path, authority_seconds=600.0) as centre, Sidecar(centre.target) as sidecar:
        async with asyncio.timeout(240):
            await eventually(lambda: sidecar.link.authority_lapsed_seconds(sidecar.clock.now()) is None)
            pushed: list[list[int]] = []
            following = centre.sync._open["sidecar-1"]._next

            async def noting() -> Push:
                push = await following()
                pushed.append([entry.epoch for entry in push.revocations])
                return push

            centre.sync._open["sidecar-1"]._next = noting
            # In one transaction: whatever wakes the session, a heartbeat too, finds none of them or all.
            await centre.store.issue_all([draft() for _ in range(450)], issued_event)
            centre.fleet.issued()
            await sidecar.sink.reached(450)

        assert [entry.epoch for entry in sidecar.sink.applied] == list(range(1, 451))
        assert [epoch for push in pushed for epoch in push] == list(range(1, 451))
        assert [len(push) for push in pushed if push] == [200, 200, 50]


async def test_an_acknowledgement_means_that_everything_up_to_it_is_durable(tmp_path):
    """A disk that fails between two pushes: what was not applied is not acknowledged, and is offered again (R1)."""
    async with Centre(tmp_path, authority_seconds=600.0) as centre, asyncio.timeout(240):
        for _ in range(450):
            await centre.store.issue(draft(), lambda entry: issued_event(entry, draft()))
        sidecar, offered = Sidecar(centre.target), list[int]()
        apply, heard, said = sidecar.sink.apply, centre.store.heard, list[tuple[int, int]]()

        async def failing(entries):
            offered.append(entries[0].epoch)
            if len(offered) == 2:
                raise Refusal(Reason.STORE_UNAVAILABLE, "the disk is full")
            return await apply(entries)

        async def noting(reports) -> None:
            said.extend((report.sidecar.applied_epoch, sidecar.sink.applied_epoch()) for report in reports)
            await heard(reports)

        sidecar.sink.apply, centre.store.heard = failing, noting
        async with sidecar:
            await eventually(
                lambda: centre.fleet.members and centre.fleet.members["sidecar-1"].known.applied_epoch == 450
            )

        assert offered == [1, 201, 201, 401]
        assert [entry.epoch for entry in sidecar.sink.applied] == list(range(1, 451))
        assert all(acknowledged <= durable for acknowledged, durable in said)
        assert said[-1][0] == 450
