"""How this door answers: status and headers of refusals, and which of a provider's answer headers are let through."""

import json
import math
import re
from collections.abc import Sequence
from http import HTTPStatus

from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal
from leasehold_broker.egress.redaction import Redactor
from leasehold_broker.ports.provider import Provider

STATUSES: dict[Reason, int] = {
    **dict.fromkeys(IDENTITY_REASONS, 401),
    Reason.LEASE_UNKNOWN: 401,
    Reason.LEASE_EXPIRED: 401,
    Reason.LEASE_RELEASED: 401,
    Reason.PROCESS_ENDED: 401,
    Reason.BUDGET_EXHAUSTED: 402,
    Reason.RATE_LIMITED: 429,
    Reason.LEASE_COUNT_EXCEEDED: 429,
    Reason.CONCURRENCY_EXCEEDED: 429,
    Reason.FIELD_INVALID: 400,
    Reason.METADATA_MISSING: 400,
    Reason.DEADLINE_MISSING: 400,
    Reason.REQUEST_ID_REUSED: 400,
    Reason.BODY_INVALID: 400,
    Reason.HEADER_NOT_ALLOWED: 400,
    Reason.COST_UNBOUNDED: 400,
    Reason.CONTENT_TYPE_NOT_ALLOWED: 415,
    Reason.BODY_TOO_LARGE: 413,
    Reason.UPSTREAM_UNREACHABLE: 502,
    Reason.AUDIT_SPOOL_FULL: 503,
    Reason.CENTRE_UNREACHABLE: 503,
    Reason.STARTING: 503,
    Reason.DRAINING: 503,
    Reason.KEY_UNAVAILABLE: 503,
    Reason.STORE_UNAVAILABLE: 503,
    Reason.OVERLOADED: 503,
    Reason.CONCURRENT_UPDATE: 503,
}
"""By reason; 403 for every other: what is not allowed stays not allowed."""

WAITING_HELPS = frozenset({Reason.RATE_LIMITED, Reason.CONCURRENCY_EXCEEDED})
RETRY_AFTER_SECONDS_DEFAULT = 1

ANSWER_HEADERS = frozenset(
    {
        "anthropic-request-id",
        "cache-control",
        "content-type",
        "openai-model",
        "openai-processing-ms",
        "openai-version",
        "request-id",
        "retry-after",
        "retry-after-ms",
        "x-request-id",
        "x-should-retry",
    }
)
ANSWER_HEADER_PREFIXES = ("anthropic-ratelimit-", "x-ratelimit-")
_VALUE = re.compile(r"[ -~]{0,1024}")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def status_of(refusal: Refusal) -> int:
    """The HTTP status of a refusal."""
    return STATUSES.get(refusal.reason, 403)


def refusal_answer(
    status: int, refusal: Refusal, request_id: str, provider: Provider | None, *, close: bool, body_follows: bool
) -> bytes:
    """The whole answer to a refused request.

    Args:
        status: from `status_of`, or of a framing error.
        refusal: why.
        request_id: ours.
        provider: whose error shape to speak; None before one is known.
        close: the connection is closed after it.
        body_follows: False for HEAD.
    """
    public = _public(refusal)
    body = _plain_body(public, request_id) if provider is None else provider.refusal_body(status, public, request_id)
    lines = [
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "leasehold-refused-by: leasehold",
        f"leasehold-reason: {public.reason.value}",
        f"leasehold-request-id: {request_id}",
    ]
    if status in {429, 503}:
        wait = refusal.retry_after_seconds
        lines.append(f"retry-after: {RETRY_AFTER_SECONDS_DEFAULT if wait is None else max(1, math.ceil(wait))}")
    if status < 500 and refusal.reason not in WAITING_HELPS:
        lines.append("x-should-retry: false")
    if close:
        lines.append("connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head + body if body_follows else head


def _public(refusal: Refusal) -> Refusal:
    """What the caller may see: identity refusals all look the same."""
    if refusal.reason in IDENTITY_REASONS:
        return Refusal(Reason.IDENTITY_REJECTED, "who is calling could not be verified; connect as the lease's holder")
    return refusal


def _plain_body(refusal: Refusal, request_id: str) -> bytes:
    error = {
        "type": "leasehold_refusal",
        "reason": refusal.reason.value,
        "message": refusal.message,
        "request_id": request_id,
    }
    return json.dumps({"error": error}).encode()


def relayed_head(
    status: int,
    headers: Sequence[tuple[str, str]],
    redactor: Redactor,
    request_id: str,
    remaining_micro_usd: int | None,
    output_limited: int | None = None,
    *,
    close: bool,
) -> bytes:
    """Status line and headers of a provider's answer, as the caller gets them: allow-listed, each once, chunked."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
    seen: set[str] = set()
    for name, value in headers:
        if name not in ANSWER_HEADERS and not name.startswith(ANSWER_HEADER_PREFIXES):
            continue
        if name in seen or not _VALUE.fullmatch(value) or redactor.occurs_in(value.encode("ascii")):
            continue
        seen.add(name)
        lines.append(f"{name}: {value}")
    lines.append(f"leasehold-request-id: {request_id}")
    if remaining_micro_usd is not None:
        lines.append(f"leasehold-budget-remaining-micro-usd: {remaining_micro_usd}")
    if output_limited is not None:
        lines.append(f"leasehold-output-limited: {output_limited}")
    if close:
        lines.append("connection: close")
    lines.append("transfer-encoding: chunked\r\n\r\n")
    return "\r\n".join(lines).encode("ascii")
