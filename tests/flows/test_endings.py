"""What ends leases, what survives a failing disk, and what time forgets."""

import asyncio

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted, turns
from tests.fakes.core import ISSUER, KEY, OPENAI_KEY, PEER, SIDECAR, Core, caps, fresh_id, identity, request, used

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.limits import Level, WindowLimit
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByLease,
    ByProvider,
    BySidecar,
    BySubject,
    Everything,
    Revocation,
)
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.windows import Period
from leasehold_broker.flows import sweep as sweep_flow
from leasehold_broker.flows.apply_revocations import EpochGapError


def entry(epoch: int, selector=None) -> Revocation:
    """A revocation."""
    return Revocation(epoch, selector or Everything(), "incident", "alice", 1)


async def openai_lease(core: Core):
    """A lease of another subject, key and provider."""
    issued = await core.acquire.run(
        identity("agent-2"), PEER, request(scopes=(Scope("openai"),)), fresh_id(), validate_only=False
    )
    return issued.lease


@pytest.mark.parametrize(
    "selector",
    [
        None,
        BySubject("", "agent-1"),
        BySubject(ISSUER, "agent-1*"),
        ByKey(KEY.name),
        ByProvider("anthropic"),
        ByLabel("team", "research"),
    ],
)
async def test_r2_each_selector_ends_what_it_matches_and_its_tree(core: Core, selector) -> None:
    """By lease, subject, pattern, key, provider: matching leases and their children die, others live."""
    mine = identity(team="research")
    lease = (await core.acquire.run(mine, PEER, request(), fresh_id(), validate_only=False)).lease
    child = await core.child(lease)
    other = await openai_lease(core)
    cuts = []
    admitted = await core.admit(child, cut=lambda *cut: cuts.append(cut))
    (result,) = await core.revocations.apply([entry(1, selector or ByLease(lease.name))])
    assert result == AppliedRevocation(1, 2, 1)
    assert [core.now_lease(one).state for one in (lease, child)] == [LeaseState.REVOKED] * 2
    assert core.now_lease(other).state is LeaseState.ACTIVE
    ((end, refusal),) = cuts
    assert (end, refusal.reason) == (CallEnd.CUT_BY_REVOCATION, Reason.LEASE_REVOKED)
    assert (await refused(core.admit(child))).reason == Reason.LEASE_REVOKED
    await core.calls.settle(admitted.call_id, CallOutcome(end, sent=True))
    assert list(core.books.ledger.holds()) == []


@pytest.mark.parametrize("selector", [ByEnvironment("prod"), BySidecar(SIDECAR), Everything()])
async def test_r2_environment_and_everything_end_all(core: Core, selector) -> None:
    """The two widest selectors spare nothing that was issued before."""
    for lease in (await core.lease(), await openai_lease(core)):
        assert lease.name in core.books.leases
    (result,) = await core.revocations.apply([entry(1, selector)])
    assert result.leases_ended == 2


@pytest.mark.parametrize(
    "selector",
    [ByLease("leases/other"), BySubject("https://other", "*"), ByKey(OPENAI_KEY.name), ByProvider("gemini"),
     ByEnvironment("dev"), ByLabel("team", "research"), ByLabel("environment", "dev"), BySidecar("sidecar-b")],
)  # fmt: skip
async def test_a_selector_spares_what_it_does_not_match(core: Core, selector) -> None:
    """Nothing dies by accident."""
    lease = await core.lease()
    assert await core.revocations.apply([entry(1, selector)]) == [AppliedRevocation(1, 0, 0)]
    assert core.now_lease(lease).state is LeaseState.ACTIVE


async def test_r2_a_lease_issued_after_a_revocation_lives(core: Core) -> None:
    """The same selector kills what was there, not what comes; also after a restart."""
    await core.lease()
    await core.revocations.apply([entry(1)])
    later = await core.lease()
    core = await restarted(core)
    assert core.now_lease(later).state is LeaseState.ACTIVE
    assert await core.revocations.apply([entry(1)]) == [AppliedRevocation(1, 0, 0)]
    assert core.now_lease(later).state is LeaseState.ACTIVE


async def test_r1_the_epoch_never_falls_not_even_over_a_restart(core: Core) -> None:
    """An old entry again changes nothing and gives the first result."""
    lease = await core.lease()
    first = await core.revocations.apply([entry(1), entry(2, ByLease(lease.name))])
    assert await core.revocations.apply([entry(1), entry(2, ByLease(lease.name))]) == first
    (told,) = logged(core, "revocation.applied")
    assert told.details == {"epoch": 2, "first_epoch": 1, "leases_ended": 1, "calls_cut": 0}
    core = await restarted(core)
    assert (core.revocations.applied_epoch(), core.books.epoch) == (2, 2)


