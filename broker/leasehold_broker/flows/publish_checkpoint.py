"""Publish signed heads of the log. Owns the check that comes first: what is signed is what was accepted.

The writer hashes what it accepts, in memory. Here new records are read back after their sync, hashed anew from their
bodies up, and both roots must agree before one is signed. So each head continues the one before (A5), and a batch or a
second costs one signature.

When more has come at once than is worth reading back, what this very process placed is taken from its memory, turn by
turn, each of which must begin at the head that was checked so far; only what others placed in between is read back,
and the tree that the store keeps must come to the same root. A store that gives back something else later contradicts
what was signed, and every reader of it can show that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from leasehold_broker.domain.audit_link import digests_of, leaves_of
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead, checkpoint_text
from leasehold_broker.domain.merkle import Frontier, peaks, root_of
from leasehold_broker.ports.checkpoint_signer import CheckpointSigner
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.tree_log import TreeLog

PAGE_RECORDS = 1000
READ_BACK_RECORDS_MAX = 5000
"""Of one checkpoint, that are read back whoever placed them: a twentieth of a core when there is one each second."""


class LogDamagedError(RuntimeError):
    """The log's disk contradicts what was accepted or published. Nothing may be signed; the operators must look."""


class PublishCheckpoint:
    """Signs the log as it grows."""

    def __init__(
        self,
        store: EventStore,
        tree: TreeLog,
        signer: CheckpointSigner,
        clock: Clock,
        copy: Callable[[bytes], Awaitable[str]],
    ) -> None:
        """Sign this log; `start` comes first.

        Args:
            store: the records.
            tree: over the same records.
            signer: with the log's key.
            clock: for the label.
            copy: puts a note where it can be had without the log, and says why it could not ("": it could); within
                bounded time.
        """
        self._store = store
        self._tree = tree
        self._signer = signer
        self._clock = clock
        self._copy = copy
        self._frontier = Frontier()
        self._turn = asyncio.Lock()
        self.newest: SignedCheckpoint | None = None
        self.published = 0
        self.remembered = 0
        self.copy_failing = ""
        """Why the last note was not copied."""

    async def start(self, kept: TreeHead | None) -> None:
        """Take up where the last life ended.

        Args:
            kept: the head that was copied elsewhere, when there is one.

        Raises:
            LogDamagedError: the log does not continue a head that was published: it was altered, or is an older copy.
            Refusal: STORE_UNAVAILABLE.
        """
        async with self._turn:
            self.newest = await self._tree.newest_checkpoint()
            self._frontier = Frontier()
            if self.newest is not None:
                await self._must_continue(self.newest.head, "the store's own last checkpoint")
                await self._resume(self.newest.head.size)
            if kept is not None:
                await self._must_continue(kept, "the copy of a checkpoint")

    async def run(self, seconds: float) -> None:
        """Publish at most every `seconds`, for as long as it is not cancelled.

        Raises:
            LogDamagedError: see there.
            Refusal: STORE_UNAVAILABLE.
        """
        while True:
            await self._store.wait_for_more(self._frontier.size)
            await self.step()
            await asyncio.sleep(seconds)

    async def follow(self, seconds: float) -> None:
        """Know what another replica publishes, for as long as it is not cancelled.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        while True:
            newest = await self._tree.newest_checkpoint()
            if newest is not None and (self.newest is None or newest.head.size > self.newest.head.size):
                self.newest = newest
            await asyncio.sleep(seconds)

    async def step(self) -> None:
        """Check what is new and publish a head over it.

        Raises:
            LogDamagedError: what the disk gives back is not what was accepted.
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        async with self._turn:
            await self._step()

    async def _step(self) -> None:
        head = self._tree.tree_head()
        if head.size == 0 or (self.newest is not None and head.size <= self.newest.head.size):
            return
        if head.size - self._frontier.size > READ_BACK_RECORDS_MAX:
            await self._remember(head)
        await self._read_back(head.size)
        if self._frontier.root() != head.root:
            message = f"a record up to {head.size} reads back whole but is not the one that was accepted there"
            raise LogDamagedError(message)
        note = self._signer.sign(checkpoint_text(self._signer.origin, head))
        checkpoint = SignedCheckpoint(head, note, self._clock.now().wall_ms)
        await self._tree.keep_checkpoint(checkpoint)
        self.newest = checkpoint
        self.published += 1
        self.copy_failing = await self._copy(note)

    async def _remember(self, head: TreeHead) -> None:
        """Go on to this head, or near it, by what this process placed itself; between its turns by reading back."""
        while (turn := self._tree.placed_from(self._frontier.size)) is not None and turn.after.size <= head.size:
            await self._read_back(turn.before.size)
            if self._frontier.root() != turn.before.root:
                message = f"this process went on from another log of {turn.before.size} records than the one read back"
                raise LogDamagedError(message)
            self._frontier = Frontier(turn.after.size, turn.peaks)
            self.remembered += turn.after.size - turn.before.size
        if await self._tree.read_tree(lambda node: root_of(head.size, node)) != head.root:
            message = f"the tree that the log keeps has another root at {head.size} records than what was accepted"
            raise LogDamagedError(message)

    async def _read_back(self, size: int) -> None:
        while self._frontier.size < size:
            wanted = EventFilter(until_position=size)
            records = await self._store.page(wanted, self._frontier.size, PAGE_RECORDS)
            if not records:
                message = f"record {self._frontier.size + 1} was stored and cannot be read back"
                raise LogDamagedError(message)
            self._check(records)

    def _check(self, page: Sequence[StoredRecord]) -> None:
        records = [stored.record for stored in page]
        due = self._frontier.size + 1
        for position, (stored, digest) in enumerate(zip(page, digests_of(records), strict=True), due):
            if stored.position != position or digest != stored.record.digest:
                message = f"record {position} does not read back as it was accepted"
                raise LogDamagedError(message)
        self._frontier.append(leaves_of(records))

    async def _must_continue(self, head: TreeHead, what: str) -> None:
        here = self._store.last_position()
        if head.size > here:
            message = (
                f"{what} covers {head.size} records and this log has {here}: it is an older copy, or was cut; put the "
                "newest copy back"
            )
            raise LogDamagedError(message)
        if await self._tree.read_tree(lambda node: root_of(head.size, node)) != head.root:
            message = f"{what} has another root at {head.size} records: the log was altered before there"
            raise LogDamagedError(message)

    async def _resume(self, size: int) -> None:
        self._frontier = await self._tree.read_tree(lambda node: Frontier(size, [node(*peak) for peak in peaks(size)]))
