"""The port to who still uses an older version of a key."""

from collections.abc import Sequence
from typing import Protocol

from leasehold_broker.domain.time import Instant


class KeyUsers(Protocol):
    """Knows which sidecars use which version of a key, in calls in flight and in what they would use next."""

    def of_older(self, key: str, version: int, since: Instant) -> Sequence[str]:
        """Names of sidecars that use a version below this one, or may, for all that is known.

        Args:
            key: name of the key.
            version: from which on the value is the new one.
            since: when the new value began to serve; what was heard before that proves nothing.
        """
        ...
