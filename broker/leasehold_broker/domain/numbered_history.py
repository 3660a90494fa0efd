"""What numbered orders of operators say, in one digest for each number. Owns when two histories are the same.

A number alone does not: a collector that was restored from an older copy numbers other orders the same. The digest of
number n covers everything up to n, content and all, so that two sides with one digest have applied the same.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

DIGEST_BYTES = 32
NOTHING = b""
"""The digest of no entries."""
T = TypeVar("T")


class NumberedHistory(Generic[T]):
    """Digests of entries 1 to n; 32 bytes of memory for each. What an entry is, a subclass says."""

    what = "entry"

    def __init__(self, entries: Iterable[T] = ()) -> None:
        """Of these entries, which are numbered from 1 without a gap."""
        self._digests = bytearray()
        self.extend(entries)

    def __len__(self) -> int:
        """How many entries."""
        return len(self._digests) // DIGEST_BYTES

    def extend(self, entries: Iterable[T]) -> None:
        """Append entries, in order.

        Raises:
            ValueError: one does not follow (R5); those before it are appended.
        """
        for entry in entries:
            number, words = self.read(entry)
            if number != len(self) + 1:
                message = f"{self.what} {number} where {len(self) + 1} was due"
                raise ValueError(message)
            said = json.dumps(words, sort_keys=True, separators=(",", ":"))
            self._digests += hashlib.sha256(self.digest_at(len(self)) + said.encode()).digest()

    def cut(self, number: int) -> None:
        """Keep entries up to `number`."""
        del self._digests[DIGEST_BYTES * number :]

    def digest_at(self, number: int) -> bytes:
        """Of everything up to `number`; `NOTHING` of none.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= number <= len(self):
            message = f"there are {len(self)} entries, not {number}"
            raise ValueError(message)
        return bytes(self._digests[DIGEST_BYTES * (number - 1) : DIGEST_BYTES * number]) if number else NOTHING

    def begins_with(self, number: int, digest: bytes) -> bool:
        """True when the first `number` entries are here, and have this digest."""
        return 0 <= number <= len(self) and self.digest_at(number) == digest

    def read(self, entry: T) -> tuple[int, Mapping[str, object]]:
        """Its number, and all that it says, in words that are the same on both sides."""
        raise NotImplementedError
