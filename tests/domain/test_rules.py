"""The pure rules: prices, worst cases, windows, scopes, tokens, secrets, chains."""

import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.amounts import NO_CAPS, Amounts
from leasehold_broker.domain.audit_chain import GENESIS, broken_link, chain
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan, worst_case
from leasehold_broker.domain.charge import UNBILLED_STATUSES, charge_for
from leasehold_broker.domain.lease import make_token, renew_after_seconds, token_well_formed
from leasehold_broker.domain.policy import caps_under
from leasehold_broker.domain.price import (
    ModelPrice,
    Rates,
    Tier,
    UnpricedUnitError,
    Usage,
    cost_micro_usd,
    micro_usd,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.domain.scope import Scope, matches, narrow, within
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS, Instant

RATES = Rates(3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000, file_search=7)
LONG = Rates(6_000_000, 22_500_000, 600_000, 7_500_000, 12_000_000, file_search=7)
PRICE = ModelPrice("m", RATES, (Tier(1000, LONG),), 2000, 500, "v")
counts = st.integers(0, 3000)


def plan(**members) -> CallPlan:
    """A metered plan."""
    stated = {"input_tokens_bound": 100, "output_tokens_stated": 50, "output_limited": True} | members
    return CallPlan("anthropic", "messages", "m", metered=True, stream=False, **stated)


@given(
    st.tuples(counts, counts, counts, counts).filter(lambda parts: sum(parts) <= 3000),
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(1, 4),
)
def test_b12_no_usage_within_the_request_costs_more_than_the_hold(inputs, output, spare, choices) -> None:
    """Whatever mix of fresh, cached and written input, in whatever tier: the hold covers it, tokens included."""
    fresh, read, write_5m, write_1h = inputs
    wanted = plan(input_tokens_bound=sum(inputs) + spare, output_tokens_stated=output, choices=choices)
    held = worst_case(wanted, PRICE, 0, NO_CAPS).amounts
    usage = Usage(fresh, read, write_5m, write_1h, output * choices)
    assert cost_micro_usd(usage, PRICE) <= held.cost_micro_usd
    charge = charge_for(
        CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=usage, usage_final=True), held, PRICE, wanted
    )
    assert charge.amounts is not None
    assert charge.amounts.fits(held)


@given(counts, counts, st.integers(1, 500), st.integers(1, 500), st.integers(1, 4), st.integers(0, 10**9))
def test_b11_the_hold_grows_with_the_request(small, more, output, longer, choices, fixed) -> None:
    """More input, more output, more choices, dearer tools: never a smaller hold in any metric."""
    base = worst_case(plan(input_tokens_bound=small, output_tokens_stated=output), PRICE, 0, NO_CAPS).amounts
    for larger in (
        plan(input_tokens_bound=small + more, output_tokens_stated=output),
        plan(input_tokens_bound=small, output_tokens_stated=output + longer),
        plan(input_tokens_bound=small, output_tokens_stated=output, choices=choices),
        plan(input_tokens_bound=small, output_tokens_stated=output, units_bound=Usage(file_searches=fixed)),
    ):
        assert base.fits(worst_case(larger, PRICE, 0, NO_CAPS).amounts)


@given(st.integers(0, 10**5), st.integers(0, 10**4), st.integers(1, 3), st.integers(0, 400))
def test_a_chosen_limit_is_the_largest_that_fits(budget, tokens, choices, scope_max) -> None:
    """One token more would not fit the money, the tokens, the scope or the model; what is chosen does fit."""
    headroom = NO_CAPS._replace(cost_micro_usd=budget, output_tokens=tokens)
    wanted = plan(output_tokens_stated=None, choices=choices)
    found = worst_case(wanted, PRICE, scope_max, headroom)
    limit = found.output_tokens_limit
    assert limit is not None
    assert limit <= min(500, scope_max or 500)
    more = worst_case(replace(wanted, output_tokens_stated=limit + 1), PRICE, 0, NO_CAPS).amounts
    if limit > 1:
        assert found.amounts.fits(headroom)
    assert limit + 1 > min(500, scope_max or 500) or not more.fits(headroom)


@given(
    st.integers(0, 10**5),
    st.integers(0, 10**4),
    st.integers(1, 600),
    st.integers(1, 3),
    st.integers(1, 64),
    st.booleans(),
)
def test_b10_a_stated_limit_is_lowered_to_the_largest_that_fits_and_no_further(
    budget, tokens, stated, choices, floor, lower
) -> None:
    """Never above what was stated nor below the floor; lowered only where it must be, and then by no token too much."""
    headroom = NO_CAPS._replace(cost_micro_usd=budget, output_tokens=tokens)
    wanted = plan(output_tokens_stated=stated, choices=choices, output_tokens_floor=floor)
    found = worst_case(wanted, PRICE, 0, headroom, lower=lower)
    full = worst_case(wanted, PRICE, 0, NO_CAPS)
    assert (full.lowered, full.output_tokens_limit) == (False, None)
    if full.amounts.fits(headroom) or not lower:
        assert found == full
        return
    limit = found.output_tokens_limit
    if limit is None:
        assert stated <= floor
        return
    assert found.lowered
    assert min(stated, floor) <= limit < stated
    assert found.amounts.output_tokens == limit * choices
    if found.amounts.fits(headroom):
        more = worst_case(replace(wanted, output_tokens_stated=limit + 1), PRICE, 0, NO_CAPS)
        assert not more.amounts.fits(headroom)
    else:
        assert limit == floor


