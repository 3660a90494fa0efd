"""Apply revocations at a sidecar: matching leases die at once, calls in flight are cut, the epoch is durable.

Owns order: entries are applied one by one, without gaps (R5); the epoch never falls (R1), but where a centre that was
restored from an older copy has lost what numbers meant: then those are given up, and nothing of what they did.
"""

from collections.abc import Sequence
from dataclasses import replace

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.lease import Lease, LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import ByLease, BySubject, Revocation, Selector, blocks_in_force, selects
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.scope import ANYTHING
from leasehold_broker.domain.selector_words import order_to_words, to_words
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import Change, DropRevocation, PutLease, PutRevocation

RESULTS_MAX = 1024
"""Results kept for entries that are offered again."""
SET_ASIDE_EVENTS_MAX = 100
"""Of entries that are set aside the newest are told one by one, the others as a count."""


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
        self._set_asides = 0

    def applied_epoch(self) -> int:
        """Highest epoch whose effects are durable; what memory knows beyond it is already in force."""
        return self._books.durable_epoch

    def history_digest(self) -> bytes:
        """As the port says."""
        return self._books.revocation_history.digest_at(self._books.durable_epoch)

    def numbered(self, epoch: int) -> Revocation | None:
        """As the port says."""
        entries = self._books.revocations
        return entries[epoch - 1] if 0 < epoch <= len(entries) else None

    async def set_aside(self, above_epoch: int) -> None:
        """As the port says; the events say what each of them was, for whoever revokes it again."""
        books = self._books
        # With nothing above it: done by an earlier call, which may still be on its way to the disk.
        batch = self._set_aside(above_epoch) if books.epoch > above_epoch else Batch()
        if not await self._journal.ending(batch):
            raise _unwritten()

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """Apply entries in order; those already in force are only waited for. Returns after they are durable.

        Raises:
            EpochGapError: an entry is missing; nothing after the gap was applied.
            Refusal: STORE_UNAVAILABLE; what matches is dead in memory already, but offer the entries again.
        """
        batch, gap, candidates = Batch(), 0, _Candidates(self._books)
        applied: list[AppliedRevocation] = []
        for revocation in revocations:
            if revocation.epoch <= self._books.epoch:
                continue
            if revocation.epoch != self._books.epoch + 1:
                gap = revocation.epoch
                break
            batch.add(self._apply(revocation, candidates))
            applied.append(self._results[revocation.epoch])
        if applied:
            batch.add(Batch([_applied_event(applied, self._clock.now().wall_ms)]))
        known, set_asides = self._books.epoch, self._set_asides
        # Also with nothing new: what an earlier call has put in force may still be on its way to the disk.
        if not await self._journal.ending(batch):
            raise _unwritten()
        if set_asides == self._set_asides:
            self._books.durable_epoch = max(self._books.durable_epoch, known)
        if gap:
            message = f"revocations between {known} and {gap} are missing"
            raise EpochGapError(message)
        return [self._results.get(entry.epoch, AppliedRevocation(entry.epoch, 0, 0)) for entry in revocations]

    def _apply(self, revocation: Revocation, candidates: "_Candidates") -> Batch:
        books = self._books
        now = self._clock.now()
        batch, ended, cut = Batch(), 0, 0
        for lease in candidates.of(revocation.selector):
            if lease.ended:
                continue
            ancestors = frozenset(parent.name for parent in books.ancestors(lease)) if lease.parent else frozenset()
            # Whatever its number: what lives here was issued before this entry came.
            if not revocation.order.lifts and selects(revocation.selector, lease, ancestors, books.sidecar):
                part, more_ended, more_cut = self._endings.end(
                    lease.name, LeaseState.REVOKED, Reason.LEASE_REVOKED, now, revocation.name
                )
                batch.add(part)
                ended += more_ended
                cut += more_cut
        books.epoch = revocation.epoch
        books.revocation_history.extend([revocation])
        books.revocations.append(revocation)
        books.blocks.pop(revocation.order.lifts, None)
        if revocation.order.lifts:
            batch.add(Batch([], self._lift_set_aside(revocation)))
        if revocation.order.block_new:
            books.blocks[revocation.epoch] = revocation
        batch.add(Batch([], [PutRevocation(revocation)]))
        self._results[revocation.epoch] = AppliedRevocation(revocation.epoch, ended, cut)
        while len(self._results) > RESULTS_MAX:
            del self._results[next(iter(self._results))]
        return batch

    def _lift_set_aside(self, lift: Revocation) -> list[Change]:
        """Nobody can name a block that is set aside: whoever orders the same again, and lifts that, lifts it too."""
        books, changes = self._books, list[Change]()
        for place, entry in enumerate(books.revocations_set_aside):
            if entry.epoch in books.blocks and entry.selector == lift.selector:
                del books.blocks[entry.epoch]
                books.revocations_set_aside[place] = replace(entry, order=replace(entry.order, block_new=False))
                changes.append(PutRevocation(books.revocations_set_aside[place]))
        return changes

    def _set_aside(self, above: int) -> Batch:
        books = self._books
        now = self._clock.now()
        self._set_asides += 1
        gone, books.revocations = books.revocations[above:], books.revocations[:above]
        changes: list[Change] = [DropRevocation(entry.epoch) for entry in gone]
        next_epoch = -1 - len(books.revocations_set_aside)
        for entry in gone:
            self._results.pop(entry.epoch, None)
            blocks = entry.epoch in books.blocks
            if entry.order.lifts:
                continue
            # A block that was lifted stays so; one that was not is kept, whatever the centre knows.
            kept = replace(entry, epoch=next_epoch, order=replace(entry.order, block_new=blocks))
            books.revocations_set_aside.append(kept)
            changes.append(PutRevocation(kept))
            next_epoch -= 1
        # Also what only a lost entry had lifted: the centre holds it to be blocked.
        books.blocks = blocks_in_force([*books.revocations, *books.revocations_set_aside])
        for lease in tuple(books.leases.values()):
            if lease.revocation_epoch > above:  # of what comes under these numbers now, it has seen nothing
                books.put_lease(replace(lease, revocation_epoch=above))
                if lease.name not in books.unborn:
                    changes.append(PutLease(books.leases[lease.name]))
        books.revocation_history.cut(above)
        books.epoch = above
        books.durable_epoch = min(books.durable_epoch, above)
        told = [_set_aside_event(entry, above, len(gone), now.wall_ms) for entry in gone[-SET_ASIDE_EVENTS_MAX:]]
        return Batch(told, changes)


