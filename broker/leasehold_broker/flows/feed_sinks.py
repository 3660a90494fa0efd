"""Feed the log to sinks. Owns each one's cursor, pace and lag, and what a required sink that lags does to the log.

The log is the queue: a sink has a position of its own, kept with the log, and a task of its own. One that is stuck or
slow holds up nobody else and loses nothing. A batch is sent again until it is taken, so a sink may see it twice;
position and digest tell.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.event_sink import EventSink, SinkFailedError
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.sink_cursors import SinkCursors

BATCH_RECORDS_MAX = 200
RETRY_FIRST_SECONDS = 0.5
RETRY_SECONDS_MAX = 60.0
GATHER_SECONDS = 0.1
"""How long a batch that is not full may wait for more."""


@dataclass(frozen=True, slots=True)
class SinkRule:
    """How one sink is fed.

    Args:
        name: of the sink, which is the name of its cursor.
        required: when it lags too far, the collector takes no more events.
        lag_records_max: how far it may lag before that.
        types: only events whose type begins with one of these; empty: all.
        from_start: a sink that was never fed begins with the oldest event; else with what comes next.
        retry_first_seconds: wait after the first failure; doubles, up to RETRY_SECONDS_MAX.
    """

    name: str
    required: bool
    lag_records_max: int
    types: tuple[str, ...] = ()
    from_start: bool = False
    retry_first_seconds: float = RETRY_FIRST_SECONDS


@dataclass(slots=True)
class SinkState:
    """Where one sink stands: for metrics and for the log's own decision."""

    position: int = 0
    delivered: int = 0
    hash_only: int = 0
    failures: int = 0
    failing: str = ""


class FeedSink:
    """Feeds one sink."""

    def __init__(
        self,
        rule: SinkRule,
        sink: EventSink,
        store: EventStore,
        cursors: SinkCursors,
        told: Callable[[str, str], None] = lambda _name, _why: None,
    ) -> None:
        """Feed this sink from this log; `start` comes first.

        Args:
            rule: how.
            sink: what.
            store: the log.
            cursors: of all sinks.
            told: the sink's name and why it fails, when it begins to; and "" when it takes events again.
        """
        self._told = told
        self.rule = rule
        self.state = SinkState()
        self._sink = sink
        self._store = store
        self._cursors = cursors

    def lag_records(self) -> int:
        """Records that it does not have yet."""
        return self._store.last_position() - self.state.position

    async def start(self) -> None:
        """Take up where it was.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        known = await self._cursors.cursor(self.rule.name)
        if known is None:
            known = 0 if self.rule.from_start else self._store.last_position()
            await self._cursors.move_cursor(self.rule.name, known)
        # An older copy of the store may be behind what the sink had: it begins at the end of the log, not beyond.
        self.state.position = min(known, self._store.last_position())

    async def run(self) -> None:
        """Feed until cancelled. A failure is waited out; only a defect of ours ends this, and shows as one."""
        attempt = 0
        while True:
            try:
                await self._store.wait_for_more(self.state.position)
                full = await self._step()
            except (SinkFailedError, Refusal) as failure:
                self._fails(str(failure) or type(failure).__name__)
                wait = min(RETRY_SECONDS_MAX, self.rule.retry_first_seconds * 2.0 ** min(attempt, 30))
                attempt += 1
                await asyncio.sleep(wait)
                continue
            except Exception as defect:
                # Ours to mend, and tried again by whoever keeps this running; until then the metric must not say that
                # all is well.
                self._fails(type(defect).__name__)
                raise
            attempt = 0
            if self.state.failing:
                self._told(self.rule.name, "")
            self.state.failing = ""
            if not full:
                await asyncio.sleep(GATHER_SECONDS)

    def _fails(self, why: str) -> None:
        self.state.failures += 1
        if not self.state.failing:
            self._told(self.rule.name, why)
        self.state.failing = why

    async def follow(self, seconds: float) -> None:
        """Know how far another replica has fed this sink, for as long as it is not cancelled.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        while True:
            known = await self._cursors.cursor(self.rule.name)
            self.state.position = max(self.state.position, known or 0)
            await asyncio.sleep(seconds)

    async def _step(self) -> bool:
        """One page to the sink, and the cursor after it. True when there may be more at once."""
        page = await self._store.page(EventFilter(), self.state.position, BATCH_RECORDS_MAX)
        if not page:
            return False
        wanted = [stored for stored in page if stored.record.body and self._wanted(stored)]
        if wanted:
            await self._sink.deliver(wanted)
        await self._cursors.move_cursor(self.rule.name, page[-1].position)
        self.state.position = page[-1].position
        self.state.delivered += len(wanted)
        self.state.hash_only += sum(not stored.record.body for stored in page)
        return len(page) == BATCH_RECORDS_MAX

    def _wanted(self, stored: StoredRecord) -> bool:
        return not self.rule.types or stored.type.startswith(self.rule.types)


class RequiredSinks:
    """What the log asks before it takes events: whether every required sink keeps up."""

    def __init__(self, feeds: Sequence[FeedSink]) -> None:
        """Of these."""
        self._feeds = tuple(feed for feed in feeds if feed.rule.required)

    def check(self) -> None:
        """Go on when each keeps up.

        Raises:
            Refusal: AUDIT_SINK_BEHIND; names the sink.
        """
        for feed in self._feeds:
            lag = feed.lag_records()
            if lag > feed.rule.lag_records_max:
                raise Refusal(
                    Reason.AUDIT_SINK_BEHIND,
                    f"the required sink {feed.rule.name!r} lacks {lag} events, more than {feed.rule.lag_records_max}; "
                    "events are kept where they are until it has caught up, ask the operators of the collector",
                    detail=feed.state.failing,
                    retry_after_seconds=1.0,
                )
