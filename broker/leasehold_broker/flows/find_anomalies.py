"""Follow the log, keep what is usual for each subject, and say what is not. Owns the findings and their exactness.

Baselines, findings and place in the log move in one transaction: a finding is recorded once, through any crash. The
baselines are bounded in number; the subject that was silent longest is forgotten first, and learned anew.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.baselines import AnomalyRules, Baseline, Finding, Unusual, from_row, to_row
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.flows.respond_to_findings import RespondToFindings
from leasehold_broker.ports.event_store import EventStore
from leasehold_broker.ports.log_followers import LogFollowers, Remembered

FOLLOWER = "anomalies"
PAGE_RECORDS = 500
SUBJECTS_MAX = 10_000
GATHER_SECONDS = 0.1
PLACE_EVERY_RECORDS = 5000
HONEYTOKENS_ONLY = EventFilter(type=EventType.FINDING_HONEYTOKEN.value)
_TYPES = {
    Unusual.SPEND_RATE: EventType.FINDING_SPEND_RATE,
    Unusual.REFUSALS: EventType.FINDING_REFUSALS,
    Unusual.NEW_ROUTE: EventType.FINDING_NEW_ROUTE,
    Unusual.ODD_HOUR: EventType.FINDING_ODD_HOUR,
}
_COUNTED = frozenset(
    {
        EventType.CALL_ADMITTED.value,
        EventType.CALL_SETTLED.value,
        EventType.CALL_REFUSED.value,
        EventType.LEASE_REFUSED.value,
        EventType.IDENTITY_REFUSED.value,
        EventType.FINDING_HONEYTOKEN.value,
    }
)


KEY_CHARACTERS_MAX = 512


@dataclass(slots=True)
class AnomalyState:
    """Numbers for the metrics."""

    position: int = 0
    findings: int = 0
    unreadable: int = 0


class FindAnomalies:
    """One follower of one log."""

    def __init__(
        self,
        store: EventStore,
        followers: LogFollowers,
        read: Callable[[bytes], Event],
        respond: RespondToFindings,
        rules: AnomalyRules | None,
    ) -> None:
        """Follow this log; `start` comes first.

        Args:
            store: the log.
            followers: where its followers are.
            read: the event in a canonical body; ValueError for none.
            respond: what is done about a finding.
            rules: thresholds; None: only honeytokens are looked for.
        """
        self.state = AnomalyState()
        self._store = store
        self._followers = followers
        self._read = read
        self.respond = respond
        self._rules = rules
        self._baselines: dict[str, Baseline] = {}
        self._changed: set[str] = set()
        self._written = 0

    @property
    def subjects(self) -> int:
        """How many have a baseline."""
        return len(self._baselines)

    async def start(self) -> None:
        """Take up where it was; a new one begins with what comes next.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        await self.respond.resume()
        known = await self._followers.follower(FOLLOWER)
        if known is None:
            self.state.position = self._written = self._store.last_position()
            await self._followers.advance(FOLLOWER, self.state.position, {})
            return
        self._written = known.position
        self.state.position = min(known.position, self._store.last_position())
        found: dict[str, Baseline] = {}
        for key, row in known.memory.items():
            try:
                found[key] = from_row(row)
            except ValueError:
                self.state.unreadable += 1  # learned anew
        self._baselines = dict(sorted(found.items(), key=lambda one: one[1].hour))

    async def run(self) -> None:
        """Follow, until something fails: whoever keeps this running tells it, and begins it anew."""
        while True:
            await self._store.wait_for_more(self.state.position)
            if not await self.step():
                await asyncio.sleep(GATHER_SECONDS)

    async def step(self) -> bool:
        """Look at one page. True when there may be more at once.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED; the page is looked at again, from the state before it.
        """
        wanted = HONEYTOKENS_ONLY if self._rules is None else EventFilter()
        until = self._store.last_position()
        page = await self._store.page(wanted, self.state.position, PAGE_RECORDS)
        position = page[-1].position if page else max(until, self.state.position)
        events: list[Event] = []
        try:
            for stored in page:
                if stored.type in _COUNTED and stored.record.body:
                    events += await self._look_at(stored)
            if events or self._changed or position - self._written >= PLACE_EVERY_RECORDS:
                await self._followers.advance(FOLLOWER, position, self._memory(), events, since=self._written)
                self._written = position
        except Exception:
            await self._forget()
            raise
        self._changed.clear()
        self.state.findings += len(events)
        self.state.position = position
        return len(page) == PAGE_RECORDS

    async def _look_at(self, stored: StoredRecord) -> list[Event]:
        try:
            event = self._read(stored.record.body)
        except ValueError:
            self.state.unreadable += 1
            return []
        if event.type is EventType.FINDING_HONEYTOKEN:
            return await self.respond.run("honeytoken", event, _place(stored), stored.receive_wall_ms)
        if event.subject is None or self._rules is None:
            return []
        baseline = self._baseline(event.subject)
        found = baseline.take(event, min(event.wall_ms, stored.receive_wall_ms), self._rules)
        events = []
        for finding in found:
            told = _finding_event(finding, event, stored)
            events += [told, *await self.respond.run(finding.what.value, told, _place(stored), stored.receive_wall_ms)]
        return events

    def _baseline(self, subject: Subject) -> Baseline:
        key = _key_of(subject)
        baseline = self._baselines.pop(key, None) or Baseline()
        self._baselines[key] = baseline  # the newest is the last
        self._changed.add(key)
        while len(self._baselines) > SUBJECTS_MAX:
            oldest = next(iter(self._baselines))
            del self._baselines[oldest]
            self._changed.add(oldest)
        return baseline

    def _memory(self) -> Mapping[str, Remembered | None]:
        return {key: to_row(self._baselines[key]) if key in self._baselines else None for key in self._changed}

    async def _forget(self) -> None:
        """What was counted of a page that was not noted is counted again: go back to what is noted."""
        self._changed.clear()
        self._baselines.clear()
        await self.start()


def _key_of(subject: Subject) -> str:
    """Under which a baseline is kept. A store may take no text of any length, and none with a NUL, for a key."""
    key = f"{subject.issuer} {subject.subject}"
    if len(key) <= KEY_CHARACTERS_MAX and key.isprintable():
        return key
    return f"sha256 {hashlib.sha256(key.encode()).hexdigest()}"


def _place(stored: StoredRecord) -> str:
    record = stored.record
    return f"{record.stream}/{record.epoch}/{record.sequence}"


def _finding_event(finding: Finding, event: Event, stored: StoredRecord) -> Event:
    details: dict[str, Detail] = {
        "message": finding.seen,
        "usual": finding.usual,
        "event": _place(stored),
        **finding.numbers,
    }
    return Event(
        _TYPES[finding.what],
        stored.receive_wall_ms,
        Outcome.ALLOWED,
        subject=event.subject,
        lease=event.lease,
        details=details,
    )
