"""Page sizes and page tokens (AIP-158). Owns their rules; a token names its listing and the questions that were asked.

A token is opaque to its holder and grants nothing: it says only where to go on.
"""

import base64
import binascii
import hashlib

from leasehold_broker.domain.reasons import field_invalid

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500
_TOKEN_LENGTH_MAX = 256


def page_size_of(asked: int) -> int:
    """The size to use: 0 gives the default, too large is coerced.

    Raises:
        Refusal: FIELD_INVALID when negative.
    """
    if asked < 0:
        raise field_invalid("page_size", f"must not be negative, was {asked}")
    return min(asked or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def write_token(listing: str, question: str, *numbers: int) -> str:
    """The token that goes on at `numbers` of this listing with this question."""
    text = ".".join([_fingerprint(listing, question), *map(str, numbers)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(listing: str, question: str, token: str) -> tuple[int, ...]:
    """The numbers of a token that `write_token` made for the same listing and question; at least one.

    Raises:
        Refusal: FIELD_INVALID.
    """
    padded = token[:_TOKEN_LENGTH_MAX] + "=" * (-len(token) % 4)
    try:
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        text = ""
    fingerprint, *numbers = text.split(".")
    values = tuple(int(number) for number in numbers if number.isdecimal() and len(number) < 19)
    if not numbers or len(values) != len(numbers):
        raise field_invalid("page_token", "is not a token of this listing; start again without one")
    if fingerprint != _fingerprint(listing, question):
        raise field_invalid("page_token", "belongs to another question; keep every other argument as it was")
    return values


def _fingerprint(listing: str, question: str) -> str:
    return hashlib.sha256(f"{listing}\0{question}".encode()).hexdigest()[:16]
