"""A host that speaks OpenAI's dialect: routes, key placement, errors. Pure. What it serves is a table of operations.

Owns what such hosts have in common; the tables are in `openai`, `hosts` and `azure`. Base URL for the SDKs: our prefix
and the host's own path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Form, Meter, Route, ToldLimit, UpstreamRequest
from leasehold_broker.providers import headers as door
from leasehold_broker.providers.bounds import canonical
from leasehold_broker.providers.checks import MODEL_NAME, Object, model_name, required_body
from leasehold_broker.providers.form import written
from leasehold_broker.providers.meters import JsonMeter
from leasehold_broker.providers.operation import Operation
from leasehold_broker.providers.told_limits import told_limit

_TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class HostShape:
    """What one host is.

    Args:
        name: as in scopes and paths.
        origin: of its public API; "" when an operator has to say it.
        prefix: what its paths begin with, e.g. "/v1".
        operations: by the path below the prefix.
        models: the alphabet of its models' names.
        models_path: where they are listed, below the prefix.
        probe_path: where a key is told of itself, below the prefix, when everybody may list the models.
        also: other prefixes that its SDKs use for the same paths.
        refused_headers: with the reason.
        refused_models: parts of names whose use has no bound, with the reason.
        refused_paths: beginnings of paths below the prefix, with the reason.
        flat_errors: its errors are one object, not one inside `error`.
    """

    name: str
    origin: str
    prefix: str
    operations: Mapping[str, Operation]
    models: re.Pattern[str] = MODEL_NAME
    models_path: str = "/models"
    probe_path: str = ""
    also: tuple[str, ...] = ()
    refused_headers: Mapping[str, str] = field(default_factory=dict)
    refused_models: Mapping[str, str] = field(default_factory=dict)
    refused_paths: Mapping[str, str] = field(default_factory=dict)
    flat_errors: bool = False


class OpenAIHost:
    """The port `Provider` for a host of this dialect."""

    def __init__(self, shape: HostShape) -> None:
        """Serve what `shape` lists."""
        self._shape = shape
        self._by_name = {operation.name: operation for operation in shape.operations.values()}
        posts = ", ".join(shape.operations)
        self._served = f"served below {shape.prefix or '/'} are POST {posts}, GET {shape.models_path}[/{{model}}]"

    @property
    def name(self) -> str:
        """See the port."""
        return self._shape.name

    @property
    def default_origin(self) -> str:
        """See the port."""
        return self._shape.origin

    @property
    def sdk_path(self) -> str:
        """See the port."""
        return self._shape.prefix

    @property
    def probe_path(self) -> str:
        """See the port."""
        return self._shape.probe_path and self._shape.prefix + self._shape.probe_path

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        shape = self._shape
        members = door.parse_query(query)
        below = next((path[len(prefix) :] for prefix in (shape.prefix, *shape.also) if path.startswith(prefix)), "")
        if members is not None and not set(members) - {"key"}:
            found = self._find(method, below)
            if found is not None:
                return found
        why = next((why for start, why in shape.refused_paths.items() if below.startswith(start)), self._served)
        raise door.not_served(shape.name, method, path, why)

    def _find(self, method: str, below: str) -> Route | None:
        shape = self._shape
        operation = shape.operations.get(below)
        if operation is not None and method == "POST":
            form = operation.file_names is not None
            return Route(operation.name, "POST", None, shape.prefix + below, takes_body=True, form=form)
        listed = shape.models_path
        if method != "GET" or not below.startswith(listed):
            return None
        if below == listed:
            return Route("models.list", "GET", None, shape.prefix + below, takes_body=False)
        model = below.removeprefix(f"{listed}/")
        if model == below or not shape.models.fullmatch(model):
            return None
        return Route("models.get", "GET", model, f"{shape.prefix}{listed}/{model}", takes_body=False)

    def credential(self, headers: Mapping[str, str], query: str) -> str | None:
        """See the port."""
        return door.credential(headers, query)

    def plan(self, route: Route, headers: Mapping[str, str], body: Object | None, body_bytes: int) -> CallPlan:
        """See the port."""
        del body_bytes  # the bound is over what is sent, not over what came
        door.gate(headers, frozenset(), self._shape.refused_headers)
        if not route.takes_body:
            return CallPlan(self.name, route.operation, route.path_model, metered=False, stream=False)
        content = required_body(body)
        model = self.model(content) if route.path_model is None else route.path_model
        return self._by_name[route.operation].plan(self.name, model, content)

    def model(self, body: Object) -> str:
        """The model that the body names.

        Raises:
            Refusal: BODY_INVALID, COST_UNBOUNDED.
        """
        return model_name(body, self._shape.models, self._shape.refused_models)

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
        operation = self._by_name[route.operation]
        sent = operation.sent(body, output_tokens_limit)
        if isinstance(sent, Form) and operation.file_names is not None:
            form = written(sent, operation.file_names(sent))
            media, data = form.content_type, form.body
        else:
            media, data = door.JSON_TYPE, canonical(sent)
        stream = sent.get("stream") in {True, "true"}
        return door.upstream(
            "POST", route.upstream_path, data, stream=stream, content_type=media, accept=operation.accept
        )

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port. Keys and minted tokens go the same way."""
        del kind
        return "authorization", b"Bearer " + key.reveal()

    def meter(self, route: Route, plan: CallPlan, body: Object | None, content_type: str) -> Meter:
        """See the port."""
        if not plan.metered or body is None:
            return JsonMeter(lambda _: None)
        return self._by_name[route.operation].meter(body, content_type)

    def told_limit(self, status: int, headers: Mapping[str, str], body: bytes) -> ToldLimit:
        """See the port."""
        return told_limit(status, headers, body)

    def refusal_body(self, status: int, refusal: Refusal, request_id: str) -> bytes:
        """See the port."""
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        error = _error(kind, refusal, request_id)
        return msgspec.json.encode({"object": "error", **error} if self._shape.flat_errors else {"error": error})

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


def _error(kind: str, refusal: Refusal, request_id: str) -> Object:
    message = door.sentence(refusal, request_id)
    return {"message": message, "type": kind, "param": None, "code": refusal.reason.value}
