"""What of the outbox is durable. Owns how far that reaches, the newest of it in memory, and who waits for more.

A link that keeps up is answered from here; one that lags reads the file.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice

from leasehold_broker.ports.outbox import PendingRecord

NEWEST_MAX = 1024
"""Durable records that are kept in memory for the link; it asks for more only when it lags behind."""


class DurableRecords:
    """By position, which has no gaps."""

    def __init__(self, position: int, *, shipped: bool) -> None:
        """Everything up to this position is on the disk; `shipped`: and was acknowledged, in an earlier life."""
        self._upto = position
        self.acknowledged = position if shipped else 0
        self._newest: deque[PendingRecord] = deque(maxlen=NEWEST_MAX)
        self._more = asyncio.Event()

    def add(self, records: Sequence[PendingRecord]) -> None:
        """These are durable now."""
        self._newest.extend(records)
        if records:
            self._upto = records[-1].position

    def wake(self) -> None:
        """Let those who wait look again."""
        self._more.set()

    def after(self, position: int, limit: int) -> Sequence[PendingRecord] | None:
        """The next ones behind this position; None where the file must be asked."""
        after = max(position, self.acknowledged)
        if after >= self._upto:
            return ()
        if not self._newest or after + 1 < self._newest[0].position:
            return None
        # Positions have no gaps: where one is in memory is known.
        start = after + 1 - self._newest[0].position
        return list(islice(self._newest, start, start + limit))

    async def wait_after(self, position: int) -> None:
        """Until there is one behind this position."""
        # A link that starts anew asks from 0: what is acknowledged must not look like more.
        while self._upto <= max(position, self.acknowledged):
            self._more.clear()
            await self._more.wait()
