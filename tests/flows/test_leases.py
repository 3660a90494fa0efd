"""Leases from acquire to the last watcher, one behaviour each."""

import asyncio

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted, turns
from tests.fakes.core import OTHER_PEER, PEER, Core, caps, fresh_id, identity, request

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.flows.read import WATCHERS_PER_LEASE_MAX


def acquire(core: Core, request_id: str, wanted=None, peer=PEER, who=None, *, validate_only: bool = False):
    """Acquire with this id."""
    return core.acquire.run(who or identity(), peer, wanted or request(), request_id, validate_only=validate_only)


async def test_the_same_request_id_gives_the_same_lease_and_token(core: Core) -> None:
    """A retry is the same grant, counted and logged once."""
    first, second = await acquire(core, "id"), await acquire(core, "id")
    assert (first.lease, first.token) == (second.lease, second.token)
    assert len(logged(core, "lease.acquired")) == 1


async def test_concurrent_duplicates_share_one_lease_and_one_living_token(core: Core) -> None:
    """Retries that overtake the disk get the token that works, all of them."""
    core.store.hold()
    asked = [asyncio.ensure_future(acquire(core, "id")) for _ in range(3)]
    await turns()
    asked += [asyncio.ensure_future(acquire(core, "id")) for _ in range(2)]
    await turns()
    core.store.release()
    found = await asyncio.gather(*asked)
    assert len({issued.lease.name for issued in found}) == 1
    for issued in found:
        assert core.calls.lease_of(issued.token.reveal().decode(), PEER).name == issued.lease.name


async def test_late_retries_get_a_new_token_together_and_the_old_one_is_dead(core: Core) -> None:
    """After a restart the token is nowhere: retries share one new one."""
    old = await acquire(core, "id")
    core = await restarted(core)
    found = await asyncio.gather(*(acquire(core, "id") for _ in range(3)))
    assert {old.lease.name} == {issued.lease.name for issued in found}
    for issued in found:
        core.calls.lease_of(issued.token.reveal().decode(), PEER)
    with pytest.raises(Refusal, match="LEASE_UNKNOWN"):
        core.calls.lease_of(old.token.reveal().decode(), PEER)


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_reused_request_id_with_another_request_or_peer_is_refused(core: Core, in_flight: bool) -> None:
    """One id is one request of one peer."""
    if in_flight:
        core.store.hold()
    first = asyncio.ensure_future(acquire(core, "id"))
    await turns()
    other = await refused(acquire(core, "id", request(caps(requests=1))))
    peer = await refused(acquire(core, "id", peer=OTHER_PEER))
    assert (other.reason, peer.reason) == (Reason.REQUEST_ID_REUSED, Reason.REQUEST_ID_REUSED)
    core.store.release()
    await first


async def test_one_subjects_request_id_is_nothing_to_another(core: Core) -> None:
    """Ids are remembered by subject."""
    first, second = await acquire(core, "id"), await acquire(core, "id", who=identity("agent-2"))
    assert first.lease.name != second.lease.name


async def test_a_cancelled_acquire_leaves_a_lease_that_a_retry_finds(core: Core) -> None:
    """Hanging up while the disk writes neither loses nor doubles the lease."""
    core.store.hold()
    asked = asyncio.ensure_future(acquire(core, "id"))
    await turns()
    asked.cancel()
    await turns()
    core.store.release()
    await turns()
    issued = await acquire(core, "id")
    assert list(core.books.leases) == [issued.lease.name]
    assert len(logged(core, "lease.acquired")) == 1


async def test_a1_a_lease_that_could_not_be_written_never_was(core: Core) -> None:
    """The refused grant leaves nothing in memory: no lease, no token, no remembered request."""
    core.store.down = DISK
    assert (await refused(acquire(core, "id"))).reason == Reason.STORE_UNAVAILABLE
    core.store.down = None
    await turns()
    books = core.books
    assert ({}, {}, {}, {}, set()) == (
        books.leases,
        books.token_of,
        books.requests,
        books.live_of_subject,
        books.unborn,
    )
    assert (await acquire(core, "id")).lease.name in books.leases


async def test_a1_a_lease_is_nobodys_to_see_before_it_is_durable(core: Core) -> None:
    """Until the commit it can be neither read, listed, renewed nor delegated."""
    core.store.hold()
    asked = asyncio.ensure_future(acquire(core, "id"))
    await turns()
    (name,) = core.books.leases
    with pytest.raises(Refusal, match="LEASE_NOT_FOUND"):
        core.read.get(identity(), PEER, name)
    assert core.read.page(identity(), PEER, 0, "", include_ended=True) == ([], "")
    core.store.release()
    issued = await asked
    assert core.read.get(identity(), PEER, name) == issued.lease


async def test_validation_grants_nothing_but_an_event(core: Core) -> None:
    """What would be granted is shown, without a token and without a lease."""
    issued = await acquire(core, "id", request(caps(cost_micro_usd=7), 60), validate_only=True)
    assert (issued.token, issued.lease.caps.cost_micro_usd, issued.lease.ttl_seconds) == (None, 7, 60)
    assert core.books.leases == {}
    assert len(logged(core, "lease.validated")) == 1


