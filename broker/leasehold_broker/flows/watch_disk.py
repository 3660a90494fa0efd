"""Look at the disk below the log. Owns when a disk that fills, and one that has room again, becomes an event.

The event is told once at each turn; whoever alerts follows the log. Memory only: after a restart, a disk that is full
still is told once more.
"""

import asyncio
from collections.abc import Callable

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.log_disk import DiskState, LogDisk

LOOK_SECONDS = 1.0


class WatchDisk:
    """Looks once a second."""

    def __init__(self, disk: LogDisk, events: EventLog, clock: Clock, show: Callable[[DiskState], None]) -> None:
        """Watch this disk; record into `events`; `show` is told of each turn at once, whatever can be recorded."""
        self._disk = disk
        self._events = events
        self._clock = clock
        self._show = show
        self._low = False

    async def run(self) -> None:
        """Look again and again, until something fails."""
        while True:
            await self.step()
            await asyncio.sleep(LOOK_SECONDS)

    async def step(self) -> None:
        """Look once.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED; what was to be told is told with the next look.
        """
        state = await self._disk.look()
        if state.low == self._low:
            return
        self._show(state)
        details: dict[str, Detail] = {"room_bytes": state.room_bytes, "reserve_bytes": state.reserve_bytes}
        type_, outcome = EventType.AUDIT_DISK_FREED, Outcome.ALLOWED
        if state.low:
            type_, outcome = EventType.AUDIT_DISK_LOW, Outcome.FAILED
            details["message"] = f"{state.room_bytes} bytes are left, and {state.reserve_bytes} for revocations"
        await self._events.record(Event(type_, self._clock.now().wall_ms, outcome, details=details))
        self._low = state.low
