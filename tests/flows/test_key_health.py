"""Keys that providers refuse: proven by a probe before they go, replaced by what the same grant gives, and told."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from tests.fakes.core import GRANT, KEY, MODEL, POLICY, Core, caps, plan, used
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.memory_state_store import MemoryStateStore

from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.keys import KeyMarkKind, KeyRecord, KeyState
from leasehold_broker.domain.limits import Budget, Level, WindowLimit
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByKey, Revocation
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.windows import Rolling

SECOND = KeyRecord("anthropic-second", "anthropic", "prod", KeyState.ENABLED, 1, 0)
STAGING = KeyRecord("anthropic-staging", "anthropic", "staging", KeyState.ENABLED, 1, 0)


@pytest.fixture
async def core(core):
    """Two keys of one provider in the environment, and one of another environment."""
    core.keys.by_name |= {SECOND.name: SECOND, STAGING.name: STAGING}
    core.set_grant(keys=(KEY.name, STAGING.name, SECOND.name))
    return core


async def call(core, lease, status=200, **told):
    """One call that ends with this status of the provider; the name of the key that served it."""
    admitted = await core.admit(lease)
    served = core.books.calls[admitted.call_id].key
    end = CallEnd.FINISHED if status < 300 else CallEnd.PROVIDER_REFUSED
    outcome = used(10, 10) if status < 300 else CallOutcome(end, sent=True, status=status, **told)
    await core.calls.settle(admitted.call_id, outcome)
    await settle()
    return served


async def settle():
    """Let probes come to their end."""
    for _ in range(20):
        await asyncio.sleep(0)


def events(core, kind):
    """Durable events of a type."""
    return [event for _, _, event in core.store.disk.events if event.type == kind]


async def test_a_key_that_the_provider_disabled_is_taken_out(core):
    """A 401, confirmed by a probe: out, with an event and a count; the next call is served by the other key."""
    lease = await core.lease()
    core.probe.statuses[KEY.name] = 401
    assert await call(core, lease, 401) == KEY.name
    assert core.probe.asked == [KEY.name]
    out = events(core, "key.taken_out")[0]
    assert (out.details["key"], out.details["version"], out.details["status"]) == (KEY.name, 1, 401)
    assert out.reason is Reason.KEY_DISABLED
    assert core.books.counters.keys_taken_out == core.health.out_count() == 1
    assert await call(core, lease) == SECOND.name
    assert (await core.lease()).scopes[0].key == SECOND.name


async def test_a_key_that_google_calls_none_is_taken_out(core):
    """Its 400 with the reason asks for a probe as a 401 does, and any other 400 does not."""
    lease = await core.lease()
    core.probe.statuses[KEY.name] = 401
    await call(core, lease, 400)
    assert core.probe.asked == []
    await call(core, lease, 400, refused=True)
    assert core.probe.asked == [KEY.name]
    assert [event.details["key"] for event in events(core, "key.taken_out")] == [KEY.name]
    assert await call(core, lease) == SECOND.name


async def test_a_key_without_a_probe_is_taken_out_by_its_provider_s_words(core):
    """Three in a row, told once; five minutes later one call tries: refused, it is out again, served, it is back."""
    core.probe.without = {"anthropic"}
    lease = await core.lease()
    for _ in range(2):
        assert await call(core, lease, 403, refused=True) == KEY.name
    await call(core, lease)
    for _ in range(3):
        assert await call(core, lease, 403) == KEY.name
    assert (events(core, "key.taken_out"), core.health.out_count()) == ([], 0)
    for _ in range(3):
        assert await call(core, lease, 403, refused=True) == KEY.name
    assert await call(core, lease) == SECOND.name
    for answer in ({"status": 403, "refused": True}, {}):
        core.clock.advance(299)
        core.health.look()
        assert await call(core, lease) == SECOND.name
        core.clock.advance(1)
        core.health.look()
        assert await call(core, lease, **answer) == KEY.name
    assert await call(core, lease) == KEY.name
    assert core.probe.asked == []
    assert [len(events(core, f"key.taken_{where}")) for where in ("out", "back")] == [1, 1]


@pytest.mark.parametrize("status", [401, 403])
async def test_an_agents_refusals_alone_take_nothing_out(core, status):
    """A hundred refusals that an agent provoked, while the probe is answered: the key stays, and probes are few."""
    lease = await core.lease()
    for _ in range(100):
        assert await call(core, lease, status) == KEY.name
    assert core.probe.asked == [KEY.name]
    core.clock.advance(31)
    await call(core, lease, status)
    assert len(core.probe.asked) == 2
    assert events(core, "key.taken_out") == []


@pytest.mark.parametrize("probe", [0, 403, 429, 500])
async def test_a_probe_that_proves_nothing_takes_nothing_out(core, probe):
    """No answer, no permission to list, a limit or a fault: the key stays."""
    lease = await core.lease()
    core.probe.statuses[KEY.name] = probe
    assert await call(core, lease, 401) == KEY.name
    assert await call(core, lease) == KEY.name


@pytest.mark.parametrize("status", [429, 402])
async def test_a_key_at_its_limit_rests(core, status):
    """Others are preferred for 5 s, then 10, up to a minute; a success ends it; nothing is taken out nor probed."""
    lease = await core.lease()
    assert await call(core, lease, status) == KEY.name
    assert await call(core, lease) == SECOND.name
    core.clock.advance(5)
    assert await call(core, lease, status) == KEY.name
    core.clock.advance(9)
    assert await call(core, lease) == SECOND.name
    core.clock.advance(1)
    assert await call(core, lease) == KEY.name
    assert core.probe.asked == []


@pytest.mark.parametrize(("told", "rested"), [(0.0, 1), (17.0, 17), (1e9, 600)])
async def test_a_key_rests_for_as_long_as_its_provider_says(core, told, rested):
    """Retry-After, kept to within a second and ten minutes."""
    lease = await core.lease()
    await call(core, lease, 429, wait_seconds=told)
    core.clock.advance(rested - 0.5)
    assert await call(core, lease) == SECOND.name
    core.clock.advance(0.5)
    assert await call(core, lease) == KEY.name


@pytest.mark.parametrize("status", [400, 402, 403, 429])
async def test_an_account_with_nothing_left_is_told_once_and_tried_again_every_five_minutes(core, status):
    """An event when it begins and one when a call is served again; no probe, and the key is not taken out."""
    lease = await core.lease()
    for _ in range(2):
        assert await call(core, lease, status, exhausted=True) == KEY.name
        assert await call(core, lease) == SECOND.name
        core.clock.advance(299)
        assert await call(core, lease) == SECOND.name
        core.clock.advance(1)
    (event,) = events(core, "key.exhausted")
    assert (event.outcome, event.details["key"], event.details["status"]) == ("failed", KEY.name, status)
    assert events(core, "key.replenished") == []
    assert await call(core, lease, 500) == KEY.name
    assert await call(core, lease) == KEY.name
    assert await call(core, lease) == KEY.name
    assert [one.details["key"] for one in events(core, "key.replenished")] == [KEY.name]
    assert core.probe.asked == []
    assert events(core, "key.taken_out") == []


async def test_a_restart_knows_of_an_account_with_nothing_left(core):
    """It is told once, and its end is told though another process saw the beginning."""
    await call(core, await core.lease(), 402, exhausted=True)
    core = await restarted(core, "2")
    lease = await core.lease()
    await call(core, lease, 402, exhausted=True)
    assert len(events(core, "key.exhausted")) == 1
    core.clock.advance(300)
    await call(core, lease)
    assert len(events(core, "key.replenished")) == 1
    core = await restarted(core, "3")
    await call(core, await core.lease())
    assert len(events(core, "key.replenished")) == 1


async def test_what_an_older_version_of_a_key_is_told_means_nothing(core):
    """Its successor has an account of its own, perhaps."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    core.keys.by_name[KEY.name] = replace(core.keys.by_name[KEY.name], version=2)
    outcome = CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=429, exhausted=True)
    await core.calls.settle(admitted.call_id, outcome)
    assert events(core, "key.exhausted") == []
    assert await call(core, lease) == KEY.name


