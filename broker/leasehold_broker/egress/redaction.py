"""Keeps the provider's key out of the answer. Owns the search, also across chunk borders; holds no copy of the key.

Between the chunks only a short, public-looking beginning of each text that the key may come back as is kept (see
`codings`); the key is revealed for a comparison only when one of them has been seen. A chunk costs some ten searches by
compiled code, and what is held back is bounded by the longest of these texts.
"""

from collections.abc import Callable

from leasehold_broker.domain.secret import Secret
from leasehold_broker.egress.codings import (
    ESCAPE_BYTES_MAX,
    Unescaped,
    forms_of,
    has_escapes,
    last_bytes_of,
    unfinished_escape,
)

PREFIX_BYTES_MAX = 8
BACKWARDS_BYTES_MAX = 4
"""Of the key's own end, which is no public part of it, half as much is kept."""


class Redactor:
    """Replaces every occurrence of one key by asterisks, in a stream of bytes."""

    __slots__ = ("_ends", "_heads", "_held", "_key", "_lengths", "_prefixes", "_window", "replaced")

    def __init__(self, key: Secret) -> None:
        """Watch for `key`."""
        self._key = key
        forms = forms_of(key.reveal())
        sizes = [BACKWARDS_BYTES_MAX if place == 1 else PREFIX_BYTES_MAX for place in range(len(forms))]
        self._prefixes = [form[: min(size, max(1, len(form) // 4))] for form, size in zip(forms, sizes, strict=True)]
        self._lengths = [len(form) for form in forms]
        self._heads = {prefix[:size] for prefix in self._prefixes for size in range(1, len(prefix))}
        self._ends = last_bytes_of(forms[0])
        self._window = max(self._lengths) * ESCAPE_BYTES_MAX
        self._held = b""
        self.replaced = 0

    @property
    def holds_back(self) -> bool:
        """True while the end of what was fed could be the start of the key."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What may be relayed now; held back is what could be the beginning of the key, in any coding."""
        if self._held:
            data = self._held + data
            self._held = b""
        data = self._masked(data)
        if data and data[-1] in self._ends:
            start = self._suspicious_end(data)
            if start < len(data):
                self._held = data[start:]
                return data[:start]
        return data

    def flush(self) -> bytes:
        """The stream has ended: what was held back is not the whole key, and not shown where it is much of it."""
        held, self._held = self._held, b""
        return held if len(held) <= PREFIX_BYTES_MAX else b"*" * len(held)

    def occurs_in(self, text: bytes) -> bool:
        """True when the key is in `text` (a header's value)."""
        return self._masked(text) is not text

    def _masked(self, data: bytes) -> bytes:
        """`data` itself when the key is not in it."""
        if self._begins_in(data):
            data = self._replaced(data, data, int)
        if has_escapes(data):
            plain = Unescaped(data)
            if self._begins_in(plain.text):
                data = self._replaced(data, plain.text, plain.place)
        return data

    def _begins_in(self, text: bytes) -> bool:
        for prefix in self._prefixes:  # noqa: SIM110 - done for every event of every stream; `any` takes twice as long
            if prefix in text:
                return True
        return False

    def _replaced(self, data: bytes, text: bytes, place: Callable[[int], int]) -> bytes:
        """Put asterisks into `data` wherever the key is in `text`, of which `place` says where it stands in `data`."""
        masked: bytearray | None = None
        for form in forms_of(self._key.reveal()):
            at = text.find(form)
            while at >= 0:
                begin, end = place(at), place(at + len(form))
                masked = masked or bytearray(data)
                masked[begin:end] = b"*" * (end - begin)
                self.replaced += 1
                at = text.find(form, at + len(form))
        return data if masked is None else bytes(masked)

    def _suspicious_end(self, data: bytes) -> int:
        """Where an unfinished key could start, or len(data)."""
        tail = data[-self._window :]
        start = min(self._unfinished(tail), escape := unfinished_escape(tail))
        if escape < len(tail) or has_escapes(tail):
            plain = Unescaped(tail[:escape])
            start = min(start, plain.place(self._unfinished(plain.text)))
        return len(data) - len(tail) + start

    def _unfinished(self, text: bytes) -> int:
        size = len(text)
        counts = range(min(PREFIX_BYTES_MAX - 1, size), 0, -1)
        start = next((size - count for count in counts if text[-count:] in self._heads), size)
        forms: list[bytes] | None = None
        for place, (prefix, length) in enumerate(zip(self._prefixes, self._lengths, strict=True)):
            at = text.find(prefix, max(0, size - length + 1))
            while 0 <= at < start:
                forms = forms or forms_of(self._key.reveal())
                if forms[place].startswith(text[at:]):
                    start = at
                at = text.find(prefix, at + 1)
        return start
