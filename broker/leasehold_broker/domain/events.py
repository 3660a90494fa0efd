"""What the audit log says. Owns the event's shape and its types; refuses to number, chain, store or ship it.

An event holds names, amounts and reasons; never a secret, never a request's or an answer's content.
"""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.values import value

Detail = str | int | bool | None | list["Detail"] | dict[str, "Detail"]


class EventType(StrEnum):
    """Every kind of event, by the noun and what happened to it."""

    SIDECAR_STARTED = "sidecar.started"
    SIDECAR_STOPPED = "sidecar.stopped"
    IDENTITY_REFUSED = "identity.refused"
    LEASE_ACQUIRED = "lease.acquired"
    LEASE_DELEGATED = "lease.delegated"
    LEASE_RENEWED = "lease.renewed"
    LEASE_RELEASED = "lease.released"
    LEASE_EXPIRED = "lease.expired"
    LEASE_REVOKED = "lease.revoked"
    LEASE_FROZEN = "lease.frozen"
    LEASE_REFUSED = "lease.refused"
    LEASE_VALIDATED = "lease.validated"
    LEASE_TOKEN_REPLACED = "lease.token_replaced"  # noqa: S105 - the name of an event
    BUDGET_RETURNED = "budget.returned"
    BUDGET_THRESHOLD = "budget.threshold"
    BUDGET_CHANGE_ISSUED = "budget.change_issued"
    BUDGET_CHANGED = "budget.changed"
    BUDGET_CHANGE_REFUSED = "budget.change_refused"
    BUDGET_CHANGE_SET_ASIDE = "budget.change_set_aside"
    BUDGET_SLICE_GRANTED = "budget.slice_granted"
    BUDGET_SLICE_RETURNED = "budget.slice_returned"
    BUDGET_SLICE_WRITTEN_OFF = "budget.slice_written_off"
    BUDGET_SHARE_OUTLYING = "budget.share_outlying"
    CALL_ADMITTED = "call.admitted"
    CALL_SETTLED = "call.settled"
    CALL_REFUSED = "call.refused"
    REVOCATION_ISSUED = "revocation.issued"
    REVOCATION_APPLIED = "revocation.applied"
    REVOCATION_REFUSED = "revocation.refused"
    REVOCATION_SET_ASIDE = "revocation.set_aside"
    REVOCATION_LAGGING = "revocation.lagging"
    REVOCATION_COMPLETE = "revocation.complete"
    POLICY_LOADED = "policy.loaded"
    POLICY_REJECTED = "policy.rejected"
    PRICES_LOADED = "prices.loaded"
    PRICES_REJECTED = "prices.rejected"
    REVOCATION_VALIDATED = "revocation.validated"
    COLLECTOR_STARTED = "collector.started"
    COLLECTOR_STOPPED = "collector.stopped"
    COLLECTOR_FAILED = "collector.failed"
    SIDECAR_CONNECTED = "sidecar.connected"
    SIGNAL_RECEIVED = "signal.received"
    SIGNAL_REFUSED = "signal.refused"
    SIGNAL_VERIFICATION = "signal.verification"
    SIGNAL_NOT_TAKEN = "signal.not_taken"
    OPERATOR_SIGNED_IN = "operator.signed_in"
    OPERATOR_SIGNED_OUT = "operator.signed_out"
    SIDECAR_BANNED = "sidecar.banned"
    SIDECAR_READMITTED = "sidecar.readmitted"
    SIDECAR_EVICTED = "sidecar.evicted"
    SINK_FAILED = "sink.failed"
    SINK_RECOVERED = "sink.recovered"
    ALERT_REJECTED = "alert.rejected"
    FINDING_HONEYTOKEN = "finding.honeytoken"
    FINDING_SPEND_RATE = "finding.spend_rate"
    FINDING_REFUSALS = "finding.refusals"
    FINDING_NEW_ROUTE = "finding.new_route"
    FINDING_ODD_HOUR = "finding.odd_hour"
    FINDING_RESPONSE_WITHHELD = "finding.response_withheld"
    TASK_FAILED = "task.failed"
    TASK_RECOVERED = "task.recovered"
    KEY_READ = "key.read"
    KEY_NOT_READ = "key.not_read"
    KEY_MINTED = "key.minted"
    KEY_NOT_MINTED = "key.not_minted"
    KEY_RENEWED = "key.renewed"
    KEY_NOT_RENEWED = "key.not_renewed"
    KEY_REVOKED = "key.revoked"
    KEY_NOT_REVOKED = "key.not_revoked"
    KEY_TAKEN_OUT = "key.taken_out"
    KEY_TAKEN_BACK = "key.taken_back"
    KEY_EXHAUSTED = "key.exhausted"
    KEY_REPLENISHED = "key.replenished"
    KEY_EXPOSED = "key.exposed"
    KEY_ROTATION_REQUESTED = "key.rotation_requested"
    KEY_ROTATION_STARTED = "key.rotation_started"
    KEY_ROTATION_STEPPED = "key.rotation_stepped"
    KEY_ROTATION_DELAYED = "key.rotation_delayed"
    KEY_ROTATION_AWAITS_PERSON = "key.rotation_awaits_person"
    KEY_ROTATION_SUPPLIED = "key.rotation_supplied"
    KEY_ROTATION_CANCELLED = "key.rotation_cancelled"
    KEY_ROTATION_DONE = "key.rotation_done"
    KEY_ROTATION_FAILED = "key.rotation_failed"
    KEY_ROTATION_REFUSED = "key.rotation_refused"
    KEY_DISABLING_STARTED = "key.disabling_started"
    KEY_DISABLING_STEPPED = "key.disabling_stepped"
    KEY_DISABLING_DELAYED = "key.disabling_delayed"
    KEY_DISABLING_AWAITS_PERSON = "key.disabling_awaits_person"
    KEY_DISABLING_FAILED = "key.disabling_failed"
    KEY_DISABLED_UPSTREAM = "key.disabled_upstream"
    AUDIT_READ = "audit.read"
    AUDIT_REFUSED = "audit.refused"
    AUDIT_GAP_ACCEPTED = "audit.gap_accepted"
    AUDIT_TAIL_UNKNOWN = "audit.tail_unknown"
    AUDIT_SPOOL_FILLING = "audit.spool_filling"
    AUDIT_SPOOL_DRAINED = "audit.spool_drained"
    AUDIT_BODIES_DROPPED = "audit.bodies_dropped"
    AUDIT_DISK_LOW = "audit.disk_low"
    AUDIT_DISK_FREED = "audit.disk_freed"


class Outcome(StrEnum):
    """How the thing the event describes went."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


@value
class Event:
    """One audit event. In the canonical body the keys are these names, sorted; absent values are left out.

    Args:
        type: what happened.
        wall_ms: when, Unix time in milliseconds (a label: order is the sequence number).
        outcome: how it went.
        reason: why, when denied or failed.
        subject: who, when known.
        lease: name of the lease, or "".
        request_id: of the call or RPC, or "".
        details: amounts and names by type of event; integers, strings, booleans, and lists and objects of those.
    """

    type: EventType
    wall_ms: int
    outcome: Outcome
    reason: Reason | None = None
    subject: Subject | None = None
    lease: str = ""
    request_id: str = ""
    details: Mapping[str, Detail] = field(default_factory=dict)
