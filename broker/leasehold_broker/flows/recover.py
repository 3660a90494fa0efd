"""Start from what was durable: every open hold is resolved by rule before the first request is served.

A call that was open when the process died has an unknown outcome: its hold is charged and flagged (B3, B5). A lease
whose time came meanwhile expires. Budgets carved for leases that are still alive stay carved.
"""

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.ledger import Hold
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.revocation import blocks_in_force
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.amount_details import amount_details
from leasehold_broker.flows.books import Books, lease_account
from leasehold_broker.flows.ending import Endings, snapshot
from leasehold_broker.flows.journal import Batch
from leasehold_broker.ports.state_store import DropHold, PutHold, StateStore, StoredState


class Recover:
    """Fills the books from the store."""

    def __init__(self, books: Books, store: StateStore) -> None:
        """Fill these books from this store."""
        self._books = books
        self._store = store
        self._endings = Endings(books)

    async def run(self, now: Instant, version: str) -> StoredState:
        """Load, resolve, and record the start.

        Returns:
            What was loaded, for those who remember other things than leases.

        Raises:
            Refusal: the start could not be made durable; do not serve.
        """
        state = self._store.load()
        self._fill(state, now)
        batch = Batch()
        charged = 0
        for put in state.holds:
            if not put.carve:
                batch.add(self._charge(put, now))
                charged += 1
        for put in state.holds:
            if put.carve:
                batch.add(self._endings.give_back(put.lease, now))
        for lease, _ in state.leases:
            if not self._books.leases[lease.name].ended and now.boot_ns >= lease.expire_ns:
                part, _, _ = self._endings.end(lease.name, LeaseState.EXPIRED, Reason.LEASE_EXPIRED, now)
                batch.add(part)
        details: dict[str, Detail] = {
            "version": version,
            "leases": sum(not lease.ended for lease in self._books.leases.values()),
            "holds_charged": charged,
            "revocation_epoch": self._books.epoch,
        }
        if state.previous is not None:
            # Closes the life before on its behalf: whoever has that record has its whole tail (A6).
            details |= {
                "previous_epoch": state.previous.epoch,
                "previous_sequence": state.previous.sequence,
                "previous_digest": state.previous.digest.hex(),
            }
        # The first record of this life, before what it settles of the life before.
        batch.events.insert(0, Event(EventType.SIDECAR_STARTED, now.wall_ms, Outcome.ALLOWED, details=details))
        await self._store.commit(batch.events, batch.changes, essential=True)
        return state

    def _fill(self, state: StoredState, now: Instant) -> None:
        books = self._books
        for lease, digest in state.leases:
            books.put_lease(lease, digest)
        for put in state.accounts:
            books.ledger.restore_account(put.account, put.caps, put.settled, put.overage)
        for lease, _ in state.leases:
            books.ledger.open_account(lease_account(lease.name), lease.caps)
        for hold in state.holds:
            for leg in hold.hold.legs:
                if books.ledger.account(leg.account) is None:
                    books.ledger.open_account(leg.account, NO_CAPS)
            books.ledger.restore_hold(hold.hold)
        for request in state.requests:
            books.requests[request.scope, request.request_id] = request
        for mark in sorted(state.key_marks, key=lambda mark: mark.wall_ms):
            books.put_key_mark(mark)
            lease_then = books.leases.get(mark.lease)
            if lease_then is None or lease_then.ended:
                books.exposures.pop(mark.lease, None)
        self._fill_orders(state)
        books.slices.recover(now)

    def _fill_orders(self, state: StoredState) -> None:
        """What operators have ordered: revocations and changes of caps."""
        books = self._books
        for change in state.budget_changes:
            books.put_budget_change(change)
        books.durable_budget_change = books.budget_change
        books.revocations = [entry for entry in state.revocations if entry.epoch > 0]
        books.revocation_history.extend(books.revocations)
        set_aside = [entry for entry in state.revocations if entry.epoch < 0]
        books.revocations_set_aside = sorted(set_aside, key=lambda entry: -entry.epoch)
        books.blocks = blocks_in_force(state.revocations)
        books.epoch = books.durable_epoch = max((entry.epoch for entry in books.revocations), default=0)

    def _charge(self, put: PutHold, now: Instant) -> Batch:
        hold: Hold = put.hold
        settlement = self._books.ledger.settle(hold.id, hold.amounts)
        lease = self._books.leases.get(put.lease)
        event = Event(
            EventType.CALL_SETTLED,
            now.wall_ms,
            Outcome.FAILED,
            subject=None if lease is None else lease.subject,
            lease=put.lease,
            details={
                "call": hold.id,
                "end": CallEnd.UNKNOWN.value,
                "charged": amount_details(settlement.charged),
                "estimated": True,
            },
        )
        accounts = [snapshot(self._books, leg.account) for leg in hold.legs]
        return Batch([event], [DropHold(hold.id), *accounts])