async def test_r5_a_gap_is_never_applied(core: Core) -> None:
    """What comes before the gap is in force, what comes after it is not."""
    lease = await core.lease()
    with pytest.raises(EpochGapError, match="between 1 and 3"):
        await core.revocations.apply([entry(1, ByLease("leases/other")), entry(3)])
    assert core.now_lease(lease).state is LeaseState.ACTIVE
    assert core.revocations.applied_epoch() == 1


async def test_r1_an_epoch_counts_as_applied_only_once_it_is_durable(core: Core) -> None:
    """In force at once in memory; said to be applied after the sync, also to whoever offers it a second time."""
    lease = await core.lease()
    core.store.hold()
    first = asyncio.ensure_future(core.revocations.apply([entry(1)]))
    await turns()
    again = asyncio.ensure_future(core.revocations.apply([entry(1)]))
    await turns()
    assert core.now_lease(lease).state is LeaseState.REVOKED
    assert (core.revocations.applied_epoch(), first.done(), again.done()) == (0, False, False)
    core.store.release()
    assert await first == await again == [AppliedRevocation(1, 1, 0)]
    assert core.revocations.applied_epoch() == 1


async def test_a_revocation_that_cannot_be_written_is_in_force_and_offered_again(core: Core) -> None:
    """The lease is dead in memory; the answer says that it is not durable, until it is."""
    lease = await core.lease()
    core.store.down = DISK
    assert (await refused(core.revocations.apply([entry(1)]))).reason == Reason.STORE_UNAVAILABLE
    assert core.now_lease(lease).state is LeaseState.REVOKED
    assert (await refused(core.revocations.apply([entry(1)]))).reason == Reason.STORE_UNAVAILABLE
    core.store.down = None
    await turns()
    assert await core.revocations.apply([entry(1)]) == [AppliedRevocation(1, 1, 0)]
    core = await restarted(core)
    assert core.now_lease(lease).state is LeaseState.REVOKED


async def test_a_lease_revoked_while_it_is_being_written_is_not_handed_out(core: Core) -> None:
    """The grant that loses the race is refused, and dead on disk."""
    core.store.hold()
    asked = asyncio.ensure_future(refused(core.lease()))
    await turns()
    revoking = asyncio.ensure_future(core.revocations.apply([entry(1)]))
    await turns()
    core.store.release()
    assert (await asked).reason == Reason.LEASE_REVOKED
    await revoking
    core = await restarted(core)
    assert [lease.state for lease in core.books.leases.values()] == [LeaseState.REVOKED]


async def test_endings_survive_a_disk_that_fails_and_grants_are_refused_meanwhile(core: Core) -> None:
    """Settlements, releases and expiry are written once, in order, when the disk answers; until then nothing new."""
    lease, other = await core.lease(caps(cost_micro_usd=1400)), await core.lease(ttl_seconds=5)
    first, second = await core.admit(lease), await core.admit(lease)
    core.store.down = DISK
    await asyncio.gather(
        core.calls.settle(first.call_id, used(10, 10)), core.calls.settle(second.call_id, used(20, 20))
    )
    await core.release.run(identity(), PEER, lease.name)
    core.clock.advance(5)
    await core.sweep.run(core.clock.now())
    for work in (core.lease(), core.admit(other), core.renew.run(identity(), PEER, other.name, "r", None, None)):
        assert (await refused(work)).reason in {Reason.STORE_UNAVAILABLE, Reason.LEASE_EXPIRED}
    assert logged(core, "call.settled") == []
    core.store.down = None
    await turns()
    await asyncio.gather(*(core.journal.retry() for _ in range(5)))
    kinds = [event.type.value for _, _, event in core.store.disk.events][-4:]
    assert kinds == ["call.settled", "call.settled", "lease.released", "lease.expired"]
    await core.lease()
    core = await restarted(core)
    assert core.account(lease).settled.cost_micro_usd == 60 + 120


async def test_b1_an_ending_that_failed_is_never_written_over_a_newer_one(core: Core) -> None:
    """A settlement called behind one that fails does not reach the disk before it."""
    lease = await core.lease(caps(cost_micro_usd=1400))
    first, second = await core.admit(lease), await core.admit(lease)
    core.store.hold()
    settling = [
        asyncio.ensure_future(core.calls.settle(first.call_id, used(10, 10))),
        asyncio.ensure_future(core.calls.settle(second.call_id, used(20, 20))),
    ]
    await turns()
    core.store.down = DISK
    core.store.flush(1)
    core.store.down = None
    core.store.release()
    await asyncio.gather(*settling)
    assert core.store.disk.accounts == {}
    assert await core.journal.retry()
    assert core.store.disk.accounts[f"lease:{lease.name}"].settled.cost_micro_usd == 180
    assert core.store.disk.holds == {}


