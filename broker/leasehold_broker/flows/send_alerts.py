"""Tell humans what the log holds. Owns each endpoint's place, its pace, and that one trouble is told once in a window.

The log is the queue, as it is for sinks: each endpoint has its own place in it and its own task, so one that is away
holds up no other and loses nothing. What was told lately is remembered together with the place, so a restart neither
repeats nor forgets.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leasehold_broker.domain.alert_rules import Severity
from leasehold_broker.domain.alerts import Alert, Open, Quiet, alert_of, over_with_its_reporter
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.alert_endpoint import AlertEndpoint, AlertNotSentError, AlertRejectedError
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.log_followers import LogFollowers, Remembered

PAGE_RECORDS = 200
ENDPOINT_PREFIX = "alerts/"
RETRY_FIRST_SECONDS = 0.5
RETRY_SECONDS_MAX = 60.0
GATHER_SECONDS = 0.05
_GONE = {EventType.SIDECAR_BANNED, EventType.SIDECAR_EVICTED}
"""After these a sidecar reports nothing any more."""
PLACE_EVERY_RECORDS = 5000
"""How much of the log without an alert may be read again after a crash."""

ReadEvent = Callable[[bytes], Event]
"""The event in a canonical body; ValueError for none."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """How one endpoint is told.

    Args:
        name: of the endpoint.
        severity_min: nothing less urgent; what ends a trouble that was told is told all the same.
        types: only events whose type begins with one of these; empty: all that alert.
        window_seconds: the same trouble is told once in this time.
        retry_first_seconds: wait after the first failure; doubles, up to RETRY_SECONDS_MAX.
    """

    name: str
    severity_min: Severity = Severity.WARNING
    types: tuple[str, ...] = ()
    window_seconds: int = 3600
    retry_first_seconds: float = RETRY_FIRST_SECONDS


@dataclass(slots=True)
class EndpointState:
    """Where one endpoint stands, for metrics and for whoever watches it."""

    position: int = 0
    sent: int = 0
    held_back: int = 0
    rejected: int = 0
    failures: int = 0
    failing: str = ""


class SendAlerts:
    """Tells one endpoint."""

    def __init__(
        self,
        rule: AlertRule,
        endpoint: AlertEndpoint,
        store: EventStore,
        followers: LogFollowers,
        read: ReadEvent,
    ) -> None:
        """Tell this endpoint of this log; `start` comes first."""
        self.rule = rule
        self.state = EndpointState()
        self._endpoint = endpoint
        self._store = store
        self._followers = followers
        self._read = read
        self._name = ENDPOINT_PREFIX + rule.name
        self._quiet = Quiet(rule.window_seconds * 1000)
        self._unwritten: dict[str, Open | None] = {}
        self._written = 0

    def lag_records(self) -> int:
        """Records that it has not looked at yet."""
        return self._store.last_position() - self.state.position

    async def start(self) -> None:
        """Take up where it was; one that was never told begins with what comes next.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        known = await self._followers.follower(self._name)
        if known is None:
            await self._followers.advance(self._name, self._store.last_position(), {})
            known = await self._followers.follower(self._name)
        if known is None:
            return
        self._written = known.position
        self.state.position = min(known.position, self._store.last_position())
        memory = {key: _opened(row) for key, row in known.memory.items()}
        self._quiet = Quiet(self.rule.window_seconds * 1000, memory)

    async def run(self) -> None:
        """Tell until cancelled. An endpoint that fails is waited for; it never ends this."""
        attempt = 0
        while True:
            try:
                await self._store.wait_for_more(self.state.position)
                full = await self.step()
            except (AlertNotSentError, Refusal) as failure:
                self.state.failures += 1
                self.state.failing = str(failure) or type(failure).__name__
                wait = self.rule.retry_first_seconds * 2.0 ** min(attempt, 30)
                asked = failure.retry_after_seconds or 0.0
                attempt += 1
                await asyncio.sleep(min(RETRY_SECONDS_MAX, max(wait, asked)))
                if isinstance(failure, Refusal) and failure.reason is Reason.CONCURRENT_UPDATE:
                    await self._again()
                continue
            attempt = 0
            self.state.failing = ""
            if not full:
                await asyncio.sleep(GATHER_SECONDS)

    async def _again(self) -> None:
        """Another replica has told what was to be told here: go on from its place."""
        with contextlib.suppress(Refusal):
            self._unwritten.clear()
            await self.start()

    async def step(self) -> bool:
        """Look at one page. True when there may be more at once.

        Raises:
            AlertNotSentError: the place has not moved beyond what was sent.
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        page = await self._store.page(EventFilter(), self.state.position, PAGE_RECORDS)
        for stored in page:
            alerts = self._alerts(stored)
            if alerts:
                self.state.position = stored.position - 1  # what comes before it is not looked at again
            for alert in alerts:
                await self._tell(alert, stored, last=alert is alerts[-1])
        if page:
            if page[-1].position - self._written >= PLACE_EVERY_RECORDS or self._unwritten:
                await self._note(page[-1].position, ())
            self.state.position = page[-1].position
        return len(page) == PAGE_RECORDS

    def _alerts(self, stored: StoredRecord) -> list[Alert]:
        record = stored.record
        gone = stored.type in _GONE
        if not record.body or not (gone or self._wanted(stored.type)):
            return []
        try:
            event = self._read(record.body)
        except ValueError:
            return []  # of a newer version than ours
        place = f"{record.stream}/{record.epoch}/{record.sequence}"
        if gone:
            sidecar = str(event.details.get("sidecar", ""))
            return [over_with_its_reporter(key, sidecar, event, place) for key in self._quiet.reported_by(sidecar)]
        alert = alert_of(event, record.stream, place)
        if alert is None or (not alert.resolves and alert.severity.rank < self.rule.severity_min.rank):
            return []
        return [alert]

    def _wanted(self, type_: str) -> bool:
        return not self.rule.types or type_.startswith(self.rule.types)

    async def _tell(self, alert: Alert, stored: StoredRecord, *, last: bool) -> None:
        """`last`: of this record; until then a crash begins with it again, and what is over by then is over."""
        told, changes = self._quiet.decide(alert, stored.receive_wall_ms)
        events: tuple[Event, ...] = ()
        if told is not None:
            try:
                await self._endpoint.send(told)
                self.state.sent += 1
            except AlertRejectedError as rejected:
                self.state.rejected += 1
                events = (_rejected(self.rule.name, told, str(rejected), stored.receive_wall_ms),)
        elif changes and not alert.resolves:
            self.state.held_back += 1
        self._unwritten |= self._quiet.remember(changes)
        if told is not None:
            await self._note(stored.position if last else stored.position - 1, events)
            self.state.position = self._written

    async def _note(self, position: int, events: tuple[Event, ...]) -> None:
        memory: dict[str, Remembered | None] = {
            key: None if opened is None else _row(opened) for key, opened in self._unwritten.items()
        }
        await self._followers.advance(self._name, position, memory, events, since=self._written)
        self._unwritten.clear()
        self._written = position


def _row(opened: Open) -> Remembered:
    reporters: list[Detail] = [*opened.reporters]
    return {"told_wall_ms": opened.told_wall_ms, "held_back": opened.held_back, "reporters": reporters}


def _opened(row: Remembered) -> Open:
    told, held_back, reporters = row.get("told_wall_ms"), row.get("held_back"), row.get("reporters")
    return Open(
        told if isinstance(told, int) else 0,
        held_back if isinstance(held_back, int) else 0,
        tuple(one for one in reporters if isinstance(one, str)) if isinstance(reporters, list) else (),
    )


def _rejected(endpoint: str, alert: Alert, why: str, wall_ms: int) -> Event:
    details: Mapping[str, Detail] = {"endpoint": endpoint, "alert": alert.key, "message": f"{endpoint}: {why}"}
    return Event(EventType.ALERT_REJECTED, wall_ms, Outcome.FAILED, details=details)
