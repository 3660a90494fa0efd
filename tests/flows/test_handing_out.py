"""Minted tokens and disclosed keys: only where the policy says so, written down before shown, asked back after."""

from dataclasses import replace

import pytest
from tests.fakes.core import GRANT, KEY, OPENAI_KEY, PEER, POLICY, Core, caps, fresh_id, identity, request
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.memory_state_store import MemoryStateStore
from tests.fakes.planted import planted

from leasehold_broker.domain.keys import KeyKind, KeyMarkKind
from leasehold_broker.domain.lease import LeaseState, Mode
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.secret import Secret

HANDED = replace(
    GRANT,
    name="handed",
    scopes=(Scope("anthropic"), Scope("openai")),
    modes=frozenset({Mode.MINTED, Mode.DISCLOSED}),
    minted_seconds_max=300,
    disclosed_keys=(OPENAI_KEY.name,),
    delegation_depth_max=0,
)


@pytest.fixture
async def core(core):
    """A core whose anthropic key is federated, and whose policy hands out."""
    core.policies.policy = Policy("p", (*POLICY.grants, HANDED))
    core.keys.by_name[KEY.name] = replace(KEY, kind=KeyKind.FEDERATED)
    core.keys.values[OPENAI_KEY.name] = Secret(planted("disclosed").encode())
    return core


async def acquire(core, mode, provider="anthropic", *, request_id=None, subject="agent-1", limits=None, scope=None):
    """A lease in this mode."""
    asked = request(**({} if limits is None else {"limits": limits}), mode=mode, scopes=(scope or Scope(provider),))
    who = identity(subject)
    return await core.acquire.run(who, PEER, asked, request_id or fresh_id(), validate_only=False)


async def refused(work) -> Reason:
    """Why not."""
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value.reason


def events(core, kind):
    """Durable events of a type."""
    return [event for _, _, event in core.store.disk.events if event.type == kind]


async def restarted(core, seed):
    """Another life on the same disk."""
    store = MemoryStateStore(core.store.disk, core.clock)
    return await Core(store, core.clock, core.policies.policy, CountingEntropy(seed)).recover()


async def test_a_minted_token_is_handed_out_for_its_life(core):
    """The lease ends with its token, cannot be renewed past it, and the token works at no egress of ours."""
    issued = await acquire(core, Mode.MINTED)
    assert issued.token == Secret(b"minted-canary-0")
    assert issued.lease.ttl_seconds == 300
    assert issued.lease.max_expire_ns == issued.lease.expire_ns
    assert await refused(core.renew.run(identity(), PEER, issued.lease.name, fresh_id(), None, None)) is (
        Reason.MAX_TTL_REACHED
    )
    with pytest.raises(Refusal):
        core.calls.lease_of("minted-canary-0", PEER)
    assert events(core, "key.exposed") == []


async def test_a_token_that_outlives_its_promise_is_not_handed_out(core):
    """The provider's rule gives a longer life than the policy promises: no lease, no token."""
    core.minter.life_seconds = 301
    assert await refused(acquire(core, Mode.MINTED)) is Reason.DISCLOSURE_NOT_ALLOWED
    assert core.books.leases == {}


async def test_the_end_of_a_minted_lease_says_what_it_cannot_reach(core):
    """Released early, its event tells until when the provider takes the token."""
    issued = await acquire(core, Mode.MINTED)
    await core.release.run(identity(), PEER, issued.lease.name)
    details = events(core, "lease.released")[0].details
    assert details["token_lives_until_wall_ms"] == issued.lease.max_expire_wall_ms


async def test_a_disclosed_key_is_marked_with_its_lease(core):
    """Lease, exposure and mark are durable together, before the key is shown; the mark survives a restart."""
    issued = await acquire(core, Mode.DISCLOSED, "openai")
    assert issued.token == Secret(planted("disclosed").encode())
    exposed = events(core, "key.exposed")[0]
    assert exposed.lease == issued.lease.name
    assert exposed.details == {"key": OPENAI_KEY.name, "version": 1}
    assert events(core, "lease.acquired")[0].details["mode"] == "disclosed"
    again = await restarted(core, "2")
    assert again.books.key_marks[OPENAI_KEY.name, KeyMarkKind.EXPOSED].version == 1
    assert issued.lease.name in again.books.exposures
    assert planted("disclosed") not in repr(core.store.disk.events)


