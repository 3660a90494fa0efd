"""Leases in both directions. Owns the strict reading of lease requests, and how a lease is shown.

Refuses to fill in what a request leaves out beyond what the contract says, and to show a lease by its absolute end
alone: the time left stands beside it, because the caller's clock is not ours.
"""

import re
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasehold.v1 import lease_service_pb2, types_pb2
from leasehold_broker.domain.amounts import AMOUNT_MAX, METRICS, UNLIMITED, Amounts, Metric
from leasehold_broker.domain.budget_usage import BudgetUsage
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.lease import Lease, Mode
from leasehold_broker.domain.policy import LeaseRequest
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.scope import Scope
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.wire import fields
from leasehold_broker.wire.reasons import (
    metric_from_proto,
    metric_to_proto,
    mode_from_proto,
    mode_to_proto,
    reason_to_proto,
    state_to_proto,
)

SCOPES_MAX = 16
NAMES_PER_SCOPE_MAX = 64
OUTPUT_TOKENS_MAX = 10_000_000
UID_MAX = 2**32 - 2
RENEW_COUNT_MAX = 2**31 - 1

PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,31}")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
OPERATION = re.compile(r"[a-z][a-z0-9_.]{0,63}")
TOOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
CERTIFICATE_DIGEST = re.compile(r"[0-9a-f]{64}")


def acquire_request(request: lease_service_pb2.AcquireLeaseRequest) -> LeaseRequest:
    """What an AcquireLease asks for.

    Raises:
        Refusal: FIELD_INVALID, naming the field.
    """
    fields.check_known(request)
    if not request.scopes:
        raise field_invalid("scopes", "must hold at least one scope: which provider should this lease reach?")
    mode = Mode.BROKERED if request.mode == types_pb2.MODE_UNSPECIFIED else mode_from_proto(request.mode)
    if mode is None:
        raise field_invalid("mode", f"{request.mode} is not a mode that this sidecar knows")
    return LeaseRequest(
        scopes=_scopes(request.scopes),
        caps=_caps(request.limits),
        ttl_seconds=fields.ttl_seconds("ttl", request, request.ttl),
        mode=mode,
        purpose=fields.plain_text("purpose", request.purpose),
        labels=fields.labels(request.labels),
    )


def delegate_request(request: lease_service_pb2.DelegateLeaseRequest) -> LeaseRequest:
    """What a DelegateLease asks for; no scopes means the parent's. Always brokered.

    Raises:
        Refusal: FIELD_INVALID, naming the field.
    """
    fields.check_known(request)
    return LeaseRequest(
        scopes=_scopes(request.scopes),
        caps=_caps(request.limits),
        ttl_seconds=fields.ttl_seconds("ttl", request, request.ttl),
        mode=Mode.BROKERED,
        purpose=fields.plain_text("purpose", request.purpose),
        labels=fields.labels(request.labels),
    )


