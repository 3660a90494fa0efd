"""Calls: what is refused holds nothing, what is admitted is durable, and every end is charged by rule."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted, turns
from tests.fakes.core import KEY, OTHER_PEER, PEER, Core, caps, fresh_id, identity, plan, request, used

from leasehold_broker.domain.amounts import NO_CAPS, ZERO, Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.keys import KeyState
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.windows import Period


def nothing_held(core: Core) -> bool:
    """True when no budget holds anything, in memory and on disk, and no call is open."""
    accounts = list(core.books.ledger.accounts())
    return all(account.held == ZERO for account in accounts) and not core.books.calls and not core.store.disk.holds


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (plan(model="gpt-5"), Reason.MODEL_NOT_ALLOWED),
        (plan(model="claude-large"), Reason.PRICE_UNKNOWN),
        (plan(operation="batches"), Reason.SCOPE_EXCEEDED),
        (plan(tools=("code_execution",)), Reason.SCOPE_EXCEEDED),
        (plan(provider="openai"), Reason.SCOPE_EXCEEDED),
        (plan(output_tokens=1001), Reason.SCOPE_EXCEEDED),
        (plan(input_tokens=5000, output_tokens=1), Reason.BUDGET_EXHAUSTED),
        (plan(model=None), Reason.PRICE_UNKNOWN),
        # a tool of the vendor's may read the whole window again
        (plan(rereads=1), Reason.BUDGET_EXHAUSTED),
    ],
)
async def test_a_refused_call_holds_nothing(core: Core, wanted, reason: Reason) -> None:
    """Scope, model, operation, tool, provider, output limit, price, budget: refused, and nothing is held."""
    scope = Scope("anthropic", "", ("claude-*",), ("messages",), max_output_tokens_per_request=1000)
    lease = await core.lease(caps(cost_micro_usd=9000), scopes=(scope,))
    assert (await refused(core.admit(lease, wanted))).reason == reason
    assert nothing_held(core)


async def test_rate_and_concurrency_refusals_say_when_to_come_back(core: Core) -> None:
    """A minute's rate and open calls at once are exact, and free again when they should be."""
    rate = WindowLimit(Level.SUBJECT, Period.MINUTE, NO_CAPS._replace(requests=2))
    core.set_grant(windows=(rate,))
    lease = await core.lease(caps(concurrency=1))
    first = await core.admit(lease)
    crowded = await refused(core.admit(lease))
    assert (crowded.reason, crowded.retry_after_seconds) == (Reason.CONCURRENCY_EXCEEDED, 1.0)
    await core.calls.settle(first.call_id, used(1, 1))
    second = await core.admit(lease)
    await core.calls.settle(second.call_id, used(1, 1))
    limited = await refused(core.admit(lease))
    assert limited.reason == Reason.RATE_LIMITED
    core.clock.advance(limited.retry_after_seconds)
    await core.admit(lease)


@pytest.mark.parametrize(("cap", "fits"), [(699, False), (700, True), (701, True)])
async def test_b1_b10_the_cap_is_met_exactly(core: Core, cap: int, fits: bool) -> None:
    """A worst case of 700 micro-USD fits a cap of 700, not one of 699."""
    core.set_grant(lower_output=False)
    lease = await core.lease(caps(cost_micro_usd=cap))
    if fits:
        admitted = await core.admit(lease)
        assert admitted.remaining_micro_usd == cap - 700
    else:
        assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED
        assert nothing_held(core)


@pytest.mark.parametrize(
    ("cap", "limit"), [(204, None), (205, 1), (209, 1), (210, 2), (1199, 199), (1200, 200), (10**9, 64_000)]
)
async def test_an_unstated_output_limit_is_what_the_budget_pays_for_to_the_token(core: Core, cap, limit) -> None:
    """100 input tokens cost up to 200; each output token 5; the model gives at most 64,000."""
    lease = await core.lease(caps(cost_micro_usd=cap))
    if limit is None:
        assert (await refused(core.admit(lease, plan(100, None)))).reason == Reason.BUDGET_EXHAUSTED
    else:
        admitted = await core.admit(lease, plan(100, None))
        assert (admitted.output_tokens_limit, admitted.remaining_micro_usd) == (limit, cap - 200 - limit * 5)


