"""An identity of another environment never gets a key, whatever policy, store or configuration say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.core import FINISHED, GRANT, KEY, identity

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import Grant, LeaseRequest, Policy, decide
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope

ENVIRONMENTS = st.sampled_from(["prod", "staging", "dev", "", "*", "prod*"])
NAMES = ("one", "two", "three")
KEYS = st.tuples(*(st.tuples(st.just(name), ENVIRONMENTS) for name in NAMES))
GRANTS = st.lists(
    st.builds(
        lambda environment, keys: Grant(
            name=f"grant-{environment}-{'-'.join(keys)}",
            issuer=GRANT.issuer,
            subjects=("*",),
            environment=environment,
            keys=tuple(keys),
            scopes=(Scope("anthropic"),),
            caps=NO_CAPS,
            ttl_seconds_max=60,
            life_seconds_max=60,
            modes=frozenset(Mode),
        ),
        ENVIRONMENTS,
        st.lists(st.sampled_from(NAMES), max_size=3),
    ),
    max_size=4,
)


@given(GRANTS, KEYS, ENVIRONMENTS, st.sampled_from(["", *NAMES]), st.sampled_from(list(Mode)))
def test_no_policy_joins_two_environments(grants, keys, environment, wanted, mode):
    """Whatever is granted, in any mode and for any named key: the key's environment is the identity's own."""
    records = [KeyRecord(name, "anthropic", where, KeyState.ENABLED, 1, 0) for name, where in keys]
    asked = LeaseRequest((Scope("anthropic", wanted),), NO_CAPS, None, mode)
    try:
        terms = decide(Policy("p", tuple(grants)), identity(environment=environment), asked, records)
    except Refusal:
        return
    given_key = next(record for record in records if record.name == terms.scopes[0].key)
    assert given_key.environment == environment != ""


async def test_a_key_that_moved_serves_no_old_lease(core):
    """A key that comes to belong to another environment while leases live is refused at their next call."""
    lease = await core.lease()
    first = await core.admit(lease)
    await core.calls.settle(first.call_id, FINISHED)
    core.keys.by_name[KEY.name] = KeyRecord(KEY.name, "anthropic", "staging", KeyState.ENABLED, 2, 0)
    with pytest.raises(Refusal) as caught:
        await core.admit(lease)
    assert caught.value.reason is Reason.ENVIRONMENT_MISMATCH
    assert not core.books.calls
    assert not list(core.books.ledger.holds())
