"""The port by which a provider is asked whether it takes a key."""

from typing import Protocol

from leasehold_broker.domain.keys import KeyRecord
from leasehold_broker.domain.secret import Secret


class KeyProbe(Protocol):
    """Makes a harmless call: it is free, changes nothing, and needs a good key."""

    def asks(self, provider: str) -> bool:
        """True when there is such a call at this provider, and it is known where it is made."""
        ...

    async def probe(self, record: KeyRecord, key: Secret) -> int:
        """The provider's status; 0 when no answer came, or there is no such call at this provider.

        401 also where a provider says under another status, with a reason, that the key is no good.
        """
        ...
