"""Credentials of a secret engine: written down before they are read, one for each lease, revoked with it.

The engine is the one in memory that passes the contract suite of the real one.
"""

import asyncio
from dataclasses import replace

import pytest
from tests.fakes.core import PEER, POLICY, fresh_id, identity
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.engine_house import API, DB, DOWN, HANDED, House, refused, settle
from tests.fakes.memory_engine import OPEN, READ, RENEW, REVOKE

from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.flows import dynamic_keys, engine_leases
from leasehold_broker.flows.engine_leases import DynamicKey


@pytest.fixture
async def house():
    """One, living."""
    house = House()
    await house.life()
    return house


async def test_a_credential_is_made_for_one_lease_and_revoked_with_it(house):
    """Each lease has its own; released, its own is revoked and the other works; all of it is in the log."""
    one, other = await house.acquire(), await house.acquire()
    assert one.token != other.token
    assert house.engine.alive(one.token.reveal().decode())
    minted = house.events("key.minted")[0]
    assert minted.lease == one.lease.name
    assert minted.subject == one.lease.subject
    assert minted.details["engine_lease"].startswith(f"engine/creds/{DB}/")
    assert minted.details["accessor"] == "accessor-0"
    await house.core.release.run(identity(), PEER, one.lease.name)
    await house.look()
    assert house.engine.living() == [other.token.reveal().decode()]
    revoked = house.events("key.revoked")[0]
    assert (revoked.lease, revoked.details["key"]) == (one.lease.name, DB)
    ended = house.events("lease.released")[0].details
    assert ended["engine_lease"] == minted.details["engine_lease"]
    assert "token_lives_until_wall_ms" not in ended
    assert len(house.disk.engine_leases) == 1


async def test_an_expired_and_a_revoked_lease_end_it_too(house):
    """By time, and by an incident: no credential works a look later."""
    await house.acquire(ttl_seconds=60)
    house.clock.advance(61)
    await house.look(2)
    assert house.engine.living() == []
    await house.acquire()
    await house.core.revocations.apply([Revocation(1, Everything(), "drill", "op", 0)])
    await house.look()
    assert house.engine.living() == []
    assert house.disk.engine_leases == {}


async def test_it_lives_as_long_as_its_lease_is_renewed(house):
    """An hour of renewals of ours: the engine's lease of five minutes is renewed behind, and audited."""
    issued = await house.acquire(ttl_seconds=300)
    for _ in range(30):
        house.clock.advance(100)
        await house.look()
        await house.core.renew.run(identity(), PEER, issued.lease.name, fresh_id(), None, None)
        assert house.engine.alive(issued.token.reveal().decode())
    assert 10 <= len(house.events("key.renewed")) <= 30


async def test_the_longest_life_of_the_engine_ends_our_lease(house):
    """What the engine renews no further ends, and its lease with it: nobody holds a lease without a credential."""
    house.engine.longest_seconds = 500
    issued = await house.acquire(ttl_seconds=600)
    for _ in range(52):
        house.clock.advance(10)
        await house.look()
    assert house.core.now_lease(issued.lease).ended
    assert house.events("lease.expired")[0].lease == issued.lease.name
    assert house.disk.engine_leases == {}


async def test_the_engine_is_asked_only_once_it_is_written_down(house):
    """The disk holds the accessor before the engine is asked to make anything; a full disk, and it is never asked."""
    house.store.hold()
    asking = asyncio.create_task(house.acquire())
    await settle()
    assert house.engine.asked == [OPEN]
    house.store.release()
    await asking
    assert house.engine.asked == [OPEN, READ]
    house.store.down = Refusal(Reason.STORE_UNAVAILABLE, "no")
    assert (await refused(house.acquire())).reason is Reason.STORE_UNAVAILABLE
    house.store.down = None
    await house.look(3)
    assert house.engine.asked == [OPEN, READ, OPEN, REVOKE]


@pytest.mark.parametrize("commits", range(4))
async def test_killed_at_any_commit_nothing_is_left_behind(commits):
    """Killed with the first N commits of an acquire on the disk: the next life revokes, or goes on with, what is there.

    Whatever works at the engine then belongs to a lease that lives; nothing else works.
    """
    house = House()
    await house.life()
    house.store.hold()
    asking = asyncio.create_task(house.acquire())
    for _ in range(commits):
        await settle()
        house.store.flush(1)
    await settle()
    house.store.crash()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await house.life()
    await house.look(3)
    leases = [lease for lease in house.core.books.leases.values() if not lease.ended]
    assert len(house.engine.living()) == len(leases)
    assert {one.lease for one in house.disk.engine_leases.values()} == {lease.name for lease in leases}
    if commits == 0:
        assert READ not in house.engine.asked


