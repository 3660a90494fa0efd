"""Gemini (Developer API): routes, headers, usage and errors. Pure; knows nothing of sockets, leases or prices.

Base URL for the SDK: our prefix without a version. Source of the shapes: google-genai 3.4.0. Thoughts count against
`maxOutputTokens` and are billed as output: one ceiling for both, as measured in googleapis/python-genai issue 2062.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.providers import gemini_body as shapes
from leasehold_broker.providers import headers as door
from leasehold_broker.providers.bounds import Parts, canonical, input_tokens_bound
from leasehold_broker.providers.checks import (
    MODEL_NAME,
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    check_fields,
    invalid,
    required_body,
    whole,
)
from leasehold_broker.providers.meters import JsonMeter, SseMeter, choose, decode
from leasehold_broker.providers.sse import SseEvent
from leasehold_broker.providers.told_limits import told_limit
from leasehold_broker.providers.usage import gemini_usage

_NAME: Final = "gemini"
_CHOICES_MAX: Final = 8
_REFUSED_HEADERS: Final = {
    "x-goog-user-project": "it chooses who pays, which is the broker's part; leave it out",
    "x-http-method-override": "the method is the one of the request; leave it out",
}
_SERVED: Final = (
    "served below /v1 and /v1beta are models/{model}:generateContent, :streamGenerateContent?alt=sse, :countTokens, "
    ":embedContent and :batchEmbedContents (POST), models and models/{model} (GET)"
)
_OPERATIONS: Final = {
    "generateContent": "generate_content",
    "streamGenerateContent": "stream_generate_content",
    "countTokens": "count_tokens",
    "embedContent": "embed_content",
    "batchEmbedContents": "batch_embed_contents",
}
_SAMPLED: Final = frozenset(("generate_content", "stream_generate_content"))
_PATH: Final = re.compile(r"/(v1|v1beta)/models(?:/([^/:]+)(?::([A-Za-z]+))?)?")
_PAGE: Final = {"pageSize": re.compile(r"[0-9]{1,4}"), "pageToken": re.compile(r"[A-Za-z0-9_-]{1,1024}")}
_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


_READ: Final = (b'"usageMetadata"', b'"finishReason"', b'"groundingMetadata"')
_FOUND: Final = ("webSearchQueries", "searchEntryPoint")
"""Grounding that was searched for; pages that were named in the request leave chunks only."""


class Gemini:
    """The port `Provider` for the Gemini Developer API."""

    name = _NAME
    default_origin = "https://generativelanguage.googleapis.com"
    sdk_path = ""
    probe_path = ""

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        members = door.parse_query(query)
        match = _PATH.fullmatch(path)
        if members is not None and match is not None:
            members.pop("key", None)
            version, model, verb = match.groups()
            if model is None or MODEL_NAME.fullmatch(model):
                found = self._find(method, version, model, verb, members)
                if found is not None:
                    return found
        raise door.not_served(_NAME, method, path, _SERVED)

    @staticmethod
    def _find(method: str, version: str, model: str | None, verb: str | None, query: dict[str, str]) -> Route | None:
        base = f"/{version}/models"
        if method == "GET" and verb is None:
            return _listing(base, model, query)
        operation = _OPERATIONS.get(verb or "")
        if method != "POST" or operation is None or model is None:
            return None
        if operation == "stream_generate_content":
            if query != {"alt": "sse"}:
                raise Refusal(
                    Reason.ROUTE_NOT_ALLOWED,
                    "streamGenerateContent is served as an event stream only; add ?alt=sse (the SDK does)",
                )
            return Route(operation, "POST", model, f"{base}/{model}:{verb}?alt=sse", takes_body=True)
        if query not in ({}, {"alt": "json"}):
            return None
        return Route(operation, "POST", model, f"{base}/{model}:{verb}", takes_body=True)

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, frozenset(), _REFUSED_HEADERS)
        model = route.path_model
        if not route.takes_body:
            return CallPlan(_NAME, route.operation, model, metered=False, stream=False)
        if model is None:
            raise invalid("model", "must be named in the path")
        return plan_body(_NAME, route.operation, model, required_body(body))

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: Object | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """See the port."""
        del headers, kind  # no header is carried
        if body is None:
            return door.upstream(route.method, route.upstream_path, None, stream=False)
        sent = body_to_send(body, output_tokens_limit)
        stream = route.operation == "stream_generate_content"
        return door.upstream(route.method, route.upstream_path, canonical(sent), stream=stream)

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port. A minted token goes as a bearer token."""
        if kind is KeyKind.FEDERATED:
            return "authorization", b"Bearer " + key.reveal()
        return "x-goog-api-key", key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        del route, body
        if not plan.metered:
            return JsonMeter(lambda _: None)
        return choose(content_type, answer_usage, lambda: SseMeter(Chunks()))

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """See the port."""
        return told_limit(status, headers, body)

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        return msgspec.json.encode(google_error(status, refusal, request_id))

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port. The SDK takes a chunk for an error when it starts with the member `error`."""
        return b"data: " + msgspec.json.encode(google_error(403, refusal, request_id)) + b"\r\n\r\n"


def plan_body(provider: str, operation: str, model: str, body: Object) -> CallPlan:
    """What the body of one of the POST operations asks for.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    content = shapes.camel(body, "body")
    if operation in _SAMPLED:
        return _sampled(provider, operation, model, content)
    if operation == "count_tokens":
        check_fields(content, "", frozenset(("contents", "model")), {})
        shapes.check_model(content, model)
        shapes.contents(content.get("contents"), Parts())
        return CallPlan(provider, operation, model, metered=False, stream=False)
    batch = operation == "batch_embed_contents"
    parts = shapes.walk_batch_embedding(content, model) if batch else shapes.walk_embedding(content, model)
    bound = input_tokens_bound(content, parts)
    return CallPlan(provider, operation, model, metered=True, stream=False, input_tokens_bound=bound)