async def test_leases_expire_on_the_boot_clock_with_their_calls_cut(core: Core) -> None:
    """At the deadline, not before, whatever the wall clock says."""
    lease = await core.lease(ttl_seconds=5)
    cuts = []
    await core.admit(lease, cut=lambda *cut: cuts.append(cut))
    core.clock.wall_ms += 10**9
    assert await core.sweep.run(core.clock.now()) == 0
    core.clock.boot_ns = lease.expire_ns - 1
    assert await core.sweep.run(core.clock.now()) == 0
    core.clock.boot_ns += 1
    assert await core.sweep.run(core.clock.now()) == 1
    assert [(end, refusal.reason) for end, refusal in cuts] == [(CallEnd.CUT_BY_EXPIRY, Reason.LEASE_EXPIRED)]
    assert await core.sweep.run(core.clock.now()) == 0


async def test_what_time_has_ended_is_forgotten_from_memory_and_disk(core: Core) -> None:
    """Ended leases after an hour, windows an hour after their successor, requests a day beyond the longest life."""
    core.set_grant(windows=(WindowLimit(Level.SUBJECT, Period.HOUR, NO_CAPS._replace(requests=9)),))
    lease = await core.lease(caps(cost_micro_usd=10_000))
    child = await core.child(lease, caps(cost_micro_usd=100))
    await core.calls.settle((await core.admit(lease)).call_id, used(1, 1))
    await core.release.run(identity(), PEER, lease.name)
    await core.sweep.prune(core.clock.now())
    assert {lease.name, child.name} == set(core.books.leases)
    core.clock.advance(3 * 3600)
    for _ in range(2):
        await core.sweep.prune(core.clock.now())
        core.clock.advance(3600)
    await core.sweep.prune(core.clock.now())
    books, disk = core.books, core.store.disk
    assert (
        books.leases, books.token_of, books.digest_of, books.children, list(books.ledger.accounts()), disk.leases,
        disk.accounts,
    ) == ({}, {}, {}, {}, [], {}, {})  # fmt: skip
    assert len(disk.requests) == 2
    core.clock.advance(30 * 3600)
    await core.sweep.prune(core.clock.now())
    assert (books.requests, disk.requests) == ({}, {})


async def test_ended_leases_are_bounded_in_number(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that acquires and releases in a loop does not fill the memory: the oldest are forgotten first."""
    monkeypatch.setattr(sweep_flow, "ENDED_LEASES_MAX", 2)
    leases = [await core.lease() for _ in range(4)]
    for lease in leases:
        core.clock.advance(1)
        await core.release.run(identity(), PEER, lease.name)
    await core.sweep.prune(core.clock.now())
    assert set(core.books.leases) == {lease.name for lease in leases[2:]}


async def test_a_lease_whose_time_came_while_the_process_was_down_expires_at_recovery(core: Core) -> None:
    """It is ended before the first request is served, and said so."""
    lease = await core.lease(ttl_seconds=5)
    core.clock.advance(6)
    core = await restarted(core)
    assert core.now_lease(lease).state is LeaseState.EXPIRED
    assert len(logged(core, "lease.expired")) == 1
    assert [event.details["holds_charged"] for event in logged(core, "sidecar.started")] == [0, 0]


async def test_stopping_drains_cuts_and_records(core: Core) -> None:
    """New work is refused, what is open gets its time and is then cut, and the stop is the last event."""
    lease = await core.lease()
    settled = []

    def cut(end: CallEnd, _: Refusal) -> None:
        settled.append(asyncio.ensure_future(core.calls.settle(admitted.call_id, CallOutcome(end, sent=True))))

    admitted = await core.admit(lease, cut=cut)
    stopping = asyncio.ensure_future(core.stop.run(0.01))
    await turns()
    assert (await refused(core.lease())).reason == Reason.DRAINING
    await stopping
    assert [event.details["end"] for event in logged(core, "call.settled")] == ["cut_by_drain"]
    assert core.store.disk.events[-1][2].details == {"calls_left": 0}
    assert len(settled) == 1


async def test_a1_a_refusal_is_durable_before_it_is_answered(core: Core) -> None:
    """Who refused whom and why is in the log, bounded, and the answer waits for the sync."""
    core.store.hold()
    refusal = Refusal(Reason.JWT_BAD_SIGNATURE, "rejected", detail="x" * 10_000)
    writing = asyncio.ensure_future(core.refusals.rpc_refused("Acquire", refusal, None, Peer(7), "r1"))
    await turns()
    assert not writing.done()
    core.store.release()
    await writing
    (event,) = logged(core, "identity.refused")
    assert (event.details["peer"], len(event.details["detail"]), event.request_id) == ("uid:7", 512, "r1")
    await core.refusals.call_refused(refusal, None, "r2", None, "p" * 999, "o", "m" * 999)
    (event,) = logged(core, "call.refused")
    assert (len(event.details["provider"]), len(event.details["model"])) == (64, 128)
