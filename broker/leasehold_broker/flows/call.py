"""One call to a provider: authenticated by its lease token, admitted against scope and budgets, settled on every end.

Owns the order: worst case reserved at every budget, hold and event durable, only then may a byte go upstream (B6); and
that each admitted call is settled or voided exactly once, whatever happens to the task that carries it (B3).
"""

import asyncio
import contextlib
from dataclasses import fields

from leasehold_broker.domain.amounts import ZERO, Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan, WorstCase, worst_case
from leasehold_broker.domain.charge import Charge, charge_for
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.lease import Lease, LeaseState, token_digest, token_well_formed
from leasehold_broker.domain.ledger import Hold, HoldId, Settlement, Shortfall
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope, forbids
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.values import value
from leasehold_broker.flows.amount_details import amount_details, leg_details
from leasehold_broker.flows.books import Books, Cut, OpenCall
from leasehold_broker.flows.budgets import Budgets, remaining_micro_usd
from leasehold_broker.flows.ending import Endings, snapshot
from leasehold_broker.flows.issuing import World, refuse_if_not_serving
from leasehold_broker.flows.journal import Batch, Journal, unharmed
from leasehold_broker.flows.key_health import KeyHealth
from leasehold_broker.flows.serving_key import ServingKey
from leasehold_broker.flows.slices import is_slice
from leasehold_broker.flows.thresholds import threshold_events
from leasehold_broker.ports.provider import PriceBook
from leasehold_broker.ports.state_store import Change, DropHold, PutHold, PutLease

NOT_SENT = CallOutcome(CallEnd.NOT_SENT, sent=False)
UNKNOWN = CallOutcome(CallEnd.UNKNOWN, sent=True)
_USAGE_NAMES = tuple(each.name for each in fields(Usage))
SETTLED_MAX = 1024
"""Settlements remembered for a second `settle` of the same call."""


@value
class Admitted:
    """A call that may be sent.

    Args:
        call_id: for settle.
        lease: as it was at admission.
        key: to be revealed only while the header is written.
        output_tokens_limit: to be placed into the request; None: leave the request as it is.
        remaining_micro_usd: what all budgets that apply still pay for after this hold; None when none caps money.
        output_lowered: the limit is what the budgets pay for, and less than the caller would have got.
        key_kind: how the key is sent.
    """

    call_id: str
    lease: Lease
    key: Secret
    output_tokens_limit: int | None
    remaining_micro_usd: int | None
    output_lowered: bool = False
    key_kind: KeyKind = KeyKind.STORED


@value
class Settled:
    """How a call was charged; `estimated` when the provider's own word was missing."""

    charged: Amounts
    estimated: bool
    remaining_micro_usd: int | None