async def test_leases_max_is_exact_and_counts_delegated_ones(core: Core) -> None:
    """The last one fits, the next does not, and an ended one makes room."""
    core.set_grant(leases_max=2)
    parent = await core.lease()
    child = await core.child(parent)
    assert (await refused(core.lease())).reason == Reason.LEASE_COUNT_EXCEEDED
    assert (await refused(core.child(parent))).reason == Reason.LEASE_COUNT_EXCEEDED
    await core.release.run(identity(), PEER, child.name)
    await core.lease()


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (identity(environment="dev"), Reason.POLICY_DENIED),
        (identity(environment=""), Reason.ENVIRONMENT_MISMATCH),
        (identity("stranger"), Reason.POLICY_DENIED),
    ],
)
async def test_the_environment_is_a_wall(core: Core, who, reason: Reason) -> None:
    """An identity of another environment, of none, or of no grant gets nothing."""
    assert (await refused(acquire(core, "id", who=who))).reason == reason


async def test_a_key_of_another_environment_is_never_leased(core: Core) -> None:
    """A grant that joins the wrong two is refused all the same."""
    core.set_grant(environment="dev")
    assert (await refused(acquire(core, "id", who=identity(environment="dev")))).reason == Reason.ENVIRONMENT_MISMATCH


async def test_a_condition_of_the_policy_forbids(core: Core) -> None:
    """A forbid wins over a grant, and its name stays inside."""
    core.policies.forbidding = ("no-friday",)
    refusal = await refused(core.lease())
    assert refusal.reason == Reason.POLICY_DENIED
    assert "no-friday" in refusal.detail
    assert "no-friday" not in refusal.message


async def test_r3_a_silent_centre_and_a_draining_sidecar_grant_nothing(core: Core) -> None:
    """Authority lapsed or shutting down: neither leases, renewals, children nor calls."""
    lease = await core.lease()
    for reason in (Reason.CENTRE_UNREACHABLE, Reason.DRAINING):
        core.centre.lapsed_seconds = 1.5 if reason is Reason.CENTRE_UNREACHABLE else None
        core.books.draining = reason is Reason.DRAINING
        for work in (
            core.lease(),
            core.child(lease),
            core.renew.run(identity(), PEER, lease.name, "r", None, None),
            core.admit(lease),
        ):
            assert (await refused(work)).reason == reason
    assert core.account(lease) is None


async def test_renewal_extends_up_to_the_longest_life(core: Core) -> None:
    """The end moves, never past the maximum; at the maximum there is nothing to gain."""
    lease = await core.lease(ttl_seconds=3600)
    for minutes in (50, 50, 50, 50):
        core.clock.advance(minutes * 60)
        lease = await core.renew.run(identity(), PEER, lease.name, "r", None, None)
    assert (lease.expire_ns, lease.renew_count) == (lease.max_expire_ns, 4)
    assert (
        await refused(core.renew.run(identity(), PEER, lease.name, "r", None, None))
    ).reason == Reason.MAX_TTL_REACHED


async def test_renewal_compares_the_count_it_was_told(core: Core) -> None:
    """Who renews from an old reading is told to read again."""
    lease = await core.lease(ttl_seconds=60)
    core.clock.advance(1)
    await core.renew.run(identity(), PEER, lease.name, "r", None, 0)
    refusal = await refused(core.renew.run(identity(), PEER, lease.name, "r", None, 0))
    assert refusal.reason == Reason.CONCURRENT_UPDATE


async def test_renewals_of_one_lease_are_written_one_at_a_time(core: Core) -> None:
    """The second is told to come back, so that none is built on one that then fails."""
    lease = await core.lease(ttl_seconds=60)
    core.clock.advance(1)
    core.store.hold()
    first = asyncio.ensure_future(core.renew.run(identity(), PEER, lease.name, "r", None, None))
    await turns()
    second = await refused(core.renew.run(identity(), PEER, lease.name, "r", None, None))
    assert second.reason == Reason.CONCURRENT_UPDATE
    first.cancel()
    await turns()
    core.store.down = DISK
    core.store.release()
    await turns()
    assert core.now_lease(lease) == lease


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "other"}, Reason.POLICY_DENIED),
        ({"subjects": ("someone-else",)}, Reason.POLICY_DENIED),
        ({"ttl_seconds_max": 30}, Reason.SCOPE_EXCEEDED),
    ],
)
async def test_renewal_asks_the_policy_in_force(core: Core, change: dict, reason: Reason) -> None:
    """A grant that is gone, covers another, or has become shorter does not renew."""
    lease = await core.lease(ttl_seconds=60)
    core.set_grant(**change)
    assert (await refused(core.renew.run(identity(), PEER, lease.name, "r", None, None))).reason == reason


