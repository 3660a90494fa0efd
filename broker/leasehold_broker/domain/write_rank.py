"""What a log that has hardly any disk left still writes. Owns the order: last of all, what ends leases."""

from enum import IntEnum
from typing import Final

from leasehold_broker.domain.events import EventType


class WriteRank(IntEnum):
    """How long a write goes on while the disk fills; the highest the longest.

    EVENTS: what sidecars send, and all that has no other rank. Not taken once the disk is low: it waits where it is.
    SESSIONS: what lets sidecars and operators come in, and what is refused to operators. Goes on upon a part of the
        reserve only: whoever may come in could come in for ever.
    REVOCATIONS: what ends or blocks leases, bans, changes caps and switches keys off, with its events and its
        acknowledgements; what only moves a place in the log; this collector's own start and end.
    """

    EVENTS = 0
    SESSIONS = 1
    REVOCATIONS = 2


_SESSIONS: Final = frozenset(
    {
        EventType.AUDIT_BODIES_DROPPED,
        EventType.AUDIT_READ,
        EventType.BUDGET_CHANGE_REFUSED,
        EventType.FINDING_HONEYTOKEN,
        EventType.KEY_ROTATION_REFUSED,
        EventType.OPERATOR_SIGNED_IN,
        EventType.OPERATOR_SIGNED_OUT,
        EventType.REVOCATION_REFUSED,
        EventType.SIDECAR_CONNECTED,
        EventType.SIGNAL_RECEIVED,
        EventType.SINK_FAILED,
        EventType.SINK_RECOVERED,
        EventType.TASK_FAILED,
        EventType.TASK_RECOVERED,
    }
)
_REVOCATIONS: Final = frozenset(
    {
        EventType.AUDIT_DISK_FREED,
        EventType.AUDIT_DISK_LOW,
        EventType.COLLECTOR_FAILED,
        EventType.COLLECTOR_STARTED,
        EventType.COLLECTOR_STOPPED,
        EventType.REVOCATION_COMPLETE,
        EventType.REVOCATION_LAGGING,
        EventType.REVOCATION_VALIDATED,
    }
)


def rank_of(type_: EventType) -> WriteRank:
    """Of an event that the collector writes by itself; one that belongs to a change has the rank of the change."""
    if type_ in _REVOCATIONS:
        return WriteRank.REVOCATIONS
    return WriteRank.SESSIONS if type_ in _SESSIONS else WriteRank.EVENTS
