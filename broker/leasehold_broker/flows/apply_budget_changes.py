"""Put operators' changes of caps in force at a sidecar: from the next call on, and durable with their event.

Owns order: changes are applied one by one, without gaps. The number falls only when the centre has lost changes: they
are set aside (see decision 0054). Calls in flight keep their holds; what stands above a lowered cap stays, and nothing
new fits until it is below.
"""

from collections.abc import Sequence
from dataclasses import replace

from leasehold_broker.domain.budget_changes import BudgetChange, Direction
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.state_store import Change, DropBudgetChange, PutBudgetChange


class ApplyBudgetChanges:
    """Changes caps. Implements `BudgetChangeSink`."""

    def __init__(self, books: Books, journal: Journal, clock: Clock) -> None:
        """Work on these books."""
        self._books = books
        self._journal = journal
        self._clock = clock
        self._set_asides = 0

    def applied_budget_change(self) -> int:
        """As the port says; memory may know more, which is in force already."""
        return self._books.durable_budget_change

    def budget_history_digest(self) -> bytes:
        """As the port says."""
        return self._books.budget_history.digest_at(self._books.durable_budget_change)

    def has_budget_change(self, change: BudgetChange) -> bool:
        """As the port says."""
        known = self._books.all_budget_changes
        return 0 < change.number <= len(known) and known[change.number - 1] == change

    async def apply_budget_changes(self, changes: Sequence[BudgetChange]) -> None:
        """As the port says; those already in force are only waited for."""
        batch = Batch()
        for change in changes:
            if change.number > self._books.budget_change:
                aside = self._books.lowered_aside.get(change.budget, {}).pop(change.metric, None)
                self._books.put_budget_change(change)
                event = change_event(EventType.BUDGET_CHANGED, change, self._clock.now().wall_ms)
                batch.add(Batch([event], [PutBudgetChange(change)]))
                if aside is not None:
                    batch.add(Batch([], [DropBudgetChange(aside.number)]))
                self._books.wake(change.budget)
        known, set_asides = self._books.budget_change, self._set_asides
        await self._durable(batch)
        if set_asides == self._set_asides:
            self._books.durable_budget_change = max(self._books.durable_budget_change, known)

    async def set_aside_budget_changes(self, above: int) -> None:
        """As the port says; with nothing above it, done by an earlier call, which is only waited for."""
        await self._durable(self._set_aside(above) if self._books.budget_change > above else Batch())

    def _set_aside(self, above: int) -> Batch:
        books, now = self._books, self._clock.now()
        self._set_asides += 1
        gone, kept = books.all_budget_changes[above:], books.all_budget_changes[:above]
        batch = Batch([], [DropBudgetChange(change.number) for change in gone])
        books.budget_changes.clear()
        books.all_budget_changes.clear()
        books.budget_history.cut(0)
        books.budget_change = 0
        books.caps_version += 1
        for change in kept:
            books.put_budget_change(change)
        books.durable_budget_change = min(books.durable_budget_change, above)
        for change in gone:
            books.changes_of_request.pop((change.changed_by, change.request_id), None)
            event = change_event(EventType.BUDGET_CHANGE_SET_ASIDE, change, now.wall_ms)
            batch.add(Batch([event], self._still_lowered(change)))
            books.wake(change.budget)
        return batch

    def _still_lowered(self, change: BudgetChange) -> list[Change]:
        """What was lowered stays so, unless it was raised again before all of that was lost."""
        of_budget = self._books.lowered_aside.setdefault(change.budget, {})
        before = of_budget.get(change.metric)
        if change.direction is Direction.RAISE:
            of_budget.pop(change.metric, None)
            return [] if before is None else [DropBudgetChange(before.number)]
        number = before.number if before is not None else self._next_aside()
        aside = replace(change, number=number)
        if before is not None and before.in_force(self._clock.now().wall_ms):
            aside = replace(aside, cap=min(before.cap, change.cap), until_wall_ms=_later(before, change))
        of_budget[change.metric] = aside
        return [PutBudgetChange(aside)]

    def _next_aside(self) -> int:
        known = [one.number for of_budget in self._books.lowered_aside.values() for one in of_budget.values()]
        return min(known, default=0) - 1

    async def _durable(self, batch: Batch) -> None:
        if not await self._journal.ending(batch):
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the sidecar cannot write its state; the change is in force in memory",
                retry_after_seconds=1.0,
            )


def _later(one: BudgetChange, other: BudgetChange) -> int:
    """The later end of two; 0: none."""
    return max(one.until_wall_ms, other.until_wall_ms) if one.until_wall_ms and other.until_wall_ms else 0


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
