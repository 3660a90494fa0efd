"""Forget what another replica has evicted. Owns when: not before this replica, too, counts on the sidecar's refusing.

The log says that something was evicted, which anybody's stream may claim; the register says whether it is known.
"""

import asyncio
from collections.abc import Callable

from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.events import Event, EventType
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.sidecar_register import SidecarRegister

FOLLOW_SECONDS = 1.0
"""Another replica forgets an evicted sidecar within this."""
PAGE_RECORDS = 100
_EVICTED = EventFilter(type=EventType.SIDECAR_EVICTED.value)


class FollowEvictions:
    """Of one replica's fleet."""

    def __init__(
        self, fleet: Fleet, register: SidecarRegister, log: EventStore, clock: Clock, read: Callable[[bytes], Event]
    ) -> None:
        """Begin at the log's end, as the fleet was restored from what was known there; `read` tells an event."""
        self._fleet = fleet
        self._register = register
        self._log = log
        self._clock = clock
        self._read = read
        self._position = log.last_position()
        self._named: set[str] = set()

    async def run(self) -> None:
        """Step after step, until cancelled; a database that is away is asked again."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                await self.step()
            except Refusal:
                continue

    async def step(self) -> None:
        """Read what was evicted since the last step, and forget what may be forgotten.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        end = self._log.last_position()
        while self._position < end:
            page = await self._log.page(_EVICTED, self._position, PAGE_RECORDS)
            for stored in page:
                self._name(stored.record.body)
            self._position = page[-1].position if page else end
        for name in tuple(self._named):
            member = self._fleet.members.get(name)
            if member is None or member.connected or await self._register.knows(name):
                self._named.discard(name)
            elif self._fleet.lapsed(member, self._clock.now()):
                self._named.discard(name)
                self._fleet.forget(name)

    def _name(self, body: bytes) -> None:
        try:
            name = self._read(body).details.get("sidecar")
        except ValueError:  # of a later version
            return
        if isinstance(name, str) and name in self._fleet.members:
            self._named.add(name)
