"""How flows make their decisions durable. Owns what happens when the disk says no.

A grant (acquire, admit) that cannot be made durable is taken back in memory and refused. An ending (settle, revoke,
expire) has happened whatever the disk says: it is kept in a backlog and written, in order, as soon as the store
answers again; until then nothing new is granted. Killed before that, the open holds are charged at recovery.

What is free in memory by an ending that is not durable is doubtful: whoever starts from this disk may charge it. It may
be spent here, where it would be charged again, and is not to be given away.

Nothing here depends on the task that called: a caller that is cancelled while the disk writes changes neither what is
taken back nor what is kept.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from leasehold_broker.domain.amounts import ZERO, Amounts
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.ledger import AccountId
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.state_store import Change, PutHold, StateStore

BACKLOG_BATCHES_MAX = 256
"""Endings of the backlog that are written in one commit."""


@dataclass(slots=True)
class Batch:
    """Events and changes that belong together."""

    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    freed: dict[AccountId, Amounts] = field(default_factory=dict)
    """Of slices of fleet budgets, what the hold that ends leaves unspent."""

    def add(self, other: "Batch") -> None:
        """Append another batch."""
        self.events.extend(other.events)
        self.changes.extend(other.changes)
        for account, amounts in other.freed.items():
            self.freed[account] = self.freed.get(account, ZERO).plus(amounts)


def nothing_to_undo() -> None:
    """For grants that changed nothing in memory."""


class Journal:
    """The flows' way to the store."""

    def __init__(self, store: StateStore) -> None:
        """Write to this store."""
        self._store = store
        self._numbers = 0
        self._unwritten: dict[int, Batch] = {}
        """Endings that are not known to be durable, oldest first."""
        self._in_flight: set[asyncio.Future[None]] = set()
        self._failed = False
        self._undone = Batch()
        """Grants that failed since something was last written: a disk that has failed may have them all the same."""
        self._retrying: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    def __repr__(self) -> str:
        """Counts only."""
        return f"Journal(unwritten={len(self._unwritten)}, failed={self._failed}, unfinished={len(self._tasks)})"

    def grant(
        self, events: Sequence[Event], changes: Sequence[Change], undo: Callable[[], None] = nothing_to_undo
    ) -> asyncio.Future[None]:
        """Make a grant durable. Await it through `unharmed`, so that a cancelled caller does not cancel it.

        Args:
            events: to store.
            changes: to store with them.
            undo: called once if it does not become durable, before anyone who awaits learns of it.

        Raises (from the future):
            Refusal: AUDIT_SPOOL_FULL, STORE_UNAVAILABLE, OVERLOADED.
        """
        try:
            self.check()
            written = asyncio.ensure_future(self._store.commit(events, changes))
        except BaseException:
            undo()  # whatever went wrong: what memory holds was not written
            raise
        written.add_done_callback(lambda done: self._granted(changes, undo, done))
        return written

    def doubtful(self, account: AccountId) -> Amounts:
        """What is free in memory of this account, and may be charged by whoever starts from this disk."""
        found = self._undone.freed.get(account, ZERO)
        for batch in self._unwritten.values():
            found = found.plus(batch.freed.get(account, ZERO))
        return found

    def check(self) -> None:
        """Refuse while endings wait for the disk.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        if self._failed:
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the sidecar cannot write its state; it grants nothing until its disk answers again",
                retry_after_seconds=1.0,
            )

    async def ending(self, batch: Batch) -> bool:
        """Make an ending durable, now or later: never raises a refusal. The order of calls is kept.

        An empty batch waits for the endings before it.

        Returns:
            True when it, and every ending before it, is durable now.
        """
        if not batch.events and not batch.changes and not self._unwritten:
            return True
        written = self._enter(batch, deferred=False)
        if written is None:
            return await self.retry()
        try:
            await unharmed(written)
        except Refusal:
            return False
        return True

    def note(self, batch: Batch) -> None:
        """An ending that nobody waits for: it may share the sync of the next commit. `drain` waits for it."""
        if self._enter(batch, deferred=True) is None:
            self.in_background(self.retry())

    def _enter(self, batch: Batch, *, deferred: bool) -> asyncio.Future[None] | None:
        """Keep an ending until it is durable; None when it has to wait for the backlog."""
        self._numbers += 1
        number = self._numbers
        self._unwritten[number] = batch
        if self._failed:
            return None
        written = asyncio.ensure_future(
            self._store.commit(batch.events, batch.changes, essential=True, deferred=deferred)
        )
        self._in_flight.add(written)
        written.add_done_callback(lambda done: self._ended(number, done))
        return written

    async def retry(self) -> bool:
        """Write the backlog, oldest first. True when it is empty afterwards."""
        if not self._failed:
            return True
        if self._retrying is None:
            self._retrying = asyncio.get_running_loop().create_task(self._write_backlog())
            self._retrying.add_done_callback(self._retried)
        return await asyncio.shield(self._retrying)

    def in_background(self, work: Coroutine[None, None, object]) -> None:
        """Run an ending that nobody awaits; `drain` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for every ending under way, then try the backlog once more."""
        while self._tasks or self._in_flight:
            await asyncio.wait([*self._tasks] or [*self._in_flight])
            await asyncio.sleep(0)  # their callbacks run in the next turn
        await self.retry()

    def _granted(self, changes: Sequence[Change], undo: Callable[[], None], done: asyncio.Future[None]) -> None:
        if not _has_failed(done):
            self._undone.freed.clear()  # the store works: what has failed before was rolled back
            return
        for put in changes:
            if isinstance(put, PutHold):
                self._undone.add(Batch(freed={leg.account: put.hold.amounts for leg in put.hold.legs}))
        undo()

    def _ended(self, number: int, done: asyncio.Future[None]) -> None:
        self._in_flight.discard(done)
        if _has_failed(done):
            self._failed = True
        else:
            self._unwritten.pop(number, None)
            self._undone.freed.clear()

    def _retried(self, _: asyncio.Task[bool]) -> None:
        self._retrying = None

    async def _write_backlog(self) -> bool:
        # One writer, and only once every commit under way has told how it went: otherwise an ending could be written
        # twice, or an older snapshot over a newer one.
        while self._in_flight:
            await asyncio.wait(tuple(self._in_flight))
            await asyncio.sleep(0)
        while self._unwritten:
            numbers = tuple(self._unwritten)[:BACKLOG_BATCHES_MAX]
            together = Batch()
            for number in numbers:
                together.add(self._unwritten[number])
            try:
                await self._store.commit(together.events, together.changes, essential=True)
            except Refusal:
                return False
            for number in numbers:
                del self._unwritten[number]
            self._undone.freed.clear()
        self._failed = False
        return True


def _has_failed(done: asyncio.Future[None]) -> bool:
    return done.cancelled() or done.exception() is not None


def unharmed(written: asyncio.Future[None]) -> asyncio.Future[None]:
    """What tells how `written` went, and may be cancelled without harm to it; `asyncio.shield` costs three times it."""
    waiter: asyncio.Future[None] = written.get_loop().create_future()

    def tell(done: asyncio.Future[None]) -> None:
        failure = None if done.cancelled() else done.exception()
        if waiter.done():
            return
        if done.cancelled():
            waiter.cancel()
        elif failure is not None:
            waiter.set_exception(failure)
        else:
            waiter.set_result(None)

    written.add_done_callback(tell)
    return waiter
