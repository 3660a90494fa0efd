"""A checkpoint: size and root of the log, as a signed note. Owns the text; signs nothing and checks no signature.

The text is C2SP's tlog-checkpoint (https://c2sp.org/tlog-checkpoint), the signature line and the verifier key are those
of its signed-note (https://c2sp.org/signed-note), Ed25519.
"""

import base64
import hashlib
from dataclasses import dataclass

from leasehold_broker.domain.merkle import HASH_BYTES

ED25519 = 1
KEY_ID_BYTES = 4
NOTE_BYTES_MAX = 4096
_SIGNED_BY = "\u2014 "


@dataclass(frozen=True, slots=True)
class TreeHead:
    """Size of the log in entries, and its root: 32 bytes."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A head that was published.

    Args:
        head: what was signed.
        note: the signed note: text, empty line, signature.
        sign_wall_ms: when, as a label; not part of what is signed.
    """

    head: TreeHead
    note: bytes
    sign_wall_ms: int


def checkpoint_text(origin: str, head: TreeHead) -> bytes:
    """What is signed."""
    return f"{origin}\n{head.size}\n{base64.b64encode(head.root).decode()}\n".encode()


def head_of(note: bytes, origin: str) -> TreeHead:
    """The head in a note of this origin; its signature is not looked at.

    Raises:
        ValueError: not such a note.
    """
    lines = note[:NOTE_BYTES_MAX].decode().split("\n")
    if len(lines) < 5 or lines[3]:
        message = "is no checkpoint: three lines, an empty one and a signature were expected"
        raise ValueError(message)
    if lines[0] != origin:
        message = f"is a checkpoint of {lines[0]!r}, not of {origin!r}"
        raise ValueError(message)
    root = base64.b64decode(lines[2], validate=True)
    if not lines[1].isdecimal() or str(int(lines[1])) != lines[1] or len(root) != HASH_BYTES:
        message = "has no size or no root of 32 bytes"
        raise ValueError(message)
    return TreeHead(int(lines[1]), root)


def key_id(name: str, public_key: bytes) -> bytes:
    """The four bytes by which a note names its Ed25519 key."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([ED25519]) + public_key).digest()[:KEY_ID_BYTES]


def verifier_key(name: str, public_key: bytes) -> str:
    """The public key as text: name, key id and key, as the signed-note tools read it."""
    encoded = base64.b64encode(bytes([ED25519]) + public_key).decode()
    return f"{name}+{key_id(name, public_key).hex()}+{encoded}"


def signed_note(text: bytes, name: str, public_key: bytes, signature: bytes) -> bytes:
    """The text with its signature line."""
    encoded = base64.b64encode(key_id(name, public_key) + signature).decode()
    return text + b"\n" + f"{_SIGNED_BY}{name} {encoded}\n".encode()
