"""Take what the stream keeps into the log, in its order; one replica does it at a time. Owns the pace, and what may go.

The place is kept in the log with the records, so what is read twice is taken in once, whoever does it; a replica that
was replaced while it was at it finds another place there, and nothing of its turn is kept.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence

from leasehold_broker.domain.time import NANOS
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.ingest_log import IngestLog, InspectedBatch
from leasehold_broker.ports.ingest_stream import IngestStream

HOLD_SECONDS = 120.0
"""For so long a batch stays in the stream after its commit: longer than any replica can take from finding no batch of a
sidecar to keeping one."""
FORGET_SECONDS = 10.0
INSPECTED_AT_ONCE = 8
"""Batches: some milliseconds."""


class CommitBatches:
    """Takes in, as long as it runs."""

    def __init__(
        self, kept: IngestStream, log: IngestLog, clock: Clock, took_in: Callable[[int, Collection[str]], None]
    ) -> None:
        """From this stream into this log; `took_in` is told how far, and who was put aside."""
        self._kept = kept
        self._log = log
        self._clock = clock
        self._took_in = took_in
        self.taken = 0

    async def run(self) -> None:
        """For ever.

        Raises:
            Refusal: STORE_UNAVAILABLE, or CONCURRENT_UPDATE when another replica does it as well.
        """
        at = (await self._log.ingest_state()).sequence
        held: deque[tuple[int, int]] = deque()
        forgot = self._clock.now().boot_ns
        reading = asyncio.ensure_future(self._read(at))
        try:
            while True:
                batches = await reading
                newest = batches[-1].kept.sequence if batches else at
                reading = asyncio.ensure_future(self._read(newest))
                if batches:
                    aside = await self._log.take_in(at, batches)
                    at = newest
                    self.taken += sum(len(batch.kept.records) for batch in batches)
                    self._took_in(at, aside)
                    held.append((at, self._clock.now().boot_ns))
                now = self._clock.now().boot_ns
                if now - forgot >= FORGET_SECONDS * NANOS:
                    forgot = now
                    await self._forget(held, now)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, after: int) -> Sequence[InspectedBatch]:
        """What follows, inspected while the turn before it is written, and not in one go: others are served as well."""
        inspected = []
        for number, batch in enumerate(await self._kept.read(after), 1):
            inspected.append(self._log.inspect(batch))
            if not number % INSPECTED_AT_ONCE:
                await asyncio.sleep(0)
        return inspected

    async def _forget(self, held: deque[tuple[int, int]], now: int) -> None:
        until = 0
        while held and now - held[0][1] >= HOLD_SECONDS * NANOS:
            until = held.popleft()[0]
        if until:
            await self._kept.forget(until)
