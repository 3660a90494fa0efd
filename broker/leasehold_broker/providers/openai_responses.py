"""The Responses API of OpenAI and Azure. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Meter
from leasehold_broker.providers import openai_response_body as shapes
from leasehold_broker.providers.bounds import input_tokens_bound
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    check_fields,
    flag,
    kind_of,
    whole,
)
from leasehold_broker.providers.last_event import LastEvent
from leasehold_broker.providers.meters import SseMeter, choose
from leasehold_broker.providers.openai_body import service_tier, service_tiers
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
            service_tiers=service_tiers(body) if self.tiers else ("",),
            choices=1 + parts.rereads,
            tools=tuple(parts.tools),
            units_bound=parts.units,
            rereads=parts.rereads,
        )

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol. The default tier is asked for by name: a project may have another one as its default."""
        sent = dict(body)
        if self.tiers:
            sent["service_tier"] = service_tier(body)
        if output_tokens_limit is not None:
            sent["max_output_tokens"] = output_tokens_limit
        return sent

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(content_type, _usage, lambda: SseMeter(LastEvent(_ENDS, _nested)))


def _usage(answer: Object) -> Usage | None:
    usage = openai_usage(answer.get("usage"), answer.get("service_tier"), prompt="input", completion="output")
    output = answer.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    web, files = sum(map(_searched, items)), sum(kind_of(item) == "file_search_call" for item in items)
    return replace(usage, web_searches=web, file_searches=files) if usage is not None and web + files else usage


def _searched(item: Object) -> bool:
    """The item is a search that is billed: opening a page that was found, and looking through it, is none."""
    action = item.get("action")
    opened = isinstance(action, dict) and kind_of(action) in {"open_page", "find_in_page"}
    return kind_of(item) == "web_search_call" and not opened


def _nested(event: Object) -> Usage | None:
    response = event.get("response")
    return _usage(response) if isinstance(response, dict) else None
