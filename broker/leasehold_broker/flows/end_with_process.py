"""Leases that end with the process that acquired them. Owns which lease waits for which process.

Closing the connection ends nothing; the end of the process does, whenever the connection was closed. After a restart
each such lease is tied to its process again, or ended: a lease whose process cannot be found is not left behind.
"""

from functools import partial

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.lease import LeaseState
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.ending import Endings
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.peer_processes import PeerProcesses, Watched


class EndWithProcess:
    """Ends leases when their process has ended."""

    def __init__(self, books: Books, journal: Journal, clock: Clock, processes: PeerProcesses) -> None:
        """Work on these books, told by these processes."""
        self._books = books
        self._journal = journal
        self._clock = clock
        self._processes = processes
        self._endings = Endings(books)
        self._watched: dict[str, Watched] = {}

    def __len__(self) -> int:
        """Leases that wait for a process."""
        return len(self._watched)

    def check(self, peer: Peer) -> None:
        """Whether a lease could be tied to this peer's process.

        Raises:
            Refusal: FIELD_INVALID, OVERLOADED.
        """
        self._processes.watch(peer, lambda: None).stop()

    def tie(self, name: str, peer: Peer) -> str:
        """Tie a lease that is about to be made; gives what the lease keeps of the process (`Lease.process`).

        Raises:
            Refusal: FIELD_INVALID, OVERLOADED.
        """
        watched = self._processes.watch(peer, partial(self._ended, name))
        self._watched[name] = watched
        return watched.mark

    async def resume(self) -> int:
        """Tie the leases of an earlier life again; call after recovery, before anything is served.

        Returns:
            How many leases were ended because their process is gone or cannot be told from another.
        """
        batch, ended = Batch(), 0
        for lease in tuple(self._books.leases.values()):
            if lease.ended or not lease.process:
                continue
            watched = self._processes.watch_again(lease.process, partial(self._ended, lease.name))
            if watched is not None:
                self._watched[lease.name] = watched
            else:
                part, count = self._end(lease.name)
                batch.add(part)
                ended += count
        await self._journal.ending(batch)
        return ended

    def tidy(self) -> None:
        """Let go of the processes of leases that have ended otherwise, or were never made."""
        for name, watched in tuple(self._watched.items()):
            lease = self._books.leases.get(name)
            if lease is None or lease.ended:
                del self._watched[name]
                watched.stop()

    def _ended(self, name: str) -> None:
        del self._watched[name]
        batch, _ = self._end(name)
        self._journal.in_background(self._journal.ending(batch))

    def _end(self, name: str) -> tuple[Batch, int]:
        batch, ended, _ = self._endings.end(name, LeaseState.RELEASED, Reason.PROCESS_ENDED, self._clock.now())
        return batch, ended
