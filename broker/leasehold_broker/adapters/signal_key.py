"""The key that signs our security events: RS256, which every receiver of CAEP knows. Owns its file and its JWKS."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from leasehold_broker.adapters.private_files import create_private, read_private

KEY_BITS = 2048
FILE_BYTES_MAX = 16 * 1024
ALGORITHM = "RS256"
TOKEN_TYPE = "secevent+jwt"  # noqa: S105 - the name of a type


class SignalKeyError(ValueError):
    """The file holds no such key; the message says what to do."""


class SignalKey:
    """Implements `SignalSigner`."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Read the key; make it when the file is missing, unless replicas share it.

        Raises:
            SignalKeyError: the file holds something else, or is missing where replicas share it.
            NotPrivateError, OSError: it cannot be used.
        """
        if shared and not path.exists():
            message = (
                f"{path} is missing: replicas sign with one key; make it once with 'openssl genrsa -out {path.name} "
                f"{KEY_BITS}' (chmod 600), and give every replica a copy"
            )
            raise SignalKeyError(message)
        if not path.exists():
            made = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
            create_private(
                path,
                made.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
        try:
            key = serialization.load_pem_private_key(read_private(path, FILE_BYTES_MAX), None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
            message = f"{path} holds no RSA key of {KEY_BITS} bits or more; move it away, and a new one is made"
            raise SignalKeyError(message)
        self._key = key
        numbers = key.public_key().public_numbers()
        public = {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}
        thumbprint = hashlib.sha256(json.dumps(public, separators=(",", ":"), sort_keys=True).encode()).digest()
        self.key_id = _base64url(thumbprint)  # RFC 7638
        self.jwks = {"keys": [{**public, "kid": self.key_id, "use": "sig", "alg": ALGORITHM}]}

    def sign(self, claims: Mapping[str, object]) -> str:
        """As the port says."""
        headers = {"typ": TOKEN_TYPE, "kid": self.key_id}
        return jwt.encode(dict(claims), self._key, ALGORITHM, headers=headers)


def _number(number: int) -> str:
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
