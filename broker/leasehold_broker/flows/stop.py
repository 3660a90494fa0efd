"""Stop a sidecar gracefully: nothing new, open calls get their time and are then cut; all is settled and flushed."""

import asyncio
import contextlib

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock

CUT_GRACE_SECONDS = 2.0


class Stop:
    """Drains a sidecar."""

    def __init__(self, books: Books, journal: Journal, clock: Clock) -> None:
        """Drain these books."""
        self._books = books
        self._journal = journal
        self._clock = clock

    async def run(self, drain_seconds: float) -> None:
        """Refuse new work, wait up to `drain_seconds` for open calls, cut the rest, settle and record the stop."""
        self._books.draining = True
        await self._until_idle(drain_seconds)
        refusal = Refusal(Reason.DRAINING, "the sidecar is stopping; retry when it is back", retry_after_seconds=2.0)
        for call in tuple(self._books.calls.values()):
            if call.cut_by is None:
                call.cut_by = (CallEnd.CUT_BY_DRAIN, refusal)
                if call.cut is not None:
                    call.cut(*call.cut_by)
        await self._until_idle(CUT_GRACE_SECONDS)
        event = Event(
            EventType.SIDECAR_STOPPED,
            self._clock.now().wall_ms,
            Outcome.ALLOWED,
            details={"calls_left": len(self._books.calls)},
        )
        await self._journal.ending(Batch([event], []))
        await self._journal.drain()
        self._books.slices.stop()

    async def _until_idle(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._books.idle.wait()
