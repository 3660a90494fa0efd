"""Anthropic: routes, headers, usage and errors of the Messages API. Pure; knows nothing of sockets, leases or prices.

Base URL for the SDK: our prefix without /v1. Source of the shapes: anthropic 2.12.0.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.providers import anthropic_body as shapes
from leasehold_broker.providers import headers as door
from leasehold_broker.providers.bounds import canonical
from leasehold_broker.providers.checks import (
    MODEL_NAME,
    Object,
    check_fields,
    flag,
    model_name,
    required_body,
)
from leasehold_broker.providers.meters import SseMeter, choose, decode
from leasehold_broker.providers.sse import SseEvent
from leasehold_broker.providers.told_limits import told_limit
from leasehold_broker.providers.usage import anthropic_usage

_NAME: Final = "anthropic"
VERSIONS: Final = frozenset(("2023-01-01", "2023-06-01", "2026-10-21"))
_TOKEN_BETA = "oauth-2025-04-20"  # noqa: S105 - the name of a beta
_VERSION_DEFAULT: Final = "2023-06-01"
BETAS: Final = frozenset(
    [
        "claude-code-20250219",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "extended-cache-ttl-2025-04-11",
        "fast-mode-2026-02-01",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "model-context-window-exceeded-2025-08-26",
        "output-128k-2025-02-19",
        "output-300k-2026-03-24",
        "pdfs-2024-09-25",
        "prompt-caching-2024-07-31",
        "structured-outputs-2025-11-13",
        "task-budgets-2026-03-13",
        "thinking-binding-controls-2026-08-01",
        "thinking-display-updates-2026-08-18",
        "thinking-token-count-2026-05-13",
        "token-counting-2024-11-01",
        "token-efficient-tools-2025-02-19",
        "cache-diagnosis-2026-04-07",
    ]
)
"""Betas that keep the cost of a call within max_tokens and the byte bound. Out: context-1m, whose tier has no price."""
_CARRIED: Final = frozenset(("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"))
_REFUSED_HEADERS: Final = {
    "anthropic-workspace-id": "it chooses who pays, which is the broker's part; leave it out",
    "anthropic-user-profile-id": "it chooses who pays, which is the broker's part; leave it out",
}
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_SERVED: Final = (
    "served are POST /v1/messages, POST /v1/messages/count_tokens, GET /v1/models and GET /v1/models/{model}"
)
_CURSOR: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_LIST_QUERY: Final = frozenset(("limit", "after_id", "before_id", "beta"))


class Anthropic:
    """The port `Provider` for Anthropic."""

    name = _NAME
    default_origin = "https://api.anthropic.com"
    sdk_path = ""
    probe_path = ""

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        members = door.parse_query(query)
        if members is not None:
            members.pop("key", None)
        if members is not None and members.get("beta", "true") == "true":
            found = self._find(method, path, members)
            if found is not None:
                return found
        raise door.not_served(_NAME, method, path, _SERVED)

    @staticmethod
    def _find(method: str, path: str, query: dict[str, str]) -> Route | None:
        suffix = "?beta=true" if "beta" in query else ""
        if method == "POST" and set(query) <= {"beta"}:
            if path == "/v1/messages":
                return Route("messages", "POST", None, f"/v1/messages{suffix}", takes_body=True)
            if path == "/v1/messages/count_tokens":
                return Route("count_tokens", "POST", None, f"/v1/messages/count_tokens{suffix}", takes_body=True)
        cursors = all(_CURSOR.fullmatch(value) for value in query.values())
        if method == "GET" and path == "/v1/models" and set(query) <= _LIST_QUERY and cursors:
            joined = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
            return Route("models.list", "GET", None, "/v1/models" + (f"?{joined}" if joined else ""), takes_body=False)
        head, _, model = path.rpartition("/")
        if method == "GET" and head == "/v1/models" and MODEL_NAME.fullmatch(model) and set(query) <= {"beta"}:
            return Route("models.get", "GET", model, f"/v1/models/{model}{suffix}", takes_body=False)
        return None

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, _CARRIED, _REFUSED_HEADERS)
        vendor_headers(headers)
        if not route.takes_body:
            return CallPlan(_NAME, route.operation, route.path_model, metered=False, stream=False)
        content = required_body(body)
        counts = route.operation == "count_tokens"
        check_fields(content, "", shapes.COUNT_FIELDS if counts else shapes.FIELDS, shapes.REFUSED)
        parts = shapes.walk(content, server_tools=True)
        model = model_name(content)
        if counts:
            return CallPlan(_NAME, route.operation, model, metered=False, stream=False)
        return shapes.plan(
            _NAME,
            route.operation,
            model,
            content,
            parts,
            stream=flag(content, "stream"),
            tiers=shapes.service_tiers(content),
            places=shapes.regions(content),
        )

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: Object | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """See the port. Standard capacity is asked for by name: the default may take priority capacity."""
        extra = _with_token_beta(vendor_headers(headers)) if kind is KeyKind.FEDERATED else vendor_headers(headers)
        if body is None:
            return door.upstream(route.method, route.upstream_path, None, stream=False, extra=extra)
        sent = dict(body)
        if route.operation == "messages":
            sent["service_tier"] = "standard_only"
            if output_tokens_limit is not None:
                sent["max_tokens"] = output_tokens_limit
        return door.upstream(
            route.method, route.upstream_path, canonical(sent), stream=sent.get("stream") is True, extra=extra
        )

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port. A minted token goes as a bearer token."""
        if kind is KeyKind.FEDERATED:
            return "authorization", b"Bearer " + key.reveal()
        return "x-api-key", key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        del plan
        hour = body is not None and b'"ttl":"1h"' in canonical(body)
        if route.operation != "messages":
            return choose(content_type, lambda _: None, lambda: SseMeter(_Nothing()))
        return choose(
            content_type,
            lambda answer: anthropic_usage(answer.get("usage"), writes_1h=hour),
            lambda: SseMeter(Messages(writes_1h=hour)),
        )

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """See the port."""
        return told_limit(status, headers, body)

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        return msgspec.json.encode(_error(_TYPES.get(status, "api_error"), refusal, request_id))

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        data = msgspec.json.encode(_error("permission_error", refusal, request_id))
        return b"event: error\ndata: " + data + b"\n\n"