def _sampled(provider: str, operation: str, model: str, body: Object) -> CallPlan:
    check_fields(body, "", shapes.FIELDS, shapes.REFUSED)
    shapes.check_model(body, model)
    parts = shapes.walk(body, model)
    settings = shapes.config(body)
    return CallPlan(
        provider,
        operation,
        model,
        metered=True,
        stream=operation == "stream_generate_content",
        input_tokens_bound=input_tokens_bound(body, parts),
        output_tokens_stated=whole(settings, "maxOutputTokens", 1, OUTPUT_TOKENS_MAX, "generationConfig."),
        output_limited=True,
        output_tokens_floor=shapes.thinking_budget(settings) + OUTPUT_TOKENS_FLOOR,
        choices=(whole(settings, "candidateCount", 1, _CHOICES_MAX, "generationConfig.") or 1) * (1 + parts.rereads),
        service_tiers=shapes.service_tiers(body),
        tools=tuple(parts.tools),
        units_bound=parts.units,
        rereads=parts.rereads,
    )


def body_to_send(body: Object, output_tokens_limit: int | None) -> Object:
    """The checked body under the names that were checked, with the limit when one was chosen."""
    sent = shapes.camel(body, "body")
    if sent.get("generationConfig") is not None:
        sent["generationConfig"] = shapes.config(sent)
    if output_tokens_limit is not None:
        sent["generationConfig"] = {**shapes.config(sent), "maxOutputTokens": output_tokens_limit}
    return sent


def _listing(base: str, model: str | None, query: dict[str, str]) -> Route | None:
    if model is not None:
        return None if query else Route("models.get", "GET", model, f"{base}/{model}", takes_body=False)
    if not all(name in _PAGE and _PAGE[name].fullmatch(value) for name, value in query.items()):
        return None
    joined = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
    return Route("models.list", "GET", None, base + (f"?{joined}" if joined else ""), takes_body=False)


def google_error(status: int, refusal: Refusal, request_id: str) -> Object:
    """The refusal as Google's APIs word an error."""
    info: Object = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": refusal.reason.value,
        "domain": "leasehold",
        "metadata": {"request_id": request_id},
    }
    return {
        "error": {
            "code": status,
            "message": door.sentence(refusal, request_id),
            "status": _STATUS.get(status, "INTERNAL"),
            "details": [info],
        }
    }


class Chunks:
    """Reading of a stream of chunks: each carries the usage so far, so the last one counts.

    The stream has no closing event; the chunk that gives every candidate's reason to finish is the vendor's last word,
    unless a later chunk carries usage again.
    """

    def __init__(self) -> None:
        """Start before the first chunk."""
        self.usage: Usage | None = None
        self.final = False
        self._grounded = False

    def event(self, event: SseEvent) -> bool:
        """Take one event; none is hidden."""
        if event.oversized:
            return False
        if not any(name in event.data for name in _READ):
            return False
        chunk = decode(event.data)
        if chunk is None:
            return False
        self._grounded = self._grounded or _is_grounded(chunk)
        report = chunk.get("usageMetadata")
        if report is not None:
            self.usage = gemini_usage(report)
        if self.usage is not None and self._grounded:
            self.usage = replace(self.usage, web_searches=1)
        if _finished(chunk):
            self.final = True
        return False


def answer_usage(answer: Object) -> Usage | None:
    """Usage of a whole answer."""
    usage = gemini_usage(answer.get("usageMetadata"))
    return replace(usage, web_searches=1) if usage is not None and _is_grounded(answer) else usage


def _is_grounded(chunk: Object) -> bool:
    """The vendor searched for this answer, which it bills once for a prompt."""
    candidates = chunk.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else []:
        found = candidate.get("groundingMetadata") if isinstance(candidate, dict) else None
        if isinstance(found, dict) and any(found.get(name) for name in _FOUND):
            return True
    return False


def _finished(chunk: Object) -> bool:
    feedback = chunk.get("promptFeedback")
    if isinstance(feedback, dict) and feedback.get("blockReason"):
        return True
    candidates = chunk.get("candidates")
    return (
        isinstance(candidates, list)
        and bool(candidates)
        and all(isinstance(candidate, dict) and bool(candidate.get("finishReason")) for candidate in candidates)
    )
