"""One call to a provider, as the gate has understood it. Owns the plan, the worst case and the way a call ended.

A provider module turns a checked request into a `CallPlan`; this module turns plan and price into the amounts to hold.
"""

from dataclasses import field
from enum import StrEnum

from leasehold_broker.domain.amounts import UNLIMITED, Amounts
from leasehold_broker.domain.price import (
    OUTPUT_RATES,
    PICO_PER_MICRO,
    ModelPrice,
    Rates,
    UnpricedUnitError,
    Usage,
    call_pico_usd,
    dearest_output,
    micro_usd,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.values import value

OUTPUT_TOKENS_DEFAULT = 4096
"""Output limit that is set when neither the request, the scope nor the price table knows one."""


@value
class CallPlan:
    """What a provider's module reads from one request that passed the body gate.

    Args:
        provider, operation: names of the route.
        model: as the request names it; None for routes without one (list of models).
        metered: False for routes that the provider does not bill (count_tokens, models): these hold one request and
            concurrency, no money.
        stream: the answer is a stream of events.
        input_tokens_bound: no tokenizer can make more of this request, everything billed as input included, but for
            what `units_bound` counts.
        output_tokens_stated: the request's own output limit per choice; None when it states none.
        output_limited: True when this route takes an output limit at all (False: embeddings).
        choices: answers asked for; the output bound is multiplied by it.
        tools: server-side tool types that the request switches on.
        units_bound: the most of every unit that is counted apart from text input and output: audio, pictures by the
            piece, characters, seconds, uses of server tools.
        output_rates: names of the rates that its output tokens may be billed at; those that the model does not have
            cannot apply.
        service_tiers, regions: where it may be served, in the words of the price table; the dearest is held.
        output_tokens_floor: smallest output limit that may be chosen for this request: below it the vendor refuses it,
            or the answer is of no use.
        rereads: how often the provider may read the conversation again, because of tools that it runs: each time it
            reads no more than the model's context window. Its answers in between are counted as choices.
        cache_writes: False when the request provably makes the provider write nothing to a prompt cache, so that the
            dearer rates of doing so cannot apply.
    """

    provider: str
    operation: str
    model: str | None
    metered: bool
    stream: bool
    input_tokens_bound: int = 0
    output_tokens_stated: int | None = None
    output_limited: bool = False
    output_tokens_floor: int = 1
    choices: int = 1
    tools: tuple[str, ...] = field(default=())
    units_bound: Usage = field(default=Usage())
    output_rates: tuple[str, ...] = OUTPUT_RATES
    service_tiers: tuple[str, ...] = ("",)
    regions: tuple[str, ...] = ("",)
    cache_writes: bool = True
    rereads: int = 0

    @property
    def runs_server_tools(self) -> bool:
        """The provider may run tools, which go on after its last report."""
        return self.rereads > 0 or self.units_bound.tool_uses > 0


class CallEnd(StrEnum):
    """How a call ended; stored in the settling event."""

    FINISHED = "finished"
    PROVIDER_REFUSED = "provider_refused"
    UPSTREAM_FAILED = "upstream_failed"
    CLIENT_GONE = "client_gone"
    CUT_BY_REVOCATION = "cut_by_revocation"
    CUT_BY_EXPIRY = "cut_by_expiry"
    CUT_BY_DRAIN = "cut_by_drain"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"


@value
class CallOutcome:
    """What the relay knows when a call is over.

    Args:
        end: how it ended.
        sent: False only when provably no byte of the request reached the upstream socket (B5).
        status: the provider's HTTP status; 0 when none came.
        usage: the provider's last usage report; None when none came.
        usage_final: True when that report is the provider's last word for the call.
        wait_seconds: the provider asks to wait so long; None when it does not say.
        exhausted: the provider says that the key's account has nothing left.
        refused: the provider says in words of its own that the key is no good; 401 says so without.
    """

    end: CallEnd
    sent: bool
    status: int = 0
    usage: Usage | None = None
    usage_final: bool = False
    wait_seconds: float | None = None
    exhausted: bool = False
    refused: bool = False


@value
class WorstCase:
    """The amounts to hold, and the output limit to place into the request (None: leave the request as it is).

    `lowered`: the budgets made that limit smaller than what was asked for, or than what the model and the scope give.
    """

    amounts: Amounts
    output_tokens_limit: int | None
    lowered: bool = False


def worst_case(
    plan: CallPlan, price: ModelPrice | None, scope_output_max: int, headroom: Amounts, *, lower: bool = True
) -> WorstCase:
    """The most this call can cost, with an output limit chosen where the request states none or too large a one.

    The chosen limit is the largest that the model gives, the scope allows and the headroom pays for, never below the
    plan's floor: what does not fit even then will be refused by the ledger.

    Args:
        plan: the request.
        price: of the plan's model; may be None only when the plan is not metered.
        scope_output_max: the lease's own limit per request; 0 for none.
        headroom: what a new hold may still take at every budget that applies.
        lower: False: a stated limit is left as it is, fit or not; one that is not stated is chosen all the same.

    Raises:
        Refusal: PRICE_UNKNOWN (of the model, or of a unit, tier or region that the request may use), SCOPE_EXCEEDED
            (stated limit above the scope's), COST_UNBOUNDED (a tool reads into a window whose size is not known).
    """
    if not plan.metered:
        return WorstCase(Amounts(requests=1, concurrency=1), None)
    if price is None:
        raise Refusal(
            Reason.PRICE_UNKNOWN,
            f"no price is known for model {plan.model!r} of {plan.provider}; ask the platform team to add one",
        )
    text_bound = _text_bound(plan, price)
    input_bound = text_bound + plan.units_bound.all_input_tokens
    try:
        rates = price.dearest(input_bound, plan.service_tiers, plan.regions)
        base_pico = text_bound * _input_rate(rates, plan) + call_pico_usd(plan.units_bound, rates)
        output_rate = dearest_output(rates, plan.output_rates) if plan.output_limited else 0
    except UnpricedUnitError as error:
        raise Refusal(
            Reason.PRICE_UNKNOWN,
            f"{plan.model} of {plan.provider}: {error}; ask for what has a price, or ask the platform team to add one",
        ) from error
    asked, stated = _output_asked(plan, price, scope_output_max)
    limit = asked
    if lower or not stated:
        # What is asked for is never raised to the floor: who asks for little gets little.
        fits = _affordable_output(plan, headroom, base_pico, output_rate)
        limit = min(asked, max(fits, plan.output_tokens_floor))
    output = limit * plan.choices
    cost = micro_usd(base_pico + output * output_rate)
    lowered = limit < asked
    placed = limit if plan.output_limited and (lowered or not stated) else None
    held = Amounts(cost, input_bound, output + plan.units_bound.all_output_tokens, 1, 1)
    return WorstCase(held, placed, lowered)


def _text_bound(plan: CallPlan, price: ModelPrice) -> int:
    """The most input that is text: of the request, and of the tools that the provider runs for it."""
    window = price.window_tokens_max
    if plan.rereads and not window:
        raise Refusal(
            Reason.COST_UNBOUNDED,
            f"how much {plan.model} of {plan.provider} reads at once is not in the price table, so its own tools have "
            "no bound; name another model, run the tool yourself, or ask the platform team to add context_tokens_max",
        )
    read = (
        min(plan.input_tokens_bound, window)
        if window and (plan.rereads or not price.tiered)
        else (plan.input_tokens_bound)
    )
    return read + plan.rereads * window


def _input_rate(rates: Rates, plan: CallPlan) -> int:
    """The dearest that a token of text or of a picture can be: fresh, cached or written."""
    known = [rates.input, rates.cache_read, rates.input_image, rates.cache_read_image]
    if plan.cache_writes:
        known += [rates.cache_write_5m, rates.cache_write_1h]
    found = [rate for rate in known if rate is not None]
    if not found and plan.input_tokens_bound:
        raise UnpricedUnitError("no input rate")
    return max(found, default=0)


def _output_asked(plan: CallPlan, price: ModelPrice, scope_output_max: int) -> tuple[int, bool]:
    """The output limit without any budget, and whether the request states it."""
    if not plan.output_limited:
        return 0, True
    stated = plan.output_tokens_stated
    if stated is None:
        most = price.output_tokens_max or OUTPUT_TOKENS_DEFAULT
        return max(1, min(most, scope_output_max) if scope_output_max else most), False
    if scope_output_max and stated > scope_output_max:
        raise Refusal(
            Reason.SCOPE_EXCEEDED,
            f"the request's output limit {stated} is above this lease's {scope_output_max}; lower it",
        )
    return stated, True


def _affordable_output(plan: CallPlan, headroom: Amounts, base_pico: int, output_rate: int) -> int:
    """The largest output limit that the headroom pays for; UNLIMITED when it caps neither tokens nor money."""
    most = UNLIMITED
    if headroom.output_tokens < UNLIMITED:
        most = (headroom.output_tokens - plan.units_bound.all_output_tokens) // plan.choices
    if headroom.cost_micro_usd < UNLIMITED and output_rate:
        left_pico = headroom.cost_micro_usd * PICO_PER_MICRO - base_pico
        most = min(most, left_pico // (output_rate * plan.choices))
    return most