async def test_release_is_quiet_the_second_time_and_ends_the_token(core: Core) -> None:
    """A renewal may race a shutdown: releasing an ended lease says how it stands."""
    issued = await acquire(core, "id")
    for _ in range(2):
        lease = await core.release.run(identity(), PEER, issued.lease.name)
        assert lease.state is LeaseState.RELEASED
    assert len(logged(core, "lease.released")) == 1
    ended = core.calls.lease_of(issued.token.reveal().decode(), PEER)
    assert ended.name == issued.lease.name
    with pytest.raises(Refusal, match="LEASE_RELEASED"):
        core.calls.scope_of(ended, "anthropic")


async def test_another_peers_or_subjects_lease_is_not_found(core: Core) -> None:
    """The answer is the same as for a lease that does not exist."""
    lease = await core.lease()
    for who, peer in ((identity("agent-2"), PEER), (identity(), OTHER_PEER)):
        with pytest.raises(Refusal, match="LEASE_NOT_FOUND"):
            core.read.get(who, peer, lease.name)
        assert (await refused(core.release.run(who, peer, lease.name))).reason == Reason.LEASE_NOT_FOUND
        assert (await refused(core.renew.run(who, peer, lease.name, "r", None, None))).reason == Reason.LEASE_NOT_FOUND


async def test_pages_show_every_lease_once(core: Core) -> None:
    """Page by page, by name, without ended ones unless asked."""
    names = sorted([(await core.lease()).name for _ in range(5)])
    await core.release.run(identity(), PEER, names[0])
    seen, token = [], ""
    while True:
        page, token = core.read.page(identity(), PEER, 2, token, include_ended=False)
        seen += [lease.name for lease in page]
        if not token:
            break
    assert seen == names[1:]
    assert len(core.read.page(identity(), PEER, 0, "", include_ended=True)[0]) == 5
    for size, token in ((-1, ""), (1, "nonsense")):
        with pytest.raises(Refusal, match="FIELD_INVALID"):
            core.read.page(identity(), PEER, size, token, include_ended=False)


async def test_watch_shows_the_lease_at_once_coalesces_and_ends(core: Core) -> None:
    """However many changes come between two looks, the watcher sees the newest, and the last one as final."""
    lease = await core.lease(ttl_seconds=60)
    watch = core.read.watch(identity(), PEER, lease.name)
    assert await anext(watch) == (lease, False)
    for _ in range(3):
        core.clock.advance(1)
        await core.renew.run(identity(), PEER, lease.name, "r", None, None)
    current, final = await asyncio.wait_for(anext(watch), 60)
    assert (current.renew_count, final) == (3, False)
    await core.release.run(identity(), PEER, lease.name)
    ended, final = await asyncio.wait_for(anext(watch), 60)
    assert (ended.state, final) == (LeaseState.RELEASED, True)
    assert [one async for one in watch] == []
    assert core.books.watchers == {}


async def test_watchers_of_one_lease_are_bounded(core: Core) -> None:
    """One too many is told to close one first."""
    lease = await core.lease()
    watches = [core.read.watch(identity(), PEER, lease.name) for _ in range(WATCHERS_PER_LEASE_MAX + 1)]
    for watch in watches[:-1]:
        await anext(watch)
    assert (await refused(anext(watches[-1]))).reason == Reason.OVERLOADED
    for watch in watches:
        await watch.aclose()


async def test_renewing_for_ever_does_not_grow_the_heap_of_ends(core: Core) -> None:
    """Entries that renewals leave behind are swept out."""
    lease = await core.lease(ttl_seconds=3600)
    for _ in range(3000):
        core.books.put_lease(core.now_lease(lease))
    assert len(core.books.expiry) < 1200


async def test_scopes_are_narrowed_to_the_grant(core: Core) -> None:
    """What is asked beyond the grant is refused by name; what is not asked is taken from it."""
    core.set_grant(scopes=(Scope("anthropic", models=("claude-*",), max_output_tokens_per_request=10),))
    lease = await core.lease(NO_CAPS, None, scopes=(Scope("anthropic"),))
    assert (lease.scopes[0].models, lease.scopes[0].max_output_tokens_per_request) == (("claude-*",), 10)
    for scope, reason in (
        (Scope("anthropic", models=("*",)), Reason.MODEL_NOT_ALLOWED),
        (Scope("anthropic", max_output_tokens_per_request=11), Reason.SCOPE_EXCEEDED),
        (Scope("anthropic", tools=("web_search",)), Reason.SCOPE_EXCEEDED),
        (Scope("gemini"), Reason.SCOPE_EXCEEDED),
        (Scope("anthropic", key="openai-prod"), Reason.KEY_UNAVAILABLE),
    ):
        assert (await refused(core.lease(scopes=(scope,)))).reason == reason


async def test_the_same_cap_of_one_subject_may_be_asked_under_a_fresh_id(core: Core) -> None:
    """Two ids are two leases, each with its own token."""
    first, second = await acquire(core, fresh_id()), await acquire(core, fresh_id())
    assert first.lease.name != second.lease.name
    assert first.token != second.token
