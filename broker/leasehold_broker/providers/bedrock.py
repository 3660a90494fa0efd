"""Amazon Bedrock: routes, headers, usage and errors of Converse and InvokeModel, whole and streamed. Pure.

Endpoint URL for boto3: our prefix. The key is a Bedrock API key, sent as a bearer; requests that are signed with AWS
credentials are refused, because a signature covers a key that an agent must not have. The region is the origin's. Model
ids are plain ones and cross-region inference profiles; ARNs name accounts and prompts, and are refused.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Json, Meter, Route, UpstreamRequest
from leasehold_broker.providers import bedrock_body as shapes
from leasehold_broker.providers import headers as door
from leasehold_broker.providers import hosted_claude
from leasehold_broker.providers.anthropic import Messages
from leasehold_broker.providers.bounds import canonical, input_tokens_bound
from leasehold_broker.providers.checks import OUTPUT_TOKENS_FLOOR, Object, required_body, unbounded
from leasehold_broker.providers.event_stream import MEDIA_TYPE, EventStreamMeter, Message, encode
from leasehold_broker.providers.meters import JsonMeter, decode
from leasehold_broker.providers.usage import anthropic_usage, converse_usage

_NAME: Final = "bedrock"
_CLAUDE_VERSION: Final = "bedrock-2023-05-31"
_PATH: Final = re.compile(r"/model/([A-Za-z0-9](?:[A-Za-z0-9._-]|:|%3[Aa]){0,127})/([a-z-]{1,40})")
_OPERATIONS: Final = {
    "converse": "converse",
    "converse-stream": "converse_stream",
    "invoke": "invoke_model",
    "invoke-with-response-stream": "invoke_model_stream",
}
_STREAMS: Final = frozenset(("converse_stream", "invoke_model_stream"))
_CONVERSES: Final = frozenset(("converse", "converse_stream"))
_SERVED: Final = (
    "served are POST /model/{id}/converse, converse-stream, invoke and invoke-with-response-stream, with a model id or "
    "an inference profile, no ARN"
)
_PRICED: Final = "no price is known for it; leave it out"
_REFUSED_HEADERS: Final = {
    "x-amz-security-token": "send the lease token as bearer (AWS_BEARER_TOKEN_BEDROCK), not AWS credentials",
    "x-amzn-bedrock-guardrailidentifier": "a guardrail has a price of its own; leave it out",
    "x-amzn-bedrock-guardrailversion": "a guardrail has a price of its own; leave it out",
    "x-amzn-bedrock-performanceconfig-latency": _PRICED,
    "x-amzn-bedrock-projectidentifier": "it chooses who pays, which is the broker's part; leave it out",
    "x-amzn-bedrock-service-tier": _PRICED,
    "x-amzn-bedrock-trace": "a trace belongs to a guardrail, which is not served; leave it out",
}
_IGNORED_HEADERS: Final = frozenset(
    ("amz-sdk-invocation-id", "amz-sdk-request", "x-amz-user-agent", "x-amzn-bedrock-accept", "x-amzn-trace-id")
)
_ERRORS: Final = {
    400: "ValidationException",
    401: "AccessDeniedException",
    402: "ServiceQuotaExceededException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    415: "ValidationException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}


class Bedrock:
    """The port `Provider` for Amazon Bedrock."""

    default_origin = "https://bedrock-runtime.us-east-1.amazonaws.com"
    sdk_path = ""

    def __init__(self, name: str = _NAME) -> None:
        """Serve one region; `name` is another one beside "bedrock" for another region."""
        self.name = name

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        match = _PATH.fullmatch(path)
        operation = _OPERATIONS.get(match[2]) if match is not None else None
        if match is None or operation is None or method != "POST" or query:
            raise door.not_served(self.name, method, path, _SERVED)
        model = re.sub("%3[Aa]", ":", match[1])
        return Route(operation, "POST", model, f"/model/{model.replace(':', '%3A')}/{match[2]}", takes_body=True)

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, _IGNORED_HEADERS, _REFUSED_HEADERS)
        content, model = required_body(body), route.path_model or ""
        stream = route.operation in _STREAMS
        if route.operation not in _CONVERSES:
            if "anthropic.claude" not in model:
                raise unbounded("model", "InvokeModel is bounded for Claude models only; use Converse for this one")
            return hosted_claude.plan(self.name, route.operation, model, content, _CLAUDE_VERSION, stream=stream)
        parts = shapes.walk(content, model)
        return CallPlan(
            self.name,
            route.operation,
            model,
            metered=True,
            stream=stream,
            input_tokens_bound=input_tokens_bound(content, parts),
            output_tokens_stated=shapes.output_limit(content),
            output_limited=True,
            output_tokens_floor=shapes.thinking_budget(content) + OUTPUT_TOKENS_FLOOR,
            output_rates=("output",),
            cache_writes=b'"cachePoint"' in canonical(content),
        )

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: Object | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """See the port."""
        del kind  # a token and a stored key go the same way
        del headers  # none of them is carried
        content = required_body(body)
        if route.operation not in _CONVERSES:
            sent = hosted_claude.body_to_send(content, _CLAUDE_VERSION, output_tokens_limit)
            sent.pop("stream", None)  # the path says it
        else:
            sent = dict(content)
            if output_tokens_limit is not None:
                sent["inferenceConfig"] = {**shapes.config(content), "maxTokens": output_tokens_limit}
        return door.upstream(route.method, route.upstream_path, canonical(sent), stream=False)

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port."""
        del kind  # as above
        return "authorization", b"Bearer " + key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        del plan
        streamed = content_type.partition(";")[0].strip().lower() == MEDIA_TYPE
        if route.operation in _CONVERSES:
            hour = body is not None and shapes.writes_1h(body)
            return EventStreamMeter(_Converse(writes_1h=hour)) if streamed else JsonMeter(_whole(writes_1h=hour))
        hour = hosted_claude.writes_1h(body)
        if streamed:
            return EventStreamMeter(_Invoked(writes_1h=hour))
        return JsonMeter(lambda answer: anthropic_usage(answer.get("usage"), writes_1h=hour))

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port. `__type` is where AWS's SDKs look for the kind when no header says it."""
        kind = _ERRORS.get(status, "InternalServerException")
        return msgspec.json.encode({"__type": kind, "message": door.sentence(refusal, request_id)})

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        message = door.sentence(refusal, request_id)
        return encode(
            {":message-type": "error", ":error-code": refusal.reason.value, ":error-message": message[:1024]}, b""
        )


