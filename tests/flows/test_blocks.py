"""Blocks: a revocation that also keeps new leases from being issued, until it is lifted."""

import asyncio

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted
from tests.fakes.core import ISSUER, KEY, PEER, SIDECAR, Core, fresh_id, identity, request

from leasehold_broker.domain.identity import Identity
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import (
    ByEnvironment,
    ByKey,
    ByLabel,
    ByProvider,
    BySidecar,
    BySubject,
    Cause,
    Everything,
    Order,
    Revocation,
)
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.selector_words import order_from_words, order_to_words
from leasehold_broker.flows.issue_revocation import IssueRevocation
from leasehold_broker.flows.lift_revocation import EndBlocks, LiftRevocation
from leasehold_broker.flows.revoke_alone import RevokeAlone
from leasehold_broker.flows.store_events import StoreEvents

BLOCK = Order(block_new=True)
RESPONDER: Identity = identity("alice")


def block(epoch: int, selector=None, order: Order = BLOCK) -> Revocation:
    """A revocation that blocks."""
    return Revocation(epoch, selector or Everything(), "incident", "alice", 1, order)


def lift(epoch: int, lifts: int) -> Revocation:
    """The entry that lifts another one."""
    return Revocation(epoch, Everything(), "over", "alice", 2, Order(lifts=lifts))


class Alone:
    """A sidecar that is its own centre."""

    def __init__(self, core: Core) -> None:
        """Over these flows."""
        self.issuer = RevokeAlone(SIDECAR, core.books, core.journal, core.revocations, core.clock)
        self.issue = IssueRevocation(self.issuer, StoreEvents(core.store), core.clock)
        self.lift = LiftRevocation(self.issuer, core.clock)
        self.ends = EndBlocks(self.issuer, core.clock)

    async def revoke(self, selector, **more):
        """Revoke as alice."""
        return await self.issue.run(RESPONDER, fresh_id(), selector, "drill", **({"validate_only": False} | more))


@pytest.mark.parametrize(
    "selector",
    [
        BySubject("", "agent-*"),
        BySubject(ISSUER, "agent-1"),
        ByKey(KEY.name),
        ByProvider("anthropic"),
        ByEnvironment("prod"),
        ByLabel("environment", "prod"),
        BySidecar(SIDECAR),
        Everything(),
    ],
)
async def test_r2_a_block_refuses_new_leases_that_it_matches_until_it_is_lifted(core: Core, selector) -> None:
    """Nothing is issued or charged, dry runs say so too, and the refusal names no more than it must."""
    lease = await core.lease()
    await core.revocations.apply([block(1, selector)])
    assert core.now_lease(lease).state is LeaseState.REVOKED
    for only_asked in (False, True):
        with pytest.raises(Refusal) as failed:
            await core.acquire.run(identity(), PEER, request(), fresh_id(), validate_only=only_asked)
        assert failed.value.reason is Reason.SUBJECT_BLOCKED
        assert (failed.value.detail, "revocations/1" in failed.value.message) == ("blocked by revocations/1", False)
    assert [one.name for one in core.books.leases.values() if not one.ended] == []
    await core.revocations.apply([lift(2, 1)])
    assert core.now_lease(await core.lease()).state is LeaseState.ACTIVE
    assert core.now_lease(lease).state is LeaseState.REVOKED  # nothing comes back to life


async def test_a_block_spares_what_it_does_not_match(core: Core) -> None:
    """Others go on acquiring."""
    await core.revocations.apply([block(1, BySubject("", "agent-1")), block(2, ByProvider("openai"))])
    other = await core.acquire.run(identity("agent-2"), PEER, request(), fresh_id(), validate_only=False)
    assert core.now_lease(other.lease).state is LeaseState.ACTIVE
    wish = request(scopes=(Scope("openai"),))
    refusal = await refused(core.acquire.run(identity("agent-2"), PEER, wish, fresh_id(), validate_only=False))
    assert refusal.reason is Reason.SUBJECT_BLOCKED


async def test_r1_blocks_and_lifts_survive_a_restart(core: Core) -> None:
    """What is blocked is blocked after a crash; what was lifted is not."""
    await core.revocations.apply([block(1, ByProvider("anthropic")), block(2, BySubject("", "nobody")), lift(3, 2)])
    core = await restarted(core)
    assert sorted(core.books.blocks) == [1]
    assert (await refused(core.lease())).reason is Reason.SUBJECT_BLOCKED
    await core.revocations.apply([lift(4, 1)])
    core = await restarted(core)
    assert core.books.blocks == {}
    await core.lease()


