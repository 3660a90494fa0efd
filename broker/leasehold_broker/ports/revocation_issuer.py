"""The port behind the revocation service: a collector with its sidecars, or a sidecar that runs alone."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import PLAIN, Order, Revocation, Selector
from leasehold_broker.domain.revocation_progress import Behind, Holder, RevocationProgress
from leasehold_broker.domain.rotation import DisabledKey

HOLDERS_SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True)
class RevocationDraft:
    """What a responder asks for, checked.

    Args:
        selector: what dies.
        note: the responder's words, bounded.
        revoked_by: who, as shown: "alice@idp.example", "uid:0".
        request_id: UUID; the same id by the same responder gives the same revocation.
        wall_ms: when it was asked.
        responder: for the event; None: the broker itself, at the end of a block.
        order: what else.
        disables: what the key of the selector is at its provider, where it is to be ended too: the event says so, and
            whoever rotates keys follows it. None: nothing is ended there.
    """

    selector: Selector
    note: str
    revoked_by: str
    request_id: str
    wall_ms: int
    responder: Subject | None = None
    order: Order = PLAIN
    disables: DisabledKey | None = None

    def numbered(self, epoch: int) -> Revocation:
        """The entry that this becomes."""
        return Revocation(epoch, self.selector, self.note, self.revoked_by, self.wall_ms, self.order)

    def same_as(self, entry: Revocation) -> bool:
        """True when this asks for what that entry did."""
        return self.selector == entry.selector and self.order == entry.order


def earlier_entries(drafts: Sequence[RevocationDraft], found: Sequence[Revocation | None]) -> list[Revocation]:
    """What a repeated request has issued; empty for one that is new.

    Args:
        drafts: what is asked for.
        found: for each, the entry that was issued under its request id; None: none was.

    Raises:
        Refusal: REQUEST_ID_REUSED.
    """
    known = [entry for entry in found if entry is not None]
    for draft, entry in zip(drafts, found, strict=True):
        if known and (entry is None or not draft.same_as(entry)):
            other = known[0] if entry is None else entry
            raise Refusal(
                Reason.REQUEST_ID_REUSED,
                f"request_id {draft.request_id} was used for another revocation ({other.name}); send a new UUID",
            )
    return known


@dataclass(frozen=True, slots=True)
class MatchingLeases:
    """Live leases that a selector matches.

    Args:
        names: of the leases.
        complete: False when there may be more.
        holders: whose they are, and how many of each, those with the most first; at most HOLDERS_SHOWN_MAX.
        each: of each selector how many match; a lease that two match counts for both.
    """

    names: tuple[str, ...]
    complete: bool
    holders: tuple[tuple[Holder, int], ...] = ()
    each: tuple[int, ...] = ()


class RevocationIssuer(Protocol):
    """Issues revocations and knows how far they have come."""

    async def matching(self, *selectors: Selector) -> MatchingLeases:
        """Live leases that any of the selectors matches now; changes nothing."""
        ...

    async def issue(self, draft: RevocationDraft) -> Revocation:
        """Make entry (epoch + 1) and audit event durable in one transaction, then start its effect.

        Returns:
            The entry; the earlier one when the same responder repeats a request id with the same selector and order.

        Raises:
            Refusal: REQUEST_ID_REUSED (same id, other selector), STORE_UNAVAILABLE.
        """
        ...

    async def issue_all(self, drafts: Sequence[RevocationDraft]) -> Sequence[Revocation]:
        """As `issue`, of several that one responder asks for: one after the other, in one transaction, all or none.

        Raises:
            Refusal: as `issue`; REQUEST_ID_REUSED also when some of them were asked for before, and some were not.
        """
        ...

    async def progress(self, epoch: int, first_epoch: int | None = None) -> RevocationProgress | None:
        """How far the entry with this epoch has come, everywhere; None when there is none.

        Args:
            epoch: of the entry.
            first_epoch: what was ended by all entries from this one is added up; None: by this entry alone.
        """
        ...

    async def lifted_by(self, epochs: Collection[int]) -> Mapping[int, Revocation]:
        """For each of the entries with these epochs the first durable one that lifts it, where there is one."""
        ...

    def behind(self) -> Behind:
        """Who may still admit what the newest entry revokes."""
        ...

    async def page(self, before_epoch: int, limit: int) -> Sequence[Revocation]:
        """Entries with an epoch below `before_epoch`, newest first, at most `limit`."""
        ...

    def watch(
        self, epoch: int, first_epoch: int | None = None, *, changes_only: bool = False
    ) -> AsyncIterator[RevocationProgress]:
        """The progress at once, then after each change; ends after the first complete one.

        With `changes_only`, an answer may tell only of sidecars that have changed since the one before, and says so.

        Ends at once, with nothing, when there is no such entry.
        """
        ...
