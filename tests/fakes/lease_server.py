"""A small sidecar over the real wire: leases with caps, delegation, watches, and refusals with rich details.

It keeps leases in memory, charges what a test tells it to, and fails as a test arranges. Identity is the token's text.
"""

# ruff: noqa: N802 - the methods' names are the proto's

import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import lease_service_pb2 as service
from leasehold.v1 import lease_service_pb2_grpc as rpc
from leasehold.v1 import rpc_errors_pb2 as rpc_errors
from leasehold.v1 import types_pb2 as types

ENDED = {types.LEASE_STATE_EXPIRED, types.LEASE_STATE_RELEASED, types.LEASE_STATE_REVOKED}
BASE_URLS = {
    "anthropic": "http://127.0.0.1:9/anthropic",
    "openai": "http://127.0.0.1:9/openai/v1",
    "gemini": "http://127.0.0.1:9/gemini",
}


def refuse(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    retry_after: float | None = None,
    budget: str = "",
    field: str = "",
) -> None:
    """Abort with google.rpc details, as the broker does."""
    details: list[Any] = [
        rpc_errors.ErrorInfo(reason=reason, domain="leasehold.dev", metadata={"request_id": "req-from-server"})
    ]
    if retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after * 1e9))
        details.append(rpc_errors.RetryInfo(retry_delay=delay))
    if budget:
        details.append(rpc_errors.QuotaFailure(violations=[{"subject": budget, "description": "used up"}]))
    if field:
        details.append(rpc_errors.BadRequest(field_violations=[{"field": field, "description": "is wrong"}]))
    packed = [
        AnyMessage(type_url=f"type.googleapis.com/google.rpc.{each.DESCRIPTOR.name}", value=each.SerializeToString())
        for each in details
    ]
    status = rpc_errors.RpcStatus(code=code.value[0], message=message, details=packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class Held:
    """One lease as the server keeps it."""

    def __init__(self, lease: types.Lease, ttl: float, max_ttl: float) -> None:
        """Start its life."""
        self.lease = lease
        self.ttl = ttl
        self.ends_at = time.monotonic() + ttl
        self.max_ends_at = time.monotonic() + max_ttl
        self.spent = defaultdict(int)


class LeaseServer(rpc.LeaseServiceServicer):
    """The servicer, its state, and the levers for tests."""

    def __init__(self) -> None:
        """No lease yet."""
        self.lock = threading.Condition()
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.trouble: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self.silent: set[str] = set()
        self.answers_to_lose = 0
        self.leases: dict[str, Held] = {}
        self.by_request: dict[str, tuple[str, str]] = {}
        self.numbers = itertools.count(1)
        self.ttl = 60.0
        self.max_ttl = 3600.0
        self.renew_share = 0.5
        self.accepted_tokens: set[str] | None = None

    def fail_next(self, method: str, code: grpc.StatusCode, reason: str = "", message: str = "no", **more: Any) -> None:
        """Refuse the next call of a method; no reason: without details, as a proxy would."""
        self.trouble[method].append({"code": code, "reason": reason, "message": message, **more})

    def requests(self, method: str) -> list[Any]:
        """Requests of one method so far."""
        with self.lock:
            return [request for name, request, _ in self.calls if name == method]

    def wait_for(self, method: str, count: int, seconds: float = 60.0) -> list[Any]:
        """Wait until a method was called so often."""
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.requests(method)) >= count, seconds), method
        return self.requests(method)

    def charge(self, name: str, micro_usd: int) -> None:
        """Spend on a lease: one call."""
        with self.lock:
            held = self.leases[name]
            held.spent[types.METRIC_COST_MICRO_USD] += micro_usd
            held.spent[types.METRIC_REQUESTS] += 1
            self.lock.notify_all()

    def end(self, name: str, state: int, reason: int) -> None:
        """End a lease and what was delegated from it."""
        with self.lock:
            for held in self.leases.values():
                if name in {held.lease.name, held.lease.parent} and held.lease.state not in ENDED:
                    held.lease.state = state
                    held.lease.state_reason = reason
            self.lock.notify_all()

    def revoke(self, name: str) -> None:
        """End a lease as a responder does."""
        self.end(name, types.LEASE_STATE_REVOKED, types.REASON_LEASE_REVOKED)

    def _enter(self, method: str, request: Any, context: Any) -> None:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        with self.lock:
            copy = type(request)()
            copy.CopyFrom(request)
            self.calls.append((method, copy, metadata))
            self.lock.notify_all()
            trouble = self.trouble[method].popleft() if self.trouble[method] else None
        if method in self.silent:
            while context.is_active():
                time.sleep(0.01)
        if trouble is not None:
            code, reason, message = trouble.pop("code"), trouble.pop("reason"), trouble.pop("message")
            if not reason:
                context.abort(code, message)
            refuse(context, code, reason, message, **trouble)
        if metadata.get("leasehold") != "1":
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "METADATA_MISSING", "send metadata leasehold: 1")
        if context.time_remaining() is None or context.time_remaining() > 1e7:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_MISSING", "set a deadline")
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        if not token or (self.accepted_tokens is not None and token not in self.accepted_tokens):
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REJECTED", "identity was not accepted")

    def _find(self, name: str, context: Any) -> Held:
        held = self.leases.get(name)
        if held is None:
            refuse(context, grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND", f"there is no lease {name}")
        assert held is not None
        if held.lease.state not in ENDED and time.monotonic() >= held.ends_at:
            held.lease.state, held.lease.state_reason = types.LEASE_STATE_EXPIRED, types.REASON_LEASE_EXPIRED
        return held

    def _shown(self, held: Held) -> types.Lease:
        lease = types.Lease()
        lease.CopyFrom(held.lease)
        left = 0.0 if lease.state in ENDED else max(0.0, held.ends_at - time.monotonic())
        lease.ttl.FromNanoseconds(int(left * 1e9))
        if left and held.ends_at < held.max_ends_at:
            lease.renew_after.FromNanoseconds(int(left * self.renew_share * 1e9))
        lease.expire_time.FromNanoseconds(time.time_ns() + int(left * 1e9))
        lease.create_time.GetCurrentTime()
        lease.max_expire_time.FromNanoseconds(time.time_ns() + int(self.max_ttl * 1e9))
        for limit in lease.limits:
            spent = held.spent[limit.metric]
            lease.usage.add(
                budget="lease",
                metric=limit.metric,
                cap=limit.amount,
                settled=spent,
                remaining=limit.amount - spent,
            )
        return lease

    def _issue(self, request: Any, scopes: Any, parent: str) -> tuple[types.Lease, str]:
        if request.request_id in self.by_request:
            name, token = self.by_request[request.request_id]
            return self._shown(self.leases[name]), token
        name = f"leases/{next(self.numbers)}"
        lease = types.Lease(
            name=name,
            parent=parent,
            root=parent or name,
            subject={"issuer": "https://issuer", "subject": "agent-7"},
            scopes=scopes,
            limits=request.limits,
            mode=types.MODE_BROKERED,
            state=types.LEASE_STATE_ACTIVE,
            purpose=request.purpose,
            labels=request.labels,
        )
        ttl = request.ttl.ToTimedelta().total_seconds() if request.HasField("ttl") else self.ttl
        self.leases[name] = Held(lease, min(ttl, self.max_ttl), self.max_ttl)
        token = f"lhs_secret-{name.removeprefix('leases/')}"
        self.by_request[request.request_id] = (name, token)
        return self._shown(self.leases[name]), token

    def AcquireLease(self, request: Any, context: Any) -> Any:
        """Grant whatever is asked for at a known provider."""
        self._enter("AcquireLease", request, context)
        unknown = [scope.provider for scope in request.scopes if scope.provider not in BASE_URLS]
        if unknown:
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED", f"no grant for {unknown[0]}")
        with self.lock:
            if request.validate_only:
                return service.AcquireLeaseResponse(
                    lease=types.Lease(scopes=request.scopes, limits=request.limits, state=types.LEASE_STATE_ACTIVE)
                )
            lease, token = self._issue(request, request.scopes, "")
            if self.answers_to_lose:
                self.answers_to_lose -= 1
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke after the lease was granted")
        return service.AcquireLeaseResponse(lease=lease, lease_token=token, endpoints=_endpoints(lease))

    def DelegateLease(self, request: Any, context: Any) -> Any:
        """Grant a child."""
        self._enter("DelegateLease", request, context)
        with self.lock:
            parent = self._find(request.parent, context)
            lease, token = self._issue(request, request.scopes or parent.lease.scopes, request.parent)
        return service.DelegateLeaseResponse(lease=lease, lease_token=token, endpoints=_endpoints(lease))

    def RenewLease(self, request: Any, context: Any) -> Any:
        """Extend, up to the longest life."""
        self._enter("RenewLease", request, context)
        with self.lock:
            held = self._find(request.name, context)
            if held.lease.state in ENDED:
                reason = types.Reason.Name(held.lease.state_reason).removeprefix("REASON_")
                code = grpc.StatusCode.PERMISSION_DENIED if "REVOKED" in reason else grpc.StatusCode.FAILED_PRECONDITION
                refuse(context, code, reason, f"{request.name} has ended")
            if held.ends_at >= held.max_ends_at:
                refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "MAX_TTL_REACHED", "longest life reached")
            held.ends_at = min(time.monotonic() + held.ttl, held.max_ends_at)
            held.lease.renew_count += 1
            return service.RenewLeaseResponse(lease=self._shown(held))

    def ReleaseLease(self, request: Any, context: Any) -> Any:
        """End; quiet when it has ended already."""
        self._enter("ReleaseLease", request, context)
        with self.lock:
            held = self._find(request.name, context)
            self.end(request.name, types.LEASE_STATE_RELEASED, types.REASON_LEASE_RELEASED)
            return service.ReleaseLeaseResponse(lease=self._shown(held))

    def GetLease(self, request: Any, context: Any) -> Any:
        """Describe one."""
        self._enter("GetLease", request, context)
        with self.lock:
            return service.GetLeaseResponse(lease=self._shown(self._find(request.name, context)))

    def ListLeases(self, request: Any, context: Any) -> Any:
        """Two to a page, so that paging is used."""
        self._enter("ListLeases", request, context)
        with self.lock:
            names = [
                name for name, held in self.leases.items() if request.include_ended or held.lease.state not in ENDED
            ]
            start = int(request.page_token or 0)
            page = [self._shown(self.leases[name]) for name in names[start : start + 2]]
            more = str(start + 2) if start + 2 < len(names) else ""
            return service.ListLeasesResponse(leases=page, next_page_token=more)

    def WatchLease(self, request: Any, context: Any) -> Iterator[Any]:
        """At once and at each change."""
        self._enter("WatchLease", request, context)
        last = None
        while context.is_active():
            with self.lock:
                lease = self._shown(self._find(request.name, context))
                standing = (lease.state, [row.settled for row in lease.usage])
                if standing == last:
                    self.lock.wait(0.05)
                    continue
            last = standing
            yield service.WatchLeaseResponse(lease=lease, final=lease.state in ENDED)
            if lease.state in ENDED:
                return


def _endpoints(lease: types.Lease) -> list[types.Endpoint]:
    return [types.Endpoint(provider=scope.provider, base_url=BASE_URLS[scope.provider]) for scope in lease.scopes]


class Running:
    """Servicers on a Unix socket; can be stopped and started again on the same path."""

    def __init__(self, path: Path, *registrations: Any) -> None:
        """Start; a registration takes the grpc server."""
        self.path = path
        self.registrations = registrations
        self.start()

    @property
    def target(self) -> str:
        """For a client."""
        return f"unix://{self.path}"

    def start(self) -> None:
        """Serve."""
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        for register in self.registrations:
            register(self.server)
        self.server.add_insecure_port(self.target)
        self.server.start()

    def stop(self) -> None:
        """Stop at once."""
        self.server.stop(None).wait()


def serve(leases: LeaseServer, path: Path) -> Running:
    """A sidecar on a Unix socket."""
    return Running(path, lambda server: rpc.add_LeaseServiceServicer_to_server(leases, server))
