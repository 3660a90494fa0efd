"""The port by which a token is minted for one lease, to be handed out."""

from typing import Protocol

from leasehold_broker.domain.identity import Subject
from leasehold_broker.ports.token_exchange import Minted


class KeyMinter(Protocol):
    """Mints tokens of federated keys."""

    async def mint(
        self, name: str, models: tuple[str, ...], life_seconds_max: int, holder: Subject | None = None
    ) -> Minted:
        """A token that nobody else uses.

        Raises:
            Refusal: KEY_UNAVAILABLE; DISCLOSURE_NOT_ALLOWED when it would live longer than `life_seconds_max`.
        """
        ...
