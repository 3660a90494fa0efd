"""OpenAI: routes, headers, usage and errors of Chat Completions, Responses, Embeddings and Models. Pure.

Base URL for the SDK: our prefix and /v1. Source of the shapes: openai 3.54.0. Hosts that only know `max_tokens`
and do not take `service_tier` or `stream_options` need a provider of their own beside this one.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Json, Meter, Route, UpstreamRequest
from leasehold_broker.providers import headers as door
from leasehold_broker.providers import openai_body as shapes
from leasehold_broker.providers.bounds import Parts, canonical, input_tokens_bound
from leasehold_broker.providers.checks import (
    MODEL_NAME,
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    check_fields,
    flag,
    invalid,
    kind_of,
    model_name,
    required_body,
    whole,
)
from leasehold_broker.providers.meters import HidingSseMeter, JsonMeter, SseMeter, choose, decode
from leasehold_broker.providers.sse import SseEvent
from leasehold_broker.providers.usage import openai_usage

_NAME: Final = "openai"
_CHOICES_MAX: Final = 128
_WHO_PAYS: Final = (
    "it chooses who pays, which is the broker's part; leave it out (unset the variable that the SDK reads)"
)
_REFUSED_HEADERS: Final = {"openai-organization": _WHO_PAYS, "openai-project": _WHO_PAYS}
_CARRIED: Final = frozenset[str]()
_SERVED: Final = (
    "served below /v1 are POST /chat/completions, /responses and /embeddings, GET /models and /models/{model}"
)
_POSTS: Final = {
    "/v1/chat/completions": "chat.completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
}
_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
_RESPONSE_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))


class OpenAI:
    """The port `Provider` for OpenAI."""

    name = _NAME
    default_origin = "https://api.openai.com"
    sdk_path = "/v1"

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        members = door.parse_query(query)
        if members is not None and not set(members) - {"key"}:
            if method == "POST" and path in _POSTS:
                return Route(_POSTS[path], "POST", None, path, takes_body=True)
            if method == "GET" and path == "/v1/models":
                return Route("models.list", "GET", None, path, takes_body=False)
            head, _, model = path.rpartition("/")
            if method == "GET" and head == "/v1/models" and MODEL_NAME.fullmatch(model):
                return Route("models.get", "GET", model, f"/v1/models/{model}", takes_body=False)
        raise door.not_served(_NAME, method, path, _SERVED)

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, _CARRIED, _REFUSED_HEADERS)
        if not route.takes_body:
            return CallPlan(_NAME, route.operation, route.path_model, metered=False, stream=False)
        content = required_body(body)
        if route.operation == "chat.completions":
            return self._chat(content)
        if route.operation == "responses":
            return self._response(content)
        check_fields(content, "", shapes.EMBEDDING_FIELDS, {})
        model = model_name(content)
        parts = shapes.walk_embedding(content)
        bound = input_tokens_bound(content, parts)
        return CallPlan(_NAME, "embeddings", model, metered=True, stream=False, input_tokens_bound=bound)

    def _chat(self, body: Object) -> CallPlan:
        check_fields(body, "", shapes.CHAT_FIELDS, shapes.CHAT_REFUSED)
        model = model_name(body)
        parts = shapes.walk_chat(body, model)
        stated = whole(body, "max_completion_tokens", 1, OUTPUT_TOKENS_MAX)
        legacy = whole(body, "max_tokens", 1, OUTPUT_TOKENS_MAX)
        if stated is not None and legacy is not None:
            raise invalid("max_tokens", "and max_completion_tokens are both given; give max_completion_tokens only")
        choices = whole(body, "n", 1, _CHOICES_MAX) or 1
        return self._sampled(
            "chat.completions", model, body, parts, legacy if stated is None else stated, choices=choices
        )

    def _response(self, body: Object) -> CallPlan:
        check_fields(body, "", shapes.RESPONSE_FIELDS, shapes.RESPONSE_REFUSED)
        model = model_name(body)
        parts = shapes.walk_response(body, model)
        stated = whole(body, "max_output_tokens", 1, OUTPUT_TOKENS_MAX)
        return self._sampled("responses", model, body, parts, stated, choices=1)

    @staticmethod
    def _sampled(
        operation: str, model: str, body: Object, parts: Parts, stated: int | None, *, choices: int
    ) -> CallPlan:
        return CallPlan(
            _NAME,
            operation,
            model,
            metered=True,
            stream=flag(body, "stream"),
            input_tokens_bound=input_tokens_bound(body, parts),
            output_tokens_stated=stated,
            output_limited=True,
            output_tokens_floor=OUTPUT_TOKENS_FLOOR,
            choices=choices,
            output_rates=("output",),
            service_tiers=shapes.service_tiers(body),
        )

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: Object | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """See the port. The default tier is asked for by name: a project may have another one as its default."""
        del headers, kind  # no header is carried
        if body is None:
            return door.upstream(route.method, route.upstream_path, None, stream=False)
        sent = dict(body)
        if route.operation != "embeddings":
            sent["service_tier"] = shapes.service_tier(body)
            if output_tokens_limit is not None:
                sent[_limit_member(route, sent)] = output_tokens_limit
            if route.operation == "chat.completions" and sent.get("stream") is True:
                options = sent.get("stream_options")
                sent["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return door.upstream(route.method, route.upstream_path, canonical(sent), stream=sent.get("stream") is True)

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port. Keys and minted tokens go the same way."""
        del kind
        return "authorization", b"Bearer " + key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        if not plan.metered:
            return JsonMeter(lambda _: None)
        if route.operation == "responses":
            return choose(content_type, _response_usage, lambda: SseMeter(_Responses()))
        options = body.get("stream_options") if body is not None else None
        asked = isinstance(options, dict) and options.get("include_usage") is True
        if asked:
            return choose(content_type, _chat_usage, lambda: SseMeter(_Chat(hide=False)))
        return choose(content_type, _chat_usage, lambda: HidingSseMeter(_Chat(hide=True)))

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        return msgspec.json.encode({"error": _error(kind, refusal, request_id)})

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port. One event for both stream dialects: Chat reads `error`, Responses the members beside it."""
        error = _error("permission_error", refusal, request_id)
        event = {
            "type": "error",
            "code": error["code"],
            "message": error["message"],
            "param": None,
            "sequence_number": 0,
            "error": error,
        }
        return b"event: error\ndata: " + msgspec.json.encode(event) + b"\n\n"


def _limit_member(route: Route, body: Object) -> str:
    """Where the output limit stands: a request that names its own must not be left with a second one."""
    if route.operation != "chat.completions":
        return "max_output_tokens"
    return "max_tokens" if body.get("max_tokens") is not None else "max_completion_tokens"


def _error(kind: str, refusal: Refusal, request_id: str) -> Object:
    message = door.sentence(refusal, request_id)
    return {"message": message, "type": kind, "param": None, "code": refusal.reason.value}


def _chat_usage(answer: Object) -> Usage | None:
    return openai_usage(answer.get("usage"), answer.get("service_tier"), prompt="prompt", completion="completion")


def _response_usage(answer: Object) -> Usage | None:
    return openai_usage(answer.get("usage"), answer.get("service_tier"), prompt="input", completion="output")


class _Chat:
    """Reading of a chat stream: the last usage counts; its chunk has no choices and comes just before [DONE]."""

    def __init__(self, *, hide: bool) -> None:
        self.usage: Usage | None = None
        self.final = False
        self._hide = hide
        self._tier: Json = None

    def event(self, event: SseEvent) -> bool:
        """Take one event; True for the chunk that only carries the usage, when the caller did not ask for it."""
        if event.oversized:
            return False
        if event.data == b"[DONE]":
            self.final = True
            return False
        if b'"usage"' not in event.data or b'"usage":null' in event.data:
            return False
        chunk = decode(event.data)
        if chunk is None or not isinstance(chunk.get("usage"), dict):
            return False
        self._tier = chunk.get("service_tier") or self._tier
        self.usage = openai_usage(chunk["usage"], self._tier, prompt="prompt", completion="completion")
        return self._hide and chunk.get("choices") == []


class _Responses:
    """Reading of a Responses stream: the usage is in the response that one of three events ends with."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.final = False

    def event(self, event: SseEvent) -> bool:
        """Take one event; none is hidden."""
        if event.oversized or b'"usage"' not in event.data:
            return False
        data = decode(event.data)
        if data is None or kind_of(data) not in _RESPONSE_ENDS:
            return False
        response = data.get("response")
        if isinstance(response, dict):
            self.usage = _response_usage(response)
            self.final = self.usage is not None
        return False
