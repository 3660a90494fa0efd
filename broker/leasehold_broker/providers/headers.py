"""What becomes of a caller's headers and query. Owns the lists; refuses everything that is on none of them.

A header is carried (checked, then sent on), ignored (known, harmless, not sent on), or refused. Nothing is copied
unseen: headers choose who pays, which project is used and which price applies.
"""

import re
from collections.abc import Mapping
from typing import Final

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import UpstreamRequest

USER_AGENT: Final = "leasehold"
JSON_TYPE: Final = "application/json"
SSE_TYPE: Final = "text/event-stream"

IGNORED: Final = frozenset(
    [
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "api-key",
        "authorization",
        "baggage",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "dnt",
        "expect",
        "host",
        "http-referer",
        "idempotency-key",
        "keep-alive",
        "pragma",
        "priority",
        "sec-fetch-mode",
        "sentry-trace",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "user-agent",
        "x-api-key",
        "x-app",
        "x-client-name",
        "x-client-request-id",
        "x-goog-api-client",
        "x-goog-api-key",
        "x-request-id",
        "x-server-timeout",
        "x-title",
        "x-trace-id",
    ]
)
"""Sent by HTTP clients, the vendors' SDKs and tracing; none of it reaches the vendor."""
_IGNORED_PREFIXES: Final = (
    "x-stainless-",
    "leasehold-",
    "x-b3-",
    "x-claude-code-",
    "x-datadog-",
    "x-fern-",
    "x-openai-agents-",
)
_QUERY: Final = re.compile(r"[A-Za-z0-9._~-]*")
CREDENTIALS: Final = ("x-api-key", "x-goog-api-key", "api-key")
"""Headers, beside authorization, in which SDKs send a key."""
_BEARER: Final = "bearer "


def gate(headers: Mapping[str, str], carried: frozenset[str], refused: Mapping[str, str]) -> None:
    """Refuse what is on no list.

    Args:
        headers: lower-case names.
        carried: names that the vendor's module checks and sends on.
        refused: names with the reason and what to do.

    Raises:
        Refusal: HEADER_NOT_ALLOWED.
    """
    for name in headers:
        if name in IGNORED or name in carried or name.startswith(_IGNORED_PREFIXES):
            continue
        why = refused.get(name, "is not a header that this broker knows for this provider; leave it out")
        shown = name[:64] if name.isprintable() else repr(name[:64])
        raise Refusal(Reason.HEADER_NOT_ALLOWED, f"header {shown}: {why}")


def parse_query(query: str) -> dict[str, str] | None:
    """Members of a query; None when it has a form that we do not take (encoding, duplicates, empty names)."""
    members: dict[str, str] = {}
    if not query:
        return members
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if not name or name in members or not _QUERY.fullmatch(name) or not _QUERY.fullmatch(value):
            return None
        members[name] = value
    return members


def credential(headers: Mapping[str, str], query: str) -> str | None:
    """The caller's credential from any of the places where SDKs put it.

    Raises:
        Refusal: HEADER_NOT_ALLOWED when two different ones are sent, or an authorization that is no bearer.
    """
    found: list[str] = []
    authorization = headers.get("authorization")
    if authorization is not None:
        if authorization[: len(_BEARER)].lower() != _BEARER:
            raise Refusal(Reason.HEADER_NOT_ALLOWED, "header authorization: send the lease token as Bearer")
        found.append(authorization[len(_BEARER) :].strip())
    found += [headers[name].strip() for name in CREDENTIALS if name in headers]
    found += [pair[4:] for pair in query.split("&") if pair.startswith("key=")]
    found = [value for value in found if value]
    if len(set(found)) > 1:
        raise Refusal(
            Reason.HEADER_NOT_ALLOWED,
            "two different credentials were sent; send the lease token once (check the API key in the environment)",
        )
    return found[0] if found else None


def upstream(
    method: str,
    path: str,
    body: bytes | None,
    *,
    stream: bool,
    extra: tuple[tuple[str, str], ...] = (),
    content_type: str = JSON_TYPE,
    accept: str = JSON_TYPE,
) -> UpstreamRequest:
    """A request with our headers and the vendor's carried ones."""
    headers = [
        ("accept", SSE_TYPE if stream else accept),
        ("accept-encoding", "identity"),
        ("user-agent", USER_AGENT),
        *extra,
    ]
    if body is not None:
        headers.append(("content-type", content_type))
    return UpstreamRequest(method, path, tuple(headers), body or b"")


def not_served(provider: str, method: str, path: str, hint: str) -> Refusal:
    """No listed route matched."""
    shown = path[:120] if path.isprintable() else repr(path[:120])
    return Refusal(
        Reason.ROUTE_NOT_ALLOWED, f"{method[:16]} {shown} of {provider} is not served by this broker; {hint}"
    )


def sentence(refusal: Refusal, request_id: str) -> str:
    """The refusal as one message for a vendor's error shape: who refused, why, and where to look."""
    return f"leasehold refused this call ({refusal.reason.value}): {refusal.message} [request {request_id}]"