class Calls:
    """Carries calls through the books."""

    def __init__(self, books: Books, journal: Journal, world: World, keys: KeyHealth, prices: PriceBook) -> None:
        """Work on these books, with these surroundings, keys and prices."""
        self._books = books
        self._journal = journal
        self._world = world
        self._keys = keys
        self._prices = prices
        self._budgets = Budgets(books)
        self._endings = Endings(books)
        self._serving = ServingKey(books, keys, world.policies)
        self._settled: dict[str, Settled] = {}
        books.slices.doubtful = journal.doubtful

    def lease_of(self, unverified_token: str | None, peer: Peer) -> Lease:
        """The lease that this token exercises for this peer, live or not: what it is refused from here on has its name.

        Raises:
            Refusal: LEASE_UNKNOWN (no token, not ours, or another peer's).
        """
        if unverified_token is None:
            raise _unknown("no lease token was sent as API key")
        if not token_well_formed(unverified_token):
            raise _unknown("what was sent as API key is not a lease token")
        name = self._books.token_of.get(token_digest(self._world.pepper, unverified_token))
        lease = None if name is None else self._books.leases.get(name)
        if lease is None:
            raise _unknown("the token belongs to no lease of this sidecar")
        if not peer.satisfies(lease.binding):
            detail = f"PEER_MISMATCH: {lease.name} is bound to {lease.binding}"
            raise _unknown(detail)
        return lease

    def scope_of(self, lease: Lease, provider: str) -> Scope:
        """What this lease, from `lease_of`, may do at `provider` now.

        Raises:
            Refusal: LEASE_EXPIRED, LEASE_RELEASED, LEASE_REVOKED, LEASE_FROZEN, PROCESS_ENDED, SCOPE_EXCEEDED (it does
                not reach this provider).
        """
        dead = lease.dead_reason(self._world.clock.now())
        if dead is not None:
            raise dead
        scope = lease.scope_for(provider)
        if scope is None:
            reached = ", ".join(scope.provider for scope in lease.scopes)
            raise Refusal(Reason.SCOPE_EXCEEDED, f"this lease does not reach {provider}; it reaches: {reached}")
        return scope

    async def admit(self, lease: Lease, plan: CallPlan, request_id: str, cut: Cut) -> Admitted:
        """Reserve the worst case of this call and make the hold durable.

        Args:
            lease: from `lease_of`.
            plan: what the checked request asks for.
            request_id: for the events.
            cut: called at most once, synchronously, when the lease dies while the call is open.

        Raises:
            Refusal: SCOPE_EXCEEDED, MODEL_NOT_ALLOWED, PRICE_UNKNOWN, BUDGET_EXHAUSTED, RATE_LIMITED,
                CONCURRENCY_EXCEEDED, KEY_UNAVAILABLE, KEY_DISABLED, ENVIRONMENT_MISMATCH, the lease's end, and what
                keeps the sidecar from serving. Then nothing is held.
        """
        scope = lease.scope_for(plan.provider)
        if scope is None:
            raise Refusal(Reason.SCOPE_EXCEEDED, f"this lease does not reach {plan.provider}; acquire one that does")
        scope, record = self._serving.of(lease, scope)
        key = await self._keys.secret(scope.key, scope.models, lease.subject)
        now = self._world.clock.now()
        self._may_call(lease.name, scope, plan, now)
        call, hold, worst = self._reserve(lease, scope, plan, request_id, now)
        if record is not None:
            call.key_version = record.version
        changes: list[Change] = [PutHold(hold, lease.name), *([] if record is None else self._keys.used(record))]
        event = _admitted_event(call, lease, hold, worst, now)
        written = self._journal.grant([event], changes, lambda: self._take_back(call, hold))
        try:
            await unharmed(written)
        except asyncio.CancelledError:
            # The hold may be durable: then its end must be too.
            self._journal.in_background(self._abandon(call.id, written))
            raise
        if call.cut_by is not None:
            await self.settle(call.id, NOT_SENT)
            raise call.cut_by[1]
        call.cut = cut
        self._books.counters.calls_admitted += 1
        self._books.counters.outputs_lowered += worst.lowered
        left = remaining_micro_usd(self._books, hold.legs)
        return Admitted(
            call.id,
            lease,
            key,
            worst.output_tokens_limit,
            left,
            worst.lowered,
            KeyKind.STORED if record is None else record.kind,
        )

    async def settle(self, call_id: str, outcome: CallOutcome) -> Settled:
        """End an admitted call: charge what it used, or void it when nothing was sent.

        Decides when called, then makes it durable; never refuses. A second call has no effect and returns the first
        result, while that is remembered.
        """
        call = self._books.calls.get(call_id)
        if call is None:
            return self._settled.get(call_id) or Settled(ZERO, estimated=False, remaining_micro_usd=None)
        hold = self._hold(call)
        batch, settlement, estimated = self._decide_settlement(call, outcome, self._world.clock.now())
        settled = Settled(settlement.charged, estimated, remaining_micro_usd(self._books, hold.legs))
        self._settled[call.id] = settled
        while len(self._settled) > SETTLED_MAX:
            del self._settled[next(iter(self._settled))]
        await self._journal.ending(batch)
        return settled

    def end(self, call_id: str, outcome: CallOutcome) -> None:
        """As `settle`, for a call whose caller has its answer: nobody waits until it is durable."""
        call = self._books.calls.get(call_id)
        if call is not None:
            self._journal.note(self._decide_settlement(call, outcome, self._world.clock.now())[0])

    def _take_back(self, call: OpenCall, hold: Hold) -> None:
        # The hold was never durable: there is nothing to write, unless its lease ended meanwhile and only waited for
        # this call to give its carved budget back.
        self._books.ledger.void(hold.id)
        self._forget(call)
        lease = self._books.leases.get(call.lease)
        if lease is not None and lease.parent:
            self._journal.in_background(self._give_back(call.lease))

    async def _give_back(self, name: str) -> None:
        await self._journal.ending(self._endings.give_back(name, self._world.clock.now()))

    async def _abandon(self, call_id: str, written: asyncio.Future[None]) -> None:
        with contextlib.suppress(Refusal):
            await unharmed(written)
        await self.settle(call_id, NOT_SENT)

    def _may_call(self, name: str, scope: Scope, plan: CallPlan, now: Instant) -> None:
        refuse_if_not_serving(self._books, self._world.centre, now)
        self._journal.check()
        lease = self._books.leases.get(name)
        dead = _unknown("the lease is no longer remembered") if lease is None else lease.dead_reason(now)
        if dead is not None:
            raise dead
        for parent in self._books.ancestors(lease) if lease is not None and lease.parent else ():
            above = parent.dead_reason(now)
            if above is not None:
                raise above
        forbidden = forbids(scope, plan.operation, plan.model, plan.tools)
        if forbidden is not None:
            raise forbidden

    def _reserve(
        self, lease: Lease, scope: Scope, plan: CallPlan, request_id: str, now: Instant
    ) -> tuple[OpenCall, Hold, WorstCase]:
        price = None if plan.model is None else self._prices.price(plan.provider, plan.model)
        drawing = self._budgets.drawn_by(lease, scope, self._world.policies.current(), now)
        headroom = self._budgets.headroom(drawing)
        worst = worst_case(plan, price, scope.max_output_tokens_per_request, headroom, lower=drawing.lower_output)
        call_id = self._world.entropy.bytes(12).hex()
        hold = self._books.ledger.reserve(HoldId(call_id), drawing.legs, worst.amounts)
        if isinstance(hold, Shortfall):
            raise self._budgets.refusal(hold, drawing.drawn, worst.amounts, now)
        call = OpenCall(call_id, lease.name, plan, price, request_id, scope.key, 0, None)
        self._books.calls[call_id] = call
        self._books.idle.clear()
        self._books.calls_of.setdefault(lease.name, set()).add(call_id)
        return call, hold, worst

    def _hold(self, call: OpenCall) -> Hold:
        hold = self._books.ledger.hold(HoldId(call.id))
        if hold is None:
            message = f"call {call.id} is open without a hold"
            raise RuntimeError(message)
        return hold

    def _decide_settlement(self, call: OpenCall, outcome: CallOutcome, now: Instant) -> tuple[Batch, Settlement, bool]:
        hold = self._hold(call)
        charge = charge_for(outcome, hold.amounts, call.price, call.plan)
        ledger = self._books.ledger
        settlement = ledger.void(hold.id) if charge.amounts is None else ledger.settle(hold.id, charge.amounts)
        self._forget(call)
        told = self._keys.observe(call.key, call.key_version, outcome)
        changes: list[Change] = [DropHold(hold.id)]
        if not settlement.voided:
            changes.extend(snapshot(self._books, leg.account) for leg in hold.legs)
        lease = self._books.leases.get(call.lease)
        event = _settled_event(call, lease, outcome, settlement, now, charge)
        batch = Batch([event, *threshold_events(self._books, settlement, call.lease, now)], changes)
        for leg in hold.legs:
            if is_slice(leg.account):
                batch.freed[leg.account] = hold.amounts.above(settlement.charged)
        batch.add(told)
        if settlement.overage != ZERO and lease is not None and lease.state is LeaseState.ACTIVE:
            batch.add(self._freeze(lease, settlement, now))
        batch.add(self._endings.give_back(call.lease, now))
        counters = self._books.counters
        counters.calls_settled += 1
        counters.charged_micro_usd += settlement.charged.cost_micro_usd
        counters.estimated_settlements += charge.estimated
        counters.unpriced_settlements += bool(charge.unpriced)
        self._books.wake(call.lease)
        return batch, settlement, charge.estimated

    def _freeze(self, lease: Lease, settlement: Settlement, now: Instant) -> Batch:
        frozen = lease.frozen()
        self._books.put_lease(frozen)
        event = Event(
            EventType.LEASE_FROZEN,
            now.wall_ms,
            Outcome.ALLOWED,
            Reason.LEASE_FROZEN,
            lease.subject,
            lease.name,
            details={"call": settlement.hold, "overage": amount_details(settlement.overage)},
        )
        return Batch([event], [PutLease(frozen)])

    def _forget(self, call: OpenCall) -> None:
        self._books.calls.pop(call.id, None)
        open_calls = self._books.calls_of.get(call.lease)
        if open_calls is not None:
            open_calls.discard(call.id)
            if not open_calls:
                del self._books.calls_of[call.lease]
        if not self._books.calls:
            self._books.idle.set()


