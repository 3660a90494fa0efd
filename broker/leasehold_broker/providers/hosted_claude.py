"""Anthropic's Messages as other houses serve them: the model is in the path, and the version in the body.

Owns what differs from Anthropic's own body; the rest is checked as there. Sources: anthropic 2.12.0, lib/bedrock and
lib/vertex.
"""

from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.providers import anthropic_body as shapes
from leasehold_broker.providers.anthropic import BETAS, VERSIONS
from leasehold_broker.providers.bounds import canonical
from leasehold_broker.providers.checks import (
    Object,
    as_list,
    check_fields,
    flag,
    invalid,
    kind_of,
    unbounded,
)

_ELSEWHERE: Final = "Anthropic's own API has it, this one has not; leave it out"
_FIELDS: Final = (shapes.FIELDS - {"model", "service_tier", "inference_geo", "speed", "diagnostics"}) | {
    "anthropic_version",
    "anthropic_beta",
}
_REFUSED: Final = {
    **shapes.REFUSED,
    "inference_geo": "the place follows from the model's name or the location",
    "model": "the model is named in the path",
    "service_tier": _ELSEWHERE,
    "speed": _ELSEWHERE,
}


def plan(
    provider: str,
    operation: str,
    model: str,
    body: Object,
    version: str,
    *,
    stream: bool,
    regions: tuple[str, ...] = ("",),
) -> CallPlan:
    """What a request asks for.

    Args:
        provider: its name.
        operation: of the route.
        model: of the route.
        body: as the caller sent it.
        version: the `anthropic_version` that this house has for itself; the SDK of today sends Anthropic's own.
        stream: the route answers with a stream.
        regions: where it is served.

    Raises:
        Refusal: BODY_INVALID, COST_UNBOUNDED.
    """
    check_fields(body, "", _FIELDS, _REFUSED)
    if kind_of(body, "anthropic_version") not in {version, *VERSIONS} and "anthropic_version" in body:
        raise invalid("anthropic_version", f"must be {version!r} here, or one of {', '.join(sorted(VERSIONS))}")
    for beta in as_list(body.get("anthropic_beta") or [], "anthropic_beta"):
        if beta not in BETAS:
            raise unbounded("anthropic_beta", f"{str(beta)[:64]!r} may change what a call costs; leave it out")
    flag(body, "stream")
    return shapes.plan(provider, operation, model, body, shapes.walk(body), stream=stream, places=regions)


def body_to_send(body: Object, version: str, output_tokens_limit: int | None) -> Object:
    """The body with a version and, when one was chosen, its limit."""
    sent: Object = {"anthropic_version": version, **body}
    if output_tokens_limit is not None:
        sent["max_tokens"] = output_tokens_limit
    return sent


def writes_1h(body: Object | None) -> bool:
    """The request asks for cache writes of one hour."""
    return body is not None and b'"ttl":"1h"' in canonical(body)
