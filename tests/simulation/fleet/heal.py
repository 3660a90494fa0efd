"""The end of all faults: within stated times everything has converged, or the seed fails.

Owns what operators do then: bans are lifted, copies are stopped, a sidecar whose stream a copy took over begins anew
with an empty directory (the runbook's way). Then everything is delivered, accounted, applied and admitted.
"""

import asyncio
from typing import Any

from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.stream_head import LifeState
from leasehold_broker.domain.sync import HEARTBEATS_PER_AUTHORITY

SETTLED_SECONDS = 3.0
"""What was under way when the faults ended is over."""
RESTARTED_SECONDS = 60.0
"""Hosts and the centre are back."""
DELIVERING_SECONDS = 70.0
"""Sessions are open, and records go: refused ones try again within a minute."""
BLOCKED_SECONDS = 20.0
"""A block lasts ten at most, counted anew from a start of the centre; dead leases are forgotten meanwhile."""
CONVERGED_SECONDS = 150.0
SERVED_SECONDS = 15.0
DRAINED_SECONDS = 75.0


async def heal(world: Any) -> None:
    """End all faults and hold the world to its promises.

    Raises:
        AssertionError: something has not converged.
    """
    world.faults.going = False
    world.network.calm = True
    world.healed = True
    world.centre.disk.full = world.centre.disk.failing = False
    for one in tuple(world.sidecars):
        one.disk.full = one.disk.failing = False
        one.disk.dies_in = 0
        if one.rogue:
            one.kill()
    world.centre.disk.dies_in = 0
    await _back(world)
    assert world.centre.up, f"the centre is not back: {world.centre} {world.mending}"
    for standing in world.centre.enrolment.standings():  # also bans whose answer got lost
        if standing.ban is not None:
            await world.operators.readmit(world.centre, standing.name)
    await _begin_anew_where_fenced(world)
    await _converges(world)
    await _serves(world)
    await _drains(world)
    await _agrees(world)


async def _back(world: Any) -> None:
    """Whoever was away is up again."""
    await asyncio.sleep(SETTLED_SECONDS)
    ends = world.loop.time() + RESTARTED_SECONDS
    while world.loop.time() < ends:
        await asyncio.sleep(1.0)
        if world.centre.up and {one.name for one in world.sidecars if one.alive} == set(world.names):
            return


async def _delivering(world: Any) -> None:
    """All are in step, and each was seen to have no records left, or to get rid of some."""
    ends = world.loop.time() + DELIVERING_SECONDS
    before: dict[Any, int] = {}
    going: set[Any] = set()
    while world.loop.time() < ends:
        await asyncio.sleep(1.0)
        waiting = [one for one in world.sidecars if one.alive and one not in going]
        for one in waiting:
            acknowledged = one.link.counters.records_acknowledged
            if acknowledged > before.get(one, acknowledged) or not await one.store.pending_after(0, 1):
                going.add(one)
            before[one] = acknowledged
        if going.issuperset(world.sidecars) and not await _lags(world):
            return


async def _begin_anew_where_fenced(world: Any) -> None:
    """Whoever cannot deliver what he has, because a copy of him took his stream over, or his disk was put back."""
    for _ in range(3):
        await _delivering(world)
        stuck = [
            one.name
            for one in world.sidecars
            if one.alive
            and {"AUDIT_EPOCH_FENCED", "AUDIT_CHAIN_BROKEN"} & one.link.counters.failures.keys()
            and await one.store.pending_after(0, 1)
            and await _stands_still(one)
        ]
        if not stuck:
            return
        for name in stuck:
            assert name in world.disturbed, f"A4: {name} cannot deliver, though no copy of it ever ran"
            world.seen["begun anew after a copy"] += 1
            world.begin_anew(name)


async def _stands_still(one: Any) -> bool:
    before = one.link.counters.records_acknowledged
    await asyncio.sleep(1.0)
    return one.link.counters.records_acknowledged == before


async def _converges(world: Any) -> None:
    """Every event delivered, every revocation applied and acknowledged, every sidecar speaks for the centre."""
    waited = 0.0
    while (why := await _lags(world)) and waited < CONVERGED_SECONDS:
        await asyncio.sleep(1.0)
        waited += 1.0
    assert not why, f"not converged after {waited:.0f} s: {why}"
    world.seen["converged"] += 1


async def _lags(world: Any) -> str:
    centre = world.centre
    alive = {one.name: one for one in world.sidecars if one.alive}
    if set(alive) != set(world.names):
        return f"R, E8: {sorted(set(world.names) - set(alive))} are not back"
    for name, one in alive.items():
        if one.link.authority_lapsed_seconds(one.clock.now()) is not None:
            return f"R3: {name} does not speak for the centre: {one.link.counters.failures}"
        if one.core.revocations.applied_epoch() != centre.store.epoch():
            return f"R1, R5: {name} is at epoch {one.core.revocations.applied_epoch()} of {centre.store.epoch()}"
        if one.core.revocations.history_digest() != centre.store.history().digest_at(centre.store.epoch()):
            return f"R4: {name} has applied other revocations than the centre has issued"
        member = centre.fleet.members.get(name)
        if member is None or member.known.applied_epoch != centre.store.epoch():
            return f"R: {name} has not acknowledged epoch {centre.store.epoch()}"
    return ""


