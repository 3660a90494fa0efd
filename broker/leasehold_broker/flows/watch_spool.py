"""Say that a sidecar's spool of events fills, while it can still be said. Owns when, once at its beginning and its end.

A full spool takes no event of a refusal, so the refusal itself would never be told. The event is essential: it goes
into the reserve beyond the limit, and is shipped as soon as anything is.
"""

import asyncio
from collections.abc import Callable

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock

LOOK_SECONDS = 1.0
FULL_PERCENT = 80
DRAINED_PERCENT = 40


class WatchSpool:
    """Looks once a second."""

    def __init__(self, journal: Journal, clock: Clock, spooled_bytes: Callable[[], int], bytes_max: int) -> None:
        """Watch a spool with this limit."""
        self._journal = journal
        self._clock = clock
        self._spooled_bytes = spooled_bytes
        self._bytes_max = bytes_max
        self._told = False

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Look once."""
        waiting = self._spooled_bytes()
        percent = 100 * waiting // self._bytes_max
        if not self._told and percent >= FULL_PERCENT:
            self._told = True
            message = (
                f"{waiting} of {self._bytes_max} bytes of events wait for the collector; at the limit, work is refused"
            )
            await self._say(EventType.AUDIT_SPOOL_FILLING, Outcome.FAILED, message)
        elif self._told and percent <= DRAINED_PERCENT:
            self._told = False
            await self._say(EventType.AUDIT_SPOOL_DRAINED, Outcome.ALLOWED, f"{waiting} bytes wait")

    async def _say(self, type_: EventType, outcome: Outcome, message: str) -> None:
        event = Event(type_, self._clock.now().wall_ms, outcome, details={"message": message})
        await self._journal.ending(Batch([event]))
