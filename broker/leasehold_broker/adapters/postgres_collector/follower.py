"""Follows the log's head, whoever moves it. Owns what this replica knows of it, and who waits for more.

A notification says that there is something; what there is, is read. Notifications that are lost, or a connection that
was away, cost at most `POLL_SECONDS`: the head is read again, and what has come since is read by its number (R5). Who
needs to know that nothing is missing, asks, and is told by the next reading that begins after it has asked (R3).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from leasehold_broker.adapters.log_rows import revocation
from leasehold_broker.adapters.postgres_collector import rows
from leasehold_broker.adapters.postgres_collector.connections import FAILURES, PostgresAt, let_go
from leasehold_broker.adapters.postgres_collector.turn import LogEnd
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.merkle import EMPTY_ROOT
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory

POLL_SECONDS = 0.5
RECENT_REVOCATIONS_MAX = 1024


class Follower:
    """What is known of the log's end, never falling."""

    def __init__(
        self, at: PostgresAt, pool: Any, channel: str, issued: Callable[[], None], fail: Callable[[str], None]
    ) -> None:
        """Follow; `start` comes first.

        Args:
            at: where.
            pool: to read with, one connection at a time.
            channel: on which replicas tell of commits.
            issued: told of each new revocation or change of a budget.
            fail: told when the log is not the one that was followed.
        """
        self._at = at
        self._pool = pool
        self._channel = channel
        self._told = [issued]
        self._confirmed = 0
        self._fail = fail
        self._lock = asyncio.Lock()
        self._grown = asyncio.Event()
        self._notified = asyncio.Event()
        self._waiting: dict[object, Callable[[], None]] = {}
        self._task: asyncio.Task[None] | None = None
        self.end = LogEnd(TreeHead(0, EMPTY_ROOT), 0, 0)
        self.recent: deque[Revocation] = deque(maxlen=RECENT_REVOCATIONS_MAX)
        self.history = RevocationHistory()

    def on_issued(self, told: Callable[[], None]) -> None:
        """Tell this one too of each new revocation or change of a budget."""
        self._told.append(told)

    def when_current(self, asker: object, told: Callable[[], None]) -> None:
        """Tell when the head was read, and that reading had not begun before this."""
        self._waiting[asker] = told
        self._notified.set()

    async def hear(self, entries: Sequence[Revocation]) -> None:
        """Believe what follows the last known revocation; when something is missing before it, read all of it (R5).

        Raises:
            asyncpg.PostgresError, OSError: not readable.
        """
        async with self._lock:
            for entry in entries:
                if entry.epoch == self.end.epoch + 1:
                    self._advance(LogEnd(self.end.head, entry.epoch, self.end.budget_change), (entry,))
            missed = entries[-1].epoch > self.end.epoch
        if missed:
            await self.refresh()

    async def start(self) -> None:
        """Know the head, then follow it.

        Raises:
            asyncpg.PostgresError, OSError: not readable.
        """
        await self.refresh()
        self._task = asyncio.create_task(self._run(), name="log-follower")

    async def close(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Read the head, and the revocations that came since."""
        async with self._lock:
            waiting, self._waiting = self._waiting, {}
            try:
                await self._read()
            except BaseException:
                self._waiting = waiting | self._waiting
                raise
            for told in waiting.values():
                told()

    async def _read(self) -> None:
        async with self._pool.acquire() as connection:
            known = self.end.head  # committed before this question: an answer behind it is of another history
            row = await connection.fetchrow(rows.HEAD)
            end = LogEnd(TreeHead(row["size"], row["root"]), row["epoch"], row["budget_change"])
            if end.head.size < known.size or (end.head.size == known.size and end.head.root != known.root):
                self._fail(
                    f"the database's log ends at {end.head.size} and this replica has seen {known.size} records: an "
                    "older copy was put in its place; stop every replica, and put the newest copy back"
                )
                return
            fresh: list[Revocation] = []
            confirmed = self._confirmed
            while confirmed < end.epoch:
                sql = f"{rows.REVOCATIONS} WHERE epoch > $1 AND epoch <= $2 ORDER BY epoch LIMIT $3"
                page = await connection.fetch(sql, confirmed, end.epoch, RECENT_REVOCATIONS_MAX)
                found = [revocation(one) for one in page]
                if not found or any(entry.epoch != due for due, entry in enumerate(found, confirmed + 1)):
                    self._fail(f"the database lacks a revocation after {confirmed}: it was altered")
                    return
                heard = {entry.epoch: entry for entry in self.recent}
                if any(heard.get(entry.epoch, entry) != entry for entry in found):
                    self._fail("a revocation was heard that is not the one in the log: somebody else writes to NATS")
                    return
                fresh += [entry for entry in found if entry.epoch > self.end.epoch]
                confirmed = found[-1].epoch
            self._confirmed = confirmed
            self._advance(end, fresh)

    async def advanced(self, end: LogEnd) -> None:
        """This replica has committed; what was issued is known before anybody is told that it is."""
        if (end.epoch, end.budget_change) != (self.end.epoch, self.end.budget_change):
            with contextlib.suppress(*FAILURES):  # it is committed; the follower reads it when it can
                await self.refresh()
        self._advance(LogEnd(end.head, self.end.epoch, self.end.budget_change), ())

    async def wait_for_more(self, position: int) -> None:
        """Return once the log is longer."""
        while self.end.head.size <= position:
            await self._grown.wait()

    def _advance(self, end: LogEnd, fresh: Sequence[Revocation]) -> None:
        known = self.end
        if fresh and (not self.recent or fresh[0].epoch == self.recent[-1].epoch + 1):
            self.recent.extend(fresh)
        self.history.extend(fresh)
        head = end.head if end.head.size > known.head.size else known.head
        self.end = LogEnd(head, max(end.epoch, known.epoch), max(end.budget_change, known.budget_change))
        if head is not known.head:
            grown, self._grown = self._grown, asyncio.Event()
            grown.set()
        if (self.end.epoch, self.end.budget_change) != (known.epoch, known.budget_change):
            for told in self._told:
                told()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(*FAILURES):
                connection = await asyncpg.connect(**self._at.settings())
                try:
                    await connection.add_listener(self._channel, self._on_notification)
                    while not connection.is_closed():
                        self._notified.clear()
                        await self.refresh()
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(POLL_SECONDS):
                                await self._notified.wait()
                finally:
                    await let_go(connection)
            await asyncio.sleep(POLL_SECONDS)

    def _on_notification(self, *_: object) -> None:
        self._notified.set()
