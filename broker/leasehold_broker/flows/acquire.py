"""Acquire a lease: policy decides, the lease is made, lease and event become durable together, then it is shown."""

from dataclasses import replace

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms, decide
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.amount_details import cap_details
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.end_with_process import EndWithProcess
from leasehold_broker.flows.handing_out import Credential, HandingOut
from leasehold_broker.flows.issued import Issued
from leasehold_broker.flows.issuing import Issuing, World, fingerprint, refuse_if_blocked, refuse_if_not_serving
from leasehold_broker.flows.journal import Journal, unharmed
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.state_store import PutLease


class AcquireLease:
    """Grants root leases."""

    def __init__(
        self,
        books: Books,
        journal: Journal,
        world: World,
        keys: KeyStore,
        processes: EndWithProcess,
        handing_out: HandingOut,
    ) -> None:
        """Work on these books, with these surroundings and keys.

        `processes` ends leases with their process; `handing_out` fetches credentials for leases that are not brokered.
        """
        self._handing_out = handing_out
        self._books = books
        self._journal = journal
        self._world = world
        self._keys = keys
        self._processes = processes
        self._issuing = Issuing(books, journal, world)

    async def run(
        self,
        identity: Identity,
        peer: Peer,
        request: LeaseRequest,
        request_id: str,
        *,
        validate_only: bool,
        end_with_process: bool = False,
    ) -> Issued:
        """Grant what is asked, or refuse.

        Args:
            identity: the verified caller.
            peer: whom the token will be bound to.
            request: scopes, caps, life, mode.
            request_id: UUID; the same one gives the same lease.
            validate_only: say what would be granted; nothing is made but an event.
            end_with_process: the lease ends when the calling process does.

        Raises:
            Refusal: what `decide` raises, and SUBJECT_BLOCKED, DRAINING, CENTRE_UNREACHABLE, LEASE_COUNT_EXCEEDED,
                REQUEST_ID_REUSED, AUDIT_SPOOL_FULL, STORE_UNAVAILABLE; FIELD_INVALID and OVERLOADED when the calling
                process cannot be watched.
        """
        now = self._world.clock.now()
        refuse_if_not_serving(self._books, self._world.centre, now)
        if validate_only:
            if end_with_process:
                self._processes.check(peer)
            return await self._validate(identity, peer, request, request_id, now)
        scope = f"acquire|{identity.subject.issuer}|{identity.subject.subject}"
        asked = fingerprint(request, peer.binding, *(["end with process"] if end_with_process else []))
        return await self._issuing.once(
            scope,
            request_id,
            asked,
            identity,
            peer,
            lambda: self._grant(identity, peer, request, (scope, request_id, asked), now, ties=end_with_process),
        )

    async def _validate(
        self, identity: Identity, peer: Peer, request: LeaseRequest, request_id: str, now: Instant
    ) -> Issued:
        policy, terms = self._decide(identity, peer, request, self._draw())
        lease = self._lease("", identity, peer, request, policy, terms, now)
        refuse_if_blocked(self._books, lease)
        await unharmed(self._journal.grant([_event(EventType.LEASE_VALIDATED, lease, request_id, now)], []))
        return Issued(lease, None)

    async def _grant(
        self,
        identity: Identity,
        peer: Peer,
        request: LeaseRequest,
        key: tuple[str, str, bytes],
        now: Instant,
        *,
        ties: bool,
    ) -> Issued:
        draw = self._draw()
        policy, terms = self._decide(identity, peer, request, draw)
        self._journal.check()
        credential = await self._handing_out.fetch(terms, identity.subject)
        try:
            return await self._issue(identity, peer, request, key, now, draw, (policy, terms), credential, ties=ties)
        except BaseException:
            self._handing_out.given_up(credential)
            raise

    async def _issue(
        self,
        identity: Identity,
        peer: Peer,
        request: LeaseRequest,
        key: tuple[str, str, bytes],
        now: Instant,
        draw: float,
        decided: tuple[Policy, Terms],
        credential: Credential | None,
        *,
        ties: bool,
    ) -> Issued:
        policy, terms = decided
        if credential is not None:
            # Fetching took a while, in which anything may have changed.
            refuse_if_not_serving(self._books, self._world.centre, self._world.clock.now())
            policy, terms = self._decide(identity, peer, request, draw)
            if terms.scopes[0].key != credential.key:
                raise Refusal(
                    Reason.POLICY_DENIED,
                    "the policy changed while this lease was made; ask again",
                    retry_after_seconds=1.0,
                )
        name = self._issuing.new_name()
        lease = self._lease(name, identity, peer, request, policy, terms, now)
        refuse_if_blocked(self._books, lease)
        if credential is not None and credential.life_seconds is not None:
            lease = lease.within(credential.life_seconds, now)
        token, digest = self._issuing.new_token()
        if ties:
            lease = replace(lease, process=self._processes.tie(name, peer))
        self._books.put_lease(lease, digest)
        self._books.unborn.add(lease.name)
        record = self._issuing.remember_request(*key, lease)

        more = self._handing_out.recorded(credential, lease, key[1], now)

        def undo() -> None:
            self._handing_out.taken_back(lease.name)
            del self._books.requests[key[0], key[1]]
            self._books.forget_lease(lease.name)

        event = _event(EventType.LEASE_ACQUIRED, lease, key[1], now)
        changes = [PutLease(lease, digest), record, *more.changes]
        await unharmed(self._journal.grant([event, *more.events], changes, undo))
        # The token of a lease that is not brokered is shown to nobody: its calls do not come through here.
        return self._issuing.born(lease, token if credential is None else credential.secret)

    def _draw(self) -> float:
        return int.from_bytes(self._world.entropy.bytes(6), "big") / 2**48

    def _decide(self, identity: Identity, peer: Peer, request: LeaseRequest, draw: float) -> tuple[Policy, Terms]:
        policy = self._world.policies.current()
        terms = decide(policy, identity, request, self._keys.records(), peer.uid, draw)
        forbidden = self._world.policies.forbidden_by(identity, request, terms)
        if forbidden:
            raise Refusal(
                Reason.POLICY_DENIED,
                "a condition of the policy forbids this lease; ask the platform team",
                detail=f"conditions: {', '.join(forbidden)}",
            )
        if self._books.live_count(terms.grant.name, identity.subject) >= terms.grant.leases_max:
            raise Refusal(
                Reason.LEASE_COUNT_EXCEEDED,
                f"this subject holds {terms.grant.leases_max} live leases under grant {terms.grant.name!r}, "
                "its maximum; release one first",
                retry_after_seconds=1.0,
            )
        return policy, terms

    def _lease(
        self,
        name: str,
        identity: Identity,
        peer: Peer,
        request: LeaseRequest,
        policy: Policy,
        terms: Terms,
        now: Instant,
    ) -> Lease:
        life = max(terms.grant.life_seconds_max, terms.ttl_seconds)
        return Lease(
            name=name,
            parent="",
            root=name,
            depth=0,
            subject=identity.subject,
            scopes=terms.scopes,
            caps=terms.caps,
            carved=(False, False, False, False, False),
            mode=terms.mode,
            binding=peer.binding,
            create_wall_ms=now.wall_ms,
            ttl_seconds=terms.ttl_seconds,
            expire_ns=now.after(terms.ttl_seconds),
            expire_wall_ms=now.wall_ms + terms.ttl_seconds * 1000,
            max_expire_ns=now.after(life),
            max_expire_wall_ms=now.wall_ms + life * 1000,
            grant=terms.grant.name,
            policy_version=policy.version,
            revocation_epoch=self._books.epoch,
            purpose=request.purpose,
            labels=request.labels,
        )