async def test_a_lease_under_way_when_the_block_comes_is_dead(core: Core) -> None:
    """Asked for before, durable after: the entry kills it, so that no gap is left between block and revocation."""
    asked = asyncio.create_task(core.lease())
    applied = asyncio.create_task(core.revocations.apply([block(1)]))
    results = await asyncio.gather(asked, applied, return_exceptions=True)
    assert isinstance(results[0], Refusal)
    assert [one.name for one in core.books.leases.values() if not one.ended] == []


async def test_a_lift_is_audited_and_ends_no_lease(core: Core) -> None:
    """An entry of its own, with who and why; lifting again says so and issues none, lifting nothing is refused."""
    alone = Alone(core)
    await alone.revoke(Everything(), order=Order(Cause.AGENT_COMPROMISED, block_new=True))
    await alone.revoke(BySubject("", "agent-9"))
    lifted = await alone.lift.run(RESPONDER, fresh_id(), "revocations/1", "false alarm")
    assert (lifted.progress.revocation.order, lifted.already) == (Order(lifts=1), False)
    lease = await core.lease()
    again = await alone.lift.run(RESPONDER, fresh_id(), "revocations/1", "")
    assert (again.progress.revocation, again.already) == (lifted.progress.revocation, True)
    assert (again.progress.complete, core.now_lease(lease).state) == (True, LeaseState.ACTIVE)
    told = [event.details for event in logged(core, "revocation.issued")]
    assert [(one.get("cause"), one.get("block_new"), one.get("lifts")) for one in told] == [
        ("AGENT_COMPROMISED", True, None),
        (None, None, None),
        (None, None, 1),
    ]
    for name, reason in (("revocations/2", Reason.FIELD_INVALID), ("revocations/9", Reason.REVOCATION_NOT_FOUND)):
        assert (await refused(alone.lift.run(RESPONDER, fresh_id(), name, ""))).reason is reason


async def test_several_blocks_are_lifted_by_one_request(core: Core) -> None:
    """An entry and an event of each, in their order; those that were lifted before are said, and left as they are."""
    alone = Alone(core)
    for number in range(4):
        await alone.revoke(BySubject("", f"agent-{number}"), order=BLOCK)
    await alone.lift.run(RESPONDER, fresh_id(), "revocations/2", "")
    asked, names = fresh_id(), [f"revocations/{epoch}" for epoch in (4, 2, 1, 4)]
    lifted = await alone.lift.run_all(RESPONDER, asked, names, "over")
    told = [(block.name, block.by.epoch, block.already) for block in lifted.blocks]
    assert told == [(names[0], 6, False), (names[1], 5, True), (names[2], 7, False), (names[3], 6, False)]
    assert (lifted.progress.revocation.epoch, lifted.already, sorted(core.books.blocks)) == (7, False, [3])
    assert [one.details.get("lifts") for one in logged(core, "revocation.issued")[-2:]] == [4, 1]
    for request_id in (asked, fresh_id()):
        again = await alone.lift.run_all(RESPONDER, request_id, names, "over")
        assert (again.already, [block.by.epoch for block in again.blocks]) == (True, [6, 5, 7, 6])
    reused = await refused(alone.lift.run_all(RESPONDER, asked, ["revocations/3"], "over"))
    assert (reused.reason, core.books.epoch) == (Reason.REQUEST_ID_REUSED, 7)


async def test_of_several_that_cannot_all_be_lifted_none_is(core: Core) -> None:
    """Each that is wrong is named, with why, up to a few; nothing is issued."""
    alone = Alone(core)
    await alone.revoke(Everything(), order=BLOCK)
    await alone.revoke(BySubject("", "agent-9"))
    names = ["revocations/1", "revocations/2", *(f"revocations/{epoch}" for epoch in range(10, 17))]
    refusal = await refused(alone.lift.run_all(RESPONDER, fresh_id(), names, ""))
    assert refusal.reason is Reason.FIELD_INVALID
    assert "[1]: name: revocations/2 blocks no new leases" in refusal.message
    assert "[2]: no revocation 'revocations/10' is known" in refusal.message
    assert ("[5]" in refusal.message, "[6]" in refusal.message, "and 3 more" in refusal.message) == (True, False, True)
    for names in ([], ["revocations/1"] * 1001):
        assert (await refused(alone.lift.run_all(RESPONDER, fresh_id(), names, ""))).reason is Reason.FIELD_INVALID
    assert (core.books.epoch, sorted(core.books.blocks)) == (2, [1])


