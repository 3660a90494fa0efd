"""The key that signs checkpoints. Owns its file: made at the first start, for its owner alone, never replaced.

The file holds one line in the form of Go's sumdb/note, so that other tools read it too:
PRIVATE+KEY+<origin>+<key id>+<base64 of 0x01 and the Ed25519 seed>. Whoever loses it starts a log that no earlier
checkpoint speaks for.
"""

import base64
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from leasehold_broker.adapters.private_files import create_private, read_private
from leasehold_broker.domain.checkpoint import ED25519, key_id, signed_note, verifier_key

KEY_BYTES_MAX = 1024
SEED_BYTES = 32
_PRIVATE = "PRIVATE+KEY"


class CheckpointKeyError(ValueError):
    """The key file cannot be used; the message says what to do."""


class CheckpointKey:
    """Implements the port `CheckpointSigner` with a key in a private file."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        """Sign as `origin`."""
        self._origin = origin
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __repr__(self) -> str:
        """The public half."""
        return f"CheckpointKey({self.verifier_key!r})"

    @property
    def origin(self) -> str:
        """As the port says."""
        return self._origin

    @property
    def verifier_key(self) -> str:
        """As the port says."""
        return verifier_key(self._origin, self._public)

    def sign(self, text: bytes) -> bytes:
        """As the port says; what was signed is checked before it leaves (a fault must not give the key away)."""
        signature = self._key.sign(text)
        try:
            self._key.public_key().verify(signature, text)
        except InvalidSignature:
            message = "the signature just made does not hold: the machine computes wrongly"
            raise RuntimeError(message) from None
        return signed_note(text, self._origin, self._public, signature)


def open_checkpoint_key(path: Path, origin: str) -> CheckpointKey:
    """The key of this file; made when it is missing.

    Raises:
        CheckpointKeyError: not such a file, or of another origin.
        NotPrivateError, OSError: the file is open to others, or cannot be read or made.
    """
    try:
        line = read_private(path, KEY_BYTES_MAX)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        create_private(path, _line_of(origin, key))
        return CheckpointKey(origin, key)
    return CheckpointKey(origin, _key_of(line, origin, path))


def _line_of(origin: str, key: Ed25519PrivateKey) -> bytes:
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    seed = base64.b64encode(bytes([ED25519]) + key.private_bytes_raw()).decode()
    return f"{_PRIVATE}+{origin}+{key_id(origin, public).hex()}+{seed}\n".encode()


def _key_of(line: bytes, origin: str, path: Path) -> Ed25519PrivateKey:
    try:
        marker, kind, name, identifier, encoded = line.decode().strip().split("+", 4)
        seed = base64.b64decode(encoded, validate=True)
    except ValueError:
        marker = kind = name = identifier = ""
        seed = b""
    if f"{marker}+{kind}" != _PRIVATE or len(seed) != 1 + SEED_BYTES or seed[0] != ED25519:
        message = f"{path} holds no Ed25519 signing key of a signed note; put the log's own key back"
        raise CheckpointKeyError(message)
    if name != origin:
        message = (
            f"{path} is the key of the log {name!r}, and this one is called {origin!r}; correct the origin, or name "
            "another key file"
        )
        raise CheckpointKeyError(message)
    key = Ed25519PrivateKey.from_private_bytes(seed[1:])
    if key_id(origin, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).hex() != identifier:
        message = f"{path} is damaged: the key does not have the id that stands beside it; put a good copy back"
        raise CheckpointKeyError(message)
    return key
