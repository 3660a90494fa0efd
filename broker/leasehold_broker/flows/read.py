"""Read leases: one, a page, a watch, and how their budgets stand. Changes nothing; a lease of another is not found."""

import asyncio
from collections.abc import AsyncIterator

from leasehold_broker.domain.budget_usage import BudgetUsage
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.budgets import Budgets
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.policy_source import PolicySource

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 500
WATCHERS_PER_LEASE_MAX = 16


class ReadLeases:
    """Answers questions about leases."""

    def __init__(self, books: Books, policies: PolicySource, clock: Clock) -> None:
        """Read from these books."""
        self._books = books
        self._policies = policies
        self._clock = clock
        self._budgets = Budgets(books)

    def get(self, identity: Identity, peer: Peer, name: str) -> Lease:
        """The lease.

        Raises:
            Refusal: LEASE_NOT_FOUND, also when it is another's.
        """
        return self._books.owned(identity, peer, name)

    def page(
        self, identity: Identity, peer: Peer, page_size: int, page_token: str, *, include_ended: bool
    ) -> tuple[list[Lease], str]:
        """One page of the caller's leases by name, and the token of the next page ("" at the end).

        Raises:
            Refusal: FIELD_INVALID for a negative size or a token that is not ours.
        """
        if page_size < 0:
            raise field_invalid("page_size", f"must not be negative, was {page_size}")
        size = min(page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        if page_token and not page_token.startswith("leases/"):
            raise field_invalid("page_token", "is not a token of this listing; start again without one")
        mine = sorted(
            name
            for name, lease in self._books.leases.items()
            if name > page_token
            and name not in self._books.unborn
            and lease.subject.same_as(identity.subject)
            and peer.satisfies(lease.binding)
            and (include_ended or not lease.ended)
        )
        page = mine[:size]
        return [self._books.leases[name] for name in page], page[-1] if len(mine) > size else ""

    def usage(self, lease: Lease) -> tuple[BudgetUsage, ...]:
        """How every capped budget that applies to the lease stands."""
        return self._budgets.rows(lease, self._policies.current(), self._clock.now())

    async def watch(self, identity: Identity, peer: Peer, name: str) -> AsyncIterator[tuple[Lease, bool]]:
        """The lease at once, then at each change, each time in full; True with the last one.

        Raises:
            Refusal: LEASE_NOT_FOUND, OVERLOADED (too many watchers of one lease).
        """
        lease = self._books.owned(identity, peer, name)
        watchers = self._books.watchers.setdefault(name, set())
        if len(watchers) >= WATCHERS_PER_LEASE_MAX:
            raise Refusal(
                Reason.OVERLOADED,
                f"{name} has {WATCHERS_PER_LEASE_MAX} watchers, its maximum; close one first",
                retry_after_seconds=1.0,
            )
        changed = asyncio.Event()
        watchers.add(changed)
        try:
            while True:
                changed.clear()
                lease = self._books.leases.get(name, lease)
                yield lease, lease.ended
                if lease.ended:
                    return
                await changed.wait()
        finally:
            watchers.discard(changed)
            if not watchers:
                self._books.watchers.pop(name, None)