async def test_a_lift_that_the_disk_refused_is_not_lifted_already(core: Core) -> None:
    """A restart would forget it: whoever asks again is told the same, until one is written."""
    alone = Alone(core)
    await alone.revoke(Everything(), order=BLOCK)
    core.store.down = DISK
    asked = fresh_id()
    for _ in range(2):
        assert (await refused(alone.lift.run(RESPONDER, asked, "revocations/1", ""))).reason is Reason.STORE_UNAVAILABLE
    core.store.down = None
    await core.journal.retry()
    assert not (await alone.lift.run(RESPONDER, asked, "revocations/1", "")).already
    assert (await alone.lift.run(RESPONDER, fresh_id(), "revocations/1", "")).already
    assert core.books.epoch == 2


async def test_a_block_for_a_time_lasts_at_least_so_long(core: Core) -> None:
    """The centre lifts it on the boot clock, never earlier, and once; a restart of it counts anew."""
    alone = Alone(core)
    await alone.revoke(Everything(), order=Order(block_new=True, block_seconds=60))
    await alone.revoke(BySubject("", "agent-9"), order=BLOCK)
    await alone.ends.step()
    core.clock.wall_ms += 3_600_000  # the wall clock alone
    core.clock.advance(59)
    await alone.ends.step()
    assert sorted(core.books.blocks) == [1, 2]
    fresh = EndBlocks(alone.issuer, core.clock)  # as after a restart of the centre
    await fresh.step()
    core.clock.advance(2)
    await fresh.step()
    assert sorted(core.books.blocks) == [1, 2]
    for _ in range(2):
        await alone.ends.step()
        assert sorted(core.books.blocks) == [2]
    core.clock.advance(60)
    await fresh.step()
    assert [entry.order.lifts for entry in core.books.revocations] == [0, 0, 1]


@pytest.mark.parametrize(
    ("order", "word"),
    [
        (Order(block_seconds=60), "block_new"),
        (Order(block_new=True, block_seconds=-1), "block_duration"),
        (Order(block_new=True, block_seconds=10**9), "block_duration"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(core: Core, order: Order, word: str) -> None:
    """And nothing is revoked."""
    lease = await core.lease()
    refusal = await refused(Alone(core).revoke(Everything(), order=order))
    assert (refusal.reason, word in refusal.message) == (Reason.FIELD_INVALID, True)
    assert core.now_lease(lease).state is LeaseState.ACTIVE


async def test_more_matching_leases_than_expected_revoke_nothing(core: Core) -> None:
    """A typo in a selector is no outage: the count guards it, and exactly the expected count passes."""
    leases = [await core.lease() for _ in range(2)]
    alone = Alone(core)
    refusal = await refused(alone.revoke(Everything(), leases_max=1))
    assert refusal.reason is Reason.EXPECTED_COUNT_MISMATCH
    assert {core.now_lease(lease).state for lease in leases} == {LeaseState.ACTIVE}
    assert core.books.epoch == 0
    await alone.revoke(Everything(), leases_max=2)
    assert {core.now_lease(lease).state for lease in leases} == {LeaseState.REVOKED}


@pytest.mark.parametrize(
    "order",
    [Order(), BLOCK, Order(Cause.DRILL), Order(Cause.KEY_LEAKED, block_new=True, block_seconds=60), Order(lifts=7)],
)
def test_an_order_survives_its_words(order: Order) -> None:
    """Both directions; what is not an order is refused."""
    assert order_from_words(order_to_words(order)) == order
    for wrong in ({"more": 1}, {"lifts": "7"}, {"cause": "NONE"}):
        with pytest.raises(ValueError, match=r"order|Cause"):
            order_from_words({**order_to_words(order), **wrong})


async def test_a_block_that_cannot_be_lifted_keeps_no_other(core: Core, monkeypatch) -> None:
    """The fault is raised for whoever keeps the task running, and only after every block had its turn."""
    alone = Alone(core)
    for selector in (ByKey("first"), ByKey("second")):
        await alone.revoke(selector, order=Order(block_new=True, block_seconds=5))
    await alone.ends.step()
    core.clock.advance(6)
    issue = alone.issuer.issue

    async def poisoned(draft):
        if draft.selector == ByKey("first"):
            raise RuntimeError("a damaged row")
        return await issue(draft)

    monkeypatch.setattr(alone.issuer, "issue", poisoned)
    with pytest.raises(RuntimeError):
        await alone.ends.step()
    lifted = [entry for entry in await alone.issuer.page(1 << 62, 10) if entry.order.lifts]
    assert [entry.selector for entry in lifted] == [ByKey("second")]
    monkeypatch.setattr(alone.issuer, "issue", issue)
    await alone.ends.step()
    assert len([entry for entry in await alone.issuer.page(1 << 62, 10) if entry.order.lifts]) == 2