async def test_a_resting_key_serves_where_there_is_no_other(core):
    """Both keys at their limits: the lease's own key goes on, and the provider decides."""
    lease = await core.lease()
    await call(core, lease, 429)
    await call(core, lease, 429)
    assert await call(core, lease) == KEY.name


async def test_without_another_key_the_call_is_refused(core):
    """Out, and no stand-in: KEY_DISABLED, nothing held, nothing sent; never a key of another environment."""
    core.set_grant(keys=(KEY.name, STAGING.name))
    lease = await core.lease()
    core.probe.statuses[KEY.name] = 401
    await call(core, lease, 401)
    with pytest.raises(Refusal) as caught:
        await core.admit(lease)
    assert caught.value.reason is Reason.KEY_DISABLED
    assert not core.books.calls


async def test_a_new_version_is_back_at_once(core):
    """The key is replaced in its store: it serves again, and its old marks are gone."""
    lease = await core.lease()
    core.probe.statuses[KEY.name] = 401
    await call(core, lease, 401)
    core.keys.by_name[KEY.name] = replace(KEY, version=2)
    assert await call(core, lease) == KEY.name


async def test_an_answer_to_an_old_version_says_nothing_of_the_new(core):
    """A call that began with version 1 ends with 401 after the rotation: version 2 is neither probed nor doubted."""
    lease = await core.lease()
    admitted = await core.admit(lease)
    core.keys.by_name[KEY.name] = replace(KEY, version=2)
    await core.calls.settle(admitted.call_id, CallOutcome(CallEnd.PROVIDER_REFUSED, sent=True, status=401))
    await settle()
    assert core.probe.asked == []


