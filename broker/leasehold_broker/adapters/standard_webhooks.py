"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac

_ENCODED = b"whsec_"


def signing_key(text: bytes) -> bytes:
    """The key that a text stands for: itself, or the bytes behind "whsec_" in base64.

    Raises:
        ValueError: what follows "whsec_" is not base64.
    """
    return base64.b64decode(text[len(_ENCODED) :], validate=True) if text.startswith(_ENCODED) else text


def signature(key: bytes, name: str, seconds: str, body: bytes) -> str:
    """The header webhook-signature of the message of this name, sent at this Unix time."""
    digest = hmac.new(key, f"{name}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
