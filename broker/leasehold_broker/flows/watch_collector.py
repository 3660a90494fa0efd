"""Look at what the log cannot say by itself: sinks and endpoints that are stuck, revocations that do not arrive.

Owns when that becomes an event, once at its beginning and once at its end; whoever alerts follows the log. Memory only:
after a restart of the collector, what still lasts is told once more, after the same patience.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.revocation_progress import Behind
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.read_revocations import EPOCH_MAX, NAME_PREFIX
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.revocation_issuer import RevocationIssuer

LOOK_SECONDS = 1.0
REVOCATIONS_WATCHED = 100
"""The newest; older ones are complete, or their laggards refuse by themselves by now."""
NAMES_MAX = 10


@dataclass(frozen=True, slots=True)
class Watched:
    """Something that may be stuck: its name, and why it fails now ("" while it does not)."""

    name: str
    failing: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something may last before it is told.

    Args:
        stuck_seconds: a sink or endpoint that takes nothing.
        lagging_seconds: a revocation that a sidecar has not acknowledged.
    """

    stuck_seconds: float = 60.0
    lagging_seconds: float = 30.0


class WatchCollector:
    """Looks once a second."""

    def __init__(
        self,
        watched: Sequence[Watched],
        issuer: RevocationIssuer,
        events: EventLog,
        clock: Clock,
        patience: Patience | None = None,
    ) -> None:
        """Watch these; record into `events`."""
        self._watched = watched
        self._issuer = issuer
        self._events = events
        self._clock = clock
        self._patience = patience or Patience()
        self._since: dict[str, Instant] = {}
        self._told: set[str] = set()
        self._complete_to = 0
        self._pending: dict[int, Instant] = {}
        self._lagging: set[int] = set()

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
        now = self._clock.now()
        for watched in self._watched:
            await self._look_at(watched, now)
        await self._look_at_revocations(now)

    async def _look_at(self, watched: Watched, now: Instant) -> None:
        why, name = watched.failing(), watched.name
        if not why:
            self._since.pop(name, None)
            if name in self._told:
                await self._record(EventType.SINK_RECOVERED, now, Outcome.ALLOWED, {"sink": name})
                self._told.discard(name)
            return
        since = self._since.setdefault(name, now)
        if name not in self._told and now.boot_ns >= since.after(self._patience.stuck_seconds):
            message = f"{name}: {why}; for {self._patience.stuck_seconds:g} s or more"
            await self._record(EventType.SINK_FAILED, now, Outcome.FAILED, {"sink": name, "message": message})
            self._told.add(name)

    async def _look_at_revocations(self, now: Instant) -> None:
        newest = max(self._pending, default=self._complete_to)
        for entry in await self._issuer.page(EPOCH_MAX, REVOCATIONS_WATCHED):
            if entry.epoch <= self._complete_to:
                break
            self._pending.setdefault(entry.epoch, now)
            newest = max(newest, entry.epoch)
        if not self._pending:
            return
        # Asked once for all of them: entries are applied in order.
        behind = self._issuer.behind()
        complete_to = behind.complete_to(newest)
        for epoch in sorted(self._pending):
            if epoch <= complete_to:
                await self._complete(epoch, now)
            elif epoch not in self._lagging and now.boot_ns >= self._pending[epoch].after(
                self._patience.lagging_seconds
            ):
                await self._lags(epoch, behind, now)
        self._complete_to = max(self._complete_to, complete_to)

    async def _complete(self, epoch: int, now: Instant) -> None:
        if epoch in self._lagging:
            await self._record(EventType.REVOCATION_COMPLETE, now, Outcome.ALLOWED, {"epoch": epoch})
            self._lagging.discard(epoch)
        del self._pending[epoch]

    async def _lags(self, epoch: int, behind: Behind, now: Instant) -> None:
        names = behind.names(epoch)
        shown = ", ".join(names[:NAMES_MAX]) + (", ..." if len(names) > NAMES_MAX else "")
        message = f"{len(names)} of {behind.known} sidecars have not acknowledged it: {shown}"
        details: dict[str, Detail] = {"epoch": epoch, "revocation": f"{NAME_PREFIX}{epoch}", "message": message}
        await self._record(EventType.REVOCATION_LAGGING, now, Outcome.FAILED, details)
        self._lagging.add(epoch)

    async def _record(self, type_: EventType, now: Instant, outcome: Outcome, details: dict[str, Detail]) -> None:
        await self._events.record(Event(type_, now.wall_ms, outcome, details=details))
