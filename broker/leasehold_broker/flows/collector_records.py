"""The events that the collector's door owes: refusals and readings. Owns which type of event each becomes."""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog


class CollectorRecords:
    """Writes refusals and readings into the collector's own stream."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        """Write there."""
        self._events = events
        self._clock = clock
        self.refusals: dict[str, int] = {}

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """Make a refusal durable.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        self.refusals[refusal.reason] = self.refusals.get(refusal.reason, 0) + 1
        type_ = EventType.AUDIT_REFUSED
        if refusal.reason in IDENTITY_REASONS:
            type_ = EventType.IDENTITY_REFUSED
        elif ".RevocationService/" in method:
            type_ = EventType.REVOCATION_REFUSED
        elif ".BudgetService/" in method:
            type_ = EventType.BUDGET_CHANGE_REFUSED
        elif ".KeyService/" in method:
            type_ = EventType.KEY_ROTATION_REFUSED
        details: dict[str, Detail] = {"method": method, "message": refusal.message}
        if refusal.detail:
            details["detail"] = refusal.detail
        await self._record(type_, Outcome.DENIED, identity, peer, request_id, details, refusal)

    async def rpc_read(self, method: str, identity: Identity, peer: Peer, request_id: str) -> None:
        """Make a reading durable.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        await self._record(EventType.AUDIT_READ, Outcome.ALLOWED, identity, peer, request_id, {"method": method}, None)

    async def lifecycle(self, type_: EventType, version: str) -> None:
        """Make the collector's own start or stop durable.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        await self._record(type_, Outcome.ALLOWED, None, None, "", {"version": version}, None)

    async def _record(
        self,
        type_: EventType,
        outcome: Outcome,
        identity: Identity | None,
        peer: Peer | None,
        request_id: str,
        details: dict[str, Detail],
        refusal: Refusal | None,
    ) -> None:
        if peer is not None:
            details["peer"] = peer.binding
        await self._events.record(
            Event(
                type_,
                self._clock.now().wall_ms,
                outcome,
                reason=None if refusal is None else refusal.reason,
                subject=None if identity is None else identity.subject,
                request_id=request_id,
                details=details,
            )
        )