async def test_b11_a_larger_request_never_holds_less(core: Core) -> None:
    """Input, output and choices each only raise the hold."""
    lease = await core.lease()
    held = []
    for wanted in (
        plan(1, 1),
        plan(2, 1),
        plan(2, 2),
        plan(2, 2, choices=2),
        plan(2, 2, choices=2, units_bound=Usage(file_searches=10)),
    ):
        admitted = await core.admit(lease, wanted)
        held.append(core.books.ledger.hold(admitted.call_id).amounts)
    for smaller, larger in itertools.pairwise(held):
        assert larger.cost_micro_usd > smaller.cost_micro_usd
        assert all(one <= other for one, other in zip(smaller, larger, strict=True))


HELD = Amounts(700, 100, 100, 1, 0)
PART = Usage(50, output_tokens=3)


@pytest.mark.parametrize(
    ("outcome", "charged", "estimated"),
    [
        (used(50, 20), Amounts(150, 50, 20, 1), False),
        (CallOutcome(CallEnd.NOT_SENT, sent=False), ZERO, False),
        (CallOutcome(CallEnd.UPSTREAM_FAILED, sent=False), ZERO, False),
        (CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=400), Amounts(requests=1), False),
        (CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=429), Amounts(requests=1), False),
        (CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=504), HELD, True),
        (CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=408), HELD, True),
        (CallOutcome(CallEnd.UPSTREAM_FAILED, sent=True), HELD, True),
        (CallOutcome(CallEnd.CLIENT_GONE, sent=True), HELD, True),
        (CallOutcome(CallEnd.CUT_BY_REVOCATION, sent=True), HELD, True),
        (CallOutcome(CallEnd.CUT_BY_EXPIRY, sent=True), HELD, True),
        (CallOutcome(CallEnd.CUT_BY_DRAIN, sent=True), HELD, True),
        (CallOutcome(CallEnd.UNKNOWN, sent=True), HELD, True),
        (CallOutcome(CallEnd.FINISHED, sent=True, status=200), HELD, True),
        (CallOutcome(CallEnd.CLIENT_GONE, sent=True, status=200, usage=PART), Amounts(550, 50, 100, 1), True),
        (
            CallOutcome(CallEnd.CLIENT_GONE, sent=True, usage=Usage(90, output_tokens=200)),
            Amounts(1090, 90, 200, 1),
            True,
        ),
        (used(50, 20, web_searches=1), HELD, True),
    ],
)
async def test_b3_b5_every_end_is_charged_by_rule(core: Core, outcome, charged: Amounts, estimated: bool) -> None:
    """Known usage exactly; nothing sent, nothing charged; the unknown at its hold, and said to be estimated."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    settled = await core.calls.settle(admitted.call_id, outcome)
    assert (settled.charged, settled.estimated) == (charged, estimated)
    assert core.account(lease).settled == charged
    assert nothing_held(core)
    again = await core.calls.settle(admitted.call_id, used(1, 1))
    assert again == settled
    assert core.account(lease).settled == charged
    assert len(logged(core, "call.settled")) == 1


async def test_what_has_no_price_is_seen(core: Core) -> None:
    """A reported unit without a price: the event says PRICE_UNKNOWN and which unit, and it is counted."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    await core.calls.settle(admitted.call_id, used(50, 20, code_executions=1))
    (event,) = logged(core, "call.settled")
    assert (event.reason, event.details["unpriced"]) == (Reason.PRICE_UNKNOWN, "no code_execution rate")
    assert event.details["price_version"] == "v1"
    assert core.books.counters.unpriced_settlements == 1


async def test_server_tools_without_a_last_word_are_charged_at_the_hold(core: Core) -> None:
    """What a search brings in is billed as input after the first report: partial usage proves nothing."""
    lease = await core.lease()
    admitted = await core.admit(lease, plan(tools=("web_search_1",), units_bound=Usage(file_searches=10_000)))
    settled = await core.calls.settle(admitted.call_id, CallOutcome(CallEnd.CLIENT_GONE, sent=True, usage=PART))
    assert settled.charged.cost_micro_usd == 10_700


