"""The port through which the centre's revocations reach a sidecar's leases."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation


class RevocationSink(Protocol):
    """Applies revocations. The link hands over entries in order of epoch, each once, without a gap."""

    def applied_epoch(self) -> int:
        """Highest epoch whose effects are durable here; 0 when none is. Never falls, not even over a restart (R1)."""
        ...

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """End what these revoke, cut its calls, and return once entries and endings are durable.

        Returns:
            One result for each entry, in the same order.

        Raises:
            Refusal: STORE_UNAVAILABLE; nothing counts as applied, and the link offers the entries again.
        """
        ...
