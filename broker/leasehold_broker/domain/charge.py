"""What a finished call is charged. Owns the rule for every way a call can end; errs on the charged side, and says so.

* Nothing sent: void.
* The provider's final usage is known: exactly that.
* The provider refused with a status that it does not bill: nothing but the request.
* Anything else (cut, reset, killed, no usage in the answer, a unit without a price): the hold, flagged `estimated`,
  except that input which the provider has already reported is charged as reported.
"""

from dataclasses import dataclass

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome
from leasehold_broker.domain.price import ModelPrice, UnpricedUnitError, Usage, cost_micro_usd, usage_amounts

UNBILLED_STATUSES = frozenset({*range(400, 500), 500, 501, 503, 529} - {408, 499})
"""Answers for which the vendors document no charge. A timeout (408, 499, 502, 504) may hide a billed answer."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What to settle with. `amounts` None means void."""

    amounts: Amounts | None
    estimated: bool


def charge_for(
    outcome: CallOutcome, held: Amounts, price: ModelPrice | None, *, metered: bool, fixed_pico_usd: int = 0
) -> Charge:
    """The charge for a call that ended like this and held `held`, of which `fixed_pico_usd` for server tools."""
    if not outcome.sent:
        return Charge(None, estimated=False)
    one_request = Amounts(requests=1)
    if not metered or price is None:
        return Charge(one_request, estimated=False)
    if outcome.usage is not None and outcome.usage_final:
        try:
            return Charge(usage_amounts(outcome.usage, cost_micro_usd(outcome.usage, price)), estimated=False)
        except UnpricedUnitError:
            return Charge(held, estimated=True)
    if outcome.end is CallEnd.PROVIDER_REFUSED and outcome.status in UNBILLED_STATUSES:
        return Charge(one_request, estimated=False)
    # Server tools run on after the last report, and what they find is billed as input of its own.
    estimate = _no_less if fixed_pico_usd else _at_most
    return Charge(estimate(outcome.usage, held, price), estimated=True)


def _no_less(usage: Usage | None, amounts: Amounts, price: ModelPrice) -> Amounts:
    """`amounts`, or what was reported where that is already more (B4: a charge is never cut down to its hold)."""
    if usage is None:
        return amounts
    try:
        known = usage_amounts(usage, cost_micro_usd(usage, price))
    except UnpricedUnitError:
        return amounts
    return Amounts(*(max(pair) for pair in zip(amounts, known, strict=True)))


def _at_most(usage: Usage | None, held: Amounts, price: ModelPrice) -> Amounts:
    if usage is None or not usage.all_input_tokens:
        return _no_less(usage, held, price)
    rest = Usage(
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
        max(held.output_tokens, usage.output_tokens),
        web_searches=usage.web_searches,
    )
    try:
        reached = usage_amounts(rest, cost_micro_usd(rest, price))
    except UnpricedUnitError:
        return held
    cost = min(reached.cost_micro_usd, held.cost_micro_usd)
    return _no_less(usage, Amounts(cost, reached.input_tokens, reached.output_tokens, 1, 0), price)
