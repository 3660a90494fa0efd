"""What time ends: leases expire, ended ones are forgotten after a while, finished windows are closed."""

from leasehold_broker.domain.amounts import ZERO
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.ledger import AccountId
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books, lease_account
from leasehold_broker.flows.ending import Endings, carve_hold
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.flows.window_accounts import kept_ms, window_over
from leasehold_broker.ports.state_store import Change, DropAccount, DropLease, DropRequest

ENDED_MEMORY_MS = 3600 * 1000
"""How long an ended lease can still be read; its events stay in the audit log for ever."""
ENDED_LEASES_MAX = 20_000
"""How many ended leases are remembered at most; the oldest are forgotten first."""
OVER_SECONDS_MIN = 24 * 3600
"""A calendar window is forgotten once it has been over for this long by the boot clock, or for its own length if that
is less: a wall clock that is set forward by a day and back again finds what was spent, not a fresh budget."""
EXPIRY_BATCH_MAX = 1000
"""Leases ended in one commit, so that a thousand expiring together do not hold the loop."""


class Sweep:
    """One pass over what time has ended; the process runs it every fraction of a second."""

    def __init__(self, books: Books, journal: Journal) -> None:
        """Work on these books."""
        self._books = books
        self._journal = journal
        self._endings = Endings(books)
        self._over_since: dict[AccountId, int] = {}

    async def run(self, now: Instant) -> int:
        """Expire what is due and retry the backlog. Returns how many leases expired."""
        await self._journal.retry()
        due = self._books.take_due(now.boot_ns)
        expired = 0
        for start in range(0, len(due), EXPIRY_BATCH_MAX):
            batch = Batch()
            for name in due[start : start + EXPIRY_BATCH_MAX]:
                part, ended, _ = self._endings.end(name, LeaseState.EXPIRED, Reason.LEASE_EXPIRED, now)
                batch.add(part)
                expired += ended
            await self._journal.ending(batch)
        return expired

    async def prune(self, now: Instant) -> None:
        """Forget what ended long ago and close windows that are over."""
        ledger = self._books.ledger
        changes: list[Change] = []
        ended = sorted((lease for lease in self._books.leases.values() if lease.ended), key=lambda one: one.end_wall_ms)
        for index, lease in enumerate(ended):
            account = ledger.account(lease_account(lease.name))
            if (
                (index < len(ended) - ENDED_LEASES_MAX or now.wall_ms - lease.end_wall_ms > ENDED_MEMORY_MS)
                and lease.name not in self._books.children
                and lease.name not in self._books.unborn
                and (account is None or account.held == ZERO)
                and ledger.hold(carve_hold(lease.name)) is None
            ):
                self._books.forget_lease(lease.name)
                ledger.close_account(lease_account(lease.name))
                changes += [DropLease(lease.name), DropAccount(lease_account(lease.name))]
        for over in self._over_for_long(now):
            ledger.close_account(over)
            changes.append(DropAccount(over))
        for slice_ in self._books.slices.forget(now):
            ledger.close_account(slice_)
            changes.append(DropAccount(slice_))
        for key, record in tuple(self._books.requests.items()):
            if now.wall_ms > record.expire_wall_ms:
                del self._books.requests[key]
                changes.append(DropRequest(record.scope, record.request_id))
        await self._journal.ending(Batch([], changes))

    def _over_for_long(self, now: Instant) -> list[AccountId]:
        steady = self._books.steady_ms(now)
        over = {
            found.id: self._over_since.get(found.id, steady)
            for found in self._books.ledger.accounts()
            if found.held == ZERO and window_over(found, now.wall_ms, steady)
        }
        gone = [account for account, since in over.items() if steady - since >= kept_ms(account, OVER_SECONDS_MIN)]
        for account in gone:
            del over[account]
        self._over_since = over
        return gone
