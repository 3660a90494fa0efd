"""Google's Vertex AI: Gemini and Claude models in one project and one location, both from the configuration. Pure.

Base URL for google-genai: our prefix; for AnthropicVertex: our prefix and /v1. The key is an OAuth access token. A path
names a project and a location, that is, who pays and at which price: they are written by us, and a caller who names
others is refused. "-" stands for the configured ones. Sources: google-genai 3.4.0, anthropic 2.12.0 (lib/vertex).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.host_settings import LOCATION, PROJECT
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.providers import gemini, hosted_claude
from leasehold_broker.providers import headers as door
from leasehold_broker.providers.anthropic import Messages, vendor_headers
from leasehold_broker.providers.bounds import canonical
from leasehold_broker.providers.checks import MODEL_NAME, Object, flag, invalid, required_body, unbounded
from leasehold_broker.providers.meters import JsonMeter, SseMeter, StreamReading, choose
from leasehold_broker.providers.sse import SseEvent
from leasehold_broker.providers.told_limits import told_limit
from leasehold_broker.providers.usage import anthropic_usage

_NAME: Final = "vertex"
_CLAUDE_VERSION: Final = "vertex-2023-10-16"
_PATH: Final = re.compile(
    r"/(v1|v1beta1)/(?:projects/([^/]+)/locations/([^/]+)/)?publishers/(google|anthropic)/models/([^/:]+):([A-Za-z]+)"
)
_MODEL: Final = re.compile(rf"{MODEL_NAME.pattern}(?:@[a-z0-9]{{1,32}})?")
_OPERATIONS: Final = {
    ("google", "generateContent"): "generate_content",
    ("google", "streamGenerateContent"): "stream_generate_content",
    ("google", "countTokens"): "count_tokens",
    ("anthropic", "rawPredict"): "raw_predict",
    ("anthropic", "streamRawPredict"): "stream_raw_predict",
}
_CLAUDE: Final = frozenset(("raw_predict", "stream_raw_predict"))
_STREAMS: Final = frozenset(("stream_generate_content", "stream_raw_predict"))
_REGIONAL: Final = "regional"
"""The price table's word for every location but the global one."""
_CARRIED: Final = frozenset(("anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access"))
_CAPACITY: Final = "it chooses a capacity with a price of its own; leave it out"
_REFUSED_HEADERS: Final = {
    "x-goog-user-project": "it chooses who pays, which is the broker's part; leave it out",
    "x-http-method-override": "the method is the one of the request; leave it out",
    "x-vertex-ai-llm-request-type": _CAPACITY,
    "x-vertex-ai-llm-shared-request-type": _CAPACITY,
}
_SERVED: Final = (
    "served below /v1 and /v1beta1/projects/-/locations/- are publishers/google/models/{model}:generateContent, "
    ":streamGenerateContent?alt=sse and :countTokens, and publishers/anthropic/models/{model}:rawPredict and "
    ":streamRawPredict (POST)"
)


