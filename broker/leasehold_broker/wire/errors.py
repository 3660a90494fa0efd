"""Refusals as gRPC says them: code, google.rpc.Status and its details. Owns what a caller may learn from a refusal.

Refuses to show `Refusal.detail`, and to tell identity failures apart: their answers are the same to the byte but for
the request id, so that nobody can probe which check stopped him. Everything is bounded: the status rides in a trailer,
and clients stop reading headers at 8 KiB.
"""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from leasehold.v1 import rpc_errors_pb2
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal

ERROR_DOMAIN = "leasehold.dev"
STATUS_TRAILER = "grpc-status-details-bin"
TYPE_URL_PREFIX = "type.googleapis.com/google.rpc."
REQUEST_ID_KEY = "request_id"
IDENTITY_MESSAGE = (
    "this caller's identity was not accepted; read the workload token afresh and try once more, then ask the platform "
    "team, naming the request id"
)

MESSAGE_BYTES_MAX = 512
VIOLATIONS_MAX = 8
SUBJECT_BYTES_MAX = 64
DESCRIPTION_BYTES_MAX = 192
RETRY_SECONDS_MAX = 86_400.0

# google.rpc.Code, which is also the number of grpc.StatusCode.
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

_BY_CODE = {
    UNAUTHENTICATED: (*IDENTITY_REASONS, Reason.LEASE_UNKNOWN),
    PERMISSION_DENIED: (
        Reason.POLICY_DENIED,
        Reason.SCOPE_EXCEEDED,
        Reason.MODEL_NOT_ALLOWED,
        Reason.DISCLOSURE_NOT_ALLOWED,
        Reason.SUBJECT_BLOCKED,
        Reason.LEASE_REVOKED,
        Reason.SIDECAR_BANNED,
        Reason.ENVIRONMENT_MISMATCH,
        Reason.ROUTE_NOT_ALLOWED,
        Reason.OPERATOR_NOT_ALLOWED,
    ),
    RESOURCE_EXHAUSTED: (
        Reason.BUDGET_EXHAUSTED,
        Reason.RATE_LIMITED,
        Reason.LEASE_COUNT_EXCEEDED,
        Reason.CONCURRENCY_EXCEEDED,
    ),
    FAILED_PRECONDITION: (
        Reason.LEASE_EXPIRED,
        Reason.LEASE_RELEASED,
        Reason.MAX_TTL_REACHED,
        Reason.KEY_DISABLED,
        Reason.AUDIT_SPOOL_FULL,
        Reason.LEASE_FROZEN,
        Reason.PRICE_UNKNOWN,
        Reason.COST_UNBOUNDED,
        Reason.PROCESS_ENDED,
        Reason.AUDIT_CHAIN_BROKEN,
        Reason.AUDIT_EPOCH_FENCED,
        Reason.CENTRE_BEHIND,
        Reason.SESSION_SUPERSEDED,
    ),
    NOT_FOUND: (Reason.LEASE_NOT_FOUND, Reason.REVOCATION_NOT_FOUND, Reason.ROTATION_NOT_FOUND),
    INVALID_ARGUMENT: (
        Reason.FIELD_INVALID,
        Reason.METADATA_MISSING,
        Reason.DEADLINE_MISSING,
        Reason.BODY_INVALID,
        Reason.HEADER_NOT_ALLOWED,
        Reason.CONTENT_TYPE_NOT_ALLOWED,
        Reason.BODY_TOO_LARGE,
        Reason.EXPECTED_COUNT_MISMATCH,
    ),
    ALREADY_EXISTS: (Reason.REQUEST_ID_REUSED,),
    UNAVAILABLE: (
        Reason.CENTRE_UNREACHABLE,
        Reason.STARTING,
        Reason.DRAINING,
        Reason.KEY_UNAVAILABLE,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.STORE_UNAVAILABLE,
        Reason.OVERLOADED,
        Reason.AUDIT_SINK_BEHIND,
        Reason.AUDIT_DISK_LOW,
    ),
    ABORTED: (Reason.CONCURRENT_UPDATE,),
}
_CODES = {reason: code for code, reasons in _BY_CODE.items() for reason in reasons}


def code_of(reason: Reason) -> int:
    """The gRPC status code number for a reason."""
    return _CODES[reason]


def rpc_status(refusal: Refusal, request_id: str) -> rpc_errors_pb2.RpcStatus:
    """What the caller is told, as google.rpc.Status: code, one sentence, details.

    Args:
        refusal: why.
        request_id: names this call in the log and the audit events; shown in ErrorInfo's metadata.
    """
    code = code_of(refusal.reason)
    if refusal.reason in IDENTITY_REASONS:
        info = _error_info(Reason.IDENTITY_REJECTED.value, request_id)
        return rpc_errors_pb2.RpcStatus(code=code, message=IDENTITY_MESSAGE, details=[_packed(info)])
    details = [_packed(_error_info(refusal.reason.value, request_id))]
    violations = refusal.violations[:VIOLATIONS_MAX]
    if violations and code == RESOURCE_EXHAUSTED:
        quota = rpc_errors_pb2.QuotaFailure()
        for violation in violations:
            quota.violations.add(
                subject=_bounded(violation.subject, SUBJECT_BYTES_MAX),
                description=_bounded(violation.description, DESCRIPTION_BYTES_MAX),
            )
        details.append(_packed(quota))
    elif violations and code in {INVALID_ARGUMENT, ALREADY_EXISTS}:
        bad = rpc_errors_pb2.BadRequest()
        for violation in violations:
            bad.field_violations.add(
                field=_bounded(violation.subject, SUBJECT_BYTES_MAX),
                description=_bounded(violation.description, DESCRIPTION_BYTES_MAX),
            )
        details.append(_packed(bad))
    if refusal.retry_after_seconds is not None:
        details.append(_packed(rpc_errors_pb2.RetryInfo(retry_delay=_duration(refusal.retry_after_seconds))))
    message = _bounded(refusal.message, MESSAGE_BYTES_MAX)
    return rpc_errors_pb2.RpcStatus(code=code, message=message, details=details)


def internal_status(request_id: str) -> rpc_errors_pb2.RpcStatus:
    """What the caller is told when we have failed: nothing but the request id to ask about."""
    return rpc_errors_pb2.RpcStatus(
        code=INTERNAL,
        message=f"the broker failed on this call; ask the platform team about request {request_id}",
        details=[_packed(_error_info("UNSPECIFIED", request_id))],
    )


def _error_info(reason: str, request_id: str) -> rpc_errors_pb2.ErrorInfo:
    return rpc_errors_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata={REQUEST_ID_KEY: request_id})


def _packed(detail: Message) -> Any:
    # Not Any.Pack: that would write our package's name, and stock clients look for google.rpc's.
    return Any(type_url=TYPE_URL_PREFIX + detail.DESCRIPTOR.name, value=detail.SerializeToString(deterministic=True))


def _bounded(text: str, bytes_max: int) -> str:
    """Printable, and at most `bytes_max` bytes of UTF-8, cut between characters."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    encoded = plain.encode(errors="replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[: bytes_max - 3].decode(errors="ignore") + "..."


def _duration(seconds: float) -> Duration:
    nanos = round(min(max(seconds, 0.0), RETRY_SECONDS_MAX) * 1_000_000_000)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