async def _serves(world: Any) -> None:
    """E8, B10: whoever asks within what there is, is served; nobody is denied by a ghost."""
    agents = world.agents
    agents.gentle = True
    await asyncio.sleep(BLOCKED_SECONDS)
    agents.served.clear()
    agents.refused.clear()
    await asyncio.sleep(SERVED_SECONDS)
    wall_ms = world.centre.clock.now().wall_ms
    pools = [running.escrow.pool for running in world.centre.escrow.windows.all_running(wall_ms).values()]
    for one in world.sidecars:
        denied = agents.refused.get(one.name, {})
        known = list(one.core.books.slices._known.values())
        if any(each.told.fence and each.own is None for each in known):
            world.seen["set back to a slice that was forgotten"] += 1  # the price of a clock that was set back
            continue
        allowed = {Reason.BUDGET_EXHAUSTED.value}
        if world.settings.forgets:  # when a block ends that the centre has forgotten, nobody knows
            allowed.add(Reason.SUBJECT_BLOCKED.value)
        if set(denied) - allowed:
            message = f"B10: {one.name} denied {denied} after all was well"
            raise AssertionError(message)
        starved = denied.get(Reason.BUDGET_EXHAUSTED.value, 0) > 5 and not agents.served.get(one.name)
        left = [each.told.remaining for each in known if world.settings.sidecar_percent_max < 100]
        assert not starved or min([*pools, *left]) < world.settings.worst_max + 40, (
            f"E8: {one.name} gets nothing of {pools}, {left} of them for it"
        )
        assert not _phantom(one), f"B9, B10: {one.name} holds what no call holds"


def _phantom(one: Any) -> bool:
    open_ = set(one.core.books.calls)
    return any(hold.id not in open_ and not hold.id.startswith("carve") for hold in one.core.books.ledger.holds())


async def _drains(world: Any) -> None:
    """Calls end; what is still in spools is delivered, and what was spent is told with the next heartbeat."""
    world.agents.calling = False
    ends = world.loop.time() + DRAINED_SECONDS
    while world.loop.time() < ends:
        await asyncio.sleep(1.0)
        calling = any(one.calls for one in world.sidecars)
        if not calling and not any([await one.store.pending_after(0, 1) for one in world.sidecars]):
            break
    for one in world.sidecars:
        assert not one.calls
        assert not _phantom(one), "B9"
        left = await one.store.pending_after(0, 1)
        assert not left, f"A4: {one.name} still has {left[0].record.epoch} {left[0].record.sequence}"
    await asyncio.sleep(world.settings.authority_seconds / HEARTBEATS_PER_AUTHORITY + SETTLED_SECONDS)


async def _agrees(world: Any) -> None:
    """The log has everything, verifies offline, and alone says what the books of all say (A4 to A7, E1)."""
    centre, audit = world.centre, world.audit
    await centre.publish.step()
    await audit.prove(centre)
    heads = await centre.store.heads()
    audit.ends_known(heads, at_the_end=True)
    flagged = {(head.stream, head.epoch) for head in heads if head.state is LifeState.TAIL_UNKNOWN}
    arrived = {(head.stream, head.epoch) for head in heads}
    begun_anew = {life for life in audit.emitted if life not in arrived}
    audit.delivered(flagged | {life for life in begun_anew if life[0] in world.disturbed})
    audit.whole(world.folder / "export", centre.publish.newest.note)
    for one in world.sidecars:
        if one.name not in world.disturbed:
            _replayed(world, one)
    _slices_agree(world, await centre.store.slices())


def _replayed(world: Any, one: Any) -> None:
    replay, books = world.audit.replay(one.name), one.core.books
    assert {hold.id for hold in books.ledger.holds()} == set(replay.holds), f"A7: holds of {one.name}"
    for account in books.ledger.accounts():
        said = replay.settled.get(account.id, [0] * 5)
        assert list(account.settled) == said, f"A7: {one.name} {account.id}: {account.settled}, the log says {said}"
    live = {lease.name: lease.expire_wall_ms for lease in books.leases.values() if not lease.ended}
    assert live == replay.live, f"A7: leases of {one.name}"
    assert books.epoch == replay.epoch, f"A7: revocations of {one.name}"
    world.seen["books are what the log says"] += 1


def _slices_agree(world: Any, stored: Any) -> None:
    escrow = world.escrow
    lives, budgets = {one.life for one in world.sidecars}, {one.name for one in world.budgets()}
    for row in stored.slices:
        said = escrow.granted[row.fence], escrow.returned[row.fence]
        assert said == (row.granted, row.returned), f"A7: slice {row.fence}: {row.granted}, {row.returned}; log: {said}"
        if row.life in lives and row.budget in budgets and row.fence not in escrow.copied and row.state.value == "open":
            assert row.reported == escrow.drawn[row.fence], (
                f"E4: slice {row.fence}: {row.reported} reported, {escrow.drawn[row.fence]} were drawn"
            )