class _Candidates:
    """Leases that an entry may match.

    A burst is many entries in one push, and most of them name one lease or agent: those are looked up, so that what
    they cost does not grow with the leases that live here.
    """

    def __init__(self, books: Books) -> None:
        """Of these books, for entries that are applied in one go: no lease is born meanwhile."""
        self._leases = books.leases
        self._by_subject: dict[str, list[str]] | None = None

    def of(self, selector: Selector) -> list[Lease]:
        """As they are now; those that do not match may be among them."""
        match selector:
            case ByLease(name) if name not in self._leases:
                return []  # nor what was delegated from it: what a lease descends from is found here, or not at all
            case BySubject(_, subject) if not subject.endswith(ANYTHING):
                names = self._subjects().get(subject, [])
            case _:
                names = list(self._leases)
        return [self._leases[name] for name in names if name in self._leases]

    def _subjects(self) -> dict[str, list[str]]:
        if self._by_subject is None:
            self._by_subject = {}
            for lease in self._leases.values():
                self._by_subject.setdefault(lease.subject.subject, []).append(lease.name)
        return self._by_subject


def _applied_event(applied: Sequence[AppliedRevocation], wall_ms: int) -> Event:
    """One for all that came in one go: a burst is no thousand events of each sidecar. What ended says by what."""
    first, last = applied[0].epoch, applied[-1].epoch
    details: dict[str, Detail] = {"epoch": last, **({"first_epoch": first} if first != last else {})}
    details["leases_ended"] = sum(each.leases_ended for each in applied)
    details["calls_cut"] = sum(each.calls_cut for each in applied)
    return Event(EventType.REVOCATION_APPLIED, wall_ms, Outcome.ALLOWED, details=details)


def _set_aside_event(entry: Revocation, above: int, count: int, wall_ms: int) -> Event:
    return Event(
        EventType.REVOCATION_SET_ASIDE,
        wall_ms,
        Outcome.ALLOWED,
        details={
            "agreed_epoch": above,
            "set_aside": count,
            "epoch": entry.epoch,
            "selector": to_words(entry.selector),
            "note": entry.note,
            "revoked_by": entry.revoked_by,
            **order_to_words(entry.order),
        },
    )


def _unwritten() -> Refusal:
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the sidecar cannot write its state; the revocation is in force in memory",
        retry_after_seconds=1.0,
    )
