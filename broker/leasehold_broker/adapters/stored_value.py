"""The form of a key in a store that keeps one text a secret: the key itself, or a JSON object with it in a field."""

import json

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState

VALUE_BYTES_MAX = 64 * 1024
KEY_BYTES_MAX = 16 * 1024
"""A key becomes a header; no provider takes a longer one."""


def stored_key(name: str, text: str, field: str) -> Secret:
    """The key in what the store holds.

    Args:
        name: for messages.
        text: what is stored.
        field: of the JSON object; "" when the text is the key. A member "disabled" that is true stops the key.

    Raises:
        SourceFault: MALFORMED or DISABLED. Never shows what is stored.
    """
    where = f"field {field!r}" if field else "the secret itself"
    wrong = no_key(name, where)
    if len(text) > VALUE_BYTES_MAX:
        raise wrong
    value: object = text
    if field:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise wrong from None
        if not isinstance(document, dict):
            raise wrong
        if document.get("disabled") in {True, "true"}:
            raise SourceFault(SourceState.DISABLED, f"key {name!r} is marked disabled in its store")
        value = document.get(field)
    return usable_key(name, where, value)


def usable_key(name: str, where: str, value: object) -> Secret:
    """The key that stands there.

    Args:
        name: for messages.
        where: in the store, for messages.
        value: what a store's library read.

    Raises:
        SourceFault: MALFORMED. Never shows what is stored.
    """
    if not isinstance(value, str) or not value.isascii() or len(value) > KEY_BYTES_MAX:
        raise no_key(name, where)
    try:
        return Secret(value.encode("ascii"))
    except ValueError:
        raise no_key(name, where) from None


def no_key(name: str, where: str) -> SourceFault:
    """What stands there is none."""
    return SourceFault(
        SourceState.MALFORMED,
        f"what is stored for {name!r} has no usable key in {where}: one line of printable ASCII, at most "
        f"{KEY_BYTES_MAX} bytes",
    )
