"""Who says what: every kind of event is the centre's or a sidecar's."""

from leasehold_broker.domain.centre_events import SAID_BY_CENTRE, SAID_BY_RESPONDERS
from leasehold_broker.domain.events import EventType

SAID_BY_SIDECARS = frozenset(
    {
        EventType.AUDIT_SPOOL_DRAINED,
        EventType.AUDIT_SPOOL_FILLING,
        EventType.BUDGET_CHANGED,
        EventType.BUDGET_CHANGE_SET_ASIDE,
        EventType.BUDGET_RETURNED,
        EventType.BUDGET_THRESHOLD,
        EventType.CALL_ADMITTED,
        EventType.CALL_REFUSED,
        EventType.CALL_SETTLED,
        EventType.FINDING_HONEYTOKEN,
        EventType.IDENTITY_REFUSED,
        EventType.KEY_EXHAUSTED,
        EventType.KEY_EXPOSED,
        EventType.KEY_MINTED,
        EventType.KEY_NOT_MINTED,
        EventType.KEY_NOT_READ,
        EventType.KEY_NOT_RENEWED,
        EventType.KEY_NOT_REVOKED,
        EventType.KEY_READ,
        EventType.KEY_RENEWED,
        EventType.KEY_REPLENISHED,
        EventType.KEY_REVOKED,
        EventType.KEY_ROTATION_REQUESTED,
        EventType.KEY_TAKEN_BACK,
        EventType.KEY_TAKEN_OUT,
        EventType.LEASE_ACQUIRED,
        EventType.LEASE_DELEGATED,
        EventType.LEASE_EXPIRED,
        EventType.LEASE_FROZEN,
        EventType.LEASE_REFUSED,
        EventType.LEASE_RELEASED,
        EventType.LEASE_RENEWED,
        EventType.LEASE_REVOKED,
        EventType.LEASE_TOKEN_REPLACED,
        EventType.LEASE_VALIDATED,
        EventType.POLICY_LOADED,
        EventType.POLICY_REJECTED,
        EventType.PRICES_LOADED,
        EventType.PRICES_REJECTED,
        EventType.REVOCATION_APPLIED,
        EventType.REVOCATION_SET_ASIDE,
        EventType.SIDECAR_STARTED,
        EventType.SIDECAR_STOPPED,
        EventType.TASK_FAILED,
        EventType.TASK_RECOVERED,
    }
)


def test_every_kind_of_event_is_somebodys():
    """A new kind must be put on one of the two sides, and only what a sidecar alone says is left to responders."""
    assert set(EventType) == SAID_BY_CENTRE | SAID_BY_SIDECARS
    assert not SAID_BY_CENTRE & SAID_BY_SIDECARS
    assert SAID_BY_RESPONDERS < SAID_BY_CENTRE
