"""What a finished call is charged. Owns the rule for every way a call can end; errs on the charged side, and says so.

* Nothing sent: void.
* The provider's final usage is known: exactly that.
* The provider refused with a status that it does not bill: nothing but the request.
* Anything else (cut, reset, killed, no usage in the answer, a unit without a price): the hold, flagged `estimated`,
  except that input which the provider has already reported is charged as reported.
"""

from dataclasses import replace

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.price import (
    ModelPrice,
    UnpricedUnitError,
    Usage,
    call_pico_usd,
    cost_micro_usd,
    dearest_output,
    micro_usd,
    usage_amounts,
)
from leasehold_broker.domain.values import value

UNBILLED_STATUSES = frozenset({*range(400, 500), 500, 501, 503, 529} - {408, 499})
"""Answers for which the vendors document no charge. A timeout (408, 499, 502, 504) may hide a billed answer."""


@value
class Charge:
    """What to settle with.

    Args:
        amounts: None means void.
        estimated: the provider's own word was missing, or has no price.
        unpriced: what it reported and the price table has no price for; empty otherwise.
    """

    amounts: Amounts | None
    estimated: bool
    unpriced: str = ""


def charge_for(outcome: CallOutcome, held: Amounts, price: ModelPrice | None, plan: CallPlan) -> Charge:
    """The charge for a call that was planned like this, held `held` and ended like that."""
    if not outcome.sent:
        return Charge(None, estimated=False)
    one_request = Amounts(requests=1)
    if not plan.metered or price is None:
        return Charge(one_request, estimated=False)
    if outcome.usage is not None and outcome.usage_final:
        try:
            return Charge(usage_amounts(outcome.usage, cost_micro_usd(outcome.usage, price)), estimated=False)
        except UnpricedUnitError as error:
            return Charge(held, estimated=True, unpriced=str(error))
    if outcome.end is CallEnd.PROVIDER_REFUSED and outcome.status in UNBILLED_STATUSES:
        return Charge(one_request, estimated=False)
    return Charge(_estimate(outcome.usage, held, price, plan), estimated=True)


def _estimate(usage: Usage | None, held: Amounts, price: ModelPrice, plan: CallPlan) -> Amounts:
    # Server tools run on after the last report, and what they find is billed as input of its own.
    if plan.runs_server_tools or usage is None or not usage.all_input_tokens:
        return _no_less(usage, held, price)
    return _at_most(usage, held, price, plan)


def _no_less(usage: Usage | None, amounts: Amounts, price: ModelPrice) -> Amounts:
    """`amounts`, or what was reported where that is already more (B4: a charge is never cut down to its hold)."""
    if usage is None:
        return amounts
    try:
        known = usage_amounts(usage, cost_micro_usd(usage, price))
    except UnpricedUnitError:
        return amounts
    return Amounts(*(max(pair) for pair in zip(amounts, known, strict=True)))


def _at_most(usage: Usage, held: Amounts, price: ModelPrice, plan: CallPlan) -> Amounts:
    """Input as reported, and all the output that was held, at the dearest rate it can have; never above the hold."""
    tiers = (usage.service_tier,) if usage.service_tier else plan.service_tiers
    regions = (usage.region,) if usage.region else plan.regions
    output = max(held.output_tokens, usage.all_output_tokens)
    try:
        rates = price.dearest(usage.all_input_tokens, tiers, regions)
        reported = replace(usage, output_tokens=0, output_audio_tokens=0, output_image_tokens=0)
        pico = call_pico_usd(reported, rates) + output * dearest_output(rates, plan.output_rates)
    except UnpricedUnitError:
        return held
    cost = min(micro_usd(pico), held.cost_micro_usd)
    return _no_less(usage, Amounts(cost, usage.all_input_tokens, output, 1, 0), price)
