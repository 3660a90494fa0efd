"""The texts that a key may come back as, and what undoes escapes. Owns which codings are looked for; pure.

Looked for: the key as it is, backwards, in hexadecimal, and in base64 (both alphabets) at every place within a longer
text; each of them also where some or all of its characters are escaped for JSON, a URL or HTML.
"""

import base64
import re
from bisect import bisect_right

CODED_KEY_BYTES_MIN = 8
"""Below this a coded key would be a few letters that any answer may hold."""

_ESCAPED = re.compile(
    rb"\\{1,8}+(?:u00([2-7][0-9A-Fa-f])|x([2-7][0-9A-Fa-f])|(/))"
    rb"|%(?:25){0,3}([2-7][0-9A-Fa-f])|&#(?:[xX]0{0,4}([2-7][0-9A-Fa-f])|0{0,4}([0-9]{2,3}));"
)
_UNFINISHED = re.compile(
    rb"(?:\\{1,8}+(?:u(?:0(?:0[2-7]?)?)?|x[2-7]?)?|%(?:2(?:5(?:2(?:5(?:2(?:5)?)?)?)?)?|(?:25){0,3}[3-7])?"
    rb"|&(?:#(?:[xX]0{0,4}(?:[2-7][0-9A-Fa-f]?)?|[0-9]{0,7})?)?)\Z"
)
ESCAPE_BYTES_MAX = 13
"""Of one escaped character: eight backslashes and uXXXX."""


def forms_of(key: bytes) -> list[bytes]:
    """Every text that is looked for: the key itself, the key backwards, then the others."""
    if len(key) < CODED_KEY_BYTES_MIN:
        return [key]
    digits = key.hex().encode()
    forms = [key, key[::-1], digits, digits.upper()]
    for before in range(3):
        whole = base64.b64encode(bytes(before) + key)
        # The first and the last character may also say something of what stands next to the key.
        inner = whole[(before * 8 + 5) // 6 : (before + len(key)) * 8 // 6]
        forms.append(inner)
        if b"+" in inner or b"/" in inner:
            forms.append(inner.translate(_URL_SAFE))
    if b'"' in key or b"\\" in key:
        forms.append(key.replace(b"\\", b"\\\\").replace(b'"', b'\\"'))
    return forms


def last_bytes_of(key: bytes) -> frozenset[int]:
    """What a beginning of one of these texts, or an escape that is not finished, may end with."""
    return _USUAL if _USUAL.issuperset(key) else _ANY


_USUAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_.-\\%&#;")
_ANY = frozenset(range(0x21, 0x7F))
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Unescaped:
    """A text with its escapes undone, which knows where each of its bytes came from."""

    __slots__ = ("_ends", "_shifts", "text")

    def __init__(self, data: bytes) -> None:
        """Undo what is escaped in `data`, as far as it is printable ASCII: no key has anything else."""
        pieces: list[bytes] = []
        self._ends: list[int] = []
        self._shifts: list[int] = [0]
        at = length = 0
        for found in _ESCAPED.finditer(data):
            digits = found[1] or found[2] or found[4] or found[5]
            number = int(digits, 16) if digits else ord(found[3]) if found[3] else int(found[6])
            if not 0x20 < number < 0x7F:
                continue
            pieces += (data[at : found.start()], bytes((number,)))
            length += found.start() - at + 1
            at = found.end()
            self._ends.append(length)
            self._shifts.append(at - length)
        pieces.append(data[at:])
        self.text = b"".join(pieces)

    def place(self, index: int) -> int:
        """Where in the data stands what is at `index` of the text."""
        return index + self._shifts[bisect_right(self._ends, index)]


def has_escapes(data: bytes) -> bool:
    """Whether there may be something to undo; for most answers a few searches say no."""
    return (b"%" in data or b"\\u00" in data or b"\\x" in data or b"\\/" in data or b"&#" in data) and _ESCAPED.search(
        data
    ) is not None


def unfinished_escape(data: bytes) -> int:
    """Where an escape begins that `data` ends within; the length of `data` when there is none."""
    found = _UNFINISHED.search(data, max(0, len(data) - ESCAPE_BYTES_MAX))
    return len(data) if found is None else found.start()
