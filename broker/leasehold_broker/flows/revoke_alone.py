"""Revocation at a sidecar that runs alone: it is its own centre. Implements `RevocationIssuer` on its books."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.revocation import Revocation, Selector, selects
from leasehold_broker.domain.revocation_progress import Behind, Holder, RevocationProgress, SidecarProgress
from leasehold_broker.flows.apply_revocations import ApplyRevocations
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.issue_revocation import issued_event
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_issuer import (
    HOLDERS_SHOWN_MAX,
    MatchingLeases,
    RevocationDraft,
    earlier_entries,
)

REQUESTS_MAX = 4096
"""Request ids remembered for retries; a repeat after that revokes again, which changes nothing."""


class RevokeAlone:
    """Issues revocations and applies them at once."""

    def __init__(self, name: str, books: Books, journal: Journal, apply: ApplyRevocations, clock: Clock) -> None:
        """Act for the sidecar `name`."""
        self._name = name
        self._books = books
        self._journal = journal
        self._apply = apply
        self._clock = clock
        self._known: dict[tuple[str, str], Revocation] = {}
        self._ended: dict[int, tuple[int, int]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def matching(self, *selectors: Selector) -> MatchingLeases:
        """Live leases that any of the selectors matches now."""
        found: list[Lease] = []
        each = [0] * len(selectors)
        for lease in self._books.leases.values():
            if lease.ended:
                continue
            tree = _ancestors(self._books, lease)
            places = [at for at, one in enumerate(selectors) if selects(one, lease, tree, self._books.sidecar)]
            if places:
                found.append(lease)
            for place in places:
                each[place] += 1
        whose = Counter(Holder(self._books.sidecar, lease.subject.issuer, lease.subject.subject) for lease in found)
        names = tuple(sorted(lease.name for lease in found))
        holders = tuple(whose.most_common(HOLDERS_SHOWN_MAX))
        return MatchingLeases(names, complete=True, holders=holders, each=tuple(each))

    async def issue(self, draft: RevocationDraft) -> Revocation:
        """Revoke; returns when entry and effects are durable. Raises as `issue_all`."""
        return (await self.issue_all([draft]))[0]

    async def issue_all(self, drafts: Sequence[RevocationDraft]) -> Sequence[Revocation]:
        """Revoke; returns when entries and effects are durable.

        Raises:
            Refusal: REQUEST_ID_REUSED, STORE_UNAVAILABLE (what matches is dead in memory all the same).
        """
        keys = [(draft.revoked_by, draft.request_id) for draft in drafts]
        async with self._one_at_a_time:
            earlier = earlier_entries(drafts, [self._known.get(key) for key in keys])
            if earlier:
                # Again, for the case that the disk failed at first: waits until it is durable, changes nothing else.
                await self._apply.apply(earlier)
                return earlier
            entries = [draft.numbered(epoch) for epoch, draft in enumerate(drafts, self._books.epoch + 1)]
            self._known.update(zip(keys, entries, strict=True))
            while len(self._known) > REQUESTS_MAX:
                del self._known[next(iter(self._known))]
            events = [issued_event(entry, draft) for entry, draft in zip(entries, drafts, strict=True)]
            await self._journal.ending(Batch(events, []))
            for applied in await self._apply.apply(entries):
                self._ended[applied.epoch] = (applied.leases_ended, applied.calls_cut)
            return entries

    async def progress(self, epoch: int, first_epoch: int | None = None) -> RevocationProgress | None:
        """How far the entry has come: all the way, as soon as it is applied."""
        entry = next((entry for entry in self._books.revocations if entry.epoch == epoch), None)
        if entry is None:
            return None
        epochs = range(epoch if first_epoch is None else first_epoch, epoch + 1)
        counts = [self._ended.get(one, (0, 0)) for one in epochs]
        here = SidecarProgress(
            sidecar=self._name,
            connected=True,
            applied_epoch=self._apply.applied_epoch(),
            leases_ended=sum(ended for ended, _ in counts),
            calls_cut=sum(cut for _, cut in counts),
            last_heard_wall_ms=self._clock.now().wall_ms,
            lapsed=False,
        )
        return RevocationProgress.of_all(entry, (here,))

    async def page(self, before_epoch: int, limit: int) -> Sequence[Revocation]:
        """Entries below `before_epoch`, newest first."""
        older = [entry for entry in self._books.revocations if entry.epoch < before_epoch]
        return older[::-1][:limit]

    async def lifted_by(self, epochs: Collection[int]) -> Mapping[int, Revocation]:
        """As the port says; one that the disk has refused is not durable, and is issued again."""
        durable = self._books.revocations[: self._apply.applied_epoch()]
        return {one.order.lifts: one for one in reversed(durable) if one.order.lifts in epochs}

    def behind(self) -> Behind:
        """Nobody: it is applied here before it is answered."""
        return Behind({}, 1)

    async def watch(
        self,
        epoch: int,
        first_epoch: int | None = None,
        *,
        changes_only: bool = False,  # noqa: ARG002 - the port's signature
    ) -> AsyncIterator[RevocationProgress]:
        """The progress, once: it is complete already."""
        progress = await self.progress(epoch, first_epoch)
        if progress is not None:
            yield progress


def _ancestors(books: Books, lease: Lease) -> frozenset[str]:
    return frozenset(parent.name for parent in books.ancestors(lease))
