"""Release a lease: its holder is done with it. Quiet when it has ended already (a renewal may race a shutdown)."""

from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.lease import Lease, LeaseState
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Journal
from leasehold_broker.ports.clock import Clock


class ReleaseLease:
    """Ends leases at their holder's word."""

    def __init__(self, books: Books, journal: Journal, clock: Clock) -> None:
        """Work on these books."""
        self._books = books
        self._journal = journal
        self._clock = clock
        self._endings = Endings(books)

    async def run(self, identity: Identity, peer: Peer, name: str) -> Lease:
        """End the lease and all delegated from it; open calls are cut and settled.

        Raises:
            Refusal: LEASE_NOT_FOUND.
        """
        self._books.owned(identity, peer, name)
        batch, _, _ = self._endings.end(name, LeaseState.RELEASED, Reason.LEASE_RELEASED, self._clock.now())
        ended = self._books.leases[name]
        await self._journal.ending(batch)
        return ended