async def test_a_restart_goes_on_renewing_what_a_live_lease_uses(house):
    """After a kill the agent's credential works on, is renewed, and ends with its lease."""
    issued = await house.acquire(ttl_seconds=600)
    house.store.crash()
    await house.life()
    for _ in range(5):
        house.clock.advance(100)
        await house.look()
        assert house.engine.alive(issued.token.reveal().decode())
    await house.core.release.run(identity(), PEER, issued.lease.name)
    await house.look()
    assert house.engine.living() == []


async def test_a_lease_that_ended_while_nobody_ran(house):
    """Its time came while the process was down: revoked at the start."""
    await house.acquire(ttl_seconds=100)
    house.store.crash()
    house.clock.advance(101)
    await house.life()
    await house.look()
    assert house.engine.living() == []
    assert house.disk.engine_leases == {}


async def test_gone_for_good_the_engine_ends_it(house):
    """A sidecar that never comes back: after the key's life nothing works, though nobody revoked it."""
    house.engine.life_seconds = 3600
    await house.acquire(ttl_seconds=600)
    house.store.crash()
    house.clock.advance(301)
    assert house.engine.living() == []


async def test_an_engine_that_is_down_is_told_again_and_again(house):
    """It cannot be reached when a lease ends: said once, tried until it can, with pauses; then revoked."""
    await house.acquire(ttl_seconds=60)
    house.engine.faults[REVOKE] = DOWN
    house.engine.life_seconds = 9000
    house.clock.advance(61)
    for _ in range(300):
        await house.look()
        house.clock.advance(1)
    assert house.core.dynamic.counts() == (1, 1)
    told = house.events("key.not_revoked")
    assert len(told) == 1
    assert told[0].details["state"] == "sealed"
    assert 5 <= house.engine.asked.count(REVOKE) <= 12
    assert len(house.disk.engine_leases) == 1
    del house.engine.faults[REVOKE]
    for _ in range(61):
        await house.look()
        house.clock.advance(1)
    assert len(house.events("key.revoked")) == 1
    assert house.disk.engine_leases == {}


async def test_a_renewal_that_fails_is_tried_again(house):
    """Down for a while: the lease goes on; down until the end: the lease ends with its credential."""
    issued = await house.acquire(ttl_seconds=600)
    house.engine.faults[RENEW] = DOWN
    house.clock.advance(200)
    await house.look()
    assert house.events("key.not_renewed")[0].details["state"] == "sealed"
    del house.engine.faults[RENEW]
    house.clock.advance(5)
    await house.look()
    assert house.events("key.renewed")
    house.engine.faults[RENEW] = DOWN
    for _ in range(31):
        house.clock.advance(10)
        await house.look()
    assert house.core.now_lease(issued.lease).ended


async def test_revoked_at_the_engine_by_somebody(house):
    """An operator ends it there: our lease does not outlive it by more than a renewal's interval."""
    issued = await house.acquire(ttl_seconds=600)
    await house.engine.revoke("accessor-0", "engine/creds/orders-db/1")
    house.clock.advance(181)
    await house.look(3)
    assert house.core.now_lease(issued.lease).ended
    assert house.events("key.not_renewed")[0].details["state"] == "missing"


async def test_suspended_for_sixteen_hours(house):
    """The boot clock counts them: everything is over, is revoked, and the next lease gets a credential that works."""
    await house.acquire(ttl_seconds=600)
    house.clock.advance(16 * 3600)
    await house.look(3)
    assert house.disk.engine_leases == {}
    issued = await house.acquire()
    assert house.engine.living() == [issued.token.reveal().decode()]


@pytest.mark.parametrize("kind", [OPEN, READ])
async def test_an_engine_that_gives_nothing(house, kind):
    """Down, or its answer lost: refused with a reason, no lease, told once, and what may be there is revoked."""
    house.engine.faults[kind] = DOWN
    for _ in range(3):
        refusal = await refused(house.acquire())
        assert refusal.reason is Reason.KEY_UNAVAILABLE
        assert "sealed" in refusal.detail
    assert house.core.books.leases == {}
    assert len(house.events("key.not_minted")) == 1
    del house.engine.faults[kind]
    house.engine.lost = {kind}
    await refused(house.acquire())
    house.engine.lost = set()
    await house.look(3)
    assert house.engine.living() == []
    assert house.disk.engine_leases == {}