async def test_out_survives_a_restart_and_ends_with_the_providers_word(core):
    """After a restart the key is still out; five minutes later a probe is answered, and it is back, also for later."""
    lease = await core.lease()
    core.probe.statuses[KEY.name] = 401
    await call(core, lease, 401)
    core = await restarted(core, "2")
    assert await call(core, core.books.leases[lease.name]) == SECOND.name
    core.health.look()
    await settle()
    assert len(events(core, "key.taken_back")) == 1
    assert await call(core, core.books.leases[lease.name]) == KEY.name
    core.clock.advance(1)
    core = await restarted(core, "3")
    assert await call(core, core.books.leases[lease.name]) == KEY.name


async def restarted(core, seed):
    """Another life on the same disk, with the same keys and policy."""
    store, keys = MemoryStateStore(core.store.disk, core.clock), core.keys.by_name
    core.clock.advance(1)
    core = await Core(store, core.clock, core.policies.policy, CountingEntropy(seed)).recover()
    core.keys.by_name = keys
    return core


async def test_a_stand_in_is_held_to_scope_and_to_its_own_budgets(core):
    """The other key's budget is drawn on, and refuses when it is used up; the scope of the lease holds as before."""
    budget = Budget(SECOND.name, WindowLimit(Level.KEY, Rolling(60), caps(requests=1)))
    core.policies.policy = Policy("p", core.policies.policy.grants, (budget,))
    lease = await core.lease(scopes=(Scope("anthropic", models=(MODEL,)),))
    await call(core, lease, 429)
    assert await call(core, lease) == SECOND.name
    with pytest.raises(Refusal) as caught:
        await core.admit(lease)
    assert caught.value.reason in {Reason.BUDGET_EXHAUSTED, Reason.RATE_LIMITED}
    with pytest.raises(Refusal) as caught:
        await core.admit(lease, plan(model="claude-other"))
    assert caught.value.reason is Reason.MODEL_NOT_ALLOWED


async def test_a_revoked_key_is_no_stand_in(core):
    """Leases of the other key were revoked since: what is left of its trust serves no lease from before either."""
    lease = await core.lease()
    await core.revocations.apply([Revocation(1, ByKey(SECOND.name), "", "op", 0)])
    await call(core, lease, 429)
    assert await call(core, lease) == KEY.name


async def test_a_stand_in_is_the_policys_word_of_now(core):
    """The grant no longer names the other key: it does not stand in."""
    lease = await core.lease()
    core.set_grant(keys=(KEY.name,))
    await call(core, lease, 429)
    assert await call(core, lease) == KEY.name


async def test_a_grant_that_moved_to_another_environment_gives_no_stand_in(core):
    """The policy turns the grant over to staging: a lease from before is not served by a key of there."""
    lease = await core.lease()
    core.set_grant(keys=(KEY.name, STAGING.name), environment="staging")
    await call(core, lease, 429)
    assert await call(core, lease) == KEY.name


async def test_weights_share_new_leases(core):
    """3 to 1 gives about three quarters; a key without weight gets none; a disabled one's share goes to the others."""
    core.set_grant(
        keys=(KEY.name, STAGING.name, SECOND.name), key_weights={KEY.name: 3, SECOND.name: 1}, leases_max=9999
    )
    served = Counter([(await core.lease()).scopes[0].key for _ in range(400)])
    assert set(served) == {KEY.name, SECOND.name}
    assert 250 < served[KEY.name] < 350
    core.keys.disable(KEY.name)
    assert (await core.lease()).scopes[0].key == SECOND.name


async def test_the_last_use_is_written_once_an_hour(core):
    """A mark for the first call, none for the next ninety minutes' worth of calls but one, and it is durable."""
    lease = await core.lease(ttl_seconds=3600)
    for _ in range(5):
        await call(core, lease)
    first = core.books.key_marks[KEY.name, KeyMarkKind.USED]
    assert core.store.disk.key_marks[KEY.name, KeyMarkKind.USED, ""] == first
    core.clock.advance(3599)
    await call(core, lease)
    assert core.books.key_marks[KEY.name, KeyMarkKind.USED] is first


def test_the_policy_of_these_tests_grants_by_preference():
    """Without weights the first key of the grant serves: what the tests above rely on."""
    assert POLICY.grants[0] == GRANT
    assert GRANT.key_weights == {}
