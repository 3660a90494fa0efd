"""A lease that ends with its process: from the flows' side, with processes in memory."""

import asyncio

import pytest
from tests.fakes.asking import logged, refused, restarted, turns
from tests.fakes.core import PEER, fresh_id, identity, request

from leasehold_broker.domain.reasons import Reason, field_invalid


async def tied(core, request_id=None):
    """A lease that ends with the process of PEER."""
    issued = await core.acquire.run(
        identity(), PEER, request(), request_id or fresh_id(), validate_only=False, end_with_process=True
    )
    return issued.lease


async def test_the_end_of_the_process_ends_the_lease_and_its_children(core):
    """Released for the process's sake, with an event that says so; calls are refused from then on."""
    lease = await tied(core)
    child = await core.child(lease)
    core.processes.end()
    await core.journal.drain()
    for one in (lease, child):
        now = core.now_lease(one)
        assert (now.state, now.state_reason) == ("released", Reason.PROCESS_ENDED)
        assert Reason.PROCESS_ENDED is now.dead_reason(core.clock.now()).reason
    assert [event.reason for event in logged(core, "lease.released")] == [Reason.PROCESS_ENDED] * 2
    assert len(core.end_with_process) == 0


async def test_other_leases_of_the_process_go_on(core):
    """Only leases that asked for it end with the process."""
    lease = await core.lease()
    await tied(core)
    core.processes.end()
    await core.journal.drain()
    assert not core.now_lease(lease).ended


async def test_a_lease_that_ends_otherwise_lets_its_process_go(core):
    """A released lease watches nothing; the end of the process changes nothing about it."""
    lease = await tied(core)
    await core.release.run(identity(), PEER, lease.name)
    core.end_with_process.tidy()
    assert not core.processes.watching
    core.processes.end()
    assert Reason.LEASE_RELEASED is core.now_lease(lease).state_reason


async def test_a_lease_that_could_not_be_stored_lets_its_process_go(core):
    """The grant is taken back, and so is the watch."""
    core.store.down = field_invalid("disk", "is down")
    await refused(tied(core))
    core.end_with_process.tidy()
    assert not core.processes.watching


async def test_where_the_process_cannot_be_seen_nothing_is_granted(core):
    """The request is refused with the sentence that says why, also when it only asks what would be granted."""
    core.processes.refusal = field_invalid("end_with_process", "cannot be kept: because")
    assert core.processes.refusal is await refused(tied(core))
    validate = core.acquire.run(identity(), PEER, request(), fresh_id(), validate_only=True, end_with_process=True)
    assert core.processes.refusal is await refused(validate)
    assert not core.books.leases


async def test_the_same_request_id_for_a_lease_that_does_not_end_with_its_process_is_another_request(core):
    """Whether it ends with the process is part of what was asked."""
    request_id = fresh_id()
    await tied(core, request_id)
    again = core.acquire.run(identity(), PEER, request(), request_id, validate_only=False)
    assert Reason.REQUEST_ID_REUSED is (await refused(again)).reason


async def test_a_process_that_ends_while_the_disk_writes_leaves_no_lease(core):
    """The end comes between grant and sync: the caller is refused, and the log says both."""
    core.store.hold()

    task = asyncio.ensure_future(tied(core))
    await turns()
    core.processes.end()
    core.store.release()
    assert Reason.PROCESS_ENDED is (await refused(task)).reason
    await core.journal.drain()
    assert all(lease.ended for lease in core.books.leases.values())


@pytest.mark.parametrize("gone", [False, True])
async def test_after_a_restart_the_lease_is_tied_again_or_ended(core, gone):
    """Its process lives: it goes on and ends with it. Its process is gone: it ends before anything is served."""
    lease = await tied(core)
    later = await restarted(core)
    if gone:
        later.processes.gone.add(lease.process)
    assert int(gone) == await later.end_with_process.resume()
    assert gone is later.now_lease(lease).ended
    later.processes.end()
    await later.journal.drain()
    assert Reason.PROCESS_ENDED is later.now_lease(lease).state_reason