async def test_refused_after_the_reading_it_is_given_up(house):
    """The policy changed while the engine answered: no lease, and what was read for it is revoked."""
    house.engine.gate = asyncio.Event()
    asking = asyncio.create_task(house.acquire())
    await settle()
    house.core.policies.policy = Policy("none", POLICY.grants)
    house.engine.gate.set()
    with pytest.raises(Refusal):
        await asking
    await house.look(3)
    assert house.engine.living() == []
    assert house.disk.engine_leases == {}
    assert house.events("key.revoked")


async def test_a_lease_that_cannot_be_written_down_is_given_up(house):
    """The disk fails at the lease itself: no lease, its credential revoked."""
    house.store.hold()
    asking = asyncio.create_task(house.acquire())
    await settle()
    house.store.flush()
    await settle()
    assert house.engine.asked == [OPEN, READ]
    house.store.down = Refusal(Reason.STORE_UNAVAILABLE, "no")
    house.store.release()
    with pytest.raises(Refusal):
        await asking
    house.store.down = None
    await settle()
    await house.look(3)
    assert house.core.books.leases == {}
    assert house.engine.living() == []


async def test_what_lives_longer_than_promised_is_not_handed_out():
    """A credential that its engine cannot cut short, and that outlives the promise, is refused; a shorter one ends."""
    house = House(life_seconds=1000, renewable=False)
    await house.life()
    assert (await refused(house.acquire())).reason is Reason.DISCLOSURE_NOT_ALLOWED
    await house.look(3)
    assert house.disk.engine_leases == {}
    house.engine.life_seconds = 200
    issued = await house.acquire(ttl_seconds=600)
    assert issued.lease.ttl_seconds <= 200
    assert issued.lease.max_expire_ns == issued.lease.expire_ns
    assert "cannot shorten" in house.events("key.minted")[-1].details["revocation"]
    await house.core.release.run(identity(), PEER, issued.lease.name)
    assert house.events("lease.released")[-1].details["token_lives_until_wall_ms"]


async def test_the_number_of_credentials_is_bounded(house, monkeypatch):
    """As many as may be, then OVERLOADED; and again once one has ended."""
    monkeypatch.setattr(engine_leases, "HELD_MAX", 3)
    leases = [await house.acquire() for _ in range(3)]
    assert (await refused(house.acquire())).reason is Reason.OVERLOADED
    await house.core.release.run(identity(), PEER, leases[0].lease.name)
    await house.look()
    await house.acquire()


async def test_a_key_that_is_not_configured_any_more(house):
    """What it made is kept in mind, said at each start, and revoked once the key is back."""
    await house.acquire(ttl_seconds=60)
    house.store.crash()
    house.names = (API,)
    await house.life()
    await house.look(3)
    assert house.events("key.not_revoked")[0].details["state"] == "not_configured"
    assert len(house.disk.engine_leases) == 1
    house.store.crash()
    house.clock.advance(61)
    house.names = (DB, API)
    await house.life()
    await house.look(3)
    assert house.disk.engine_leases == {}


async def test_before_it_has_started_no_engine_is_asked():
    """A command that only looks at keys reads none."""
    house = House()
    key = DynamicKey(API, "own-api", "prod", 1, house.engine, 300, brokered=True)
    keys = dynamic_keys.DynamicKeys([key], house.clock, CountingEntropy())
    assert [record.name for record in keys.records()] == [API]
    assert (await refused(keys.secret(API))).reason is Reason.KEY_UNAVAILABLE
    assert house.engine.asked == []
    await keys.aclose()


async def test_no_value_is_written_down(house):
    """Neither the disk nor any event holds what the engine made."""
    issued = await house.acquire()
    shared = await house.core.dynamic.secret(API)
    await settle()
    everything = repr((house.disk.engine_leases, house.disk.events, house.core.dynamic, house.core.books))
    for secret in (issued.token, shared):
        assert secret.reveal().decode() not in everything


@pytest.mark.parametrize(("provider", "mode"), [("own-db", Mode.BROKERED), ("own-db", Mode.DISCLOSED)])
async def test_modes_it_does_not_serve(house, provider, mode):
    """A whole answer cannot be carried by a call, and no engine's credential is a stored key."""
    policy = replace(HANDED, modes=frozenset(Mode), disclosed_keys=(DB,))
    house.core.policies.policy = Policy("p", (policy,))
    refusal = await refused(house.acquire(provider, mode))
    assert refusal.reason is Reason.DISCLOSURE_NOT_ALLOWED
    assert house.engine.asked == []
