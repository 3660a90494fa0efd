"""Signed heads of the log: C2SP tlog-checkpoint, signed-note with Ed25519. Owns reading and checking them.

Checking a signature needs the extra `verify` (the package cryptography), which is imported only then.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Self

from leasehold.errors import InvalidRequest
from leasehold.merkle import HASH_BYTES

ED25519 = 1
NOTE_BYTES_MAX = 16_384
_SIGNED_BY = "\u2014 "


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public key of a log: "name+key id+key", one line."""

    name: str
    id: bytes
    public: bytes

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Read it.

        Raises:
            InvalidRequest: no such key, of another kind, or mistyped (its id does not fit).
        """
        try:
            name, identifier, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise InvalidRequest.of_field("key", "is no verifier key: NAME+ID+KEY in one line was expected") from None
        if len(raw) != 1 + HASH_BYTES or raw[0] != ED25519:
            raise InvalidRequest.of_field("key", "is not an Ed25519 key of a signed note")
        computed = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
        if computed.hex() != identifier:
            raise InvalidRequest.of_field(
                "key", f"has the id {identifier}, and {computed.hex()} was computed: mistyped"
            )
        return cls(name, computed, raw[1:])


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
        text, signature = _split(note, key, what)
        _check(text, signature, key, what)
        lines = text.decode().split("\n")
        try:
            root = base64.b64decode(lines[2], validate=True)
            size = int(lines[1])
        except (IndexError, ValueError):
            raise InvalidRequest.of_field(what, "has no size or no root") from None
        if lines[0] != key.name:
            raise InvalidRequest.of_field(what, f"is of the log {lines[0]!r}, and the key is of {key.name!r}")
        if str(size) != lines[1] or size < 0 or len(root) != HASH_BYTES:
            raise InvalidRequest.of_field(what, "has no size or no root")
        return cls(lines[0], size, root)


def unverified_size(note: bytes) -> tuple[int, bytes]:
    """Size and root that a note states; nobody has checked its signature.

    Raises:
        InvalidRequest: it states none.
    """
    try:
        _, size, root, *_ = note.decode().split("\n")
        return int(size), base64.b64decode(root, validate=True)
    except ValueError:
        raise InvalidRequest.of_field("checkpoint", "has no size or no root") from None


def _split(note: bytes, key: VerifierKey, what: str) -> tuple[bytes, bytes]:
    """The signed text, and the signature that this key is said to have made."""
    text, found, signatures = note.rpartition(b"\n\n")
    if not found or len(note) > NOTE_BYTES_MAX:
        raise InvalidRequest.of_field(what, "is no signed note")
    try:
        lines = signatures.decode().split("\n")
        if lines.pop() or not all(line.startswith(_SIGNED_BY) for line in lines):
            raise ValueError("not a signature")  # noqa: TRY301 - one sentence for every way such a line can be wrong
        signed = [line.removeprefix(_SIGNED_BY).split(" ") for line in lines]
        mine = [base64.b64decode(parts[1], validate=True) for parts in signed if parts[0] == key.name]
    except (ValueError, IndexError):
        raise InvalidRequest.of_field(what, "has a signature line that cannot be read") from None
    for signature in mine:
        if signature[:4] == key.id:
            return text + b"\n", signature[4:]
    raise InvalidRequest.of_field(what, f"is not signed by {key.name}, key {key.id.hex()}")


def _check(text: bytes, signature: bytes, key: VerifierKey, what: str) -> None:
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra, for those who check
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except ImportError:
        message = "signatures cannot be checked here: install leasehold[verify]"
        raise InvalidRequest(message, reason="FIELD_INVALID") from None
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, text)
    except (InvalidSignature, ValueError):
        raise InvalidRequest.of_field(
            what, "was not signed with this key, or was altered: its signature does not hold"
        ) from None
