"""The form of a key in a store that keeps one text a secret: the key itself, or a JSON object with it in a field."""

import json

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState

VALUE_BYTES_MAX = 64 * 1024


def stored_key(name: str, text: str, field: str) -> Secret:
    """The key in what the store holds.

    Args:
        name: for messages.
        text: what is stored.
        field: of the JSON object; "" when the text is the key. A member "disabled" that is true stops the key.

    Raises:
        SourceFault: MALFORMED or DISABLED. Never shows what is stored.
    """
    shown = f"field {field!r}" if field else "the secret itself"
    wrong = SourceFault(
        SourceState.MALFORMED, f"what is stored for {name!r} has no usable key in {shown}: one line of printable ASCII"
    )
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
    try:
        if not isinstance(value, str):
            raise wrong
        return Secret(value.encode("ascii"))
    except ValueError:
        raise wrong from None
