"""The Responses API of OpenAI and Azure. Pure."""

from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Meter
from leasehold_broker.providers import openai_body as shapes
from leasehold_broker.providers.bounds import input_tokens_bound
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    check_fields,
    flag,
    whole,
)
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import SseMeter, choose
from leasehold_broker.providers.operation import TakesJson
from leasehold_broker.providers.usage import openai_usage

_ENDS: Final = frozenset(("response.completed", "response.incomplete", "response.failed"))


@dataclass(frozen=True, slots=True)
class Responses(TakesJson):
    """Responses at one host; `tiers`: the host takes a service tier."""

    tiers: bool = True
    name: str = "responses"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        fields = shapes.RESPONSE_FIELDS if self.tiers else shapes.RESPONSE_FIELDS - {"service_tier"}
        check_fields(body, "", fields, shapes.RESPONSE_REFUSED)
        parts = shapes.walk_response(body, model)
        return CallPlan(
            provider,
            self.name,
            model,
            metered=True,
            stream=flag(body, "stream"),
            input_tokens_bound=input_tokens_bound(body, parts),
            output_tokens_stated=whole(body, "max_output_tokens", 1, OUTPUT_TOKENS_MAX),
            output_limited=True,
            output_tokens_floor=OUTPUT_TOKENS_FLOOR,
            output_rates=("output",),
            service_tiers=shapes.service_tiers(body) if self.tiers else ("",),
        )

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol. The default tier is asked for by name: a project may have another one as its default."""
        sent = dict(body)
        if self.tiers:
            sent["service_tier"] = shapes.service_tier(body)
        if output_tokens_limit is not None:
            sent["max_output_tokens"] = output_tokens_limit
        return sent

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(content_type, _usage, lambda: SseMeter(LastEvent(_ENDS, _nested)))


def _usage(answer: Object) -> Usage | None:
    return openai_usage(answer.get("usage"), answer.get("service_tier"), prompt="input", completion="output")


def _nested(event: Object) -> Usage | None:
    response = event.get("response")
    return _usage(response) if isinstance(response, dict) else None
