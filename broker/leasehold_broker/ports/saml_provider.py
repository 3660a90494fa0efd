"""The port to a SAML identity provider at which operators sign in with a browser."""

from typing import Protocol

from leasehold_broker.domain.saml import SignedAssertion


class SamlProvider(Protocol):
    """One provider, and us before it."""

    def address(self, request_id: str, relay_state: str, wall_ms: int) -> str:
        """What the browser must open to be asked who it is."""
        ...

    def read(self, unverified_response: str) -> SignedAssertion:
        """What a response says, once its form and both signatures are right.

        Args:
            unverified_response: base64, as posted.

        Raises:
            Refusal: IDENTITY_REJECTED, with the reason as detail.
        """
        ...

    def metadata(self) -> bytes:
        """Us, for whoever runs the provider: XML."""
        ...