async def test_b4_usage_above_the_hold_is_charged_in_full_and_freezes(core: Core) -> None:
    """Settled is what was billed, the overage is said, and the lease takes no further call."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    await core.calls.settle(admitted.call_id, used(100, 200))
    account = core.account(lease)
    assert (account.settled.cost_micro_usd, account.overage.cost_micro_usd) == (1100, 400)
    assert core.now_lease(lease).state is LeaseState.FROZEN
    assert (await refused(core.admit(lease))).reason == Reason.LEASE_FROZEN
    assert len(logged(core, "lease.frozen")) == 1
    core = await restarted(core)
    assert (await refused(core.admit(lease))).reason == Reason.LEASE_FROZEN


async def test_b6_admission_waits_for_the_disk(core: Core) -> None:
    """Before the hold is durable there is no answer, and after it there is one."""
    lease = await core.lease()
    core.store.hold()
    asked = asyncio.ensure_future(core.admit(lease))
    await turns()
    assert not asked.done()
    core.store.release()
    admitted = await asked
    assert admitted.call_id in core.store.disk.holds


async def test_a_call_that_could_not_be_written_is_taken_back(core: Core) -> None:
    """The refusal leaves no hold, in memory or on disk."""
    lease = await core.lease()
    core.store.down = DISK
    assert (await refused(core.admit(lease))).reason == Reason.STORE_UNAVAILABLE
    assert nothing_held(core)


@pytest.mark.parametrize("disk_fails", [False, True])
async def test_b3_b5_an_admission_that_is_cancelled_is_voided_durably(core: Core, disk_fails: bool) -> None:
    """The client hung up while the disk wrote: nothing is sent, the hold ends, on disk too, if it ever was there."""
    lease = await core.lease()
    core.store.hold()
    asked = asyncio.ensure_future(core.admit(lease))
    await turns()
    asked.cancel()
    await turns()
    core.store.down = DISK if disk_fails else None
    core.store.release()
    await turns()
    core.store.down = None
    await core.journal.drain()
    assert nothing_held(core)
    assert [event.details.get("voided") for event in logged(core, "call.settled")] == [True] * (not disk_fails)
    assert len(logged(core, "call.admitted")) == 1 - disk_fails


async def test_r2_a_lease_revoked_while_the_disk_writes_sends_nothing(core: Core) -> None:
    """Cut before admission was answered: voided, refused, and the cut is never called."""
    lease = await core.lease()
    core.store.hold()
    cuts = []
    asked = asyncio.ensure_future(refused(core.admit(lease, cut=lambda *cut: cuts.append(cut))))
    await turns()
    released = asyncio.ensure_future(core.release.run(identity(), PEER, lease.name))
    await turns()
    core.store.release()
    assert (await asked).reason == Reason.LEASE_RELEASED
    await released
    assert cuts == []
    assert nothing_held(core)


async def test_a_call_in_flight_is_cut_once_and_then_settled(core: Core) -> None:
    """The cut names how and why, comes once however often the lease ends, and the hold waits for the settlement."""
    lease = await core.lease()
    cuts = []
    admitted = await core.admit(lease, cut=lambda *cut: cuts.append(cut))
    for _ in range(2):
        await core.release.run(identity(), PEER, lease.name)
    ((end, refusal),) = cuts
    assert (end, refusal.reason) == (CallEnd.CUT_BY_EXPIRY, Reason.LEASE_RELEASED)
    assert not nothing_held(core)
    await core.calls.settle(admitted.call_id, CallOutcome(end, sent=True))
    assert nothing_held(core)
    assert core.account(lease).settled.cost_micro_usd == 700


async def test_b3_a_call_that_is_ended_without_waiting_is_settled_once(core: Core) -> None:
    """Decided when it is said; durable soon; a second end, of either kind, changes nothing."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    core.calls.end(admitted.call_id, used(100, 10))
    assert core.account(lease).held.cost_micro_usd == 0
    core.calls.end(admitted.call_id, used(100, 100))
    await core.calls.settle(admitted.call_id, used(100, 100))
    await core.journal.drain()
    assert nothing_held(core)
    assert core.account(lease).settled.cost_micro_usd == 150
    assert [event.details["charged"]["cost_micro_usd"] for event in logged(core, "call.settled")] == [150]
    again = await restarted(core)
    assert again.account(lease).settled.cost_micro_usd == 150


