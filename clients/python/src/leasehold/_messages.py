"""Requests and answers in Python's words. Owns building and reading the messages; refuses to send or keep them.

Both clients use these functions, so a lease means the same in both.
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasehold._amounts import UNCAPPED, Money, Ttl, count, micro_usd, ttl_seconds
from leasehold.errors import InvalidRequest
from leasehold.v1 import lease_service_pb2 as service
from leasehold.v1 import types_pb2 as types


@dataclass(frozen=True, slots=True)
class Scope:
    """What a lease may reach at one provider. Empty: in a request whatever the grant allows, in a lease anything.

    Args:
        provider: "anthropic", "openai", "gemini".
        models, operations: exact names, or patterns that end in "*".
        tools: server-side tool types, which cost money of their own.
        max_output_tokens_per_request: 0: the grant's own limit.
        key: in a lease, the name of the key that serves it; never the key.
    """

    provider: str
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    max_output_tokens_per_request: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """How one budget that applies to a lease stands.

    Args:
        budget: "lease", "parent", "subject/day", "key/month".
        metric: "cost_micro_usd", "input_tokens", "output_tokens", "requests", "concurrency".
        cap: None when this metric is counted but not capped.
        settled, held, remaining: in the metric's unit; remaining is None when there is no cap.
        reset_time: when the window starts anew; None when it never does.
    """

    budget: str
    metric: str
    cap: int | None
    settled: int
    held: int
    remaining: int | None
    reset_time: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease as the broker last described it. Safe to log: the token is not part of it.

    Args:
        name: "leases/<id>"; parent, root: names in its delegation tree.
        state: "active", "frozen", "expired", "released", "revoked".
        reason: why it is in that state; "" while active.
        subject: who holds it, "issuer subject".
        scopes: what it may reach; limits: caps of its own by metric; usage: all budgets that apply.
        create_time, expire_time, max_expire_time: by the broker's clock, to show, not to schedule by.
        ttl_seconds, renew_after_seconds: relative to the answer; renew_after 0: not renewable.
    """

    name: str
    parent: str
    root: str
    state: str
    reason: str
    subject: str
    scopes: tuple[Scope, ...]
    limits: Mapping[str, int]
    usage: tuple[Usage, ...]
    create_time: datetime
    expire_time: datetime
    max_expire_time: datetime
    ttl_seconds: float
    renew_after_seconds: float
    renew_count: int
    grant: str
    purpose: str
    labels: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """True once it can never be used again."""
        return self.state in {"expired", "released", "revoked"}

    @property
    def remaining_micro_usd(self) -> int | None:
        """Money left under all budgets that apply; None when none of them caps money."""
        left = [row.remaining for row in self.usage if row.metric == "cost_micro_usd" and row.remaining is not None]
        return min(left, default=None)

    def own(self, metric: str) -> Usage | None:
        """The row of the lease's own budget for a metric, or None."""
        return next((row for row in self.usage if row.budget == "lease" and row.metric == metric), None)


def new_request_id() -> str:
    """A fresh request id; the same one is sent with every retry."""
    return str(uuid.uuid4())


class Asked(TypedDict, total=False):
    """What may be asked for, by keyword; `wanted` says what each means."""

    provider: str | None
    models: Iterable[str]
    operations: Iterable[str]
    tools: Iterable[str]
    max_output_tokens_per_request: int
    scopes: Iterable[Scope]
    budget: Money | None
    ttl: Ttl | None
    requests: int | None
    concurrency: int | None
    input_tokens: int | None
    output_tokens: int | None
    purpose: str
    labels: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for, checked: scopes and limits in the broker's words."""

    scopes: tuple[types.Scope, ...]
    limits: tuple[types.Limit, ...]
    ttl: Duration | None
    purpose: str
    labels: Mapping[str, str]


def wanted(
    *,
    provider: str | None = None,
    models: Iterable[str] = (),
    operations: Iterable[str] = (),
    tools: Iterable[str] = (),
    max_output_tokens_per_request: int = 0,
    scopes: Iterable[Scope] = (),
    budget: Money | None = None,
    ttl: Ttl | None = None,
    requests: int | None = None,
    concurrency: int | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    purpose: str = "",
    labels: Mapping[str, str] | None = None,
) -> Wanted:
    """Check what a caller asks for.

    Args:
        provider: name of the one provider that it may reach.
        models: exact names, or patterns that end in "*".
        operations: exact names, or patterns that end in "*".
        tools: server-side tool types.
        max_output_tokens_per_request: 0: the grant's own limit.
        scopes: instead of these five, one `Scope` per provider.
        budget: USD as text or Decimal, or micro-USD as int.
        ttl: "30m", a timedelta, or seconds; None: the longest that the grant gives.
        requests: cap on calls; this and the next three: None for the grant's.
        concurrency: cap on calls at a time.
        input_tokens: cap on tokens sent.
        output_tokens: cap on tokens received.
        purpose: why, for the audit log; never a secret.
        labels: your own (task, run, trace id); never secrets.

    Raises:
        InvalidRequest: something is wrong as written.
    """
    names = (_names("models", models), _names("operations", operations), _names("tools", tools))
    asked = list(scopes)
    if provider is not None:
        if asked:
            raise InvalidRequest.of_field("scopes", "is given together with provider; give one of the two")
        asked = [Scope(provider, *names, max_output_tokens_per_request)]
    elif any(names) or max_output_tokens_per_request:
        raise InvalidRequest.of_field(
            "provider", "is missing though models, operations, tools or an output limit is given"
        )
    limits = [
        types.Limit(metric=metric, amount=amount)
        for metric, amount in (
            (types.METRIC_COST_MICRO_USD, None if budget is None else micro_usd(budget)),
            (types.METRIC_INPUT_TOKENS, None if input_tokens is None else count(input_tokens, "input_tokens")),
            (types.METRIC_OUTPUT_TOKENS, None if output_tokens is None else count(output_tokens, "output_tokens")),
            (types.METRIC_REQUESTS, None if requests is None else count(requests, "requests")),
            (types.METRIC_CONCURRENCY, None if concurrency is None else count(concurrency, "concurrency")),
        )
        if amount is not None
    ]
    return Wanted(
        tuple(_scope(scope) for scope in asked),
        tuple(limits),
        None if ttl is None else Duration(seconds=ttl_seconds(ttl)),
        purpose,
        dict(labels or {}),
    )