@given(st.integers(0, 10**12))
def test_money_is_rounded_up_once_in_integers(pico: int) -> None:
    """Never less than the exact amount, never a whole micro-USD more."""
    assert 0 <= micro_usd(pico) * 1_000_000 - pico < 1_000_000


def test_a_unit_without_a_price_is_an_error_and_charged_at_the_hold() -> None:
    """What cannot be priced is never free."""
    usage = Usage(1, web_searches=1)
    with pytest.raises(UnpricedUnitError, match="web_search"):
        cost_micro_usd(usage, PRICE)
    held = Amounts(9, 1, 1, 1)
    outcome = CallOutcome(CallEnd.FINISHED, sent=True, usage=usage, usage_final=True)
    charge = charge_for(outcome, held, PRICE, plan())
    assert (charge.amounts, charge.estimated) == (held, True)


@pytest.mark.parametrize("status", [408, 499, 502, 504])
def test_a_timeout_may_hide_a_billed_answer(status: int) -> None:
    """These refusals are charged at the hold."""
    assert status not in UNBILLED_STATUSES


names = st.text("ab*", min_size=1, max_size=4)


@given(names, names, st.text("ab", max_size=5))
def test_what_is_within_a_ceiling_matches_nothing_beyond_it(pattern: str, ceiling: str, name: str) -> None:
    """If a pattern is granted within a ceiling, every name that it matches is matched by the ceiling."""
    if within(pattern, ceiling) and matches(pattern, name):
        assert matches(ceiling, name)


def test_narrowing_never_drops_a_restriction() -> None:
    """An empty wish takes the ceiling; an empty ceiling of tools grants none."""
    ceiling = Scope("p", "k", ("a*",), ("messages",), (), 10)
    assert narrow(Scope("p"), ceiling) == ceiling
    with pytest.raises(Refusal, match="tool"):
        narrow(Scope("p", tools=("web_search",)), ceiling)
    with pytest.raises(Refusal) as caught:
        caps_under(Amounts(11, 1, 1, 1, 1), Amounts(10, 10, 10, 10, 10))
    assert caught.value.reason == Reason.SCOPE_EXCEEDED


def test_lease_tokens_carry_a_checksum() -> None:
    """One altered, missing or foreign character is seen before any look-up."""
    token = make_token(bytes(range(32))).reveal().decode()
    assert token_well_formed(token)
    assert not any(
        token_well_formed(wrong) for wrong in ("", token[:-1], token + "a", token.swapcase(), "é" + token[1:])
    )
    altered = [token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :] for i in range(4, len(token))]
    assert not any(token_well_formed(wrong) for wrong in altered)


def test_a_secret_shows_itself_to_nobody() -> None:
    """No text form, no pickle, no copy through pickling, no hash; equal only to its like."""
    secret = Secret(b"sk-canary")
    shown = f"{secret} {secret!r} {secret!s:>20} {[secret]}"
    assert "canary" not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert (secret == Secret(b"sk-canary"), secret == b"sk-canary", secret == Secret(b"other")) == (True, False, False)
    secret.wipe()
    assert secret.reveal() == bytes(9)
    for wrong in (b"", b"a b", b"a\n", b"\x7f", "é".encode()):
        with pytest.raises(ValueError, match="printable ASCII") as caught:
            Secret(wrong)
        assert repr(wrong) not in str(caught.value)


def test_a5_every_alteration_of_a_record_shows() -> None:
    """Body, place, life, stream, predecessor: each is under the digest."""
    first = chain("s", "e", 1, GENESIS, b"{}")
    second = chain("s", "e", 2, first.digest, b'{"a":1}')
    assert broken_link(second, 2, first.digest) is None
    for wrong in (
        replace(second, body=b'{"a":2}'),
        replace(second, sequence=3),
        replace(second, epoch="f"),
        replace(second, stream="t"),
        replace(second, previous_digest=GENESIS),
        replace(second, digest=GENESIS),
    ):
        assert broken_link(wrong, 2, first.digest) is not None
    # The names are parted by a byte that no name has: moving a letter from one to the other is seen.
    assert chain("ab", "c", 1, GENESIS, b"{}").digest != chain("a", "bc", 1, GENESIS, b"{}").digest


def test_the_holder_is_told_to_renew_halfway(core_lease) -> None:
    """Half of what is left, ten per cent either way; not at all when nothing can be gained."""
    now = Instant(0, core_lease.expire_ns - 100 * NANOS)
    assert [renew_after_seconds(core_lease, now, jitter) for jitter in (0.0, 0.5)] == [45.0, 50.0]
    assert renew_after_seconds(replace(core_lease, max_expire_ns=core_lease.expire_ns), now, 0.5) == 0.0


@pytest.mark.parametrize(("issued_at", "dies"), [(0, True), (1, True), (2, False), (3, False)])
def test_r2_a_revocation_kills_what_was_issued_before_it_was_known(core_lease, issued_at: int, dies: bool) -> None:
    """Issued under an older epoch: dead. Issued once the entry was known: alive."""
    lease = replace(core_lease, revocation_epoch=issued_at)
    assert Revocation(2, Everything(), "", "alice", 0).kills(lease, frozenset(), "sidecar-a") is dies