def _event(kind: EventType, lease: Lease, request_id: str, now: Instant) -> Event:
    return Event(
        kind,
        now.wall_ms,
        Outcome.ALLOWED,
        subject=lease.subject,
        lease=lease.name,
        request_id=request_id,
        details=lease_details(lease),
    )


def lease_details(lease: Lease) -> dict[str, Detail]:
    """What an event says of a new lease."""
    scopes: list[Detail] = [
        {
            "provider": scope.provider,
            "key": scope.key,
            "models": list(scope.models),
            "operations": list(scope.operations),
            "tools": list(scope.tools),
            "max_output_tokens_per_request": scope.max_output_tokens_per_request,
        }
        for scope in lease.scopes
    ]
    return {
        "grant": lease.grant,
        "policy_version": lease.policy_version,
        "mode": lease.mode.value,
        "binding": lease.binding,
        "ttl_seconds": lease.ttl_seconds,
        "expire_wall_ms": lease.expire_wall_ms,
        "max_expire_wall_ms": lease.max_expire_wall_ms,
        "revocation_epoch": lease.revocation_epoch,
        "caps": cap_details(lease.caps),
        "scopes": scopes,
        "parent": lease.parent,
        "end_with_process": bool(lease.process),
        "purpose": lease.purpose,
        "labels": dict(lease.labels),
    }
