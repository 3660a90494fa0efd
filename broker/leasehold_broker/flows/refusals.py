"""Every refusal is an audit event before it is an answer. Owns the event's two shapes, and what a flood of them costs.

A peer that is refused faster than `EACH_PER_SECOND` waits: its further refusals of one kind are folded into one event
with a count, and are answered once that event is durable. So nothing is answered unaudited, and a hostile caller
neither fills the spool nor gets its answers quickly.
"""

import asyncio
from dataclasses import dataclass, replace

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal
from leasehold_broker.domain.time import NANOS
from leasehold_broker.flows.books import Books
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import StateStore

DETAIL_CHARACTERS_MAX = 512
EACH_PER_SECOND = 20
"""Refusals of one peer that get an event of their own, per second; twice as many in a burst."""
FOLD_SECONDS = 0.5
PEERS_MAX = 4096
FOLDED_KINDS_MAX = 256

Kind = tuple[str, EventType, Reason | None, str]


@dataclass(slots=True)
class _Fold:
    """Refusals of one kind that wait for one event."""

    event: Event
    count: int
    written: asyncio.Task[None]


class RecordRefusal:
    """Records refusals; returns when they are durable."""

    def __init__(self, books: Books, store: StateStore, clock: Clock) -> None:
        """Write to this store."""
        self._books = books
        self._store = store
        self._clock = clock
        self._allowance: dict[str, tuple[float, int]] = {}
        self._folds: dict[Kind, _Fold] = {}

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """An RPC was refused.

        Raises:
            Refusal: the event could not be stored; answer that instead.
        """
        kind = EventType.IDENTITY_REFUSED if refusal.reason in IDENTITY_REASONS else EventType.LEASE_REFUSED
        subject = identity.subject if identity else None
        details = _details(refusal, peer) | {"method": method}
        event = Event(kind, self._now_ms(), Outcome.DENIED, refusal.reason, subject, "", request_id, details)
        await self._record(event, peer, method)

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
        """A call at the egress was refused; nothing was sent and nothing charged.

        Raises:
            Refusal: the event could not be stored; answer that instead.
        """
        # What was asked for is the caller's text; a key that strayed into it must not reach the log.
        asked = {"provider": without_secrets(provider)[:64], "operation": without_secrets(operation)[:64]}
        details = _details(refusal, peer) | asked
        if model is not None:
            details["model"] = without_secrets(model)[:128]
        subject, name = (lease.subject, lease.name) if lease else (None, "")
        event = Event(
            EventType.CALL_REFUSED, self._now_ms(), Outcome.DENIED, refusal.reason, subject, name, request_id, details
        )
        await self._record(event, peer, name)

    def _now_ms(self) -> int:
        return self._clock.now().wall_ms

    async def _record(self, event: Event, peer: Peer | None, about: str) -> None:
        if event.reason is not None:
            self._books.count_refusal(event.reason)
        who = "" if peer is None else peer.binding
        if self._may_have_its_own(who):
            await self._store.commit([event])
        else:
            await self._fold((who, event.type, event.reason, about), event)

    def _may_have_its_own(self, who: str) -> bool:
        """Take one from the peer's allowance (a token bucket on the boot clock)."""
        now_ns = self._clock.now().boot_ns
        left, since_ns = self._allowance.pop(who, (2.0 * EACH_PER_SECOND, now_ns))
        left = min(2.0 * EACH_PER_SECOND, left + (now_ns - since_ns) / NANOS * EACH_PER_SECOND)
        self._allowance[who] = (left - 1 if left >= 1 else left, now_ns)
        while len(self._allowance) > PEERS_MAX:
            del self._allowance[next(iter(self._allowance))]
        return left >= 1

    async def _fold(self, kind: Kind, event: Event) -> None:
        fold = self._folds.get(kind)
        if fold is None:
            if len(self._folds) >= FOLDED_KINDS_MAX:
                raise Refusal(
                    Reason.OVERLOADED, "too many refusals of too many kinds; slow down", retry_after_seconds=1.0
                )
            task = asyncio.get_running_loop().create_task(self._written(kind))
            # Retrieved here, for the case that every waiter has hung up.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            fold = self._folds[kind] = _Fold(event, 0, task)
        fold.count += 1
        # Shielded: a caller who hangs up must not take the others' event with it.
        await asyncio.shield(fold.written)

    async def _written(self, kind: Kind) -> None:
        await asyncio.sleep(FOLD_SECONDS)
        fold = self._folds.pop(kind)
        details = dict(fold.event.details) | {"count": fold.count}
        await self._store.commit([replace(fold.event, details=details)])


def _details(refusal: Refusal, peer: Peer | None) -> dict[str, Detail]:
    details: dict[str, Detail] = {"message": refusal.message[:DETAIL_CHARACTERS_MAX]}
    if refusal.detail:
        details["detail"] = refusal.detail[:DETAIL_CHARACTERS_MAX]
    if peer is not None:
        details["peer"] = peer.binding
    return details
