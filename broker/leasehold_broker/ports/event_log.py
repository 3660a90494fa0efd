"""The port through which a flow writes an event that no other change belongs to."""

from typing import Protocol

from leasehold_broker.domain.events import Event


class EventLog(Protocol):
    """Numbers, chains and keeps events."""

    async def record(self, event: Event) -> None:
        """Make the event durable; returns after the sync.

        Raises:
            Refusal: STORE_UNAVAILABLE or AUDIT_SPOOL_FULL; the event is not stored.
        """
        ...
