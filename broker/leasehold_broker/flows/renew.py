"""Renew a lease: a later end, never past its longest life; the grant must still be in the policy."""

import asyncio

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.issuing import World, refuse_if_not_serving
from leasehold_broker.flows.journal import Journal
from leasehold_broker.ports.state_store import PutLease


class RenewLease:
    """Extends leases."""

    def __init__(self, books: Books, journal: Journal, world: World) -> None:
        """Work on these books, with these surroundings."""
        self._books = books
        self._journal = journal
        self._world = world
        self._writing: set[str] = set()

    async def run(
        self,
        identity: Identity,
        peer: Peer,
        name: str,
        request_id: str,
        ttl_seconds: int | None,
        expected_renew_count: int | None,
    ) -> Lease:
        """Extend the lease.

        Args:
            identity: the verified caller; must hold the lease.
            peer: the caller's peer.
            name: the lease.
            request_id: for the audit event.
            ttl_seconds: from now on; None: as long as at first.
            expected_renew_count: when given, another value at the lease is CONCURRENT_UPDATE.

        Returns:
            The lease with its new end.

        Raises:
            Refusal: LEASE_NOT_FOUND, LEASE_EXPIRED, LEASE_REVOKED, LEASE_RELEASED, LEASE_FROZEN, MAX_TTL_REACHED,
                POLICY_DENIED, SCOPE_EXCEEDED, CONCURRENT_UPDATE, DRAINING, CENTRE_UNREACHABLE, AUDIT_SPOOL_FULL,
                STORE_UNAVAILABLE.
        """
        now = self._world.clock.now()
        refuse_if_not_serving(self._books, self._world.centre, now)
        lease = self._books.owned(identity, peer, name)
        if name in self._writing:
            raise Refusal(
                Reason.CONCURRENT_UPDATE,
                "another renewal of this lease is being written; read the lease again",
                retry_after_seconds=0.1,
            )
        renewed = self._renewed(lease, identity, peer, ttl_seconds, expected_renew_count, now)
        self._journal.check()
        self._books.put_lease(renewed)
        # One at a time for each lease: a second one on top of a renewal that then fails would keep an end that nobody
        # wrote.
        self._writing.add(name)

        def undo() -> None:
            if self._books.leases.get(name) is renewed:
                self._books.put_lease(lease)

        written = self._journal.grant([_renewed_event(renewed, request_id, now)], [PutLease(renewed)], undo)
        written.add_done_callback(lambda _: self._writing.discard(name))
        await asyncio.shield(written)
        return self._books.leases.get(name, renewed)

    def _renewed(
        self,
        lease: Lease,
        identity: Identity,
        peer: Peer,
        ttl_seconds: int | None,
        expected: int | None,
        now: Instant,
    ) -> Lease:
        dead = lease.dead_reason(now)
        if dead is not None:
            raise dead
        if expected is not None and expected != lease.renew_count:
            raise Refusal(
                Reason.CONCURRENT_UPDATE,
                f"renew_count is {lease.renew_count}, not {expected}; read the lease again",
                retry_after_seconds=0.1,
            )
        grant = self._world.policies.current().grant(lease.grant)
        if grant is None or not grant.covers_identity(identity):
            raise Refusal(
                Reason.POLICY_DENIED, f"grant {lease.grant!r} no longer covers this identity; acquire a new lease"
            )
        grant.check_uid(peer.uid)
        ttl = ttl_seconds or lease.ttl_seconds
        if ttl > grant.ttl_seconds_max:
            raise Refusal(
                Reason.SCOPE_EXCEEDED,
                f"ttl of {ttl} s is above the granted {grant.ttl_seconds_max} s; ask for less",
            )
        renewed = lease.renewed(ttl, now)
        parent = self._books.leases.get(lease.parent)
        if parent is not None and renewed.expire_ns > parent.expire_ns:
            if parent.expire_ns <= lease.expire_ns:
                raise Refusal(Reason.MAX_TTL_REACHED, "the parent lease ends first; renew the parent before this one")
            renewed = lease.renewed(ttl, now, parent.expire_ns)
        return renewed


def _renewed_event(lease: Lease, request_id: str, now: Instant) -> Event:
    return Event(
        EventType.LEASE_RENEWED,
        now.wall_ms,
        Outcome.ALLOWED,
        subject=lease.subject,
        lease=lease.name,
        request_id=request_id,
        details={"expire_wall_ms": lease.expire_wall_ms, "renew_count": lease.renew_count},
    )
