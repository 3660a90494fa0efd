"""Delegated leases only narrow, spend their parents' money, give back what is left, and die with them (B14)."""

import asyncio

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted, turns
from tests.fakes.core import OTHER_PEER, PEER, Core, caps, identity, plan, request, used

from leasehold_broker.domain.amounts import ZERO
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.scope import Scope


def money(core: Core, lease) -> tuple[int, int]:
    """(settled, held) micro-USD of the lease's own budget."""
    account = core.account(lease)
    return account.settled.cost_micro_usd, account.held.cost_micro_usd


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        (Scope("anthropic", models=("*",)), Reason.MODEL_NOT_ALLOWED),
        (Scope("anthropic", operations=("models",)), Reason.SCOPE_EXCEEDED),
        (Scope("anthropic", tools=("code_execution",)), Reason.SCOPE_EXCEEDED),
        (Scope("anthropic", max_output_tokens_per_request=101), Reason.SCOPE_EXCEEDED),
        (Scope("openai"), Reason.SCOPE_EXCEEDED),
        (Scope("anthropic", key="openai-prod"), Reason.SCOPE_EXCEEDED),
    ],
)
async def test_b14_no_dimension_of_the_scope_widens(core: Core, scope: Scope, reason: Reason) -> None:
    """Models, operations, tools, output limit, provider and key stay within the parent's."""
    mine = Scope("anthropic", "", ("claude-*",), ("messages",), ("web_search*",), max_output_tokens_per_request=100)
    parent = await core.lease(scopes=(mine,))
    assert (await refused(core.child(parent, scopes=(scope,)))).reason == reason
    assert (await core.child(parent)).scopes == parent.scopes


async def test_b14_caps_and_life_stay_within_the_parent(core: Core) -> None:
    """A larger cap, a cap that is not there any more, and a longer life are refused."""
    parent = await core.lease(caps(cost_micro_usd=1000), 60)
    assert (await refused(core.child(parent, caps(cost_micro_usd=1001)))).reason == Reason.SCOPE_EXCEEDED
    await core.child(parent, caps(cost_micro_usd=600))
    assert (await refused(core.child(parent, caps(cost_micro_usd=401)))).reason == Reason.BUDGET_EXHAUSTED
    assert (await refused(core.child(parent, ttl_seconds=61))).reason == Reason.SCOPE_EXCEEDED
    assert (await core.child(parent)).expire_ns == parent.expire_ns


async def test_b14_a_childs_renewal_ends_with_the_parent_to_the_nanosecond(core: Core) -> None:
    """Also where less than a second is left."""
    parent = await core.lease(ttl_seconds=10)
    child = await core.child(parent)
    core.clock.advance(0.5)
    parent = await core.renew.run(identity(), PEER, parent.name, "r", None, None)
    core.clock.boot_ns = child.expire_ns - 100_000_000
    renewed = await core.renew.run(identity(), PEER, child.name, "r", 5, None)
    assert renewed.expire_ns == parent.expire_ns
    refusal = await refused(core.renew.run(identity(), PEER, child.name, "r", 5, None))
    assert refusal.reason == Reason.MAX_TTL_REACHED


async def test_a_stated_cap_is_carved_out_and_the_rest_flows_back(core: Core) -> None:
    """The parent's money is held at once; when the child ends, what it did not spend is there again."""
    parent = await core.lease(caps(cost_micro_usd=10_000))
    child = await core.child(parent, caps(cost_micro_usd=4000))
    assert money(core, parent) == (0, 4000)
    admitted = await core.admit(child)
    await core.calls.settle(admitted.call_id, used(100, 10))
    assert (money(core, child), money(core, parent)) == ((150, 0), (0, 4000))
    await core.release.run(identity(), PEER, child.name)
    assert money(core, parent) == (150, 0)
    (returned,) = logged(core, "budget.returned")
    assert returned.details["charged"] == {"cost_micro_usd": 150}


async def test_what_is_not_carved_is_drawn_from_the_parent_call_by_call(core: Core) -> None:
    """A child without caps spends the parent's own."""
    parent = await core.lease(caps(cost_micro_usd=700, concurrency=1))
    child = await core.child(parent)
    admitted = await core.admit(child)
    assert money(core, parent) == (0, 700)
    assert (await refused(core.admit(parent))).reason in {Reason.BUDGET_EXHAUSTED, Reason.CONCURRENCY_EXCEEDED}
    await core.calls.settle(admitted.call_id, used(100, 100))
    assert money(core, parent) == (600, 0)


async def test_a_stated_cap_of_zero_pays_for_nothing(core: Core) -> None:
    """Zero is a cap, not the lack of one."""
    child = await core.child(await core.lease(), caps(cost_micro_usd=0))
    assert (await refused(core.admit(child))).reason == Reason.BUDGET_EXHAUSTED


async def test_b14_a_grandchilds_open_call_keeps_the_carve_between_open(core: Core) -> None:
    """What a call further down is charged after the end reaches the root; nothing is passed on too early."""
    root = await core.lease(caps(cost_micro_usd=10_000))
    middle = await core.child(root, caps(cost_micro_usd=5000))
    leaf = await core.child(middle)
    admitted = await core.admit(leaf)
    await core.release.run(identity(), PEER, middle.name)
    assert money(core, root) == (0, 5000)
    await core.calls.settle(admitted.call_id, used(100, 100))
    assert money(core, root) == (600, 0)
    assert list(core.books.ledger.holds()) == []


