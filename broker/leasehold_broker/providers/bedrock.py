"""Amazon Bedrock: routes, headers, usage and errors of Converse and InvokeModel, whole and streamed. Pure.

Endpoint URL for boto3: our prefix. The key is a Bedrock API key, sent as a bearer; requests that are signed with AWS
credentials are refused, because a signature covers a key that an agent must not have. The region is the origin's. Model
ids are plain ones and cross-region inference profiles; ARNs name accounts and prompts, and are refused.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.host_settings import REGION
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Json, Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.providers import bedrock_body as shapes
from leasehold_broker.providers import bedrock_models as models
from leasehold_broker.providers import headers as door
from leasehold_broker.providers import hosted_claude
from leasehold_broker.providers.anthropic import Messages
from leasehold_broker.providers.bounds import canonical, input_tokens_bound
from leasehold_broker.providers.checks import OUTPUT_TOKENS_FLOOR, Object, as_object, required_body
from leasehold_broker.providers.event_stream import MEDIA_TYPE, EventStreamMeter, Message, encode
from leasehold_broker.providers.meters import JsonMeter, decode
from leasehold_broker.providers.told_limits import told_limit
from leasehold_broker.providers.usage import anthropic_usage, converse_usage

_NAME: Final = "bedrock"
_CLAUDE_VERSION: Final = "bedrock-2023-05-31"
_PATH: Final = re.compile(r"/model/([A-Za-z0-9](?:[A-Za-z0-9._-]|:|%3[Aa]){0,127})/([a-z-]{1,40})")
_OPERATIONS: Final = {
    "converse": "converse",
    "converse-stream": "converse_stream",
    "count-tokens": "count_tokens",
    "invoke": "invoke_model",
    "invoke-with-response-stream": "invoke_model_stream",
}
_STREAMS: Final = frozenset(("converse_stream", "invoke_model_stream"))
_COUNTS: Final = "count_tokens"
_CLAUDE: Final = "anthropic.claude"
_CONVERSES: Final = frozenset(("converse", "converse_stream"))
_SERVED: Final = (
    "served are POST /model/{id}/converse, converse-stream, invoke, invoke-with-response-stream and count-tokens, with "
    "a model id or an inference profile, no ARN"
)
_LISTED: Final = frozenset(("us-east-1", "us-east-2", "us-west-2"))
"""Regions whose prices are those of the table."""
_ELSEWHERE: Final = "elsewhere"
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


Reader = Callable[[Object], Usage | None]
"""Reads a whole answer, or the last event of a stream."""


class Bedrock:
    """The port `Provider` for Amazon Bedrock."""

    sdk_path = ""
    probe_path = ""

    def __init__(self, location: str = "us-east-1", name: str = _NAME) -> None:
        """Serve one region of AWS; `name` is another one beside "bedrock" for another region.

        Raises:
            ValueError: the location has not the form of a region.
        """
        if not REGION.fullmatch(location):
            message = f"{location!r} is no region of AWS"
            raise ValueError(message)
        self.name = name
        self.default_origin = f"https://bedrock-runtime.{location}.amazonaws.com"
        self._region = "" if location in _LISTED else _ELSEWHERE

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
        if route.operation == _COUNTS:
            shapes.walk(as_object(models.counted_input(content), "input.converse"), model)
            return CallPlan(self.name, route.operation, model, metered=False, stream=False)
        if route.operation not in _CONVERSES and _CLAUDE not in model:
            return self._invoked(route, model, content)
        if route.operation not in _CONVERSES:
            return hosted_claude.plan(
                self.name, route.operation, model, content, _CLAUDE_VERSION, stream=stream, regions=(self._region,)
            )
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
            regions=(self._region,),
        )

    def _invoked(self, route: Route, model: str, body: Object) -> CallPlan:
        """A body of InvokeModel that is not Claude's."""
        family = models.family(model)
        parts = family.walk(body, model)
        return CallPlan(
            self.name,
            route.operation,
            model,
            metered=True,
            stream=route.operation in _STREAMS,
            input_tokens_bound=input_tokens_bound(body, parts),
            output_tokens_stated=family.limit(body),
            output_limited=True,
            output_tokens_floor=OUTPUT_TOKENS_FLOOR,
            output_rates=("output",),
            cache_writes=b'"cachePoint"' in canonical(body),
            regions=(self._region,),
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
        if route.operation == _COUNTS:
            sent = content
        elif route.operation not in _CONVERSES and _CLAUDE not in (route.path_model or ""):
            family = models.family(route.path_model or "")
            sent = content if output_tokens_limit is None else family.limited(content, output_tokens_limit)
        elif route.operation not in _CONVERSES:
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
        if not plan.metered:
            return JsonMeter(lambda _: None)
        hour = body is not None and (
            shapes.writes_1h(body) if route.operation in _CONVERSES else hosted_claude.writes_1h(body)
        )

        def converse(answer: Object) -> Usage | None:
            tier, latency = answer.get("serviceTier"), answer.get("performanceConfig")
            return self._placed(converse_usage(answer.get("usage"), tier, latency, writes_1h=hour))

        def claude(answer: Object) -> Usage | None:
            return self._placed(anthropic_usage(answer.get("usage"), writes_1h=hour))

        whole = content_type.partition(";")[0].strip().lower() != MEDIA_TYPE
        if route.operation in _CONVERSES:
            return JsonMeter(converse) if whole else EventStreamMeter(_Converse(converse))
        if _CLAUDE in (plan.model or ""):
            return JsonMeter(claude) if whole else EventStreamMeter(_Invoked(claude))
        family = models.family(plan.model or "")

        def other(answer: Object) -> Usage | None:
            return self._placed(family.usage(answer))

        return JsonMeter(other) if whole else EventStreamMeter(_Counted(other))

    def _placed(self, usage: Usage | None) -> Usage | None:
        """The usage, in the region of this provider: the answers do not say it."""
        return None if usage is None else replace(usage, region=self._region)

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """See the port."""
        return told_limit(status, headers, body)

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


class _Converse:
    """Reading of a Converse stream: the usage is in the message `metadata`, the last one."""

    def __init__(self, read: Reader) -> None:
        self.usage: Usage | None = None
        self.final = False
        self._read = read

    def message(self, message: Message) -> None:
        """Take one message."""
        if message.headers.get(":message-type") != "event" or message.headers.get(":event-type") != "metadata":
            return
        data = decode(message.payload)
        if data is not None:
            self.usage = self._read(data)
            self.final = self.usage is not None


class _Counted:
    """Reading of a stream of any other model's events: the one that carries Bedrock's own count is the last."""

    def __init__(self, read: Reader) -> None:
        self.usage: Usage | None = None
        self.final = False
        self._read = read

    def message(self, message: Message) -> None:
        """Take one message."""
        if message.headers.get(":message-type") != "event" or message.headers.get(":event-type") != "chunk":
            return
        event = _inner(message.payload)
        if event is not None and "amazon-bedrock-invocationMetrics" in event:
            self.usage = self._read(event)
            self.final = self.usage is not None


class _Invoked:
    """Reading of a stream of Claude's own events, each in base64 in a message `chunk`.

    The last event also carries Bedrock's own count, which is used where the model's events have none.
    """

    def __init__(self, read: Reader) -> None:
        self._read = read
        self._messages = Messages(writes_1h=False)
        self._counted: Json = None

    @property
    def usage(self) -> Usage | None:
        """The model's own report, or Bedrock's."""
        return self._read({"usage": self._messages.merged}) or self._read({"usage": self._counted})

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
            self._counted = {
                "input_tokens": metrics.get("inputTokenCount"),
                "output_tokens": metrics.get("outputTokenCount"),
                "cache_read_input_tokens": metrics.get("cacheReadInputTokenCount"),
                "cache_creation_input_tokens": metrics.get("cacheWriteInputTokenCount"),
            }


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
