"""The port to where provider keys are kept."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyRecord
from leasehold_broker.domain.secret import Secret


class KeyStore(Protocol):
    """Reads keys. Listing and finding never block: implementations keep records in memory and refresh behind."""

    def records(self) -> Sequence[KeyRecord]:
        """All keys, public part.

        Raises:
            Refusal: KEY_UNAVAILABLE while the store cannot be read.
        """
        ...

    def find(self, name: str) -> KeyRecord | None:
        """The public part of one key, or None."""
        ...

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """The key itself, for the header write.

        Args:
            name: of the key.
            models: of the lease's scope; a key that is minted is narrowed to them where its provider can do that.
            holder: whose lease it is; a key that exchanges the agent's own token needs to know.

        Raises:
            Refusal: KEY_UNAVAILABLE (unknown, unreadable), KEY_DISABLED.
        """
        ...
