"""Why things are refused. Owns the one list of reasons and the one refusal; refuses to know gRPC, HTTP or exit codes.

The names are those of `leasehold.v1.Reason`; a test holds the two lists together.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from leasehold_broker.domain.key_shapes import without_secrets


class Reason(StrEnum):
    """A stable, machine-readable reason. The proto enum says for each what the caller does next."""

    IDENTITY_REJECTED = "IDENTITY_REJECTED"
    JWT_MALFORMED = "JWT_MALFORMED"
    JWT_EXPIRED = "JWT_EXPIRED"
    JWT_NOT_YET_VALID = "JWT_NOT_YET_VALID"
    JWT_BAD_SIGNATURE = "JWT_BAD_SIGNATURE"
    JWT_UNKNOWN_KEY = "JWT_UNKNOWN_KEY"
    JWT_LIFETIME_TOO_LONG = "JWT_LIFETIME_TOO_LONG"
    ISSUER_NOT_TRUSTED = "ISSUER_NOT_TRUSTED"
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH"
    TOKEN_TYPE_REJECTED = "TOKEN_TYPE_REJECTED"  # noqa: S105 - the name of a reason
    REPLAY_DETECTED = "REPLAY_DETECTED"
    PEER_MISMATCH = "PEER_MISMATCH"
    CLAIM_REJECTED = "CLAIM_REJECTED"
    KEYS_OF_ISSUER_UNAVAILABLE = "KEYS_OF_ISSUER_UNAVAILABLE"
    LEASE_UNKNOWN = "LEASE_UNKNOWN"
    PROOF_REJECTED = "PROOF_REJECTED"

    POLICY_DENIED = "POLICY_DENIED"
    SCOPE_EXCEEDED = "SCOPE_EXCEEDED"
    MODEL_NOT_ALLOWED = "MODEL_NOT_ALLOWED"
    DISCLOSURE_NOT_ALLOWED = "DISCLOSURE_NOT_ALLOWED"
    SUBJECT_BLOCKED = "SUBJECT_BLOCKED"
    LEASE_REVOKED = "LEASE_REVOKED"
    SIDECAR_BANNED = "SIDECAR_BANNED"
    ENVIRONMENT_MISMATCH = "ENVIRONMENT_MISMATCH"
    ROUTE_NOT_ALLOWED = "ROUTE_NOT_ALLOWED"
    OPERATOR_NOT_ALLOWED = "OPERATOR_NOT_ALLOWED"

    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    RATE_LIMITED = "RATE_LIMITED"
    LEASE_COUNT_EXCEEDED = "LEASE_COUNT_EXCEEDED"
    CONCURRENCY_EXCEEDED = "CONCURRENCY_EXCEEDED"

    LEASE_EXPIRED = "LEASE_EXPIRED"
    LEASE_RELEASED = "LEASE_RELEASED"
    MAX_TTL_REACHED = "MAX_TTL_REACHED"
    KEY_DISABLED = "KEY_DISABLED"
    AUDIT_SPOOL_FULL = "AUDIT_SPOOL_FULL"
    LEASE_FROZEN = "LEASE_FROZEN"
    PRICE_UNKNOWN = "PRICE_UNKNOWN"
    COST_UNBOUNDED = "COST_UNBOUNDED"
    PROCESS_ENDED = "PROCESS_ENDED"

    LEASE_NOT_FOUND = "LEASE_NOT_FOUND"
    REVOCATION_NOT_FOUND = "REVOCATION_NOT_FOUND"
    ROTATION_NOT_FOUND = "ROTATION_NOT_FOUND"

    FIELD_INVALID = "FIELD_INVALID"
    METADATA_MISSING = "METADATA_MISSING"
    DEADLINE_MISSING = "DEADLINE_MISSING"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    BODY_INVALID = "BODY_INVALID"
    HEADER_NOT_ALLOWED = "HEADER_NOT_ALLOWED"
    CONTENT_TYPE_NOT_ALLOWED = "CONTENT_TYPE_NOT_ALLOWED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    EXPECTED_COUNT_MISMATCH = "EXPECTED_COUNT_MISMATCH"

    CENTRE_UNREACHABLE = "CENTRE_UNREACHABLE"
    STARTING = "STARTING"
    DRAINING = "DRAINING"
    KEY_UNAVAILABLE = "KEY_UNAVAILABLE"
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    AUDIT_SINK_BEHIND = "AUDIT_SINK_BEHIND"
    AUDIT_DISK_LOW = "AUDIT_DISK_LOW"

    CONCURRENT_UPDATE = "CONCURRENT_UPDATE"

    AUDIT_CHAIN_BROKEN = "AUDIT_CHAIN_BROKEN"
    AUDIT_EPOCH_FENCED = "AUDIT_EPOCH_FENCED"
    CENTRE_BEHIND = "CENTRE_BEHIND"
    SESSION_SUPERSEDED = "SESSION_SUPERSEDED"


IDENTITY_REASONS = frozenset(
    {
        Reason.IDENTITY_REJECTED,
        Reason.JWT_MALFORMED,
        Reason.JWT_EXPIRED,
        Reason.JWT_NOT_YET_VALID,
        Reason.JWT_BAD_SIGNATURE,
        Reason.JWT_UNKNOWN_KEY,
        Reason.JWT_LIFETIME_TOO_LONG,
        Reason.ISSUER_NOT_TRUSTED,
        Reason.AUDIENCE_MISMATCH,
        Reason.TOKEN_TYPE_REJECTED,
        Reason.REPLAY_DETECTED,
        Reason.PEER_MISMATCH,
        Reason.CLAIM_REJECTED,
        Reason.KEYS_OF_ISSUER_UNAVAILABLE,
        Reason.PROOF_REJECTED,
    }
)
"""Answered in public as IDENTITY_REJECTED, so that the answer is no oracle; audited exactly."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong, or one budget that refused. Safe to show to the caller."""

    subject: str
    description: str


@dataclass(slots=True)
class Refusal(Exception):  # noqa: N818 - house word: a refusal is an answer, not a fault
    """The one way to say no. Translated to gRPC in wire/, to HTTP in egress/, to exit codes in cli/.

    Args:
        reason: stable reason.
        message: one sentence for the caller: what was wrong, what it was, what to do next. Never a secret.
        detail: for the audit event only; never leaves the process otherwise. Never a secret.
        retry_after_seconds: when waiting helps; None when it does not.
        violations: fields or budgets, for BadRequest and QuotaFailure.
    """

    reason: Reason
    message: str
    detail: str = ""
    retry_after_seconds: float | None = None
    violations: tuple[Violation, ...] = field(default=())

    def __post_init__(self) -> None:
        """Take out what looks like a secret: a sentence may quote the request, and a request may hold anything."""
        self.message = without_secrets(self.message)
        self.detail = without_secrets(self.detail)
        self.violations = tuple(
            Violation(without_secrets(each.subject), without_secrets(each.description)) for each in self.violations
        )

    def __str__(self) -> str:
        """The public sentence."""
        return f"{self.reason}: {self.message}"


def field_invalid(field_name: str, description: str) -> Refusal:
    """A request field is wrong: says which and why."""
    return Refusal(
        Reason.FIELD_INVALID, f"{field_name}: {description}", violations=(Violation(field_name, description),)
    )
