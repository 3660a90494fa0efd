"""Drop what is older than the log keeps. Owns the age, and what must have happened before a body may go.

A body goes only after a published checkpoint covers its record and every required sink has it. Its digest and its
place stay, so chain, root and proofs stay what they were. When the wall clock has jumped since the start, nothing is
dropped: a clock set ahead must not empty the log.
"""

from collections.abc import Callable, Sequence

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.flows.feed_sinks import FeedSink
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.event_store import EventStore

CHUNK_RECORDS = 2000
DAY_MS = 24 * 3600 * 1000
CLOCK_JUMP_MS_MAX = 3600 * 1000


class Retain:
    """Keeps the log's content for so many days."""

    def __init__(
        self,
        store: EventStore,
        events: EventLog,
        clock: Clock,
        published: PublishCheckpoint,
        feeds: Sequence[FeedSink],
        clock_jumped: Callable[[int], None],
    ) -> None:
        """Keep this log; `clock_jumped` is told by how many milliseconds, when nothing is dropped because of it."""
        self._store = store
        self._events = events
        self._clock = clock
        self._published = published
        self._required = [feed for feed in feeds if feed.rule.required]
        self._clock_jumped = clock_jumped
        self._started = clock.now()
        self.dropped = 0

    async def run(self, days: int) -> int:
        """Drop what is older than `days`. Returns how many bodies.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        now = self._clock.now()
        elapsed_ms = (now.boot_ns - self._started.boot_ns) // 1_000_000
        jump_ms = now.wall_ms - self._started.wall_ms - elapsed_ms
        if abs(jump_ms) > CLOCK_JUMP_MS_MAX:
            self._clock_jumped(jump_ms)
            return 0
        covered = 0 if self._published.newest is None else self._published.newest.head.size
        until = min([covered, *(feed.state.position for feed in self._required)])
        total = 0
        while True:
            dropped = await self._store.drop_bodies(now.wall_ms - days * DAY_MS, until, CHUNK_RECORDS)
            total += dropped
            if dropped < CHUNK_RECORDS:
                break
        if total:
            self.dropped += total
            details = {"count": total, "days": days}
            await self._events.record(
                Event(EventType.AUDIT_BODIES_DROPPED, now.wall_ms, Outcome.ALLOWED, details=details)
            )
        return total
