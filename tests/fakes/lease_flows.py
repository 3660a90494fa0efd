"""The flows of a lease, in memory: no policy, no budgets, no store; just leases by name and who holds them."""

# ruff: noqa: ARG002 - the flows' own signatures

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from leasehold.v1 import types_pb2
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.budget_usage import BudgetUsage
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease, LeaseState, make_token
from leasehold_broker.domain.policy import LeaseRequest
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.issued import Issued
from leasehold_broker.sidecar.lease_service import LeaseDoor

TTL_SECONDS = 600


def a_lease(name: str, identity: Identity, peer: Peer, request: LeaseRequest, now: Instant) -> Lease:
    """A lease as asked for."""
    ttl = request.ttl_seconds or TTL_SECONDS
    return Lease(
        name=name,
        parent="",
        root=name,
        depth=0,
        subject=identity.subject,
        scopes=tuple(replace(scope, key="key-a") for scope in request.scopes),
        caps=request.caps,
        carved=(False,) * 5,
        mode=request.mode,
        binding=peer.binding,
        create_wall_ms=now.wall_ms,
        ttl_seconds=ttl,
        expire_ns=now.after(ttl),
        expire_wall_ms=now.wall_ms + ttl * 1000,
        max_expire_ns=now.after(10 * ttl),
        max_expire_wall_ms=now.wall_ms + 10 * ttl * 1000,
        grant="grant-a",
        policy_version="v1",
        revocation_epoch=3,
        purpose=request.purpose,
        labels=request.labels,
    )


@dataclass
class MemoryLeases:
    """All five flows on one dictionary. `before` runs at the start of an acquire: to wait, or to fail."""

    clock: Any
    leases: dict[str, Lease] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    before: Callable[[], Any] | None = None
    watching: int = 0

    async def acquire(
        self,
        identity: Identity,
        peer: Peer,
        request: LeaseRequest,
        request_id: str,
        *,
        validate_only: bool,
        end_with_process: bool = False,
    ) -> Issued:
        """Grant everything."""
        if self.before is not None:
            await self.before()
        lease = a_lease(f"leases/{request_id}", identity, peer, request, self.clock.now())
        if validate_only:
            return Issued(lease, None)
        self.leases[lease.name] = lease
        return Issued(lease, make_token(secrets.token_bytes(32)))

    async def delegate(
        self,
        identity: Identity,
        peer: Peer,
        parent: str,
        request: LeaseRequest,
        request_id: str,
        binding: str | None,
    ) -> Issued:
        """Grant everything below a parent."""
        above = self.get(identity, peer, parent)
        child = a_lease(f"leases/{request_id}", identity, peer, request, self.clock.now())
        child = replace(
            child, parent=parent, root=above.root, depth=1, binding=binding or peer.binding, scopes=above.scopes
        )
        self.leases[child.name] = child
        return Issued(child, make_token(secrets.token_bytes(32)))

    async def renew(
        self,
        identity: Identity,
        peer: Peer,
        name: str,
        request_id: str,
        ttl_seconds: int | None,
        expected_renew_count: int | None,
    ) -> Lease:
        """Extend."""
        lease = self.get(identity, peer, name)
        if expected_renew_count is not None and expected_renew_count != lease.renew_count:
            raise Refusal(Reason.CONCURRENT_UPDATE, "renewed meanwhile", retry_after_seconds=0.1)
        return self._put(lease.renewed(ttl_seconds or lease.ttl_seconds, self.clock.now()))

    async def release(self, identity: Identity, peer: Peer, name: str) -> Lease:
        """End."""
        lease = self.get(identity, peer, name)
        return self._put(lease.end(LeaseState.RELEASED, Reason.LEASE_RELEASED, self.clock.now()))

    def get(self, identity: Identity, peer: Peer, name: str) -> Lease:
        """One."""
        lease = self.leases.get(name)
        if lease is None or not lease.subject.same_as(identity.subject) or not peer.satisfies(lease.binding):
            raise Refusal(Reason.LEASE_NOT_FOUND, "no such lease; acquire one")
        return lease

    def page(
        self, identity: Identity, peer: Peer, page_size: int, page_token: str, *, include_ended: bool
    ) -> tuple[list[Lease], str]:
        """A page by name."""
        names = sorted(name for name, lease in self.leases.items() if include_ended or not lease.ended)
        names = [name for name in names if name > page_token]
        page = names[:page_size]
        return [self.leases[name] for name in page], page[-1] if len(names) > page_size else ""

    async def watch(self, identity: Identity, peer: Peer, name: str) -> AsyncIterator[tuple[Lease, bool]]:
        """At once, then at each change."""
        self.watching += 1
        try:
            while True:
                self.changed.clear()
                lease = self.get(identity, peer, name)
                yield lease, lease.ended
                if lease.ended:
                    return
                await self.changed.wait()
        finally:
            self.watching -= 1
            self.changed.set()

    def usage(self, lease: Lease) -> tuple[BudgetUsage, ...]:
        """One row."""
        return (BudgetUsage("subject/day", Metric.REQUESTS, 10, 2, 1, 7, 1_800_000_000_500),)

    def door(self, entropy: Any) -> LeaseDoor:
        """The real door on these flows."""

        class Running:
            def __init__(self, run: Any) -> None:
                self.run = run

        flows: tuple[Any, ...] = tuple(Running(run) for run in (self.acquire, self.delegate, self.renew, self.release))
        reader: Any = self
        endpoints = [
            types_pb2.Endpoint(provider="anthropic", base_url="http://127.0.0.1:8100/anthropic"),
            types_pb2.Endpoint(provider="openai", base_url="http://127.0.0.1:8100/openai/v1"),
        ]
        return LeaseDoor(*flows, reader, self.clock, entropy, endpoints)

    def _put(self, lease: Lease) -> Lease:
        self.leases[lease.name] = lease
        self.changed.set()
        return lease
