"""Units, service tiers, long-context tiers, regions: what a usage costs, and that the hold covers what may be used."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from leasehold_broker.domain.amounts import NO_CAPS, Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan, worst_case
from leasehold_broker.domain.charge import charge_for
from leasehold_broker.domain.price import (
    ANY,
    PIECE_UNITS,
    RATE_NAMES,
    TOKEN_UNITS,
    ModelPrice,
    Rates,
    Schedule,
    Tier,
    UnpricedUnitError,
    Usage,
    cost_micro_usd,
)
from leasehold_broker.domain.reasons import Reason, Refusal

RATES = Rates(
    input=3_000_000,
    output=15_000_000,
    cache_read=300_000,
    cache_write_5m=3_750_000,
    cache_write_1h=6_000_000,
    web_search=10_000_000_000,
    input_audio=32_000_000,
    output_audio=64_000_000,
    input_image=5_000_000,
    audio_second=100_000_000,
    character=15_000_000,
    output_picture=40_000_000_000,
)
LONG = replace(RATES, input=6_000_000, output=22_500_000)
PRIORITY = replace(RATES, input=6_000_000, output=30_000_000)
PRICE = ModelPrice(
    "m",
    RATES,
    (Tier(200_000, LONG),),
    0,
    0,
    "v",
    {"priority": Schedule(PRIORITY), "batch": Schedule(replace(RATES, input=1_500_000, output=7_500_000))},
    {"us": 11_000},
)


@pytest.mark.parametrize(
    ("usage", "micro_usd"),
    [
        # one thousand at 3 and two hundred at 15
        (Usage(1000, output_tokens=200), 6_000),
        # the same in a region at 1.1: 6600
        (Usage(1000, output_tokens=200, region="us"), 6_600),
        # two searches at 10,000 are not multiplied: 6600 + 20000
        (Usage(1000, output_tokens=200, region="us", web_searches=2), 26_600),
        # priority doubles both
        (Usage(1000, output_tokens=200, service_tier="priority"), 12_000),
        # batch halves both
        (Usage(1000, output_tokens=200, service_tier="batch"), 3_000),
        # 200,000 is not above the threshold: 200000 * 3
        (Usage(200_000), 600_000),
        # 200,001 is: every token at 6
        (Usage(200_001), 1_200_006),
        # cached tokens count towards the threshold: 1 * 6 + 200000 * 0.3
        (Usage(1, 200_000), 60_006),
        # 10 * 32 + 7 * 64 + 3 * 5
        (Usage(input_audio_tokens=10, output_audio_tokens=7, input_image_tokens=3), 783),
        # 61 seconds * 100 + 1000 characters * 15 + 1 picture * 40000
        (Usage(audio_seconds=61, input_characters=1000, output_images=1), 61_100),
        # 1 * 3 * 1.1 = 3.3, rounded up once
        (Usage(1, region="us"), 4),
    ],
)
def test_costs_by_hand(usage: Usage, micro_usd: int) -> None:
    """Each sum was computed by hand from the rates above."""
    assert cost_micro_usd(usage, PRICE) == micro_usd


def test_reasoning_and_the_fee_of_a_request() -> None:
    """Reasoning costs output unless it has its own rate; a fee comes once a call and is not multiplied by a region."""
    usage = Usage(100, output_tokens=50, reasoning_tokens=30, region="us")
    # (100 * 3 + 50 * 15) * 1.1 = 1155
    assert cost_micro_usd(usage, PRICE) == 1155
    own = replace(PRICE, base=replace(RATES, reasoning=3_000_000, request=12_000_000_000))
    # (100 * 3 + 20 * 15 + 30 * 3) * 1.1 + 12000 = 759 + 12000
    assert cost_micro_usd(usage, own) == 12_759


@pytest.mark.parametrize(
    ("usage", "named"),
    [
        (Usage(1, service_tier="scale"), "scale"),
        (Usage(1, region="mars"), "mars"),
        (Usage(1, file_searches=1), "file_search"),
        (Usage(cache_read_audio_tokens=1), "cache_read_audio"),
    ],
)
def test_what_has_no_price_is_an_error_by_its_name(usage: Usage, named: str) -> None:
    """A tier, a region or a unit without a price is never free; the call is charged its hold."""
    with pytest.raises(UnpricedUnitError, match=named):
        cost_micro_usd(usage, PRICE)
    held = Amounts(9, 1, 1, 1)
    outcome = CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=usage, usage_final=True)
    charge = charge_for(outcome, held, PRICE, CallPlan("p", "o", "m", metered=True, stream=False))
    assert (charge.amounts, charge.estimated) == (held, True)


@pytest.mark.parametrize(
    "members",
    [
        {"service_tiers": ("scale",)},
        {"regions": ("mars",)},
        {"units_bound": Usage(code_executions=1)},
        {"output_rates": (), "output_limited": True},
    ],
)
def test_what_may_be_used_and_has_no_price_is_refused(members) -> None:
    """A plan that may reach something without a price is refused before anything is held."""
    wanted = CallPlan("p", "o", "m", metered=True, stream=False, **members)
    with pytest.raises(Refusal) as caught:
        worst_case(wanted, replace(PRICE, base=replace(RATES, reasoning=None)), 0, NO_CAPS)
    assert caught.value.reason is Reason.PRICE_UNKNOWN


rates = st.builds(
    lambda known, missing: Rates(
        **{name: None if name in missing else value for name, value in zip(RATE_NAMES, known, strict=True)}
    ),
    st.lists(st.integers(1, 10**8), min_size=len(RATE_NAMES), max_size=len(RATE_NAMES)),
    st.sets(st.sampled_from(RATE_NAMES[2:]), max_size=2),
)
schedules = st.builds(
    lambda base, long: Schedule(base, tuple(Tier(above, each) for above, each in sorted(long.items()))),
    rates,
    st.dictionaries(st.sampled_from((50, 100)), rates, max_size=2),
)
prices = st.builds(
    lambda standard, variants, regions: ModelPrice("m", standard.base, standard.tiers, 0, 0, "v", variants, regions),
    schedules,
    st.dictionaries(st.sampled_from(("flex", "priority", "fast")), schedules, max_size=3),
    st.dictionaries(st.sampled_from(("us", "eu")), st.integers(1_000, 30_000), max_size=2),
)
count = st.integers(0, 40)
TEXT = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "input_image_tokens")
SAID = ("output_tokens", "output_audio_tokens", "output_image_tokens")
APART = tuple(unit for unit, _ in (*TOKEN_UNITS, *PIECE_UNITS) if unit not in {*TEXT, *SAID, "cache_read_image_tokens"})


@given(
    prices,
    st.dictionaries(st.sampled_from(TEXT), count),
    st.dictionaries(st.sampled_from(SAID), count),
    st.dictionaries(st.sampled_from(APART), count, max_size=4),
    count,
    st.data(),
)
def test_b12_no_tier_region_or_unit_within_the_plan_costs_more_than_the_hold(
    price: ModelPrice, text, said, apart, spare: int, data
) -> None:
    """Whatever the provider chooses among what the plan leaves open, and however little of it is used: it is held."""
    tier = data.draw(st.sampled_from(("", *price.variants)))
    region = data.draw(st.sampled_from(("", *price.regions)))
    usage = Usage(**text, **said, **apart, service_tier=tier, region=region)
    usage = replace(usage, reasoning_tokens=data.draw(st.integers(0, usage.output_tokens)))
    most = Usage(**{unit: used + data.draw(count) for unit, used in apart.items()})
    plan = CallPlan(
        "p",
        "o",
        "m",
        metered=True,
        stream=False,
        input_tokens_bound=sum(text.values()) + spare,
        output_tokens_stated=usage.all_output_tokens + spare,
        output_limited=True,
        units_bound=most,
        service_tiers=data.draw(st.sampled_from(((ANY,), (tier,), (tier, "")))),
        regions=data.draw(st.sampled_from(((ANY,), (region,)))),
    )
    with contextlib.suppress(Refusal, UnpricedUnitError):
        held = worst_case(plan, price, 0, NO_CAPS).amounts
        cost = cost_micro_usd(usage, price)
        event("priced")
        assert cost <= held.cost_micro_usd
        charged = charge_for(
            CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=usage, usage_final=True), held, price, plan
        )
        assert charged.amounts is not None
        assert charged.amounts.fits(held)


@given(prices, st.sampled_from([unit for unit, _ in (*TOKEN_UNITS, *PIECE_UNITS)]), count, count)
def test_b11_more_of_any_unit_never_holds_less(price: ModelPrice, unit: str, used: int, more: int) -> None:
    """Of every unit that a plan can bound, more never makes a smaller hold."""
    plans = [
        CallPlan("p", "o", "m", metered=True, stream=False, units_bound=Usage(**{unit: most}), service_tiers=(ANY,))
        for most in (used, used + more)
    ]
    with contextlib.suppress(Refusal):
        small, large = (worst_case(plan, price, 0, NO_CAPS).amounts for plan in plans)
        assert small.fits(large)


def test_the_hold_is_at_the_dearest_tier_and_region_left_open() -> None:
    """By hand: 1000 tokens at 6 (priority, or an hour in the cache), 100 at 30, a tenth more in the dearer region."""
    plan = CallPlan(
        "p",
        "o",
        "m",
        metered=True,
        stream=False,
        input_tokens_bound=1000,
        output_tokens_stated=100,
        output_limited=True,
        output_rates=("output",),
    )
    held = {
        (tiers, regions): worst_case(
            replace(plan, service_tiers=tiers, regions=regions), PRICE, 0, NO_CAPS
        ).amounts.cost_micro_usd
        for tiers in ((ANY,), ("priority", ""), ("",))
        for regions in ((ANY,), ("",))
    }
    assert held == {
        ((ANY,), (ANY,)): 9_900,
        ((ANY,), ("",)): 9_000,
        (("priority", ""), (ANY,)): 9_900,
        (("priority", ""), ("",)): 9_000,
        (("",), (ANY,)): 8_250,
        (("",), ("",)): 7_500,
    }


def test_an_estimate_takes_the_dearest_that_was_left_open() -> None:
    """Cut before the last word: input as reported, the held output at the dearest tier that the plan may reach."""
    plan = CallPlan(
        "p",
        "o",
        "m",
        metered=True,
        stream=True,
        input_tokens_bound=1000,
        output_tokens_stated=100,
        output_limited=True,
        output_rates=("output",),
        service_tiers=("priority", ""),
    )
    held = worst_case(plan, PRICE, 0, NO_CAPS).amounts
    cut = CallOutcome(CallEnd.UPSTREAM_FAILED, sent=True, status=200, usage=Usage(400, output_tokens=3))
    charge = charge_for(cut, held, PRICE, plan)
    # 400 at 6 and 100 at 30
    assert (charge.amounts, charge.estimated) == (Amounts(5_400, 400, 100, 1), True)
    known = replace(cut, usage=Usage(400, output_tokens=3, service_tier="default"))
    # 400 at 3 and 100 at 15
    assert charge_for(known, held, PRICE, plan).amounts == Amounts(2_700, 400, 100, 1)
