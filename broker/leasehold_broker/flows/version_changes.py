"""Versions of files that decide something, in the audit log: which came into force, and which were refused and why."""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock

COMPLAINTS_MAX = 20
COMPLAINT_CHARACTERS_MAX = 512


class VersionChanges:
    """The hooks of one such source."""

    def __init__(self, what: str, loaded: EventType, rejected: EventType, journal: Journal, clock: Clock) -> None:
        """Write to this journal; `what` names the source in details and metrics: "policy", "prices"."""
        self._what = what
        self._loaded = loaded
        self._rejected = rejected
        self._journal = journal
        self._clock = clock

    def loaded(self, version: str) -> None:
        """A version came into force."""
        self._record(self._loaded, Outcome.ALLOWED, {f"{self._what}_version": version})

    def rejected(self, complaints: tuple[str, ...], books: Books) -> None:
        """A version was refused; the one before stays in force."""
        books.counters.files_refused[self._what] = books.counters.files_refused.get(self._what, 0) + 1
        shown = [complaint[:COMPLAINT_CHARACTERS_MAX] for complaint in complaints[:COMPLAINTS_MAX]]
        self._record(self._rejected, Outcome.DENIED, {"complaints": list(shown)})

    def _record(self, kind: EventType, outcome: Outcome, details: dict[str, Detail]) -> None:
        event = Event(kind, self._clock.now().wall_ms, outcome, details=details)
        self._journal.in_background(self._written(event))

    async def _written(self, event: Event) -> None:
        await self._journal.ending(Batch([event], []))