async def test_an_end_that_nobody_waits_for_outlives_a_failing_disk(core: Core) -> None:
    """Kept while the disk says no, and nothing is granted meanwhile; written before anything else once it answers."""
    lease = await core.lease()
    first, second = await core.admit(lease), await core.admit(lease)
    core.store.down = DISK
    core.calls.end(first.call_id, used(100, 10))
    await turns()
    core.calls.end(second.call_id, used(100, 20))
    await turns()
    assert (await refused(core.admit(lease))).reason == Reason.STORE_UNAVAILABLE
    core.store.down = None
    await core.journal.drain()
    assert [event.details["charged"]["cost_micro_usd"] for event in logged(core, "call.settled")] == [150, 200]
    await core.admit(lease)
    again = await restarted(core)
    assert again.account(lease).settled.cost_micro_usd >= 350


async def test_b3_a_settlement_that_is_cancelled_is_written_all_the_same(core: Core) -> None:
    """Decided when called: who stops waiting changes nothing, not even where the disk fails first."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    core.store.hold()
    settling = asyncio.ensure_future(core.calls.settle(admitted.call_id, used(10, 10)))
    await turns()
    settling.cancel()
    core.store.down = DISK
    core.store.release()
    await turns()
    core.store.down = None
    assert await core.journal.retry()
    assert nothing_held(core)
    assert [event.details["charged"]["cost_micro_usd"] for event in logged(core, "call.settled")] == [60]


async def test_b7_recovery_charges_open_holds_and_recovering_twice_is_recovering_once(core: Core) -> None:
    """Killed with a call open: its hold is charged and flagged, once."""
    lease = await core.lease(caps(cost_micro_usd=1000))
    await core.admit(lease)
    for _ in range(2):
        core = await restarted(core)
        assert core.account(lease).settled == HELD
        assert nothing_held(core)
    (settled,) = logged(core, "call.settled")
    assert (settled.details["estimated"], settled.details["end"]) == (True, "unknown")
    assert (await refused(core.admit(lease, plan(150)))).reason == Reason.BUDGET_EXHAUSTED


async def test_b13_each_charge_is_in_one_window(core: Core) -> None:
    """A call belongs to the window in which it was admitted; windows start anew and add up to the total."""
    day = WindowLimit(Level.SUBJECT, Period.DAY, NO_CAPS._replace(cost_micro_usd=1400))
    core.set_grant(windows=(day,))
    lease = await core.lease(ttl_seconds=3600)
    before = await core.admit(lease)
    core.clock.wall_ms += 24 * 3600 * 1000
    after = await core.admit(lease)
    await core.calls.settle(before.call_id, used(100, 100))
    await core.calls.settle(after.call_id, used(10, 10))
    windows = [account.settled.cost_micro_usd for account in core.books.ledger.accounts() if "window:" in account.id]
    assert windows == [600, 60]
    assert sum(windows) == core.account(lease).settled.cost_micro_usd


async def test_b1_a_wall_clock_set_back_finds_what_was_spent(core: Core) -> None:
    """The window before the present one is not forgotten: stepping back over midnight gives no fresh budget."""
    day = WindowLimit(Level.SUBJECT, Period.DAY, NO_CAPS._replace(cost_micro_usd=700))
    core.set_grant(windows=(day,))
    lease = await core.lease()
    await core.calls.settle((await core.admit(lease)).call_id, used(100, 100))
    core.clock.wall_ms += 24 * 3600 * 1000
    await core.sweep.prune(core.clock.now())
    core.clock.wall_ms -= 24 * 3600 * 1000
    assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED


async def test_b1_a_wall_clock_set_far_forward_and_back_gives_no_fresh_budget(core: Core) -> None:
    """A window that is over by the wall clock alone is kept until the boot clock agrees; then it is forgotten."""
    hour = WindowLimit(Level.SUBJECT, Period.HOUR, NO_CAPS._replace(cost_micro_usd=700))
    core.set_grant(windows=(hour,))
    lease = await core.lease()
    await core.calls.settle((await core.admit(lease)).call_id, used(100, 100))
    core.clock.wall_ms += 24 * 3600 * 1000
    await core.sweep.prune(core.clock.now())
    core.clock.wall_ms -= 24 * 3600 * 1000
    assert (await refused(core.admit(lease))).reason == Reason.BUDGET_EXHAUSTED
    for _ in range(3):
        core.clock.advance(3600)
        await core.sweep.prune(core.clock.now())
    assert [account.id for account in core.books.ledger.accounts() if "|hour|" in account.id] == []


async def test_the_subjects_and_the_keys_windows_both_bind(core: Core) -> None:
    """A key's budget is shared by every subject that draws on it."""
    key_day = WindowLimit(Level.KEY, Period.DAY, NO_CAPS._replace(cost_micro_usd=1000))
    core.policies.policy = replace(core.policies.policy, budgets=(Budget(KEY.name, key_day),))
    lease = await core.lease()
    await core.admit(lease)
    core.set_grant(lower_output=False)
    other = await core.acquire.run(identity("agent-2"), PEER, request(), fresh_id(), validate_only=False)
    refusal = await refused(core.admit(other.lease))
    assert refusal.reason == Reason.BUDGET_EXHAUSTED
    assert "key/day has 300 of 1000" in refusal.message
    rows = {(row.budget, row.metric): row for row in core.read.usage(lease)}
    assert (rows["key/day", "cost_micro_usd"].held, rows["key/day", "cost_micro_usd"].remaining) == (700, 300)