def delegate_binding(request: lease_service_pb2.DelegateLeaseRequest) -> str | None:
    """Whom the child's token is bound to, as in `Lease.binding`; None for the caller's own peer.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if not request.HasField("binding"):
        return None
    match request.binding.WhichOneof("how"):
        case "uid":
            if not 0 <= request.binding.uid <= UID_MAX:
                raise field_invalid("binding.uid", f"must be 0 to {UID_MAX}, was {request.binding.uid}")
            return f"uid:{request.binding.uid}"
        case "certificate_sha256":
            if not CERTIFICATE_DIGEST.fullmatch(request.binding.certificate_sha256):
                raise field_invalid("binding.certificate_sha256", "must be 64 hexadecimal digits in lower case")
            return f"cert:{request.binding.certificate_sha256}"
        case _:
            raise field_invalid("binding", "is empty: state uid or certificate_sha256, or leave binding out")


def expected_renew_count(request: lease_service_pb2.RenewLeaseRequest) -> int | None:
    """The stated count, or None.

    Raises:
        Refusal: FIELD_INVALID when negative.
    """
    if not request.HasField("expected_renew_count"):
        return None
    if request.expected_renew_count < 0:
        raise field_invalid("expected_renew_count", f"must not be negative, was {request.expected_renew_count}")
    return request.expected_renew_count


def lease_to_proto(
    lease: Lease, now: Instant, usage: Iterable[BudgetUsage], renew_after_seconds: float
) -> types_pb2.Lease:
    """The lease as callers see it.

    Args:
        lease: the lease.
        now: of this answer; the time left is counted from it.
        usage: how its budgets stand.
        renew_after_seconds: from `domain.lease.renew_after_seconds`, with the jitter already in it.
    """
    left_seconds = 0.0 if lease.ended else max(0.0, now.seconds_until(lease.expire_ns))
    return types_pb2.Lease(
        name=lease.name,
        parent=lease.parent,
        root=lease.root,
        depth=lease.depth,
        subject=subject_to_proto(lease.subject),
        scopes=[_scope_to_proto(scope) for scope in lease.scopes],
        limits=_limits(lease.caps),
        usage=[_usage_to_proto(row) for row in usage],
        mode=mode_to_proto(lease.mode),
        binding=_binding_to_proto(lease.binding),
        create_time=timestamp(lease.create_wall_ms),
        expire_time=timestamp(lease.expire_wall_ms),
        max_expire_time=timestamp(lease.max_expire_wall_ms),
        ttl=duration(left_seconds),
        renew_after=duration(renew_after_seconds),
        renew_count=min(lease.renew_count, RENEW_COUNT_MAX),
        state=state_to_proto(lease.state),
        state_reason=reason_to_proto(lease.state_reason),
        grant=lease.grant,
        policy_version=lease.policy_version,
        revocation_epoch=lease.revocation_epoch,
        labels=dict(lease.labels),
        purpose=lease.purpose,
        end_with_process=bool(lease.process),
    )


def subject_to_proto(subject: Subject) -> types_pb2.Subject:
    """The verified caller."""
    return types_pb2.Subject(issuer=subject.issuer, subject=subject.subject, labels=dict(subject.labels))


def timestamp(wall_ms: int) -> Timestamp:
    """Unix milliseconds as a Timestamp."""
    return Timestamp(seconds=wall_ms // 1000, nanos=wall_ms % 1000 * 1_000_000)


def duration(seconds: float) -> Duration:
    """Seconds, not negative, as a Duration."""
    nanos = int(seconds * NANOS)
    return Duration(seconds=nanos // NANOS, nanos=nanos % NANOS)


def _scopes(given: Iterable[types_pb2.Scope]) -> tuple[Scope, ...]:
    scopes = tuple(_scope(f"scopes[{index}].", scope) for index, scope in enumerate(given))
    if len(scopes) > SCOPES_MAX:
        raise field_invalid("scopes", f"must be at most {SCOPES_MAX}, are {len(scopes)}")
    seen: set[str] = set()
    for scope in scopes:
        if scope.provider in seen:
            raise field_invalid("scopes", f"names provider {scope.provider!r} twice; join the two scopes into one")
        seen.add(scope.provider)
    return scopes


def _scope(place: str, scope: types_pb2.Scope) -> Scope:
    if not PROVIDER.fullmatch(scope.provider):
        raise field_invalid(
            place + "provider", f"{fields.quoted(scope.provider)} is not a provider's name, like anthropic"
        )
    if scope.key:
        raise field_invalid(place + "key", "is set by the broker; leave it out")
    if not 0 <= scope.max_output_tokens_per_request <= OUTPUT_TOKENS_MAX:
        raise field_invalid(
            place + "max_output_tokens_per_request",
            f"must be 0 (the grant's own) to {OUTPUT_TOKENS_MAX}, was {scope.max_output_tokens_per_request}",
        )
    return Scope(
        provider=scope.provider,
        models=fields.patterns(place + "models", scope.models, MODEL, NAMES_PER_SCOPE_MAX),
        operations=fields.patterns(place + "operations", scope.operations, OPERATION, NAMES_PER_SCOPE_MAX),
        tools=fields.patterns(place + "tools", scope.tools, TOOL, NAMES_PER_SCOPE_MAX),
        max_output_tokens_per_request=scope.max_output_tokens_per_request,
    )


def _caps(limits: Iterable[types_pb2.Limit]) -> Amounts:
    stated: dict[Metric, int] = {}
    for index, limit in enumerate(limits):
        place = f"limits[{index}]."
        metric = metric_from_proto(limit.metric)
        if metric is None:
            raise field_invalid(place + "metric", f"{limit.metric} is not a metric that this sidecar knows")
        if metric in stated:
            raise field_invalid(place + "metric", f"states {metric} a second time; state each metric once")
        if not 1 <= limit.amount <= AMOUNT_MAX:
            raise field_invalid(place + "amount", f"must be 1 to {AMOUNT_MAX}, was {limit.amount}")
        stated[metric] = limit.amount
    return Amounts(*(stated.get(metric, UNLIMITED) for metric in METRICS))


def _limits(caps: Amounts) -> list[types_pb2.Limit]:
    return [
        types_pb2.Limit(metric=metric_to_proto(metric), amount=cap)
        for metric, cap in zip(METRICS, caps, strict=True)
        if cap < UNLIMITED
    ]


def _scope_to_proto(scope: Scope) -> types_pb2.Scope:
    return types_pb2.Scope(
        provider=scope.provider,
        models=scope.models,
        operations=scope.operations,
        tools=scope.tools,
        max_output_tokens_per_request=scope.max_output_tokens_per_request,
        key=scope.key,
    )


def _usage_to_proto(row: BudgetUsage) -> types_pb2.LimitUsage:
    capped = row.cap < UNLIMITED
    return types_pb2.LimitUsage(
        budget=row.budget,
        metric=metric_to_proto(row.metric),
        cap=row.cap if capped else 0,
        settled=row.settled,
        held=row.held,
        remaining=row.remaining if capped else 0,
        reset_time=timestamp(row.reset_wall_ms) if row.reset_wall_ms else None,
    )


def _binding_to_proto(binding: str) -> types_pb2.PeerBinding:
    kind, _, value = binding.partition(":")
    if kind == "uid":
        return types_pb2.PeerBinding(uid=int(value))
    return types_pb2.PeerBinding(certificate_sha256=value)
