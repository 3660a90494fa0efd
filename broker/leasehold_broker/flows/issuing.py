"""What acquire and delegate share. Owns idempotency by request id, fresh tokens and the admission of new leases.

The same request id by the same subject gives the same lease. Its token is known only in memory, for a while; a retry
that comes later gets a new token for the same lease, and the old token is dead: tokens are never stored, nor derivable.
"""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import TOKEN_ENTROPY_BYTES, Lease, Mode, make_token, token_digest
from leasehold_broker.domain.policy import LeaseRequest
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import selects
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.issued import Issued
from leasehold_broker.flows.journal import Journal
from leasehold_broker.ports.centre import Centre
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.policy_source import PolicySource
from leasehold_broker.ports.state_store import PutLease, PutRequest

FRESH_TOKENS_MAX = 4096
"""Tokens kept in memory for retries; the oldest go first."""
REQUEST_MEMORY_MS = 24 * 3600 * 1000
"""How long a request id is remembered beyond the lease's longest life."""

REQUESTS_MAX = 200_000
"""Request ids remembered at once."""


@dataclass(frozen=True, slots=True)
class World:
    """What every granting flow asks of its surroundings."""

    clock: Clock
    entropy: Entropy
    policies: PolicySource
    centre: Centre
    pepper: bytes


def refuse_if_not_serving(books: Books, centre: Centre, now: Instant) -> None:
    """Refuse while draining or while the centre has been silent too long (R3).

    Raises:
        Refusal: DRAINING, CENTRE_UNREACHABLE.
    """
    if books.draining:
        raise Refusal(Reason.DRAINING, "the sidecar is stopping; retry when it is back", retry_after_seconds=2.0)
    lapsed = centre.authority_lapsed_seconds(now)
    if lapsed is not None:
        raise Refusal(
            Reason.CENTRE_UNREACHABLE,
            "the sidecar has not heard the collector within its authority time and refuses until it does",
            detail=f"authority lapsed {lapsed:.1f} s ago",
            retry_after_seconds=2.0,
        )


def refuse_if_blocked(books: Books, lease: Lease) -> None:
    """Refuse a new lease of a kind that a responder has blocked, also one that is delegated.

    The parent of such a one is dead, as a rule. It lives when it was issued after the block was lifted, and the centre
    has lost that lift: then the block is in force again.

    Raises:
        Refusal: SUBJECT_BLOCKED.
    """
    for entry in books.blocks.values():
        if selects(entry.selector, lease, frozenset(), books.sidecar):
            raise Refusal(
                Reason.SUBJECT_BLOCKED,
                "incident responders have blocked new leases like this one; ask them before you try again",
                detail=f"blocked by {entry.name}",
            )