async def test_unmetered_calls_hold_a_request_and_no_money(core: Core) -> None:
    """Listing models costs a request and needs no price."""
    lease = await core.lease(caps(cost_micro_usd=1, requests=1))
    free = plan(0, None, metered=False, model=None, operation="models", output_limited=False)
    admitted = await core.admit(lease, free)
    settled = await core.calls.settle(admitted.call_id, CallOutcome(CallEnd.FINISHED, sent=True, status=200))
    assert settled.charged == Amounts(requests=1)
    assert (await refused(core.admit(lease, free))).reason == Reason.BUDGET_EXHAUSTED


async def test_tokens_open_only_their_own_lease_for_their_own_peer(core: Core) -> None:
    """No token, a malformed one, an unknown one and another peer's are all the same to the caller."""
    issued = await core.acquire.run(identity(), PEER, request(), "id", validate_only=False)
    token = issued.token.reveal().decode()
    lease = core.calls.lease_of(token, PEER)
    assert (lease, core.calls.scope_of(lease, "anthropic")) == (issued.lease, issued.lease.scopes[0])
    messages = set()
    for wrong, peer in ((None, PEER), ("sk-1", PEER), (token[:-1] + "a", PEER), (token, OTHER_PEER)):
        with pytest.raises(Refusal) as caught:
            core.calls.lease_of(wrong, peer)
        messages.add((caught.value.reason, caught.value.message))
    assert len(messages) == 1
    with pytest.raises(Refusal, match="SCOPE_EXCEEDED"):
        core.calls.scope_of(lease, "openai")
    core.clock.advance(3600)
    with pytest.raises(Refusal, match="LEASE_EXPIRED"):
        core.calls.scope_of(core.calls.lease_of(token, PEER), "anthropic")


async def test_a_disabled_or_missing_key_takes_no_call(core: Core) -> None:
    """The lease outlives its key, but reaches nothing."""
    lease = await core.lease()
    core.keys.by_name[KEY.name] = replace(KEY, state=KeyState.DISABLED)
    assert (await refused(core.admit(lease))).reason == Reason.KEY_DISABLED
    del core.keys.by_name[KEY.name]
    assert (await refused(core.admit(lease))).reason == Reason.KEY_UNAVAILABLE
    assert nothing_held(core)


async def test_a_lease_whose_grant_is_gone_takes_no_call(core: Core) -> None:
    """The policy in force decides, also for leases issued under an older one."""
    lease = await core.lease()
    core.set_grant(name="another")
    assert (await refused(core.admit(lease))).reason == Reason.POLICY_DENIED
