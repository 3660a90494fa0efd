"""A sidecar that runs alone ships its outbox into a log of its own, where it can be queried, tailed and exported."""

import asyncio

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.outbox import Outbox

BATCH_RECORDS_MAX = 500
GATHER_SECONDS = 0.05
"""How long the log may lag behind for the sake of fewer syncs."""
RETRY_SECONDS = 1.0


class ShipLocally:
    """Moves records from the outbox to the log; what is not in the log stays in the outbox."""

    def __init__(self, stream: str, outbox: Outbox, log: EventStore, clock: Clock) -> None:
        """Ship the sidecar's `stream`."""
        self._stream = stream
        self._outbox = outbox
        self._log = log
        self._clock = clock

    async def run(self) -> None:
        """Ship until cancelled; a log that cannot be written leaves the spool to fill, and is tried again."""
        position = 0
        while True:
            await self._outbox.wait_for_more(position)
            try:
                position = await self._batch(position)
            except Refusal:
                await asyncio.sleep(RETRY_SECONDS)
            else:
                await asyncio.sleep(GATHER_SECONDS)

    async def _batch(self, position: int) -> int:
        pending = await self._outbox.pending_after(position, BATCH_RECORDS_MAX)
        if not pending:
            return position
        records = [one.record for one in pending]
        await self._log.append(self._stream, records, self._clock.now().wall_ms)
        await self._outbox.acknowledge(pending[-1].position)
        return pending[-1].position
