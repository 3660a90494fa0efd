"""The port that turns a workload token into an identity."""

from typing import Protocol

from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.proof import UnverifiedProof
from leasehold_broker.domain.time import Instant


class IdentityVerifier(Protocol):
    """Verifies workload JWTs. The only maker of `Identity`."""

    async def verify(
        self, unverified_token: str, peer: Peer, now: Instant, unverified_proof: UnverifiedProof = ...
    ) -> Identity:
        """The identity.

        Args:
            unverified_token: the token.
            peer: who shows it.
            now: the current instant.
            unverified_proof: how it is presented, and what came with it; left out: as a bearer token.

        Raises:
            Refusal: one of IDENTITY_REASONS, exact; `detail` says which check failed, never the token. Also
                STORE_UNAVAILABLE or OVERLOADED, when what must not be shown twice cannot be remembered.
        """
        ...
