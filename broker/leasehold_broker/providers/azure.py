"""Azure OpenAI: deployments instead of models, an `api-version`, and the key in `api-key`. Pure.

A deployment is a name of the operator's own; what it serves, and so what it costs, is in the sidecar's file. There are
two forms of paths: /openai/deployments/{deployment}/... with `api-version` (the SDK's `AzureOpenAI`, given our prefix
as `azure_endpoint`), and /openai/v1/... with the deployment as `model` (`OpenAI`, given our prefix and /openai/v1).
Sources: openai 3.54.0, lib/azure.py; the vendor's REST reference. Refuses to know provisioned throughput, which is
billed by the hour: a deployment of that type must not be declared.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from leasehold_broker.domain.keys import KeyKind
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import Route, UpstreamRequest
from leasehold_broker.providers import headers as door
from leasehold_broker.providers import openai_body as shapes
from leasehold_broker.providers.checks import MODEL_NAME, Object, model_name
from leasehold_broker.providers.openai import REFUSED_HEADERS, REFUSED_PATHS, chat_usage
from leasehold_broker.providers.openai_chat import Chat, Embeddings
from leasehold_broker.providers.openai_host import HostShape, OpenAIHost
from leasehold_broker.providers.openai_responses import Responses

_TIER: Final = "a deployment has its tier by its type; leave it out"
_RULES: Final = replace(
    shapes.OPENAI_CHAT,
    fields=shapes.CHAT_FIELDS - {"service_tier"},
    refused=shapes.CHAT_REFUSED
    | {"data_sources": "what the vendor searches and reads has no bound; send its text", "service_tier": _TIER},
    service_tier="",
)
_V1: Final = "/openai/v1"
_DEPLOYED: Final = re.compile(r"/openai/deployments/(?P<name>[^/]{1,64})(?P<below>/[a-z/]{1,32})")
_VERSION: Final = re.compile(r"20\d{2}-\d{2}-\d{2}(?:-preview)?|v1|preview|latest")
_SERVED: Final = (
    "served are POST /openai/deployments/{deployment}/chat/completions and /embeddings and /openai/responses with "
    "?api-version=..., and below /openai/v1 POST /chat/completions, /responses and /embeddings, GET /models"
)


def _shape(name: str) -> HostShape:
    return HostShape(
        name=name,
        origin="",
        prefix=_V1,
        operations={
            "/chat/completions": Chat(_RULES, chat_usage),
            "/responses": Responses(tiers=False),
            "/embeddings": Embeddings(shapes.EMBEDDING_FIELDS, chat_usage),
        },
        refused_headers=REFUSED_HEADERS,
        refused_paths=REFUSED_PATHS,
    )


class Azure(OpenAIHost):
    """The port `Provider` for one Azure OpenAI resource."""

    def __init__(self, name: str, deployments: Mapping[str, str]) -> None:
        """Args: name: as in scopes and paths; deployments: to the model that each serves."""
        self._table = _shape(name)
        super().__init__(self._table)
        self._deployments = deployments

    def route(self, method: str, path: str, query: str) -> Route:
        """See the port."""
        members = door.parse_query(query)
        if members is None or set(members) - {"key", "api-version"}:
            raise door.not_served(self.name, method, path, _SERVED)
        version = members.get("api-version")
        if version is not None and not _VERSION.fullmatch(version):
            raise door.not_served(self.name, method, path, "api-version must be a date, or one followed by -preview")
        suffix = "" if version is None else f"?api-version={version}"
        if path.startswith(_V1):
            found = super().route(method, path, "")
            return replace(found, upstream_path=found.upstream_path + suffix)
        versioned = self._versioned(path) if method == "POST" and version is not None else None
        if versioned is None:
            raise door.not_served(self.name, method, path, _SERVED)
        return replace(versioned, upstream_path=versioned.upstream_path + suffix)

    def _versioned(self, path: str) -> Route | None:
        if path == "/openai/responses":
            return Route("responses", "POST", None, path, takes_body=True)
        match = _DEPLOYED.fullmatch(path)
        operation = self._table.operations.get(match["below"]) if match is not None else None
        if match is None or operation is None or not MODEL_NAME.fullmatch(match["name"]):
            return None
        return Route(operation.name, "POST", self._served_by(match["name"]), path, takes_body=True)

    def _served_by(self, deployment: str) -> str:
        model = self._deployments.get(deployment)
        if model is None:
            raise Refusal(
                Reason.MODEL_NOT_ALLOWED,
                f"deployment {deployment!r} is not declared for {self.name}; ask the platform team to add it, with the "
                "model that it serves",
            )
        return model

    def request(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: Object | None,
        output_tokens_limit: int | None,
        kind: KeyKind = KeyKind.STORED,
    ) -> UpstreamRequest:
        """See the port. Where the path names the deployment, the model that the SDK repeats in the body goes."""
        if body is not None and route.path_model is not None:
            body = {name: value for name, value in body.items() if name != "model"}
        return super().request(route, headers, body, output_tokens_limit, kind)

    def model(self, body: Object) -> str:
        """See the base. The body names a deployment."""
        return self._served_by(model_name(body))

    def key_header(self, key: Secret, kind: KeyKind = KeyKind.STORED) -> tuple[str, bytes]:
        """See the port. A token of Entra goes as a bearer token."""
        return super().key_header(key, kind) if kind is KeyKind.FEDERATED else ("api-key", key.reveal())
