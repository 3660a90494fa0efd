"""A grant for certain local users: at acquire, renewal and delegation, by the kernel's word."""

import pytest
from tests.fakes.asking import refused
from tests.fakes.core import OTHER_PEER, PEER, fresh_id, identity, request

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason

MINE = frozenset({PEER.uid})


@pytest.mark.parametrize("peer", [OTHER_PEER, Peer(None, "ab" * 32)])
async def test_another_user_is_refused(core, peer):
    """Another uid, or a caller over the network, who has none."""
    core.set_grant(peer_uids=MINE)
    refusal = await refused(core.acquire.run(identity(), peer, request(), fresh_id(), validate_only=False))
    assert refusal.reason is Reason.POLICY_DENIED
    assert refusal.detail == "peer_uids: 1000"
    assert (await core.lease()).grant == "agents"


async def test_a_renewal_asks_again(core):
    """A policy that has meanwhile named other users ends the lease's renewals."""
    lease = await core.lease()
    core.set_grant(peer_uids=frozenset({OTHER_PEER.uid}))
    work = core.renew.run(identity(), PEER, lease.name, fresh_id(), None, None)
    assert (await refused(work)).reason is Reason.POLICY_DENIED


@pytest.mark.parametrize(
    ("binding", "good"), [(None, True), ("uid:1000", True), ("uid:2000", False), ("cert:" + "ab" * 32, False)]
)
async def test_a_child_is_for_those_users_too(core, binding, good):
    """Delegation does not carry a grant to a user that it does not name, nor to one whom nobody can tell."""
    core.set_grant(peer_uids=MINE)
    parent = await core.lease()
    work = core.delegate.run(identity(), PEER, parent.name, request(scopes=()), fresh_id(), binding)
    if good:
        assert (await work).lease.parent == parent.name
    else:
        assert (await refused(work)).reason is Reason.POLICY_DENIED


async def test_a_child_ends_with_its_parent_and_not_by_a_watch_of_its_own(core):
    """Only the parent is tied to the process; its end takes the child with it."""
    issued = await core.acquire.run(identity(), PEER, request(), fresh_id(), validate_only=False, end_with_process=True)
    assert (await core.child(issued.lease)).process == ""
