"""Keeps the provider's key out of the answer. Owns the search, also across chunk borders; holds no copy of the key.

Between the chunks only a short, public-looking prefix is kept; the key is revealed for a comparison only when that
prefix has been seen. A key that the provider writes in another coding (escaped, base64) is not found.
"""

from leasehold_broker.domain.secret import Secret

PREFIX_BYTES_MAX = 8


class Redactor:
    """Replaces every occurrence of one key by asterisks, in a stream of bytes."""

    __slots__ = ("_first", "_held", "_key", "_length", "_prefix", "replaced")

    def __init__(self, key: Secret) -> None:
        """Watch for `key`."""
        self._key = key
        self._length = len(key)
        self._prefix = key.reveal()[: min(PREFIX_BYTES_MAX, max(1, self._length // 4))]
        self._first = self._prefix[:1]
        self._held = b""
        self.replaced = 0

    @property
    def holds_back(self) -> bool:
        """True while the end of what was fed could be the start of the key."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What may be relayed now; at most the key's length less one byte is held back."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._prefix in data:
            data = self._redacted(data)
        start = self._suspicious_end(data)
        if start < len(data):
            self._held = data[start:]
            return data[:start]
        return data

    def flush(self) -> bytes:
        """The stream has ended: what was held back is not the key."""
        held, self._held = self._held, b""
        return held

    def occurs_in(self, text: bytes) -> bool:
        """True when the key is in `text` (a header's value)."""
        return self._prefix in text and self._key.reveal() in text

    def _redacted(self, data: bytes) -> bytes:
        key = self._key.reveal()
        self.replaced += data.count(key)
        return data.replace(key, b"*" * self._length)

    def _suspicious_end(self, data: bytes) -> int:
        """Where an unfinished key could start, or len(data)."""
        at = data.find(self._first, max(0, len(data) - self._length + 1))
        while at >= 0:
            tail = data[at:]
            if self._prefix.startswith(tail) or (tail.startswith(self._prefix) and self._key.reveal().startswith(tail)):
                return at
            at = data.find(self._first, at + 1)
        return len(data)
