"""The port to where a provider makes and ends its own keys: the two ends of a rotation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret


class ProviderKeyState(StrEnum):
    """Why a provider did not make, probe or end a key."""

    UNREACHABLE = "unreachable"
    FAILING = "failing"
    RATE_LIMITED = "rate_limited"
    LOGIN_REFUSED = "login_refused"
    DENIED = "denied"
    FULL = "full"
    MALFORMED = "malformed"
    BY_HAND = "by_hand"


FINAL = frozenset(
    {ProviderKeyState.DENIED, ProviderKeyState.FULL, ProviderKeyState.LOGIN_REFUSED, ProviderKeyState.MALFORMED}
)
"""Asking again would not help."""


class ProviderKeyFault(Exception):  # noqa: N818 - the provider's fault, in the house's word
    """A provider did not do what was asked. The message says what to do next, and never a secret.

    Args:
        state: typed reason. FULL: it keeps no more keys, retire one first. BY_HAND: it makes no keys over an interface;
            a person has to supply the next one.
        message: one sentence.
        retry_after_seconds: when the provider said so.
    """

    def __init__(self, state: ProviderKeyState, message: str, retry_after_seconds: float | None = None) -> None:
        """Say why."""
        super().__init__(message)
        self.state = state
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key a provider has just made: its value, shown this once, and the id by which the provider ends it.

    Args:
        value: the key.
        id: the provider's name for it; never a secret.
    """

    value: Secret
    id: str


class ProviderKeys(Protocol):
    """Makes and ends keys at one provider account. Every method raises ProviderKeyFault."""

    @property
    def switch_off(self) -> SwitchOff:
        """What `disable` does here."""
        ...

    async def mint(self, rotation: str) -> ProviderKey:
        """Make the key of this rotation, and mark it so at the provider, as far as the provider can carry a mark.

        Safe to repeat after a crash at any line: what an earlier attempt of the same rotation made, and whose value
        was lost with it, is found by its mark and ended first. Never are two of one rotation alive when this returns,
        unless a request that was given up takes effect even later: `sweep` is for that.
        """
        ...

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """End whatever this rotation has made but the key with the id `keep_id`, "" for none.

        No effect where a key is never one too many (two slots, one password), and where a person makes keys.
        """
        ...

    async def current_id(self, value: Secret) -> str:
        """The provider's id of a key that is in use, so that it can be ended later; "" when it cannot be told."""
        ...

    async def end(self, key_id: str) -> None:
        """End this key at the provider, for good where that is possible. Ended or unknown already: no effect."""
        ...

    async def disable(self, key_id: str) -> None:
        """Have the provider refuse this key from now on: so that it can be undone where there is a way, else by `end`.

        Disabled, ended or unknown already: no effect.
        """
        ...