@pytest.mark.parametrize("how", ["released", "expired", "revoked", "while it was down"])
async def test_the_end_of_a_disclosed_lease_requests_rotation_once(core, how):
    """However the lease ends, exactly one request for rotation is durable, with key, version and cause."""
    issued = await acquire(core, Mode.DISCLOSED, "openai")
    if how == "released":
        await core.release.run(identity(), PEER, issued.lease.name)
        await core.release.run(identity(), PEER, issued.lease.name)
    elif how == "expired":
        core.clock.advance(issued.lease.ttl_seconds + 1)
        await core.sweep.run(core.clock.now())
        await core.sweep.run(core.clock.now())
    elif how == "revoked":
        await core.revocations.apply([Revocation(1, Everything(), "", "op", 0)])
    else:
        core.clock.advance(issued.lease.ttl_seconds + 1)
        core = await restarted(core, "2")
    requested = events(core, "key.rotation_requested")
    assert len(requested) == 1
    details = requested[0].details
    assert (details["key"], details["version"], details["cause"]) == (OPENAI_KEY.name, 1, "disclosed")
    assert details["environment"] == "prod"
    assert core.books.exposures == {}
    again = await restarted(core, "3")
    assert again.books.exposures == {}
    assert len(events(again, "key.rotation_requested")) == 1
    assert again.books.leases[issued.lease.name].state is not LeaseState.ACTIVE


async def test_only_named_keys_are_disclosed(core):
    """A stored key that is not named, and a federated one, are not disclosed; a stored one is not minted."""
    core.keys.by_name[KEY.name] = KEY
    assert await refused(acquire(core, Mode.DISCLOSED)) is Reason.DISCLOSURE_NOT_ALLOWED
    assert await refused(acquire(core, Mode.MINTED)) is Reason.DISCLOSURE_NOT_ALLOWED
    core.keys.by_name[OPENAI_KEY.name] = replace(OPENAI_KEY, kind=KeyKind.FEDERATED)
    assert await refused(acquire(core, Mode.DISCLOSED, "openai")) is Reason.DISCLOSURE_NOT_ALLOWED
    assert events(core, "key.exposed") == []
    assert core.minter.minted == []


async def test_a_grant_without_the_mode_hands_out_nothing(core):
    """Brokered alone is granted: both modes are refused."""
    core.policies.policy = POLICY
    for mode in (Mode.MINTED, Mode.DISCLOSED):
        assert await refused(acquire(core, mode, "openai")) is Reason.DISCLOSURE_NOT_ALLOWED


async def test_what_cannot_be_held_is_not_promised(core):
    """Caps, models, operations and two providers are refused: nobody could hold the credential to them."""
    assert await refused(acquire(core, Mode.MINTED, limits=caps(requests=5))) is Reason.DISCLOSURE_NOT_ALLOWED
    narrow = Scope("anthropic", models=("claude-small",))
    assert await refused(acquire(core, Mode.MINTED, scope=narrow)) is Reason.DISCLOSURE_NOT_ALLOWED
    core.keys.by_name[KEY.name] = replace(KEY, kind=KeyKind.FEDERATED, narrows=True)
    assert (await acquire(core, Mode.MINTED, scope=narrow)).token is not None
    limited = Scope("anthropic", max_output_tokens_per_request=5)
    assert await refused(acquire(core, Mode.MINTED, scope=limited)) is Reason.DISCLOSURE_NOT_ALLOWED


async def test_a_retry_gets_the_same_credential(core):
    """The same request id: the same lease and credential, nothing minted or exposed twice; not remembered: refused."""
    request_id = fresh_id()
    first = await acquire(core, Mode.MINTED, request_id=request_id)
    assert await acquire(core, Mode.MINTED, request_id=request_id) == first
    assert core.minter.minted == ["minted-canary-0"]
    core.books.fresh_tokens.clear()
    assert await refused(acquire(core, Mode.MINTED, request_id=request_id)) is Reason.LEASE_NOT_FOUND


async def test_nothing_is_delegated_from_a_credential(core):
    """A lease that hands out has no part to pass on."""
    issued = await acquire(core, Mode.MINTED)
    assert await refused(core.child(issued.lease)) is Reason.DISCLOSURE_NOT_ALLOWED


async def test_a_disk_that_fails_hands_out_nothing(core):
    """The lease does not become durable: the key is not shown, and no exposure is remembered."""
    core.store.down = Refusal(Reason.STORE_UNAVAILABLE, "the disk has failed")
    assert await refused(acquire(core, Mode.DISCLOSED, "openai")) is Reason.STORE_UNAVAILABLE
    assert core.books.exposures == {}
    assert core.books.leases == {}
