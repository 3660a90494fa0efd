"""Checks of single request fields. Owns bounds and alphabets; refuses with the field's name and what is wrong with it.

A refusal quotes at most a short piece of what was sent.
"""

import re
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.lease import TTL_SECONDS_MAX, TTL_SECONDS_MIN
from leasehold_broker.domain.reasons import field_invalid

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500
PAGE_TOKEN_CHARACTERS_MAX = 512
TEXT_CHARACTERS_MAX = 256
LABELS_MAX = 16
QUOTED_CHARACTERS_MAX = 40

REVOCATION_NAME = re.compile(r"revocations/[1-9][0-9]{0,18}")
LEASE_NAME = re.compile(r"leases/[A-Za-z0-9_-]{1,64}")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_./-]{0,62}")


def quoted(text: str) -> str:
    """`text` for an error sentence: printable, short, in quotes."""
    piece = text if len(text) <= QUOTED_CHARACTERS_MAX else text[: QUOTED_CHARACTERS_MAX - 3] + "..."
    return ascii(piece)


def check_known(message: Message) -> None:
    """Refuse fields that this build does not know: ignoring one could grant more than was asked for.

    Raises:
        Refusal: FIELD_INVALID.
    """
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        raise field_invalid(
            message.DESCRIPTOR.name,
            "holds fields that this sidecar does not know; update the sidecar before the client",
        )


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A UUID in its canonical form (RFC 9562, section 4), of any version."""


def request_id(text: str) -> str:
    """A UUID in its canonical form.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if not UUID.fullmatch(text):
        raise field_invalid(
            "request_id",
            f"must be a UUID in lower case with hyphens, was {quoted(text)}; make one for each new request",
        )
    return text


def lease_name(field: str, text: str) -> str:
    """A lease's resource name.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if not LEASE_NAME.fullmatch(text):
        # Not quoted: a caller who mistakes the token for the name must not find it in an error.
        raise field_invalid(field, "must be a lease's name, like leases/<id>; it is in the answer of AcquireLease")
    return text


def revocation_epoch(field: str, text: str) -> int:
    """The epoch in a revocation's resource name.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if not REVOCATION_NAME.fullmatch(text):
        raise field_invalid(field, f"must be a revocation's name, like revocations/7, was {quoted(text)}")
    return int(text.partition("/")[2])


def ttl_seconds(field: str, message: Message, ttl: Duration) -> int | None:
    """A stated length of life in whole seconds; None when `message` does not state one.

    Raises:
        Refusal: FIELD_INVALID: zero, negative, above 30 days, or not whole seconds (rounding would be our guess).
    """
    if not message.HasField(field):
        return None
    if ttl.nanos:
        raise field_invalid(field, f"must be whole seconds, has {ttl.nanos} ns besides {ttl.seconds} s")
    if not TTL_SECONDS_MIN <= ttl.seconds <= TTL_SECONDS_MAX:
        raise field_invalid(field, f"must be {TTL_SECONDS_MIN} to {TTL_SECONDS_MAX} s, was {ttl.seconds}")
    return ttl.seconds


def page_size(size: int) -> int:
    """The page size to use: 50 when unstated, at most 500.

    Raises:
        Refusal: FIELD_INVALID when negative.
    """
    if size < 0:
        raise field_invalid("page_size", f"must not be negative, was {size}")
    return min(size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def page_token(text: str) -> str:
    """A token from an earlier page, or "".

    Raises:
        Refusal: FIELD_INVALID: nothing that we ever gave out.
    """
    if len(text) > PAGE_TOKEN_CHARACTERS_MAX or not text.isascii() or (text and not text.isprintable()):
        raise field_invalid("page_token", "is not a token that this listing gave out; start again without one")
    return text


def plain_text(field: str, text: str) -> str:
    """One line of the caller's own words.

    Raises:
        Refusal: FIELD_INVALID: too long, with control or invisible characters, or with what looks like a secret.
    """
    if len(text) > TEXT_CHARACTERS_MAX:
        raise field_invalid(field, f"must be at most {TEXT_CHARACTERS_MAX} characters, has {len(text)}")
    if not text.isprintable():
        raise field_invalid(field, "must be one line of printable characters")
    if without_secrets(text) != text:
        raise field_invalid(
            field, "looks like it holds a key or a token; it is kept in the audit log, so leave that out"
        )
    return text


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """The caller's labels, in order of their keys.

    Raises:
        Refusal: FIELD_INVALID: too many, or a key or value out of bounds.
    """
    if len(given) > LABELS_MAX:
        raise field_invalid("labels", f"must be at most {LABELS_MAX}, are {len(given)}")
    for key in given:
        if not LABEL_KEY.fullmatch(key):
            raise field_invalid(
                "labels", f"key {quoted(key)} must match {LABEL_KEY.pattern}: lower case, 63 characters at most"
            )
    return {key: plain_text(f"labels[{key}]", given[key]) for key in sorted(given)}


def patterns(field: str, given: Iterable[str], alphabet: re.Pattern[str], items_max: int) -> tuple[str, ...]:
    """Exact names, or beginnings of names followed by one "*".

    Raises:
        Refusal: FIELD_INVALID: too many, empty, a "*" elsewhere, or characters that no such name has.
    """
    names = tuple(given)
    if len(names) > items_max:
        raise field_invalid(field, f"must be at most {items_max}, are {len(names)}")
    for name in names:
        if name != "*" and not alphabet.fullmatch(name.removesuffix("*")):
            raise field_invalid(
                field, f'{quoted(name)} is neither a name nor the beginning of one with a "*" at its end'
            )
    return names
