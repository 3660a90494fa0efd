"""Signed heads of the log: C2SP tlog-checkpoint. Owns reading and checking them."""

import base64
from dataclasses import dataclass
from typing import Self

from leasehold.errors import InvalidRequest
from leasehold.merkle import HASH_BYTES
from leasehold.note import SignedNote, VerifierKey

SIZE_MAX = 2**63 - 1
_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A head whose signature held: the log `origin` had `size` events and this root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def of_note(cls, note: bytes, key: VerifierKey, what: str = "checkpoint") -> Self:
        """Read a signed checkpoint and check it.

        Args:
            note: the whole file.
            key: of the log.
            what: how it is called in an error.

        Raises:
            InvalidRequest: it is none, of another log, or its signature does not hold.
        """
        signed = SignedNote.of_bytes(note, what)
        signed.check(key)
        origin, size, root = _stated(signed, what)
        if origin != key.name:
            raise InvalidRequest.of_field(what, f"is of the log {origin!r}, and the key is of {key.name!r}")
        return cls(origin, size, root)


def unverified_size(note: bytes) -> tuple[int, bytes]:
    """Size and root that a note states; nobody has checked its signature.

    Raises:
        InvalidRequest: it states none.
    """
    _, size, root = _stated(SignedNote.of_bytes(note, "checkpoint"), "checkpoint")
    return size, root


def _stated(signed: SignedNote, what: str) -> tuple[str, int, bytes]:
    """Origin, size and root of the text; lines behind them are a log's own business, but none may be empty."""
    lines = signed.text.decode().split("\n")[:-1]
    if len(lines) < 3 or not all(lines):
        raise InvalidRequest.of_field(what, "is no checkpoint: a line each for origin, size and root was expected")
    origin, digits, encoded = lines[:3]
    if not (digits.isascii() and digits.isdecimal()) or (digits[0] == "0" and digits != "0"):
        raise InvalidRequest.of_field(what, "has no size: a decimal number without leading zeros was expected")
    if len(digits) > _DIGITS_MAX or int(digits) > SIZE_MAX:
        raise InvalidRequest.of_field(what, f"has a size beyond {SIZE_MAX}: no log is that large")
    try:
        root = base64.b64decode(encoded, validate=True)
    except ValueError:
        root = b""
    if len(root) != HASH_BYTES or base64.b64encode(root).decode() != encoded:
        raise InvalidRequest.of_field(what, f"has no root: {HASH_BYTES} bytes in base64 were expected")
    return origin, int(digits), root
