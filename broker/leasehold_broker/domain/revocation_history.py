"""The history of revocations: which entries mean the same on both sides. See `numbered_history`."""

from collections.abc import Mapping

from leasehold_broker.domain.numbered_history import DIGEST_BYTES, NOTHING, NumberedHistory
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.selector_words import order_to_words, to_words

__all__ = ["DIGEST_BYTES", "NOTHING", "RevocationHistory"]


class RevocationHistory(NumberedHistory[Revocation]):
    """Digests of entries 1 to n."""

    what = "epoch"

    def read(self, entry: Revocation) -> tuple[int, Mapping[str, object]]:
        """As the parent says."""
        return entry.epoch, {
            "epoch": entry.epoch,
            "selector": to_words(entry.selector),
            "order": order_to_words(entry.order),
            "note": entry.note,
            "revoked_by": entry.revoked_by,
            "create_wall_ms": entry.create_wall_ms,
        }
