"""Questions to the collector's log, and what an answer holds. Values only."""

from dataclasses import dataclass

from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.values import value


@value
class StoredRecord:
    """One record in the collector's log.

    Args:
        position: counts from 1 over all streams, without gaps.
        receive_wall_ms: when it came.
        record: its body is empty once retention has dropped it.
        type: of the event, where the log says it.
    """

    position: int
    receive_wall_ms: int
    record: ChainedRecord
    type: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What to list; every member that is set must hold.

    Args:
        stream, lease, subject, key, outcome: exact.
        type: exact, or a prefix that ends in ".".
        start_wall_ms, end_wall_ms: of the event's own label, start included, end not; 0 for open.
        until_position: nothing after this position; 0 for open.
    """

    stream: str = ""
    type: str = ""
    lease: str = ""
    subject: str = ""
    key: str = ""
    outcome: str = ""
    start_wall_ms: int = 0
    end_wall_ms: int = 0
    until_position: int = 0
