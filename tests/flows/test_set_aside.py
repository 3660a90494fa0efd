"""A sidecar whose centre has lost what its numbers meant: the numbers are given up, and nothing of what they did."""

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted, turns
from tests.fakes.core import KEY, Core
from tests.fakes.replay import replayed

from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import PLAIN, ByKey, ByLease, BySubject, Everything, Order, Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.flows.serving_key import ServingKey

BLOCK = Order(block_new=True)
NOBODY = BySubject("", "nobody")
ME = BySubject("", "agent-1")


def entry(epoch: int, selector=NOBODY, order: Order = PLAIN, note: str = "as it was") -> Revocation:
    """One of the history that is lost, unless its note says otherwise."""
    return Revocation(epoch, selector, note, "alice", 1, order)


def mine(core: Core) -> bytes:
    """What the sidecar says of its history."""
    return core.revocations.history_digest()


async def test_r2_an_entry_under_a_number_that_was_lost_ends_leases_that_knew_that_number(core: Core) -> None:
    """A lease was issued at epoch 3; the restored centre's own 2 comes, and ends it, also after a restart."""
    await core.revocations.apply([entry(1), entry(2), entry(3)])
    lease, other = await core.lease(), await core.lease()
    assert lease.revocation_epoch == 3
    await core.revocations.set_aside(1)
    assert (core.revocations.applied_epoch(), core.now_lease(lease).revocation_epoch) == (1, 1)
    core = await restarted(core)
    assert (core.revocations.applied_epoch(), core.now_lease(lease).revocation_epoch) == (1, 1)
    await core.revocations.apply([entry(2, ByLease(lease.name), note="anew")])
    assert core.now_lease(lease).state is LeaseState.REVOKED
    assert core.now_lease(other).state is LeaseState.ACTIVE
    anew = RevocationHistory([entry(1), entry(2, ByLease(lease.name), note="anew")])
    assert mine(core) == anew.digest_at(2)
    core = await restarted(core)
    assert mine(core) == anew.digest_at(2)
    assert (await refused(core.admit(lease))).reason is Reason.LEASE_REVOKED


async def test_what_a_lost_entry_ended_stays_ended_and_is_told(core: Core) -> None:
    """Its effects are durable; the audit log says what it was, so that it can be revoked again; and A7 holds."""
    lease = await core.lease()
    await core.revocations.apply([entry(1), entry(2, ME, note="ticket 7")])
    await core.revocations.set_aside(1)
    core = await restarted(core)
    assert core.now_lease(lease).state is LeaseState.REVOKED
    (told,) = logged(core, "revocation.set_aside")
    assert told.details["selector"] == {"subject": {"issuer": "", "subject": "agent-1"}}
    assert (told.details["note"], told.details["epoch"], told.details["agreed_epoch"]) == ("ticket 7", 2, 1)
    assert core.books.epoch == 1


async def test_a_lost_block_is_in_force_until_the_same_is_ordered_again_and_lifted(core: Core) -> None:
    """The centre cannot name it; it survives restarts, and a block of something else lifts nothing of it."""
    await core.revocations.apply([entry(1), entry(2, ME, BLOCK)])
    await core.revocations.set_aside(1)
    for again in (core, await restarted(core)):
        assert (await refused(again.lease())).reason is Reason.SUBJECT_BLOCKED
    core = again
    await core.revocations.apply([entry(2, Everything(), BLOCK), entry(3, Everything(), Order(lifts=2))])
    assert (await refused(core.lease())).reason is Reason.SUBJECT_BLOCKED
    await core.revocations.apply([entry(4, ME, BLOCK), entry(5, ME, Order(lifts=4))])
    core = await restarted(core)
    assert core.books.blocks == {}
    await core.lease()


async def test_what_only_a_lost_entry_had_lifted_is_blocked_again(core: Core) -> None:
    """The centre holds it to be blocked, and a sidecar that says otherwise would let in what others keep out."""
    await core.revocations.apply([entry(1, ME, BLOCK), entry(2, ME, Order(lifts=1))])
    await core.lease()
    await core.revocations.set_aside(1)
    for again in (core, await restarted(core)):
        assert sorted(again.books.blocks) == [1]
        assert (await refused(again.lease())).reason is Reason.SUBJECT_BLOCKED


async def test_r2_nothing_is_delegated_from_a_lease_of_a_kind_that_is_blocked_again(core: Core) -> None:
    """Its parent was issued while the lift was known, and lives; a child of it would be as new as any other lease."""
    await core.revocations.apply([entry(1, ME, BLOCK), entry(2, ME, Order(lifts=1))])
    parent = await core.lease()
    child = await core.child(parent)
    await core.revocations.set_aside(1)
    for again in (core, await restarted(core)):
        events = len(logged(again, "lease.delegated"))
        for lease in (parent, child):
            assert (await refused(again.child(lease))).reason is Reason.SUBJECT_BLOCKED
        assert len(logged(again, "lease.delegated")) == events
        assert again.books.leases.keys() == {parent.name, child.name}


async def test_a_lost_block_that_was_lifted_is_not_in_force(core: Core) -> None:
    """Both are lost: nothing is blocked, and a second loss counts on from the first."""
    await core.revocations.apply([entry(1, ME, BLOCK), entry(2, ME, Order(lifts=1))])
    await core.revocations.set_aside(0)
    await core.revocations.apply([entry(1), entry(2, NOBODY, BLOCK)])
    await core.revocations.set_aside(0)
    core = await restarted(core)
    assert [one.epoch for one in core.books.revocations_set_aside] == [-1, -2, -3]
    assert sorted(core.books.blocks) == [-3]
    assert (core.books.epoch, mine(core)) == (0, b"")
    await core.lease()


async def test_a_key_that_a_lost_entry_revoked_serves_no_lease_in_its_place(core: Core) -> None:
    """Nobody knows any more whether the lease is older than the entry: it counts as if (fails closed)."""
    await core.revocations.apply([entry(1, ByKey(KEY.name))])
    await core.revocations.set_aside(0)
    lease = await core.lease()
    assert ServingKey(core.books, core.health, core.policies)._revoked(lease, KEY)


async def test_a_disk_that_fails_meanwhile_loses_neither_history(core: Core) -> None:
    """In memory the numbers are given up at once; what is offered again waits for the disk, and is told once."""
    await core.revocations.apply([entry(1), entry(2, ME, BLOCK)])
    core.store.down = DISK
    with pytest.raises(Refusal, match="cannot write"):
        await core.revocations.set_aside(1)
    assert core.revocations.applied_epoch() == 1
    core.store.down = None
    await turns()
    await core.revocations.set_aside(1)
    core = await restarted(core)
    assert (core.books.epoch, sorted(core.books.blocks)) == (1, [-1])
    assert len(logged(core, "revocation.set_aside")) == 1


async def test_many_lost_entries_are_told_as_a_count(core: Core) -> None:
    """A store that was replaced by an empty one loses all: the newest hundred are told one by one."""
    await core.revocations.apply([entry(number) for number in range(1, 251)])
    await core.revocations.set_aside(0)
    told = logged(core, "revocation.set_aside")
    assert [one.details["epoch"] for one in told] == list(range(151, 251))
    assert {one.details["set_aside"] for one in told} == {250}
    assert replayed([event for _, _, event in core.store.disk.events]).epoch == core.books.epoch == 0
