"""The port to the centre, as the flows of a sidecar see it."""

from typing import Protocol

from leasehold_broker.domain.time import Instant


class Centre(Protocol):
    """Whether this sidecar still speaks for the centre."""

    def authority_lapsed_seconds(self, now: Instant) -> float | None:
        """Seconds since the authority lapsed; None while it holds, and always None for a sidecar that runs alone."""
        ...