def _error(kind: str, refusal: Refusal, request_id: str) -> Object:
    error: Object = {"type": kind, "message": door.sentence(refusal, request_id)}
    return {"type": "error", "error": error, "request_id": request_id}


def _with_token_beta(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The headers with the beta under which the API takes OAuth tokens, beside those that the caller asks for."""
    known = dict(headers)
    betas = [beta for beta in known.get("anthropic-beta", "").split(",") if beta]
    known["anthropic-beta"] = ",".join([*betas, *([] if _TOKEN_BETA in betas else [_TOKEN_BETA])])
    return tuple(known.items())


def vendor_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The version and the betas to send on.

    Raises:
        Refusal: HEADER_NOT_ALLOWED for one that is not known.
    """
    version = headers.get("anthropic-version", _VERSION_DEFAULT)
    if version not in VERSIONS:
        raise Refusal(
            Reason.HEADER_NOT_ALLOWED,
            f"header anthropic-version: {version[:32]!r} is not known to this broker; use {max(VERSIONS)}",
        )
    carried = [("anthropic-version", version)]
    betas = [beta.strip() for beta in headers.get("anthropic-beta", "").split(",") if beta.strip()]
    for beta in betas:
        if beta not in BETAS:
            raise Refusal(
                Reason.HEADER_NOT_ALLOWED,
                f"header anthropic-beta: {beta[:64]!r} may change what a call costs; leave it out",
            )
    if betas:
        carried.append(("anthropic-beta", ",".join(betas)))
    return tuple(carried)


class _Nothing:
    """Reading of a stream that reports no usage."""

    usage: Usage | None = None
    final = False

    def event(self, event: SseEvent) -> bool:
        """Nothing is hidden."""
        del event
        return False


class Messages:
    """Reading of a stream of messages: `message_start` gives the input, each `message_delta` replaces what it names.

    Figures in a delta are cumulative; a delta may also correct input and cache. Added up, they would count twice.
    """

    def __init__(self, *, writes_1h: bool) -> None:
        """Start before the first event; `writes_1h` as `anthropic_usage` takes it."""
        self.usage: Usage | None = None
        self.final = False
        self.merged: Object = {}
        """The last figure of each name."""
        self._writes_1h = writes_1h
        self._blind = False

    def event(self, event: SseEvent) -> bool:
        """Take one event; none is hidden."""
        if event.oversized:
            self._blind = True
            self.usage = None
        elif b'"message_stop"' in event.data or b'"usage"' in event.data:
            self.take(decode(event.data))
        return False

    def take(self, data: Object | None) -> None:
        """Take what one event says; None when that could not be read."""
        kind = data.get("type") if data is not None else None
        if data is None or self._blind:
            return
        if kind == "message_stop":
            self.final = True
            return
        message = data.get("message")
        if kind == "message_start" and isinstance(message, dict):
            report = message.get("usage")
        elif kind == "message_delta":
            report = data.get("usage")
        else:
            return
        if isinstance(report, dict):
            self.merged.update({name: value for name, value in report.items() if value is not None})
            self.usage = anthropic_usage(self.merged, writes_1h=self._writes_1h)
