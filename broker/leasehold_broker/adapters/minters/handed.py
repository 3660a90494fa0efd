"""What a program or service of the operator's hands over: {"id": "...", "value": "..."}. Reads it strictly."""

import re
from collections.abc import Mapping

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKey

_ID = re.compile(r"[A-Za-z0-9][!-~]{0,255}", re.ASCII)


def handed_id(said: Mapping[str, object]) -> str:
    """The id of a key; "" when none is told.

    Raises:
        ValueError: says what is wrong, as a part of a sentence.
    """
    found = said.get("id")
    if found is None:
        # Who says nothing has not said that it cannot tell: the old key would be left to live.
        raise ValueError("gave no id; one that cannot be told is an empty text")
    if not isinstance(found, str) or (found and not _ID.fullmatch(found)):
        raise ValueError("gave an id that is not up to 256 visible characters, the first a letter or digit")
    return found


def handed_key(said: Mapping[str, object]) -> ProviderKey:
    """A key that was made.

    Raises:
        ValueError: says what is wrong, as a part of a sentence.
    """
    value = said.get("value")
    if not isinstance(value, str) or not said.get("id"):
        raise ValueError("gave no key: an id and a value are needed")
    key_id = handed_id(said)
    if value in key_id:
        raise ValueError("gave the key itself as its id; ids are logged")
    try:
        # Asked before it is encoded: the error of a codec carries what it could not encode.
        return ProviderKey(Secret(value.encode("ascii") if value.isascii() else b""), key_id)
    except ValueError:
        raise ValueError("gave a value that is not printable ASCII without white space") from None
