"""The type of every secret: keys, lease tokens. Owns that none is shown, pickled or compared in variable time."""

import hmac
from typing import NoReturn, final


@final
class Secret:
    """Bytes that no str, repr, format, pickle or exception shows.

    `reveal()` may be called only where a key is placed into a request (or sealed by a key store): a house test holds
    the list of those lines. CPython may keep copies in memory; `wipe()` overwrites ours, best effort.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray) -> None:
        """Take a copy of `value`.

        Raises:
            ValueError: empty, or with white space or control bytes (such a header would be refused with the value
                in the error text of many libraries).
        """
        if not value or any(byte <= 0x20 or byte >= 0x7F for byte in value):
            message = "a secret must be non-empty printable ASCII without white space"
            raise ValueError(message)
        self._value = bytearray(value)

    def reveal(self) -> bytes:
        """The plain bytes."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite our copy."""
        for index in range(len(self._value)):
            self._value[index] = 0

    def __len__(self) -> int:
        """Length in bytes."""
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        """Constant-time comparison with another secret."""
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment] # a hash would be a second, comparable copy

    def __repr__(self) -> str:
        """Says only that it is one."""
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Says only that it is one."""
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        """Refuse to pickle."""
        message = "a Secret is not serialisable"
        raise TypeError(message)
