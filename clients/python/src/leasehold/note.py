"""Signed notes and the keys that check them (C2SP signed-note, tlog-cosignature). Owns reading, strictly; knows no log.

A note is a text that ends in a line end, an empty line, and signature lines. What other readers would not take is not
taken here either: tests/vectors/tlog holds both sides together. Checking a signature needs the extra `verify` (the
package cryptography), which is imported only then.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from leasehold.errors import InvalidRequest

NOTE_BYTES_MAX = 65_536
SIGNATURES_MAX = 100
KEY_BYTES = 32
ED25519, COSIGNATURE = 1, 4
_KEY_ID_BYTES, _TIME_BYTES = 4, 8
_SIGNED_BY = "\u2014 "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of a log or of a witness: "name+key id+key", one line.

    Args:
        name: of the log or witness.
        id: four bytes by which a signature line names the key.
        public: 32 bytes, Ed25519.
        algorithm: ED25519 of a log, or COSIGNATURE of a witness.
    """

    name: str
    id: bytes
    public: bytes
    algorithm: int = ED25519

    @classmethod
    def of_text(cls, text: str, algorithm: int = ED25519) -> Self:
        """Read it.

        Raises:
            InvalidRequest: no such key, of another kind, or mistyped (its id does not fit).
        """
        try:
            name, identifier, encoded = text.strip().split("+", 2)
            raw = _base64(encoded)
        except ValueError:
            raise InvalidRequest.of_field("key", "is no verifier key: NAME+ID+KEY in one line was expected") from None
        if not _is_name(name):
            raise InvalidRequest.of_field("key", "has no name, or one with white space in it")
        if len(raw) != 1 + KEY_BYTES or raw[0] != algorithm:
            kind = "a signed note" if algorithm == ED25519 else "a witness"
            raise InvalidRequest.of_field("key", f"is not an Ed25519 key of {kind}")
        computed = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:_KEY_ID_BYTES]
        if computed.hex() != identifier:
            raise InvalidRequest.of_field(
                "key", f"has the id {identifier}, and {computed.hex()} was computed: mistyped"
            )
        return cls(name, computed, raw[1:], algorithm)


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note as it came: nothing in it is verified.

    Args:
        text: what is signed, with its last line end.
        signatures: (name, four bytes of key id, signature) of each line.
        what: how it is called in an error.
    """

    text: bytes
    signatures: tuple[tuple[str, bytes, bytes], ...]
    what: str

    @classmethod
    def of_bytes(cls, note: bytes, what: str) -> Self:
        """Read the whole of it.

        Raises:
            InvalidRequest: it is none.
        """
        if len(note) > NOTE_BYTES_MAX:
            raise InvalidRequest.of_field(what, f"is no signed note: it is longer than {NOTE_BYTES_MAX} bytes")
        text, found, below = note.rpartition(b"\n\n")
        if not found:
            raise InvalidRequest.of_field(what, "is no signed note: it has no empty line before its signatures")
        try:
            lines = below.decode().split("\n")
            text.decode()
        except UnicodeDecodeError:
            raise InvalidRequest.of_field(what, "is no signed note: it is not UTF-8") from None
        if any(byte < 0x20 and byte != 0x0A for byte in note):
            raise InvalidRequest.of_field(what, "is no signed note: there are control characters in it")
        if lines.pop() or not lines:
            raise InvalidRequest.of_field(what, "is no signed note: it does not end in a line with a signature")
        if len(lines) > SIGNATURES_MAX:
            raise InvalidRequest.of_field(what, f"has more than {SIGNATURES_MAX} signatures")
        return cls(text + b"\n", tuple(_signature(line, what) for line in lines), what)

    def check(self, key: VerifierKey) -> None:
        """That a log's key signed the text. As other readers do, the first line with its name and id decides.

        Raises:
            InvalidRequest: it did not.
        """
        signature = self._by(key)
        if signature is None:
            raise InvalidRequest.of_field(self.what, f"is not signed by {key.name}, key {key.id.hex()}")
        if not _holds(key, signature, self.text):
            raise InvalidRequest.of_field(
                self.what, "was not signed with this key, or was altered: its signature does not hold"
            )

    def cosigned_seconds(self, key: VerifierKey) -> int | None:
        """When a witness cosigned the text, in Unix seconds by its own clock; None when it did not.

        Raises:
            InvalidRequest: its line is there, and does not hold.
        """
        signature = self._by(key)
        if signature is None:
            return None
        seconds = int.from_bytes(signature[:_TIME_BYTES], "big")
        signed = b"cosignature/v1\ntime %d\n" % seconds + self.text
        if len(signature) < _TIME_BYTES or not _holds(key, signature[_TIME_BYTES:], signed):
            raise InvalidRequest.of_field(
                self.what, f"was not cosigned by {key.name}, or was altered: its cosignature does not hold"
            )
        return seconds

    def _by(self, key: VerifierKey) -> bytes | None:
        return next((raw for name, id_, raw in self.signatures if (name, id_) == (key.name, key.id)), None)


def _signature(line: str, what: str) -> tuple[str, bytes, bytes]:
    dash, found, rest = line.partition(_SIGNED_BY)
    name, _, encoded = rest.partition(" ")
    try:
        raw = _base64(encoded)
    except ValueError:
        raw = b""
    if dash or not found or not _is_name(name) or "+" in name or len(raw) <= _KEY_ID_BYTES:
        raise InvalidRequest.of_field(what, "has a signature line that cannot be read")
    return name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:]


def _is_name(name: str) -> bool:
    return bool(name) and not any(character.isspace() for character in name)


def _base64(text: str) -> bytes:
    """Raises ValueError. Bits that stand for nothing must be zero: one value has one spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical")
    return raw


def _holds(key: VerifierKey, signature: bytes, text: bytes) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra, for those who check
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError:
        message = "signatures cannot be checked here: install leasehold[verify]"
        raise InvalidRequest(message, reason="FIELD_INVALID") from None
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True
