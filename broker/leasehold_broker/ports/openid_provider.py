"""The port to an OpenID provider at which operators sign in with a browser."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from leasehold_broker.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class SignInQuestion:
    """What the provider was asked, to hold the answer against. All three are secrets until the answer has come."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignInAnswer:
    """What the provider gave.

    Args:
        unverified_token: the ID token; its signature has not been looked at.
        refresh: renews it, perhaps once only; None where none was given.
    """

    unverified_token: str = field(repr=False)
    refresh: Secret | None


class OpenIdProvider(Protocol):
    """One provider.

    Every method but `end` raises Refusal: IDENTITY_REJECTED, with the reason as detail; KEYS_OF_ISSUER_UNAVAILABLE when
    the provider cannot be reached; OVERLOADED, and KEY_UNAVAILABLE for the client's own secret.
    """

    async def ask(self) -> tuple[SignInQuestion, str]:
        """A fresh question, and the address that puts it."""
        ...

    async def redeem(self, question: SignInQuestion, answer: Mapping[str, str]) -> SignInAnswer:
        """For the parameters that came back with the question's state."""
        ...

    async def renew(self, subject: str, refresh: Secret) -> SignInAnswer:
        """A new token of the same subject."""
        ...

    async def end(self, refresh: Secret) -> None:
        """Have the provider renew no more. Silent: a session here has ended, whatever the provider says."""
        ...