def _unknown(detail: str) -> Refusal:
    return Refusal(
        Reason.LEASE_UNKNOWN,
        "the API key sent is not a live lease token of this sidecar for this peer; acquire a lease and send its token",
        detail=detail,
    )


def _admitted_event(call: OpenCall, lease: Lease, hold: Hold, worst: WorstCase, now: Instant) -> Event:
    details: dict[str, Detail] = {
        "call": call.id,
        "provider": call.plan.provider,
        "operation": call.plan.operation,
        "key": call.key,
        "held": amount_details(hold.amounts),
        "budgets": leg_details(hold.legs),
    }
    if call.plan.model is not None:
        details["model"] = call.plan.model
    if call.price is not None:
        details["price_version"] = call.price.version
    if worst.output_tokens_limit is not None:
        details["output_tokens_limit"] = worst.output_tokens_limit
    if worst.lowered:
        details["output_lowered"] = True
    return Event(
        EventType.CALL_ADMITTED,
        now.wall_ms,
        Outcome.ALLOWED,
        subject=lease.subject,
        lease=lease.name,
        request_id=call.request_id,
        details=details,
    )


def _settled_event(
    call: OpenCall,
    lease: Lease | None,
    outcome: CallOutcome,
    settlement: Settlement,
    now: Instant,
    charge: Charge,
) -> Event:
    details: dict[str, Detail] = {
        "call": call.id,
        "end": outcome.end.value,
        "charged": amount_details(settlement.charged),
        "key": call.key,
        "provider": call.plan.provider,
    }
    if call.plan.model is not None:
        details["model"] = call.plan.model
    if settlement.voided:
        details["voided"] = True
    if charge.estimated:
        details["estimated"] = True
    if charge.unpriced:
        details["unpriced"] = charge.unpriced
    if outcome.status:
        details["status"] = outcome.status
    if settlement.overage != ZERO:
        details["overage"] = amount_details(settlement.overage)
    if outcome.usage is not None:
        details["usage"] = _usage_details(outcome.usage)
    if call.price is not None:
        details["price_version"] = call.price.version
    if call.cut_by is not None:
        details["cut_by"] = call.cut_by[1].reason.value
    return Event(
        EventType.CALL_SETTLED,
        now.wall_ms,
        Outcome.FAILED if outcome.end is not CallEnd.FINISHED else Outcome.ALLOWED,
        Reason.PRICE_UNKNOWN if charge.unpriced else None,
        subject=None if lease is None else lease.subject,
        lease=call.lease,
        request_id=call.request_id,
        details=details,
    )


def _usage_details(usage: Usage) -> dict[str, Detail]:
    return {name.removesuffix("_tokens"): value for name in _USAGE_NAMES if (value := getattr(usage, name))}