async def test_b9_carves_in_carves_flow_back_whatever_ends_first(core: Core) -> None:
    """Nested budgets return level by level, also when only the last call ends the waiting."""
    root = await core.lease(caps(cost_micro_usd=10_000))
    middle = await core.child(root, caps(cost_micro_usd=5000))
    leaf = await core.child(middle, caps(cost_micro_usd=2000))
    assert (money(core, root), money(core, middle)) == ((0, 5000), (0, 2000))
    admitted = await core.admit(leaf)
    await core.release.run(identity(), PEER, root.name)
    assert money(core, root) == (0, 5000)
    await core.calls.settle(admitted.call_id, used(100, 0))
    assert money(core, root) == (100, 0)
    assert list(core.books.ledger.holds()) == []


async def test_a_child_dies_with_its_parent(core: Core) -> None:
    """Release, expiry: the whole tree, in one step."""
    root = await core.lease(ttl_seconds=60)
    leaf = await core.child(await core.child(root))
    other = await core.lease(ttl_seconds=60)
    await core.release.run(identity(), PEER, root.name)
    assert core.now_lease(leaf).state is LeaseState.RELEASED
    assert core.now_lease(other).state is LeaseState.ACTIVE


async def test_depth_is_the_grants(core: Core) -> None:
    """As deep as allowed, not deeper; zero forbids delegation."""
    core.set_grant(delegation_depth_max=2)
    leaf = await core.child(await core.child(await core.lease()))
    assert (await refused(core.child(leaf))).reason == Reason.POLICY_DENIED
    core.set_grant(delegation_depth_max=0)
    assert (await refused(core.child(await core.lease()))).reason == Reason.POLICY_DENIED


async def test_a_frozen_parent_stops_its_children(core: Core) -> None:
    """Calls below a lease that must be looked at are refused too."""
    parent = await core.lease()
    child = await core.child(parent)
    core.books.put_lease(core.now_lease(parent).frozen())
    assert (await refused(core.admit(child))).reason == Reason.LEASE_FROZEN
    assert (await refused(core.child(parent))).reason == Reason.LEASE_FROZEN


async def test_a_child_may_be_bound_to_another_peer_and_is_still_the_parents(core: Core) -> None:
    """The sub-agent uses it; who holds the parent may read and end it; the sub-agent not the parent."""
    parent = await core.lease()
    issued = await core.delegate.run(identity(), PEER, parent.name, request(scopes=()), "id", OTHER_PEER.binding)
    token = issued.token.reveal().decode()
    assert core.calls.lease_of(token, OTHER_PEER) == issued.lease
    assert core.read.get(identity(), PEER, issued.lease.name) == issued.lease
    assert (await refused(core.release.run(identity(), OTHER_PEER, parent.name))).reason == Reason.LEASE_NOT_FOUND


async def test_b9_a_child_that_could_not_be_written_gives_its_carve_back(core: Core) -> None:
    """Memory is as before, also where the parent ended while the disk was failing."""
    root = await core.lease(caps(cost_micro_usd=10_000))
    middle = await core.child(root, caps(cost_micro_usd=5000))
    core.store.hold()
    asked = asyncio.ensure_future(refused(core.child(middle, caps(cost_micro_usd=1000))))
    await turns()
    assert money(core, middle) == (0, 1000)
    ending = asyncio.ensure_future(core.release.run(identity(), PEER, middle.name))
    await turns()
    core.store.down = DISK
    core.store.release()
    assert (await asked).reason == Reason.STORE_UNAVAILABLE
    await ending
    core.store.down = None
    await turns()
    await core.journal.retry()
    await core.journal.drain()
    assert money(core, root) == (0, 0)
    assert core.store.disk.holds == {}


async def test_carves_of_living_children_survive_a_restart_and_others_return(core: Core) -> None:
    """Recovery charges open calls and settles the carves that only waited for them."""
    root = await core.lease(caps(cost_micro_usd=10_000))
    alive = await core.child(root, caps(cost_micro_usd=1000))
    ended = await core.child(root, caps(cost_micro_usd=2000))
    await core.admit(ended, plan(100, 100))
    await core.release.run(identity(), PEER, ended.name)
    core = await restarted(core)
    assert money(core, root) == (700, 1000)
    assert core.account(alive).settled == ZERO


async def test_a1_a_child_is_nobodys_to_see_before_it_is_durable(core: Core) -> None:
    """Until the commit it is not listed and takes no children of its own."""
    parent = await core.lease()
    core.store.hold()
    asked = asyncio.ensure_future(core.child(parent))
    await turns()
    (unborn,) = core.books.children[parent.name]
    assert core.read.page(identity(), PEER, 0, "", include_ended=True)[0] == [parent]
    assert (await refused(core.release.run(identity(), PEER, unborn))).reason == Reason.LEASE_NOT_FOUND
    core.store.release()
    assert (await asked).name == unborn
