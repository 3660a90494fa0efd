"""Writes single events through the sidecar's store. Implements `EventLog`."""

from leasehold_broker.domain.events import Event
from leasehold_broker.ports.state_store import StateStore


class StoreEvents:
    """An event log on a state store."""

    def __init__(self, store: StateStore) -> None:
        """Write to this store."""
        self._store = store

    async def record(self, event: Event) -> None:
        """Make the event durable.

        Raises:
            Refusal: AUDIT_SPOOL_FULL, STORE_UNAVAILABLE.
        """
        await self._store.commit([event])
