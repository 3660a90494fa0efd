"""What a minter's keys are called at their provider, and how a key is known again by the hint that lists show of it."""

import hashlib
import re

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState

MARK_PREFIX = "leasehold-"
_ROTATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_NOT_PLAIN = re.compile(r"[^a-z0-9-]")
_HINT = re.compile(r"([!-~]*?)(?:\.{2,}|\*+)([!-~]*?)", re.ASCII)
_HINT_END_CHARACTERS_MIN = 3


def mark(key: str, rotation: str) -> str:
    """The name of what this rotation of this key makes: a-z, 0-9 and '-', at most 59 characters, starts with a letter.

    It begins with our name of the key, for who reads it in a console.

    Raises:
        ProviderKeyFault: MALFORMED: the rotation has no usable name.
    """
    digest = hashlib.sha256(f"{key} {checked(rotation)}".encode()).hexdigest()
    return f"{MARK_PREFIX}{_NOT_PLAIN.sub('-', key)[:24]}-{digest[:24]}"


def checked(rotation: str) -> str:
    """The rotation's name, as far as it may be shown to a provider.

    Raises:
        ProviderKeyFault: MALFORMED.
    """
    if not _ROTATION.fullmatch(rotation):
        message = "the name of a rotation is 1 to 128 of letters, digits and '._:/-'"
        raise ProviderKeyFault(ProviderKeyState.MALFORMED, message)
    return rotation


def fits_hint(value: Secret, hint: object) -> bool:
    """Whether a hint, as "sk-abc...xyz" or "sk-abc****xyz", is one of this key; not where it shows too little."""
    parts = _HINT.fullmatch(hint) if isinstance(hint, str) else None
    if parts is None or len(parts[2]) < _HINT_END_CHARACTERS_MIN:
        return False
    plain = value.reveal().decode("ascii")
    return len(plain) > len(parts[1]) + len(parts[2]) and plain.startswith(parts[1]) and plain.endswith(parts[2])