def _whole(*, writes_1h: bool) -> Callable[[Object], Usage | None]:
    def read(answer: Object) -> Usage | None:
        tier, latency = answer.get("serviceTier"), answer.get("performanceConfig")
        return converse_usage(answer.get("usage"), tier, latency, writes_1h=writes_1h)

    return read


class _Converse:
    """Reading of a Converse stream: the usage is in the message `metadata`, the last one."""

    def __init__(self, *, writes_1h: bool) -> None:
        self.usage: Usage | None = None
        self.final = False
        self._read = _whole(writes_1h=writes_1h)

    def message(self, message: Message) -> None:
        """Take one message."""
        if message.headers.get(":message-type") != "event" or message.headers.get(":event-type") != "metadata":
            return
        data = decode(message.payload)
        if data is not None:
            self.usage = self._read(data)
            self.final = self.usage is not None


class _Invoked:
    """Reading of a stream of Claude's own events, each in base64 in a message `chunk`.

    The last event also carries Bedrock's own count, which is used where the model's events have none.
    """

    def __init__(self, *, writes_1h: bool) -> None:
        self._messages = Messages(writes_1h=writes_1h)
        self._writes_1h = writes_1h
        self._counted: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """The model's own report, or Bedrock's."""
        return self._messages.usage or self._counted

    @property
    def final(self) -> bool:
        """True once the last event came."""
        return self._messages.final

    def message(self, message: Message) -> None:
        """Take one message."""
        if message.headers.get(":message-type") != "event" or message.headers.get(":event-type") != "chunk":
            return
        event = _inner(message.payload)
        self._messages.take(event)
        metrics = event.get("amazon-bedrock-invocationMetrics") if event is not None else None
        if isinstance(metrics, dict):
            self._counted = anthropic_usage(
                {
                    "input_tokens": metrics.get("inputTokenCount"),
                    "output_tokens": metrics.get("outputTokenCount"),
                    "cache_read_input_tokens": metrics.get("cacheReadInputTokenCount"),
                    "cache_creation_input_tokens": metrics.get("cacheWriteInputTokenCount"),
                },
                writes_1h=self._writes_1h,
            )


def _inner(payload: bytes) -> Object | None:
    """The event inside a chunk."""
    chunk = decode(payload)
    encoded: Json = chunk.get("bytes") if chunk is not None else None
    if not isinstance(encoded, str):
        return None
    try:
        return decode(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return None
