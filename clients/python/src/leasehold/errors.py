"""How the broker says no. Owns one exception per family of reasons; refuses to retry, log or guess.

Reasons are the names of `leasehold.v1.Reason`. Four more are the client's own: `SIDECAR_UNREACHABLE` and
`DEADLINE_EXCEEDED`, for when no answer came, and of signing in `SIGN_IN_FAILED` and `ISSUER_UNREACHABLE`. No exception
holds a token.
"""

# ruff: noqa: N818 - the names say what happened; the root says that it is an error

from dataclasses import dataclass
from typing import ClassVar, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from leasehold.v1 import rpc_errors_pb2 as rpc_errors

M = TypeVar("M", bound=Message)

DETAILS_TRAILER = "grpc-status-details-bin"
REQUEST_ID = "leasehold-request-id"
_TYPE_URL = "type.googleapis.com/google.rpc."
UNREACHABLE = "SIDECAR_UNREACHABLE"
DEADLINE = "DEADLINE_EXCEEDED"
SIGN_IN_FAILED = "SIGN_IN_FAILED"
ISSUER_UNREACHABLE = "ISSUER_UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong, or one budget that refused."""

    subject: str
    description: str


class LeaseholdError(Exception):
    """The root. Catch a subclass to act on a family, or read `reason`.

    Args:
        message: what was wrong, in the broker's words.
        reason: stable name, e.g. "BUDGET_EXHAUSTED"; see `leasehold.v1.Reason`.
        request_id: to find the event in the audit log; "" when none came back.
        retry_after: seconds after which trying again may help; None when waiting does not help.
        violations: fields (InvalidRequest) or budgets (QuotaExceeded).
    """

    advice: ClassVar[str] = "read the message; if it does not help, give the request id to the platform team"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        """See the class."""
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after
        self.violations = violations

    @property
    def next_step(self) -> str:
        """What the caller does next, in one sentence."""
        step = ADVICE.get(self.reason, self.advice)
        if self.retry_after is not None:
            step = f"{step} (not before {self.retry_after:g} s)"
        return step

    def __str__(self) -> str:
        """Message, reason, next step and request id, in one line."""
        text = f"{self.message} [{self.reason or type(self).__name__}] Next: {self.next_step}."
        return f"{text} Request id: {self.request_id}" if self.request_id else text


class IdentityRejected(LeaseholdError):
    """The workload token is missing or was not accepted, or the lease token is unknown to this sidecar."""

    advice = "check that the workload token is fresh and meant for this sidecar's audience; then stop"


class PermissionDenied(LeaseholdError):
    """Policy, scope or a responder forbids it."""

    advice = "do not retry; ask the platform team for a grant that allows it"


class QuotaExceeded(LeaseholdError):
    """A rate, a count or a budget is used up. `violations` names which."""

    advice = "wait as told, or ask for more"


class BudgetExhausted(QuotaExceeded):
    """Not enough money or tokens are left for this."""

    advice = "use what is left with a smaller request, wait for the window to start anew, or ask for more"


class LeaseEnded(LeaseholdError):
    """The lease has expired, was released, or was revoked."""

    advice = "acquire a new lease"


class PreconditionFailed(LeaseholdError):
    """Something must change first: a frozen lease, a disabled key, an unknown price, the longest life reached."""

    advice = "put right what the message names, then try again"


class NotFound(LeaseholdError):
    """It does not exist, or is not yours: the answer is the same."""

    advice = "check the name; if the lease is gone, acquire a new one"


class InvalidRequest(LeaseholdError, ValueError):
    """The request is wrong as written. Raised before sending where the client can tell."""

    advice = "correct the fields that the message names; the same request will fail again"

    @classmethod
    def of_field(cls, field: str, description: str) -> Self:
        """One wrong field."""
        return cls(f"{field} {description}", reason="FIELD_INVALID", violations=(Violation(field, description),))


class Conflict(LeaseholdError):
    """Someone else changed it meanwhile, or the request id was used for something else."""

    advice = "read the lease again, then decide anew"


class Unavailable(LeaseholdError):
    """The sidecar, the collector or what stands behind them cannot answer now. Retried already, within the deadline."""

    advice = "try again later"