class Vertex:
    """The port `Provider` for Vertex AI in one project and location."""

    sdk_path = ""
    probe_path = ""

    def __init__(self, project: str, location: str, name: str = _NAME) -> None:
        """Serve one project.

        Args:
            name: in scopes and paths; another one beside "vertex" for another project or location.
            project: id or number of the project that pays.
            location: "global", a region ("europe-west4") or a multi-region ("us", "eu").

        Raises:
            ValueError: one of them has not the form of such a name.
        """
        if not PROJECT.fullmatch(project) or not LOCATION.fullmatch(location):
            message = f"{project!r} in {location!r} is no project in a location of Vertex AI"
            raise ValueError(message)
        self.name = name
        self._project = project
        self._location = location
        self._region = "" if location == "global" else _REGIONAL

    @property
    def default_origin(self) -> str:
        """See the port."""
        if self._location == "global":
            return "https://aiplatform.googleapis.com"
        if self._location in {"us", "eu"}:
            return f"https://aiplatform.{self._location}.rep.googleapis.com"
        return f"https://{self._location}-aiplatform.googleapis.com"

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        members = door.parse_query(query)
        match = _PATH.fullmatch(path.replace("%40", "@"))
        if members is None or match is None or method != "POST" or not _MODEL.fullmatch(match[5]):
            raise door.not_served(self.name, method, path, _SERVED)
        version, project, location, publisher, model, verb = match.groups()
        operation = _OPERATIONS.get((publisher, verb))
        members.pop("key", None)
        wanted = {"alt": "sse"} if operation == "stream_generate_content" else {}
        if operation is None or members not in (wanted, {"alt": "json", **wanted}):
            raise door.not_served(self.name, method, path, _SERVED)
        if project not in {None, "-", self._project} or location not in {None, "-", self._location}:
            raise Refusal(
                Reason.ROUTE_NOT_ALLOWED,
                "another project or location than this sidecar's was named: they decide who pays and at which price; "
                f"use projects/{self._project}/locations/{self._location}, or projects/-/locations/-",
            )
        base = f"/{version}/projects/{self._project}/locations/{self._location}/publishers/{publisher}/models"
        return Route(operation, "POST", model, f"{base}/{model}:{verb}" + "?alt=sse" * bool(wanted), takes_body=True)

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, _CARRIED, _REFUSED_HEADERS)
        content, model, regions = required_body(body), route.path_model or "", (self._region,)
        if route.operation not in _CLAUDE:
            if content.get("serviceTier", content.get("service_tier")) is not None:
                raise unbounded("serviceTier", "no price is known for it here; leave it out")
            return replace(gemini.plan_body(self.name, route.operation, model, content), regions=regions)
        vendor_headers(headers)
        stream = route.operation in _STREAMS
        if flag(content, "stream") != stream:
            raise invalid("stream", f"must be {str(stream).lower()} for this verb")
        return hosted_claude.plan(
            self.name, route.operation, model, content, _CLAUDE_VERSION, stream=stream, regions=regions
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
        content = required_body(body)
        extra: tuple[tuple[str, str], ...] = ()
        if route.operation in _CLAUDE:
            sent = hosted_claude.body_to_send(content, _CLAUDE_VERSION, output_tokens_limit)
            extra = vendor_headers(headers)
        else:
            sent = gemini.body_to_send(content, output_tokens_limit)
        stream = route.operation in _STREAMS
        return door.upstream(route.method, route.upstream_path, canonical(sent), stream=stream, extra=extra)

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port."""
        del kind  # as above
        return "authorization", b"Bearer " + key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        if not plan.metered:
            return JsonMeter(lambda _: None)
        claude = route.operation in _CLAUDE
        hour = claude and hosted_claude.writes_1h(body)

        def whole(answer: Object) -> Usage | None:
            if claude:
                return self._placed(anthropic_usage(answer.get("usage"), writes_1h=hour))
            return self._placed(gemini.answer_usage(answer))

        def stream() -> Meter:
            reading = Messages(writes_1h=hour) if claude else gemini.Chunks()
            return SseMeter(_Placed(reading, self._placed))

        return choose(content_type, whole, stream)

    def _placed(self, usage: Usage | None) -> Usage | None:
        """The usage, where this sidecar's calls are served: the answers do not say it."""
        return None if usage is None else replace(usage, region=self._region)

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """See the port."""
        return told_limit(status, headers, body)

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        return msgspec.json.encode(gemini.google_error(status, refusal, request_id))

    def refusal_event(self, refusal: Refusal, request_id: str) -> bytes:
        """See the port. Two events, since the answer may be Gemini's or Claude's.

        Google's SDK raises at the first, and cannot read an event with a name; Anthropic's passes over one without.
        """
        data = msgspec.json.encode({**gemini.google_error(403, refusal, request_id), "type": "error"})
        return b"data: " + data + b"\n\nevent: error\ndata: " + data + b"\n\n"


class _Placed:
    """A reading whose usages are given their place."""

    def __init__(self, reading: StreamReading, place: Callable[[Usage | None], Usage | None]) -> None:
        self._reading = reading
        self._place = place

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        return self._place(self._reading.usage)

    @property
    def final(self) -> bool:
        """True once the vendor's last word came."""
        return self._reading.final

    def event(self, event: SseEvent) -> bool:
        """Take one event."""
        return self._reading.event(event)
