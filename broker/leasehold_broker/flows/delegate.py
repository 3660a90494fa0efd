"""Delegate a lease: a child whose scope, caps and life only narrow, and that dies with its parent.

A cap that the child states is carved out of the parent at once (a hold at the parent and above), so that the child's
money is really there; what it did not spend flows back when it ends. Metrics without a stated cap are drawn from the
parent call by call. Concurrency is never carved.
"""

import asyncio
from dataclasses import replace

from leasehold_broker.domain.amounts import UNLIMITED, ZERO, Amounts, Mask
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease, Mode
from leasehold_broker.domain.ledger import Hold, Shortfall
from leasehold_broker.domain.policy import LeaseRequest, Policy, caps_under
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope, narrow
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.acquire import lease_details
from leasehold_broker.flows.amount_details import amount_details, leg_details
from leasehold_broker.flows.books import DEPTH_MAX, Books
from leasehold_broker.flows.budgets import Budgets
from leasehold_broker.flows.ending import Endings, carve_hold
from leasehold_broker.flows.issued import Issued
from leasehold_broker.flows.issuing import Issuing, World, fingerprint, refuse_if_blocked, refuse_if_not_serving
from leasehold_broker.flows.journal import Journal
from leasehold_broker.flows.window_wait import Drawn
from leasehold_broker.ports.state_store import Change, PutHold, PutLease


