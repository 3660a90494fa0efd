"""Refusals at the collector, and honeytokens among them: the finding is durable before the answer.

The same event as a sidecar's, so the same alert and the same response (`[anomalies.respond]`) follow. No lease ends
here: leases are with the sidecars, and whoever presents one's token here holds none.
"""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.honeytokens import Honeytoken, TrapSprung
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.trap_uses import TrapUses
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog


class CollectorTraps(CollectorRecords):
    """Records refusals, and tells of honeytokens."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        """Write there."""
        super().__init__(events, clock)
        self._uses = TrapUses()

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """As the parent; a honeytoken among the credentials is told first.

        Raises:
            Refusal: as the parent.
        """
        if isinstance(refusal, TrapSprung) and refusal.honeytoken is not None:
            whose = "" if peer is None else peer.binding
            await self.presented(refusal.honeytoken, whose, method, None if identity is None else identity.subject)
        await super().rpc_refused(method, refusal, identity, peer, request_id)

    async def presented(self, honeytoken: Honeytoken, whose: str, where: str, subject: Subject | None = None) -> None:
        """Make durable that somebody holds it, once in a while for the same peer.

        Args:
            honeytoken: what was presented.
            whose: the peer, as text.
            where: the method or route.
            subject: who that is besides, as verified.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        now = self._clock.now()
        if self._uses.told(honeytoken, whose, now):
            return
        details: dict[str, Detail] = {
            "honeytoken": honeytoken.name,
            "kind": honeytoken.kind.value,
            "peer": whose,
            "message": f"honeytoken {honeytoken.name!r} was presented at the collector, at {where}",
            "usual": "never: nobody has a reason to hold it",
        }
        await self._events.record(
            Event(EventType.FINDING_HONEYTOKEN, now.wall_ms, Outcome.DENIED, subject=subject, details=details)
        )
        self._uses.tell(honeytoken, whose, now)