def _names(field: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidRequest.of_field(field, f"is the text {names!r}; give a list of names")
    return tuple(names)


def _scope(scope: Scope) -> types.Scope:
    if scope.max_output_tokens_per_request:
        count(scope.max_output_tokens_per_request, "max_output_tokens_per_request")
    return types.Scope(
        provider=scope.provider,
        models=_names("models", scope.models),
        operations=_names("operations", scope.operations),
        tools=_names("tools", scope.tools),
        max_output_tokens_per_request=scope.max_output_tokens_per_request,
    )


MODES = {"brokered": types.MODE_BROKERED, "minted": types.MODE_MINTED, "disclosed": types.MODE_DISCLOSED}


def acquire_request(
    asked: Wanted, *, validate_only: bool, end_with_process: bool = False, mode: str = "brokered"
) -> service.AcquireLeaseRequest:
    """The message, with a fresh request id.

    Raises:
        InvalidRequest: no provider at all, or no such mode.
    """
    if mode not in MODES:
        raise InvalidRequest.of_field("mode", f"is {mode!r}; known: {', '.join(MODES)}")
    if not asked.scopes:
        raise InvalidRequest.of_field("provider", 'is missing; give provider="anthropic" or scopes=[...]')
    return service.AcquireLeaseRequest(
        request_id=new_request_id(),
        scopes=asked.scopes,
        limits=asked.limits,
        ttl=asked.ttl,
        mode=MODES[mode],
        purpose=asked.purpose,
        labels=asked.labels,
        validate_only=validate_only,
        end_with_process=end_with_process,
    )


def delegate_request(
    parent: str, asked: Wanted, binding_uid: int | None, binding_certificate_sha256: str | None
) -> service.DelegateLeaseRequest:
    """The message, with a fresh request id; no scope: the parent's.

    Raises:
        InvalidRequest: two bindings.
    """
    if binding_uid is not None and binding_certificate_sha256 is not None:
        raise InvalidRequest.of_field("binding", "is given twice; give a uid or a certificate digest")
    binding = None
    if binding_uid is not None:
        binding = types.PeerBinding(uid=binding_uid)
    elif binding_certificate_sha256 is not None:
        binding = types.PeerBinding(certificate_sha256=binding_certificate_sha256)
    return service.DelegateLeaseRequest(
        parent=parent,
        request_id=new_request_id(),
        scopes=asked.scopes,
        limits=asked.limits,
        ttl=asked.ttl,
        binding=binding,
        purpose=asked.purpose,
        labels=asked.labels,
    )


def lease_info(lease: types.Lease) -> LeaseInfo:
    """The lease, read."""
    return LeaseInfo(
        name=lease.name,
        parent=lease.parent,
        root=lease.root,
        state=_word(types.LeaseState.items(), lease.state, "LEASE_STATE_").lower(),
        reason=_word(types.Reason.items(), lease.state_reason, "REASON_") if lease.state_reason else "",
        subject=f"{lease.subject.issuer} {lease.subject.subject}".strip(),
        scopes=tuple(
            Scope(
                scope.provider,
                tuple(scope.models),
                tuple(scope.operations),
                tuple(scope.tools),
                scope.max_output_tokens_per_request,
                scope.key,
            )
            for scope in lease.scopes
        ),
        limits={_metric(limit.metric): limit.amount for limit in lease.limits},
        usage=tuple(_usage(row) for row in lease.usage),
        create_time=_moment(lease.create_time),
        expire_time=_moment(lease.expire_time),
        max_expire_time=_moment(lease.max_expire_time),
        ttl_seconds=lease.ttl.ToTimedelta().total_seconds(),
        renew_after_seconds=lease.renew_after.ToTimedelta().total_seconds(),
        renew_count=lease.renew_count,
        grant=lease.grant,
        purpose=lease.purpose,
        labels=dict(lease.labels),
    )


def _word(members: Iterable[tuple[str, int]], number: int, prefix: str) -> str:
    # A newer broker may know members that this client does not: their number is shown.
    return next((name.removeprefix(prefix) for name, each in members if each == number), str(number))


def _metric(metric: int) -> str:
    return _word(types.Metric.items(), metric, "METRIC_").lower()


def _usage(row: types.LimitUsage) -> Usage:
    capped = 0 < row.cap < UNCAPPED
    return Usage(
        row.budget,
        _metric(row.metric),
        row.cap if capped else None,
        row.settled,
        row.held,
        row.remaining if capped else None,
        _moment(row.reset_time) if row.HasField("reset_time") else None,
    )


def _moment(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