class DelegateLease:
    """Grants leases out of leases."""

    def __init__(self, books: Books, journal: Journal, world: World) -> None:
        """Work on these books, with these surroundings."""
        self._books = books
        self._journal = journal
        self._world = world
        self._issuing = Issuing(books, journal, world)
        self._budgets = Budgets(books)
        self._endings = Endings(books)

    async def run(
        self,
        identity: Identity,
        peer: Peer,
        parent: str,
        request: LeaseRequest,
        request_id: str,
        binding: str | None,
    ) -> Issued:
        """Make the child.

        Args:
            identity: the verified caller; must hold the parent.
            peer: the caller's own peer.
            parent: name of the parent lease.
            request: no scopes: the parent's.
            request_id: UUID; the same one gives the same child.
            binding: the peer that may use the child's token; None: the caller's own.

        Raises:
            Refusal: LEASE_NOT_FOUND, POLICY_DENIED (depth), SCOPE_EXCEEDED, MODEL_NOT_ALLOWED, BUDGET_EXHAUSTED and
                what acquire raises.
        """
        now = self._world.clock.now()
        refuse_if_not_serving(self._books, self._world.centre, now)
        self._books.owned(identity, peer, parent)
        bound_to = binding or peer.binding
        scope = f"delegate|{identity.subject.issuer}|{identity.subject.subject}"
        asked = fingerprint(request, parent, bound_to)
        return await self._issuing.once(
            scope,
            request_id,
            asked,
            identity,
            peer,
            lambda: self._grant(parent, request, (scope, request_id, asked), peer, bound_to, now),
        )

    async def _grant(
        self,
        parent_name: str,
        request: LeaseRequest,
        key: tuple[str, str, bytes],
        peer: Peer,
        binding: str,
        now: Instant,
    ) -> Issued:
        parent = self._books.leases[parent_name]
        dead = parent.dead_reason(now)
        if dead is not None:
            raise dead
        if parent.mode is not Mode.BROKERED:
            raise Refusal(
                Reason.DISCLOSURE_NOT_ALLOWED,
                f"{parent.name} hands out a credential (mode {parent.mode}), and has no part to delegate; "
                "acquire a brokered lease to delegate from",
            )
        self._journal.check()
        policy = self._world.policies.current()
        self._check_depth(parent, policy)
        _check_uids(parent, policy, peer, binding)
        self._check_count(parent, policy)
        child, carved = self._child(parent, request, binding, policy, now)
        refuse_if_blocked(self._books, child)
        hold = self._carve(parent, child, carved, now)
        token, digest = self._issuing.new_token()
        self._books.put_lease(child, digest)
        self._books.unborn.add(child.name)
        record = self._issuing.remember_request(*key, child)
        changes: list[Change] = [PutLease(child, digest), record]
        if hold is not None:
            changes.append(PutHold(hold, child.name, carve=True))

        def undo() -> None:
            del self._books.requests[key[0], key[1]]
            self._books.forget_lease(child.name)
            if hold is not None:
                self._books.ledger.void(hold.id)
                # The parent may have ended meanwhile, and only waited for this carve to give its own back.
                self._journal.in_background(self._give_back(parent.name, now))

        await asyncio.shield(self._journal.grant([_event(child, hold, key[1], now)], changes, undo))
        return self._issuing.born(child, token)

    async def _give_back(self, parent: str, now: Instant) -> None:
        await self._journal.ending(self._endings.give_back(parent, now))

    def _check_depth(self, parent: Lease, policy: Policy) -> None:
        grant = policy.grant(parent.grant)
        depth_max = min(DEPTH_MAX, grant.delegation_depth_max if grant else 0)
        if parent.depth >= depth_max:
            raise Refusal(
                Reason.POLICY_DENIED,
                f"grant {parent.grant!r} allows delegation to a depth of {depth_max}; this lease is at {parent.depth}",
            )

    def _check_count(self, parent: Lease, policy: Policy) -> None:
        grant = policy.grant(parent.grant)
        if grant is not None and self._books.live_count(grant.name, parent.subject) >= grant.leases_max:
            raise Refusal(
                Reason.LEASE_COUNT_EXCEEDED,
                f"this subject holds {grant.leases_max} live leases under grant {grant.name!r}, delegated ones "
                "included, its maximum; release one first",
                retry_after_seconds=1.0,
            )

    def _child(
        self, parent: Lease, request: LeaseRequest, binding: str, policy: Policy, now: Instant
    ) -> tuple[Lease, Amounts]:
        if request.mode is not Mode.BROKERED:
            raise Refusal(Reason.DISCLOSURE_NOT_ALLOWED, "a delegated lease is always brokered; leave the mode out")
        caps = caps_under(request.caps, parent.caps)
        stated = Amounts(*(cap if cap < UNLIMITED else 0 for cap in request.caps))
        carved = stated._replace(concurrency=0)
        first, second, third, fourth, _ = (amount > 0 for amount in carved)
        mask: Mask = (first, second, third, fourth, False)
        # A stated cap of zero carves nothing, and pays for nothing.
        own_caps = Amounts(
            *(cap if asked < UNLIMITED else UNLIMITED for cap, asked in zip(caps, request.caps, strict=True))
        )
        ttl = request.ttl_seconds
        left = parent.max_expire_ns if ttl is None else now.after(ttl)
        if left > parent.expire_ns and ttl is not None:
            raise Refusal(
                Reason.SCOPE_EXCEEDED,
                f"ttl of {ttl} s is longer than the parent's {int(now.seconds_until(parent.expire_ns))} s left; "
                "ask for less",
            )
        expire_ns = min(left, parent.expire_ns)
        left_ms = (expire_ns - now.boot_ns) // 1_000_000
        name = self._issuing.new_name()
        child = replace(
            parent,
            name=name,
            parent=parent.name,
            root=parent.root,
            depth=parent.depth + 1,
            scopes=_narrowed(parent, request),
            caps=own_caps,
            carved=mask,
            binding=binding,
            create_wall_ms=now.wall_ms,
            ttl_seconds=max(1, left_ms // 1000),
            expire_ns=expire_ns,
            expire_wall_ms=now.wall_ms + left_ms,
            max_expire_ns=parent.max_expire_ns if ttl is None else expire_ns,
            max_expire_wall_ms=parent.max_expire_wall_ms if ttl is None else now.wall_ms + left_ms,
            policy_version=policy.version,
            revocation_epoch=self._books.epoch,
            renew_count=0,
            process="",
            purpose=request.purpose,
            labels=request.labels,
        )
        return child, carved

    def _carve(self, parent: Lease, child: Lease, carved: Amounts, now: Instant) -> Hold | None:
        if carved == ZERO:
            return None
        legs = self._budgets.legs_above(parent, child.carved, now)
        hold = self._books.ledger.reserve(carve_hold(child.name), legs, carved)
        if isinstance(hold, Shortfall):
            raise self._budgets.refusal(hold, tuple(Drawn(leg, "parent") for leg in legs), carved, now)
        return hold


def _check_uids(parent: Lease, policy: Policy, peer: Peer, binding: str) -> None:
    """The caller, and whoever the child is for, must be local users whom the grant names, where it names any."""
    grant = policy.grant(parent.grant)
    if grant is not None:
        grant.check_uid(peer.uid)
        if binding != peer.binding:
            kind, _, number = binding.partition(":")
            grant.check_uid(int(number) if kind == "uid" else None)


def _narrowed(parent: Lease, request: LeaseRequest) -> tuple[Scope, ...]:
    if not request.scopes:
        return parent.scopes
    found = []
    for wanted in request.scopes:
        ceiling = parent.scope_for(wanted.provider)
        if ceiling is None or wanted.key not in {"", ceiling.key}:
            raise Refusal(
                Reason.SCOPE_EXCEEDED,
                f"the parent lease does not reach {wanted.provider!r}; delegate of what it reaches",
            )
        found.append(narrow(wanted, ceiling))
    return tuple(found)


def _event(child: Lease, hold: Hold | None, request_id: str, now: Instant) -> Event:
    details = lease_details(child)
    if hold is not None:
        details["carve"] = hold.id
        details["carved"] = amount_details(hold.amounts)
        details["carved_from"] = leg_details(hold.legs)
    return Event(
        EventType.LEASE_DELEGATED,
        now.wall_ms,
        Outcome.ALLOWED,
        subject=child.subject,
        lease=child.name,
        request_id=request_id,
        details=details,
    )
