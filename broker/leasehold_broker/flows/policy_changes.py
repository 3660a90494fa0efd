"""Policy versions in the audit log: which came into force, and which were refused and why."""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.policy import Policy
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock

COMPLAINTS_MAX = 20
COMPLAINT_CHARACTERS_MAX = 512


class PolicyChanges:
    """The hooks of the policy source."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Write to this journal."""
        self._journal = journal
        self._clock = clock

    def loaded(self, policy: Policy) -> None:
        """A version came into force."""
        self._record(EventType.POLICY_LOADED, Outcome.ALLOWED, {"policy_version": policy.version})

    def rejected(self, complaints: tuple[str, ...]) -> None:
        """A version was refused; the one before stays in force."""
        shown = [complaint[:COMPLAINT_CHARACTERS_MAX] for complaint in complaints[:COMPLAINTS_MAX]]
        self._record(EventType.POLICY_REJECTED, Outcome.DENIED, {"complaints": list(shown)})

    def _record(self, kind: EventType, outcome: Outcome, details: dict[str, Detail]) -> None:
        event = Event(kind, self._clock.now().wall_ms, outcome, details=details)
        self._journal.in_background(self._written(event))

    async def _written(self, event: Event) -> None:
        await self._journal.ending(Batch([event], []))
