"""What only the centre says. Owns the list: a sidecar that writes one of these lies, whoever holds it.

The log's followers act on events: they tell and resolve alarms, tell other systems what is revoked, and excuse holes. A
sidecar's word about its own leases, calls and keys is taken; about the fleet it is not.
"""

from typing import Final

from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.reasons import Reason, Refusal

SAID_BY_RESPONDERS: Final = frozenset(
    {
        EventType.BUDGET_CHANGE_ISSUED,
        EventType.BUDGET_CHANGE_REFUSED,
        EventType.REVOCATION_ISSUED,
        EventType.REVOCATION_REFUSED,
        EventType.REVOCATION_VALIDATED,
    }
)
"""A sidecar that runs alone is its own centre, and says these in its own stream of its own log."""
SAID_BY_CENTRE: Final = SAID_BY_RESPONDERS | {
    EventType.ALERT_REJECTED,
    EventType.AUDIT_BODIES_DROPPED,
    EventType.AUDIT_DISK_FREED,
    EventType.AUDIT_DISK_LOW,
    EventType.AUDIT_GAP_ACCEPTED,
    EventType.AUDIT_READ,
    EventType.AUDIT_REFUSED,
    EventType.AUDIT_TAIL_UNKNOWN,
    EventType.BUDGET_SHARE_OUTLYING,
    EventType.BUDGET_SLICE_GRANTED,
    EventType.BUDGET_SLICE_RETURNED,
    EventType.BUDGET_SLICE_WRITTEN_OFF,
    EventType.COLLECTOR_FAILED,
    EventType.COLLECTOR_STARTED,
    EventType.COLLECTOR_STOPPED,
    EventType.FINDING_NEW_ROUTE,
    EventType.FINDING_ODD_HOUR,
    EventType.FINDING_REFUSALS,
    EventType.FINDING_RESPONSE_WITHHELD,
    EventType.FINDING_SPEND_RATE,
    EventType.KEY_DISABLED_UPSTREAM,
    EventType.KEY_DISABLING_AWAITS_PERSON,
    EventType.KEY_DISABLING_DELAYED,
    EventType.KEY_DISABLING_FAILED,
    EventType.KEY_DISABLING_STARTED,
    EventType.KEY_DISABLING_STEPPED,
    EventType.KEY_ROTATION_AWAITS_PERSON,
    EventType.KEY_ROTATION_CANCELLED,
    EventType.KEY_ROTATION_DELAYED,
    EventType.KEY_ROTATION_DONE,
    EventType.KEY_ROTATION_FAILED,
    EventType.KEY_ROTATION_REFUSED,
    EventType.KEY_ROTATION_STARTED,
    EventType.KEY_ROTATION_STEPPED,
    EventType.KEY_ROTATION_SUPPLIED,
    EventType.OPERATOR_SIGNED_IN,
    EventType.OPERATOR_SIGNED_OUT,
    EventType.REVOCATION_COMPLETE,
    EventType.REVOCATION_LAGGING,
    EventType.SIDECAR_BANNED,
    EventType.SIDECAR_CONNECTED,
    EventType.SIDECAR_EVICTED,
    EventType.SIDECAR_READMITTED,
    EventType.SIGNAL_NOT_TAKEN,
    EventType.SIGNAL_RECEIVED,
    EventType.SIGNAL_REFUSED,
    EventType.SIGNAL_VERIFICATION,
    EventType.SINK_FAILED,
    EventType.SINK_RECOVERED,
}


def not_a_sidecars(type_: str, stream: str) -> Refusal:
    """What a sidecar is told that says this."""
    return Refusal(
        Reason.SIDECAR_BANNED,
        f"stream {stream!r}: {type_} is for the collector to say, not for a sidecar; nothing of this batch was "
        "stored. Take that sidecar for one in other hands: leasehold sidecar ban",
        detail=f"tried to say {type_}",
    )
