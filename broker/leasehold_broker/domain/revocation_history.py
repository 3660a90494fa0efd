"""What numbered revocations say, in one digest for each number. Owns when two histories are the same.

A number alone does not: a collector that was restored from an older copy numbers other revocations the same. The digest
of number n covers every entry up to n, content and all, so that two sides with one digest have applied the same.
"""

import hashlib
import json
from collections.abc import Iterable

from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.selector_words import order_to_words, to_words

DIGEST_BYTES = 32
NOTHING = b""
"""The digest of no entries."""


class RevocationHistory:
    """Digests of entries 1 to n; 32 bytes of memory for each."""

    def __init__(self, entries: Iterable[Revocation] = ()) -> None:
        """Of these entries, which are numbered from 1 without a gap."""
        self._digests = bytearray()
        self.extend(entries)

    def __len__(self) -> int:
        """How many entries."""
        return len(self._digests) // DIGEST_BYTES

    def extend(self, entries: Iterable[Revocation]) -> None:
        """Append entries, in order.

        Raises:
            ValueError: one does not follow (R5); those before it are appended.
        """
        for entry in entries:
            if entry.epoch != len(self) + 1:
                message = f"epoch {entry.epoch} where {len(self) + 1} was due"
                raise ValueError(message)
            self._digests += _digest(self.digest_at(len(self)), entry)

    def cut(self, epoch: int) -> None:
        """Keep entries up to `epoch`."""
        del self._digests[DIGEST_BYTES * epoch :]

    def digest_at(self, epoch: int) -> bytes:
        """Of everything up to `epoch`; `NOTHING` of none.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= epoch <= len(self):
            message = f"there are {len(self)} entries, not {epoch}"
            raise ValueError(message)
        return bytes(self._digests[DIGEST_BYTES * (epoch - 1) : DIGEST_BYTES * epoch]) if epoch else NOTHING

    def begins_with(self, epoch: int, digest: bytes) -> bool:
        """True when the first `epoch` entries are here, and have this digest."""
        return 0 <= epoch <= len(self) and self.digest_at(epoch) == digest


def _digest(before: bytes, entry: Revocation) -> bytes:
    words = {
        "epoch": entry.epoch,
        "selector": to_words(entry.selector),
        "order": order_to_words(entry.order),
        "note": entry.note,
        "revoked_by": entry.revoked_by,
        "create_wall_ms": entry.create_wall_ms,
    }
    said = json.dumps(words, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(before + said.encode()).digest()
