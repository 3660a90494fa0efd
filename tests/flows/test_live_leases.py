"""What is reported of live leases, and that nothing is listed twice."""

from tests.fakes.core import PEER, Core, identity

from leasehold_broker.flows.live_leases import ReportLeases


async def test_live_leases_are_listed_anew_only_when_one_has_come_or_gone(core: Core) -> None:
    """A renewal or a call changes nothing of what is reported; an end or a new lease does."""
    report = ReportLeases(core.books)
    assert list(report()) == []
    lease, other = await core.lease(ttl_seconds=60), await core.lease()
    first = report()
    assert {one.name for one in first} == {lease.name, other.name}
    core.clock.advance(10)
    await core.renew.run(identity(), PEER, lease.name, "r", 60, None)
    await core.admit(other)
    assert report() is first
    await core.release.run(identity(), PEER, lease.name)
    assert [one.name for one in report()] == [other.name]
    child = await core.child(other)
    assert {one.name for one in report()} == {other.name, child.name}
    core.clock.advance(10**6)
    await core.sweep.run(core.clock.now())
    assert list(report()) == []
