"""The port to the collector's durable revocations and to what is known of its sidecars."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.events import Event
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.ports.revocation_issuer import RevocationDraft


@dataclass(frozen=True, slots=True)
class KnownSidecar:
    """A sidecar that has connected before.

    Args:
        name, environment, version: as it said, its name verified.
        applied_epoch: highest epoch it has acknowledged.
        last_heard_wall_ms: when that was noted, a label.
        authority_ms: the longest authority it was ever given: a shorter setting must not make us count on its refusing
            before it does.
    """

    name: str
    environment: str
    version: str
    applied_epoch: int
    last_heard_wall_ms: int
    authority_ms: int = 0


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """What a sidecar says of itself, and what entries have ended there since it said so last."""

    sidecar: KnownSidecar
    applied: Sequence[AppliedRevocation] = ()


class RevocationLog(Protocol):
    """Entries by epoch, and who has applied them."""

    def epoch(self) -> int:
        """Epoch of the newest durable entry that is known here; 0 when there is none."""
        ...

    def history(self) -> RevocationHistory:
        """Digests of every entry up to `epoch`, and of no later one; not the caller's to change."""
        ...

    def when_current(self, asker: object, told: Callable[[], None]) -> None:
        """Tell once everything is known here that was durable, wherever it came from, when this was asked.

        At once where nobody else writes; never while the log cannot be read. An asker that asks again is told of that
        alone.
        """
        ...

    async def issue(self, draft: RevocationDraft, describe: Callable[[Revocation], Event]) -> Revocation:
        """Make the next entry and its event durable in one transaction.

        Returns:
            The entry; the earlier one when `revoked_by` repeats a request id with the same selector (no new event).

        Raises:
            Refusal: REQUEST_ID_REUSED, STORE_UNAVAILABLE, OVERLOADED.
        """
        ...

    async def issue_all(
        self, drafts: Sequence[RevocationDraft], describe: Callable[[Revocation, RevocationDraft], Event]
    ) -> Sequence[Revocation]:
        """As `issue`, one after the other in one transaction: all or none, and no other entry between them.

        Raises:
            Refusal: as `issue`; REQUEST_ID_REUSED also when some of them were issued before, and some were not.
        """
        ...

    async def find(self, epoch: int) -> Revocation | None:
        """The entry, or None."""
        ...

    async def after(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """Entries above `epoch`, in order, at most `limit`."""
        ...

    async def before(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """Entries below `epoch`, newest first, at most `limit`."""
        ...

    async def applied_between(
        self, first_epoch: int, last_epoch: int, sidecars: Sequence[str]
    ) -> Mapping[str, AppliedRevocation]:
        """What these entries ended in all, by sidecar, of those named where they ended anything."""
        ...

    async def sidecars(self) -> Sequence[KnownSidecar]:
        """Every sidecar that ever connected."""
        ...

    async def heard(self, reports: Sequence[SidecarReport]) -> None:
        """Make what sidecars report durable, all or nothing; applied_epoch and authority_ms never fall.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...