class Issuing:
    """The common part of the flows that make leases."""

    def __init__(self, books: Books, journal: Journal, world: World) -> None:
        """Work on these books, journal and surroundings."""
        self._books = books
        self._journal = journal
        self._world = world
        self._pending: dict[tuple[str, str], tuple[bytes, asyncio.Task[Issued]]] = {}

    def new_name(self) -> str:
        """A fresh lease name; unguessable, though nothing depends on that."""
        return f"leases/{self._world.entropy.bytes(12).hex()}"

    def new_token(self) -> tuple[Secret, bytes]:
        """A fresh token and the digest that is stored of it."""
        token = make_token(self._world.entropy.bytes(TOKEN_ENTROPY_BYTES))
        return token, token_digest(self._world.pepper, token.reveal().decode())

    def remember_token(self, name: str, token: Secret) -> None:
        """Keep the token for retries of the same request."""
        fresh = self._books.fresh_tokens
        fresh[name] = token
        while len(fresh) > FRESH_TOKENS_MAX:
            del fresh[next(iter(fresh))]

    def remember_request(self, scope: str, request_id: str, fingerprint: bytes, lease: Lease) -> PutRequest:
        """The row by which a retry finds this lease."""
        record = PutRequest(scope, request_id, fingerprint, lease.name, lease.max_expire_wall_ms + REQUEST_MEMORY_MS)
        self._books.requests[scope, request_id] = record
        return record

    def born(self, lease: Lease, token: Secret) -> Issued:
        """The answer for a lease that has just become durable.

        Raises:
            Refusal: it was ended while the disk wrote.
        """
        self._books.unborn.discard(lease.name)
        self._books.counters.leases_issued += 1
        current = self._books.leases[lease.name]
        if current.ended:
            raise _ended(current, self._world.clock.now())
        self.remember_token(lease.name, token)
        return Issued(current, token)

    async def once(
        self,
        scope: str,
        request_id: str,
        fingerprint: bytes,
        identity: Identity,
        peer: Peer,
        make: Callable[[], Coroutine[None, None, Issued]],
    ) -> Issued:
        """Run `make` unless this request was answered, or is being answered: then give that answer again.

        Raises:
            Refusal: REQUEST_ID_REUSED when the same id comes with another request; LEASE_NOT_FOUND from another peer.
        """
        # What is being answered comes first: the books know the request before its lease is durable.
        pending = self._pending.get((scope, request_id))
        if pending is None:
            known = self._books.requests.get((scope, request_id))
            if known is not None:
                _same_or_refuse(known.fingerprint, fingerprint, request_id)
                answer = self._again(self._books.owned(identity, peer, known.lease))
            elif len(self._books.requests) >= REQUESTS_MAX:
                raise Refusal(
                    Reason.OVERLOADED,
                    f"{REQUESTS_MAX} requests are remembered here, the maximum; acquire fewer leases and renew them",
                    retry_after_seconds=60.0,
                )
            else:
                answer = make()
            work = asyncio.get_running_loop().create_task(answer)
            pending = self._pending[scope, request_id] = (fingerprint, work)
            work.add_done_callback(lambda done: self._answered(scope, request_id, done))
        _same_or_refuse(pending[0], fingerprint, request_id)
        # Shielded: a caller who hangs up while the disk writes must not leave a lease that only memory knows.
        return await asyncio.shield(pending[1])

    def _answered(self, scope: str, request_id: str, done: asyncio.Task[Issued]) -> None:
        del self._pending[scope, request_id]
        if not done.cancelled():
            done.exception()  # looked at, so that a refusal nobody waits for any more is no stray error

    async def _again(self, lease: Lease) -> Issued:
        token = self._books.fresh_tokens.get(lease.name)
        if token is None and not lease.ended and lease.mode is not Mode.BROKERED:
            raise Refusal(
                Reason.LEASE_NOT_FOUND,
                f"the credential of {lease.name} was shown once and is not remembered; release it and acquire anew",
            )
        if token is None and not lease.ended:
            token, digest = self.new_token()
            now = self._world.clock.now()
            event = Event(
                EventType.LEASE_TOKEN_REPLACED, now.wall_ms, Outcome.ALLOWED, subject=lease.subject, lease=lease.name
            )
            await asyncio.shield(self._journal.grant([event], [PutLease(lease, digest)]))
            self._books.put_lease(self._books.leases[lease.name], digest)
            self.remember_token(lease.name, token)
        if token is None:
            raise _ended(lease, self._world.clock.now())
        return Issued(self._books.leases[lease.name], token)


def _ended(lease: Lease, now: Instant) -> Refusal:
    return lease.dead_reason(now) or Refusal(Reason.LEASE_NOT_FOUND, f"{lease.name} has ended; acquire a new lease")


def _same_or_refuse(known: bytes, fingerprint: bytes, request_id: str) -> None:
    if known != fingerprint:
        raise Refusal(
            Reason.REQUEST_ID_REUSED, f"request_id {request_id} was used for another request; use a fresh UUID"
        )


def fingerprint(request: LeaseRequest, *more: str) -> bytes:
    """A digest of what was asked, so that a reused id with another request is noticed."""
    parts = (
        repr(request.scopes),
        repr(tuple(request.caps)),
        repr(request.ttl_seconds),
        request.mode,
        request.purpose,
        repr(sorted(request.labels.items())),
        *more,
    )
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
