"""Refusals, and honeytokens among them. Owns what happens at the sidecar when one is used, before it is answered.

Every live lease of the peer that presented it ends at once and its calls are cut, with the centre or without it; the
event names whose they were. The collector, which reads the event, revokes and blocks the subject everywhere.
"""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.honeytokens import Honeytoken, TrapSprung
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.lease import Lease, LeaseState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.flows.refusals import RecordRefusal
from leasehold_broker.flows.trap_uses import TrapUses
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import StateStore

SUBJECTS_MAX = 16
"""Subjects named for one use: a peer is usually one agent."""


class RecordTraps(RecordRefusal):
    """Records refusals, and springs the traps that callers walk into."""

    def __init__(self, books: Books, store: StateStore, journal: Journal, clock: Clock) -> None:
        """Work on these books, write to this store."""
        super().__init__(books, store, clock)
        self._journal = journal
        self._endings = Endings(books)
        self._uses = TrapUses()

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """As the parent; a honeytoken among the credentials springs first.

        Raises:
            Refusal: as the parent.
        """
        if isinstance(refusal, TrapSprung) and refusal.honeytoken is not None:
            where = method
            await self._spring(refusal.honeytoken, peer, None if identity is None else identity.subject, where)
        await super().rpc_refused(method, refusal, identity, peer, request_id)

    async def call_refused(
        self,
        refusal: Refusal,
        peer: Peer | None,
        request_id: str,
        lease: Lease | None,
        provider: str,
        operation: str,
        model: str | None,
    ) -> None:
        """As the parent; a honeytoken among the credentials springs first.

        Raises:
            Refusal: as the parent.
        """
        if isinstance(refusal, TrapSprung) and refusal.honeytoken is not None:
            subject = None if lease is None else lease.subject
            await self._spring(refusal.honeytoken, peer, subject, f"the egress, at {provider or 'no provider'}")
        await super().call_refused(refusal, peer, request_id, lease, provider, operation, model)

    async def _spring(self, honeytoken: Honeytoken, peer: Peer | None, known: Subject | None, where: str) -> None:
        now = self._clock.now()
        held = [one for one in self._books.leases.values() if not one.ended and peer and peer.satisfies(one.binding)]
        whose = "" if peer is None else peer.binding
        if not held and self._uses.told(honeytoken, whose, now):
            return
        batch, details = self._end(held, honeytoken, peer, where)
        subjects = {
            (one.issuer, one.subject): one for one in [*([known] if known else []), *(one.subject for one in held)]
        }
        named: tuple[Subject | None, ...] = tuple(subjects.values())[:SUBJECTS_MAX] or (None,)
        batch.events.extend(
            Event(
                EventType.FINDING_HONEYTOKEN,
                now.wall_ms,
                Outcome.DENIED,
                subject=subject,
                lease=held[0].name if len(held) == 1 else "",
                details=details,
            )
            for subject in named
        )
        if not await self._journal.ending(batch):
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the sidecar cannot write its state; it answers nothing until its disk does",
                retry_after_seconds=1.0,
            )
        self._uses.tell(honeytoken, whose, now)

    def _end(
        self, held: list[Lease], honeytoken: Honeytoken, peer: Peer | None, where: str
    ) -> tuple[Batch, dict[str, Detail]]:
        """End these leases; what to make durable, and what to say of it."""
        now = self._clock.now()
        batch, ended, cut = Batch(), 0, 0
        for lease in held:
            part, more_ended, more_cut = self._endings.end(
                lease.name, LeaseState.REVOKED, Reason.LEASE_REVOKED, now, f"honeytoken {honeytoken.name}"
            )
            batch.add(part)
            ended += more_ended
            cut += more_cut
        message = f"honeytoken {honeytoken.name!r} was presented at {where}; {ended} leases of that peer were ended"
        return batch, {
            "honeytoken": honeytoken.name,
            "kind": honeytoken.kind.value,
            "peer": "" if peer is None else peer.binding,
            "leases_ended": ended,
            "calls_cut": cut,
            "message": message,
            "usual": "never: nobody has a reason to hold it",
        }