_FAMILIES: dict[type[LeaseholdError], str] = {
    IdentityRejected: f"""IDENTITY_REJECTED JWT_MALFORMED JWT_EXPIRED JWT_NOT_YET_VALID JWT_BAD_SIGNATURE
        JWT_UNKNOWN_KEY JWT_LIFETIME_TOO_LONG ISSUER_NOT_TRUSTED AUDIENCE_MISMATCH TOKEN_TYPE_REJECTED
        REPLAY_DETECTED PEER_MISMATCH CLAIM_REJECTED KEYS_OF_ISSUER_UNAVAILABLE LEASE_UNKNOWN
        PROOF_REJECTED {SIGN_IN_FAILED}""",
    PermissionDenied: """POLICY_DENIED SCOPE_EXCEEDED MODEL_NOT_ALLOWED DISCLOSURE_NOT_ALLOWED SUBJECT_BLOCKED
        SIDECAR_BANNED ENVIRONMENT_MISMATCH ROUTE_NOT_ALLOWED OPERATOR_NOT_ALLOWED""",
    BudgetExhausted: "BUDGET_EXHAUSTED",
    QuotaExceeded: "RATE_LIMITED LEASE_COUNT_EXCEEDED CONCURRENCY_EXCEEDED",
    LeaseEnded: "LEASE_EXPIRED LEASE_RELEASED LEASE_REVOKED PROCESS_ENDED",
    PreconditionFailed: """MAX_TTL_REACHED KEY_DISABLED AUDIT_SPOOL_FULL LEASE_FROZEN PRICE_UNKNOWN COST_UNBOUNDED
        AUDIT_CHAIN_BROKEN AUDIT_EPOCH_FENCED CENTRE_BEHIND SESSION_SUPERSEDED""",
    NotFound: "LEASE_NOT_FOUND REVOCATION_NOT_FOUND ROTATION_NOT_FOUND",
    InvalidRequest: """FIELD_INVALID METADATA_MISSING DEADLINE_MISSING BODY_INVALID HEADER_NOT_ALLOWED
        CONTENT_TYPE_NOT_ALLOWED BODY_TOO_LARGE""",
    Conflict: "CONCURRENT_UPDATE REQUEST_ID_REUSED EXPECTED_COUNT_MISMATCH",
    Unavailable: f"""CENTRE_UNREACHABLE STARTING DRAINING KEY_UNAVAILABLE UPSTREAM_UNREACHABLE STORE_UNAVAILABLE
        OVERLOADED AUDIT_SINK_BEHIND AUDIT_DISK_LOW {UNREACHABLE} {DEADLINE}
        {ISSUER_UNREACHABLE}""",
}
FAMILY_OF_REASON = {reason: family for family, reasons in _FAMILIES.items() for reason in reasons.split()}

ADVICE = {
    "LEASE_REVOKED": "stop; ask the incident responders before acquiring again",
    "LEASE_FROZEN": "stop; usage above a hold was reported, an operator must look at the lease",
    "LEASE_UNKNOWN": "acquire a lease here: its token works only for the peer and the sidecar that it was issued to",
    "LEASE_COUNT_EXCEEDED": "release leases that you no longer need, or reuse one",
    "CONCURRENCY_EXCEEDED": "wait for an open call to end",
    "MAX_TTL_REACHED": "use the lease until it ends, then acquire a new one",
    "SCOPE_EXCEEDED": "ask for less, or ask the platform team for a wider grant",
    "MODEL_NOT_ALLOWED": "use a model that the message lists, or ask the platform team for a wider grant",
    "PRICE_UNKNOWN": "ask the platform team to add a price for the model",
    "OPERATOR_NOT_ALLOWED": "ask the platform team to list you as an operator of this service",
    "REQUEST_ID_REUSED": "use a new request id for a different request",
    "EXPECTED_COUNT_MISMATCH": "look again at what would be revoked, then repeat with the new count",
    UNREACHABLE: "check that it runs, that its socket is mounted here, and that this user may open it",
    DEADLINE: "try again later, or allow more time",
    SIGN_IN_FAILED: "put right what the message names, then sign in with 'leasehold login'",
    ISSUER_UNREACHABLE: "try again later; a proxy is taken from HTTPS_PROXY, roots of your own from SSL_CERT_FILE",
}
"""Where the next step is narrower than the family's."""

_FAMILY_OF_CODE: dict[grpc.StatusCode, type[LeaseholdError]] = {
    grpc.StatusCode.UNAUTHENTICATED: IdentityRejected,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaExceeded,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: Unavailable,
}


def from_rpc_error(failure: grpc.RpcError, where: str) -> LeaseholdError:
    """The exception for a failed call, rich details read.

    Args:
        failure: as grpcio raised it, blocking or aio.
        where: target, for messages when no broker answered.
    """
    code = failure.code()
    trailers: dict[str, str | bytes] = dict(failure.trailing_metadata() or ())  # type: ignore[arg-type]
    details = _details(trailers.get(DETAILS_TRAILER))
    info = _first(details, rpc_errors.ErrorInfo)
    text = failure.details() or ""
    if info is None:
        return _without_details(code, text, where)
    retry = _first(details, rpc_errors.RetryInfo)
    quota = _first(details, rpc_errors.QuotaFailure)
    bad = _first(details, rpc_errors.BadRequest)
    violations = tuple(Violation(each.subject, each.description) for each in (quota.violations if quota else ()))
    violations += tuple(Violation(each.field, each.description) for each in (bad.field_violations if bad else ()))
    request_id = info.metadata.get("request_id", "") or str(trailers.get(REQUEST_ID, ""))
    family = FAMILY_OF_REASON.get(info.reason) or _FAMILY_OF_CODE.get(code, LeaseholdError)
    return family(
        text.removeprefix(f"{info.reason}: ").rstrip(".") + ".",
        reason=info.reason,
        request_id=request_id,
        retry_after=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
        violations=violations,
    )


def _without_details(code: grpc.StatusCode, text: str, where: str) -> LeaseholdError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"cannot reach {where}: {text or 'no answer'}.", reason=UNREACHABLE)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"no answer from {where} within the deadline.", reason=DEADLINE)
    family = _FAMILY_OF_CODE.get(code, LeaseholdError)
    return family(f"{where} answered {code.name}: {text or 'no details'}.", reason=code.name)


def _details(trailer: object) -> dict[str, bytes]:
    if not isinstance(trailer, bytes):
        return {}
    try:
        status = rpc_errors.RpcStatus.FromString(trailer)
    except DecodeError:
        return {}
    return {detail.type_url: detail.value for detail in status.details}


def _first(details: dict[str, bytes], kind: type[M]) -> M | None:
    value = details.get(_TYPE_URL + kind.DESCRIPTOR.name)
    if value is None:
        return None
    try:
        return kind.FromString(value)
    except DecodeError:
        return None
