"""The port through which the centre's revocations reach a sidecar's leases."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation


class RevocationSink(Protocol):
    """Applies revocations. The link hands over entries in order of epoch, each once, without a gap."""

    def applied_epoch(self) -> int:
        """Highest epoch whose effects are durable here; 0 when none is.

        Never falls, not even over a restart (R1), but where entries are set aside: their effects stay.
        """
        ...

    def history_digest(self) -> bytes:
        """Of every entry up to `applied_epoch`, as `RevocationHistory` makes it."""
        ...

    def numbered(self, epoch: int) -> Revocation | None:
        """The entry that is in force here under this number; None when it is above every one."""
        ...

    async def set_aside(self, above_epoch: int) -> None:
        """Give up the numbers above this one, because the centre has lost or given away what they meant; durable.

        What had ended stays ended, and what is blocked stays blocked: until an entry is applied that lifts a block of
        the same selector. Entries that are applied afterwards count as newer than every lease.

        Raises:
            Refusal: STORE_UNAVAILABLE; offer it again.
        """
        ...

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """End what these revoke, cut its calls, and return once entries and endings are durable.

        Returns:
            One result for each entry, in the same order.

        Raises:
            Refusal: STORE_UNAVAILABLE; nothing counts as applied, and the link offers the entries again.
        """
        ...
