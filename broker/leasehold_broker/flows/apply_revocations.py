"""Apply revocations at a sidecar: matching leases die at once, calls in flight are cut, the epoch is durable.

Owns order: entries are applied one by one, without gaps (R5); the epoch never falls (R1).
"""

from collections.abc import Sequence

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import PutRevocation

RESULTS_MAX = 1024
"""Results kept for entries that are offered again."""


class EpochGapError(Exception):
    """Entries are missing between what is applied and what came: ask for everything after the applied epoch."""


class ApplyRevocations:
    """Kills what revocations match. Implements `RevocationSink`."""

    def __init__(self, books: Books, journal: Journal, clock: Clock) -> None:
        """Work on these books."""
        self._books = books
        self._journal = journal
        self._clock = clock
        self._endings = Endings(books)
        self._results: dict[int, AppliedRevocation] = {}

    def applied_epoch(self) -> int:
        """Highest epoch whose effects are durable; what memory knows beyond it is already in force."""
        return self._books.durable_epoch

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """Apply entries in order; those already in force are only waited for. Returns after they are durable.

        Raises:
            EpochGapError: an entry is missing; nothing after the gap was applied.
            Refusal: STORE_UNAVAILABLE; what matches is dead in memory already, but offer the entries again.
        """
        batch, gap = Batch(), 0
        for revocation in revocations:
            if revocation.epoch <= self._books.epoch:
                continue
            if revocation.epoch != self._books.epoch + 1:
                gap = revocation.epoch
                break
            batch.add(self._apply(revocation))
        known = self._books.epoch
        # Also with nothing new: what an earlier call has put in force may still be on its way to the disk.
        if not await self._journal.ending(batch):
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the sidecar cannot write its state; the revocation is in force in memory",
                retry_after_seconds=1.0,
            )
        self._books.durable_epoch = max(self._books.durable_epoch, known)
        if gap:
            message = f"revocations between {known} and {gap} are missing"
            raise EpochGapError(message)
        return [self._results.get(entry.epoch, AppliedRevocation(entry.epoch, 0, 0)) for entry in revocations]

    def _apply(self, revocation: Revocation) -> Batch:
        books = self._books
        now = self._clock.now()
        batch, ended, cut = Batch(), 0, 0
        for lease in tuple(books.leases.values()):
            if lease.ended:
                continue
            ancestors = frozenset(parent.name for parent in books.ancestors(lease)) if lease.parent else frozenset()
            if revocation.kills(lease, ancestors, books.sidecar):
                part, more_ended, more_cut = self._endings.end(
                    lease.name, LeaseState.REVOKED, Reason.LEASE_REVOKED, now, revocation.name
                )
                batch.add(part)
                ended += more_ended
                cut += more_cut
        books.epoch = revocation.epoch
        books.revocations.append(revocation)
        books.blocks.pop(revocation.order.lifts, None)
        if revocation.order.block_new:
            books.blocks[revocation.epoch] = revocation
        event = Event(
            EventType.REVOCATION_APPLIED,
            now.wall_ms,
            Outcome.ALLOWED,
            details={"epoch": revocation.epoch, "leases_ended": ended, "calls_cut": cut},
        )
        batch.add(Batch([event], [PutRevocation(revocation)]))
        self._results[revocation.epoch] = AppliedRevocation(revocation.epoch, ended, cut)
        while len(self._results) > RESULTS_MAX:
            del self._results[next(iter(self._results))]
        return batch
