"""Warnings that a budget is nearly used up: one event for each window and metric, in the commit that crosses it.

Refuses to refuse: a warning changes nothing. What is settled in a window only grows, so it crosses a threshold once; a
rolling window warns at most once in its own length. Raised caps have a threshold of their own.
"""

from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.ledger import Crossing, Settlement
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.books import Books


def threshold_events(books: Books, settlement: Settlement, lease: str, now: Instant) -> list[Event]:
    """The warnings that this settlement, of a call or a carve of `lease`, gives rise to; counts them."""
    if not settlement.crossed:
        return []
    found = books.leases.get(lease)
    subject = None if found is None else found.subject
    return [_event(books, crossing, lease, subject, now) for crossing in settlement.crossed]


def _event(books: Books, crossing: Crossing, lease: str, subject: Subject | None, now: Instant) -> Event:
    counts = books.counters.thresholds_crossed
    counts[crossing.metric] = counts.get(crossing.metric, 0) + 1
    details: dict[str, Detail] = {
        "account": crossing.account,
        "metric": crossing.metric.value,
        "cap": crossing.cap,
        "settled": crossing.settled,
        "held": crossing.held,
    }
    return Event(
        EventType.BUDGET_THRESHOLD, now.wall_ms, Outcome.ALLOWED, subject=subject, lease=lease, details=details
    )
