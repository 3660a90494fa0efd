"""How a lease ends. Owns that its tree dies with it, calls in flight are cut and carved budgets flow back.

Decides in memory at once and returns the batch to make durable; used by release, expiry, revocation and recovery.
"""

from leasehold_broker.domain.amounts import ZERO
from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.keys import KeyMark
from leasehold_broker.domain.lease import Lease, LeaseState, Mode
from leasehold_broker.domain.ledger import AccountId, HoldId
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.amount_details import amount_details
from leasehold_broker.flows.books import Books, lease_account
from leasehold_broker.flows.journal import Batch
from leasehold_broker.flows.thresholds import threshold_events
from leasehold_broker.ports.state_store import DropHold, PutAccount, PutLease

_EVENT = {
    LeaseState.EXPIRED: EventType.LEASE_EXPIRED,
    LeaseState.RELEASED: EventType.LEASE_RELEASED,
    LeaseState.REVOKED: EventType.LEASE_REVOKED,
}
_CUT = {
    LeaseState.EXPIRED: CallEnd.CUT_BY_EXPIRY,
    LeaseState.RELEASED: CallEnd.CUT_BY_EXPIRY,
    LeaseState.REVOKED: CallEnd.CUT_BY_REVOCATION,
}


def carve_hold(name: str) -> HoldId:
    """The hold by which a delegated lease's caps are carved out of its parents."""
    return HoldId(f"carve:{name}")


def snapshot(books: Books, account_id: AccountId) -> PutAccount:
    """The values of an account as they are now, to be stored."""
    account = books.ledger.account(account_id)
    if account is None:
        message = f"account {account_id} is not open"
        raise RuntimeError(message)
    return PutAccount(account.id, account.caps, account.settled, account.overage)


class Endings:
    """Ends leases."""

    def __init__(self, books: Books) -> None:
        """Work on these books."""
        self._books = books

    def end(self, name: str, state: LeaseState, reason: Reason, now: Instant, by: str = "") -> tuple[Batch, int, int]:
        """End the lease `name` and everything delegated from it.

        Args:
            name: the lease.
            state: EXPIRED, RELEASED or REVOKED.
            reason: stored with each lease.
            now: the instant.
            by: name of the revocation, if any.

        Returns:
            What to make durable, how many leases ended, how many calls were cut.
        """
        batch, ended, cut = Batch(), 0, 0
        for lease in self._books.tree(name):
            if not lease.ended:
                batch.add(self._end_one(lease, state, reason, now, by))
                ended += 1
                cut += self._cut_calls(lease, state)
        return batch, ended, cut

    def give_back(self, name: str, now: Instant) -> Batch:
        """Settle the budgets carved for ended leases, from `name` up to its root, where nothing draws on them any more.

        A carve stays while a call or a carve further down holds anything of it, even one of a lease without a carve of
        its own: what that call is charged must still be passed on to the parents.
        """
        batch = Batch()
        lease = self._books.leases.get(name)
        if lease is not None and lease.parent:
            for one in (lease, *self._books.ancestors(lease)):
                batch.add(self._give_back_one(one, now))
        return batch

    def _give_back_one(self, lease: Lease, now: Instant) -> Batch:
        ledger = self._books.ledger
        hold = ledger.hold(carve_hold(lease.name))
        account = ledger.account(lease_account(lease.name))
        if hold is None or not lease.ended or (account is not None and account.held != ZERO):
            return Batch()
        spent = ZERO if account is None else account.settled.masked(lease.carved)
        settlement = ledger.settle(hold.id, spent)
        details: dict[str, Detail] = {"carve": hold.id, "charged": amount_details(settlement.charged)}
        if settlement.overage != ZERO:
            details["overage"] = amount_details(settlement.overage)
        event = Event(
            EventType.BUDGET_RETURNED,
            now.wall_ms,
            Outcome.ALLOWED,
            subject=lease.subject,
            lease=lease.name,
            details=details,
        )
        events = [event, *threshold_events(self._books, settlement, lease.name, now)]
        return Batch(events, [DropHold(hold.id), *(snapshot(self._books, leg.account) for leg in hold.legs)])

    def _end_one(self, lease: Lease, state: LeaseState, reason: Reason, now: Instant, by: str) -> Batch:
        ended = lease.end(state, reason, now)
        self._books.put_lease(ended)
        self._books.fresh_tokens.pop(lease.name, None)
        account = self._books.ledger.account(lease_account(lease.name))
        details: dict[str, Detail] = {} if account is None else {"settled": amount_details(account.settled)}
        if by:
            details["revocation"] = by
        made = self._books.engine_leases.get(lease.name)
        if made is not None:
            details["engine_lease"] = made.engine_lease  # revoked next; the event of that follows
        if lease.mode is Mode.MINTED and (made is None or not made.renewable) and now.boot_ns < lease.max_expire_ns:
            # What this end cannot reach: the provider takes the token until then.
            details["token_lives_until_wall_ms"] = lease.max_expire_wall_ms
        event = Event(
            _EVENT[state],
            now.wall_ms,
            Outcome.ALLOWED,
            reason=reason,
            subject=lease.subject,
            lease=lease.name,
            details=details,
        )
        batch = Batch([event], [PutLease(ended)])
        exposed = self._books.exposures.pop(lease.name, None)
        if exposed is not None:
            batch.events.append(_rotation_requested(exposed, ended, now))
        batch.add(self.give_back(lease.name, now))
        return batch

    def _cut_calls(self, lease: Lease, state: LeaseState) -> int:
        refusal = self._books.leases[lease.name].dead_reason(Instant(0, 0))
        cut = 0
        for call_id in tuple(self._books.calls_of.get(lease.name, ())):
            call = self._books.calls[call_id]
            if call.cut_by is None and refusal is not None:
                call.cut_by = (_CUT[state], refusal)
                cut += 1
                self._books.counters.calls_cut += 1
                if call.cut is not None:
                    call.cut(*call.cut_by)
        return cut


def _rotation_requested(exposed: KeyMark, lease: Lease, now: Instant) -> Event:
    """Whoever rotates keys reads this in the audit log: the key was in other hands, and the right to it is over."""
    return Event(
        EventType.KEY_ROTATION_REQUESTED,
        now.wall_ms,
        Outcome.ALLOWED,
        lease.state_reason,
        lease.subject,
        lease.name,
        details={
            "key": exposed.key,
            "version": exposed.version,
            "environment": lease.subject.environment,
            "cause": "disclosed",
            "exposed_wall_ms": exposed.wall_ms,
        },
    )
