"""What wraps the data key of a key store. Owns the master key from a file or a passphrase; never stores it.

Others (Vault Transit, a KMS) fit the same shape: they wrap and unwrap 32 bytes, and say how they are to be asked.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from leasehold_broker.adapters.private_files import NotPrivateError, create_private, make_folder, read_private

MASTER_KEY_BYTES = 32
PASSPHRASE_BYTES_MIN = 12
PASSPHRASE_BYTES_MAX = 1024

_FILE = "file"
_PASSPHRASE = "passphrase"  # noqa: S105 - the name of a kind
_MEMORY_KIB = 64 * 1024
_MEMORY_KIB_MAX = 1024 * 1024
_ITERATIONS = 3
_ITERATIONS_MAX = 16
_LANES = 4


class MasterKeyError(Exception):
    """The master key cannot be had, or is not the one of this store; the message says what to do, and no secret."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key under a master key, as a store remembers it. Nothing in it is secret, nor proven.

    Args:
        parameters: how to ask for the master key again; `kind` says which sort it is.
        sealed: the data key, wrapped.
    """

    parameters: Mapping[str, object]
    sealed: bytes


class MasterKey(Protocol):
    """Wraps data keys."""

    def wrap(self, data_key: bytes) -> WrappedKey:
        """The data key, sealed."""
        ...

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        """The data key. Raises MasterKeyError when it was wrapped under another master key, or altered."""
        ...


class FileMasterKey:
    """A master key of 32 random bytes, as base64 in a file that only its owner may read."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            MasterKeyError: missing, not private, or not a master key.
        """
        try:
            text = read_private(Path(path), 256).strip()
            self._key = base64.b64decode(text, validate=True)
        except OSError as error:
            message = f"the master key file {path} cannot be read ({error.strerror})"
            raise MasterKeyError(message) from None
        except NotPrivateError as error:
            raise MasterKeyError(str(error)) from None
        except binascii.Error:
            self._key = b""
        if len(self._key) != MASTER_KEY_BYTES:
            message = f"{path} is not a master key: it must hold {MASTER_KEY_BYTES} bytes as base64"
            raise MasterKeyError(message)

    @classmethod
    def create(cls, path: str) -> "FileMasterKey":
        """Make a new master key file.

        Raises:
            MasterKeyError: the file exists, or cannot be written.
        """
        try:
            make_folder(Path(path).parent)
            create_private(Path(path), base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)) + b"\n")
        except FileExistsError:
            message = f"{path} exists; a master key is never overwritten"
            raise MasterKeyError(message) from None
        except OSError as error:
            message = f"{path} cannot be written ({error.strerror})"
            raise MasterKeyError(message) from None
        except NotPrivateError as error:
            raise MasterKeyError(str(error)) from None
        return cls(path)

    def wrap(self, data_key: bytes) -> WrappedKey:
        """The data key, sealed (AES key wrap, RFC 3394)."""
        return WrappedKey({"kind": _FILE}, aes_key_wrap(self._key, data_key))

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        """The data key. Raises MasterKeyError."""
        _check_kind(wrapped, _FILE)
        return _unwrap(self._key, wrapped.sealed, "the master key file")


class PassphraseMasterKey:
    """A master key derived from a passphrase with Argon2id (RFC 9106). Each derivation takes some 0.2 s and 64 MiB."""

    def __init__(self, passphrase: bytes) -> None:
        """Take the passphrase, 12 to 1024 bytes.

        Raises:
            MasterKeyError: it is too short or too long.
        """
        if not PASSPHRASE_BYTES_MIN <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
            message = f"a passphrase has {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} bytes"
            raise MasterKeyError(message)
        self._passphrase = passphrase
        self._derived: tuple[Mapping[str, object], bytes] | None = None

    def wrap(self, data_key: bytes) -> WrappedKey:
        """The data key, sealed (AES key wrap, RFC 3394) under a fresh salt."""
        parameters: Mapping[str, object] = {
            "kind": _PASSPHRASE,
            "salt": secrets.token_hex(16),
            "memory_kib": _MEMORY_KIB,
            "iterations": _ITERATIONS,
            "lanes": _LANES,
        }
        return WrappedKey(parameters, aes_key_wrap(self._key(parameters), data_key))

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        """The data key. Raises MasterKeyError."""
        _check_kind(wrapped, _PASSPHRASE)
        return _unwrap(self._key(wrapped.parameters), wrapped.sealed, "the passphrase")

    def _key(self, parameters: Mapping[str, object]) -> bytes:
        """The key for these parameters; the last one is remembered, as a store is read again with each change."""
        if self._derived is None or self._derived[0] != parameters:
            self._derived = (parameters, _derive(self._passphrase, parameters))
        return self._derived[1]


def _derive(passphrase: bytes, parameters: Mapping[str, object]) -> bytes:
    salt, memory, iterations, lanes = (parameters.get(name) for name in ("salt", "memory_kib", "iterations", "lanes"))
    # Read from the store before anything is proven: bounded, so that a forged file costs little.
    if not (
        isinstance(salt, str)
        and isinstance(memory, int)
        and isinstance(iterations, int)
        and isinstance(lanes, int)
        and _MEMORY_KIB <= memory <= _MEMORY_KIB_MAX
        and _ITERATIONS <= iterations <= _ITERATIONS_MAX
        and 1 <= lanes <= 16
    ):
        raise MasterKeyError("the store's passphrase parameters are out of bounds: the file was altered")
    try:
        return Argon2id(
            salt=bytes.fromhex(salt), length=MASTER_KEY_BYTES, iterations=iterations, lanes=lanes, memory_cost=memory
        ).derive(passphrase)
    except ValueError:
        raise MasterKeyError("the store's passphrase parameters cannot be used: the file was altered") from None


def _check_kind(wrapped: WrappedKey, kind: str) -> None:
    made_with = wrapped.parameters.get("kind")
    if made_with != kind:
        message = f"this store was made with a master key of kind {made_with!r}, not {kind!r}"
        raise MasterKeyError(message)


def _unwrap(key: bytes, wrapped: bytes, what: str) -> bytes:
    try:
        return aes_key_unwrap(key, wrapped)
    except (InvalidUnwrap, ValueError):
        message = f"{what} is not the one this store was made with, or the store was altered"
        raise MasterKeyError(message) from None
