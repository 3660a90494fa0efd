"""Put operators' changes of caps in force at a sidecar: from the next call on, and durable with their event.

Owns order: changes are applied one by one, without gaps, and the number never falls. Calls in flight keep their holds;
what stands above a lowered cap stays, and nothing new fits until it is below.
"""

from collections.abc import Sequence

from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import PutBudgetChange


class ApplyBudgetChanges:
    """Changes caps. Implements `BudgetChangeSink`."""

    def __init__(self, books: Books, journal: Journal, clock: Clock) -> None:
        """Work on these books."""
        self._books = books
        self._journal = journal
        self._clock = clock

    def applied_budget_change(self) -> int:
        """As the port says; memory may know more, which is in force already."""
        return self._books.durable_budget_change

    async def apply_budget_changes(self, changes: Sequence[BudgetChange]) -> None:
        """As the port says; those already in force are only waited for."""
        batch = Batch()
        for change in changes:
            if change.number > self._books.budget_change:
                self._books.put_budget_change(change)
                event = change_event(EventType.BUDGET_CHANGED, change, self._clock.now().wall_ms)
                batch.add(Batch([event], [PutBudgetChange(change)]))
                self._books.wake(change.budget)
        known = self._books.budget_change
        if not await self._journal.ending(batch):
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the sidecar cannot write its state; the change is in force in memory",
                retry_after_seconds=1.0,
            )
        self._books.durable_budget_change = max(self._books.durable_budget_change, known)


def change_event(kind: EventType, change: BudgetChange, wall_ms: int) -> Event:
    """What the audit log says of a change, where it is issued and where it is applied."""
    details: dict[str, Detail] = {
        "change": change.number,
        "budget": change.budget,
        "metric": change.metric.value,
        "direction": change.direction.value,
        "cap": change.cap,
        "changed_by": change.changed_by,
        "note": change.note,
    }
    if change.until_wall_ms:
        details["until_wall_ms"] = change.until_wall_ms
    return Event(
        kind,
        wall_ms,
        Outcome.ALLOWED,
        lease=change.budget if change.budget.startswith(LEASE_PREFIX) else "",
        request_id=change.request_id,
        details=details,
    )
