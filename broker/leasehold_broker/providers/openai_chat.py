"""Chat Completions and Embeddings, as OpenAI and all hosts that speak its dialect have them. Pure.

What differs from host to host is data: `openai_body.ChatRules` and `usage.UsageRules`. A stream may report its usage in
one chunk of its own, in its last chunk, or in every chunk so far: the last report counts, none is ever added up.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json, Meter
from leasehold_broker.providers import openai_body as shapes
from leasehold_broker.providers.bounds import input_tokens_bound
from leasehold_broker.providers.checks import (
    OUTPUT_TOKENS_FLOOR,
    OUTPUT_TOKENS_MAX,
    Object,
    check_fields,
    flag,
    invalid,
    whole,
)
from leasehold_broker.providers.meters import HidingSseMeter, JsonMeter, SseMeter, choose, decode
from leasehold_broker.providers.operation import TakesJson, WithoutLimit
from leasehold_broker.providers.sse import SseEvent

ReadUsage = Callable[[Object], Usage | None]
_DONE: Final = b"[DONE]"
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')


@dataclass(frozen=True, slots=True)
class Chat(TakesJson):
    """Chat Completions at one host."""

    rules: shapes.ChatRules
    read: ReadUsage
    name: str = "chat.completions"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        rules = self.rules
        check_fields(body, "", rules.fields, rules.refused)
        parts = shapes.walk_chat(body, model, rules)
        stated = {name: whole(body, name, 1, OUTPUT_TOKENS_MAX) for name in rules.limits}
        given = [name for name, value in stated.items() if value is not None]
        if len(given) > 1:
            raise invalid(given[1], f"and {given[0]} are both given; give {given[0]} only")
        return CallPlan(
            provider,
            self.name,
            model,
            metered=True,
            stream=flag(body, "stream"),
            input_tokens_bound=input_tokens_bound(body, parts),
            output_tokens_stated=stated[given[0]] if given else None,
            output_limited=True,
            output_tokens_floor=OUTPUT_TOKENS_FLOOR,
            choices=whole(body, "n", 1, rules.choices_max) or 1,
            output_rates=("output",),
            service_tiers=shapes.service_tiers(body) if rules.service_tier == "default" else ("",),
        )

    def sent(self, body: Object, output_tokens_limit: int | None) -> Object:
        """See the protocol. The standard tier is asked for by name: an account may have another one as its default."""
        rules = self.rules
        sent = {**body, **rules.added}
        if rules.service_tier:
            sent["service_tier"] = shapes.service_tier(body, rules.service_tier)
        if output_tokens_limit is not None:
            # A request that names its own limit must not be left with a second one.
            member = next((name for name in rules.limits if body.get(name) is not None), rules.limits[0])
            sent[member] = output_tokens_limit
        if not rules.usage_asked:
            sent.pop("stream_options", None)
        elif sent.get("stream") is True:
            options = sent.get("stream_options")
            sent["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return sent

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        options = body.get("stream_options")
        asked = isinstance(options, dict) and options.get("include_usage") is True
        if asked or not self.rules.usage_asked:
            return choose(content_type, self.read, lambda: SseMeter(ChatStream(self.read, hide=False)))
        return choose(content_type, self.read, lambda: HidingSseMeter(ChatStream(self.read, hide=True)))


class ChatStream:
    """Reading of a chat stream. It has said its last word when [DONE] comes."""

    def __init__(self, read: ReadUsage, *, hide: bool) -> None:
        """Args: read: usage of one chunk; hide: the chunk that only carries the usage is not for the caller."""
        self.usage: Usage | None = None
        self.final = False
        self._read = read
        self._hide = hide
        self._tier: Json = None

    def event(self, event: SseEvent) -> bool:
        """Take one event; True for the chunk that only carries the usage, when the caller did not ask for it."""
        if event.oversized:
            return False
        if event.data == _DONE:
            self.final = True
            return False
        untold = self._tier is None and b'"service_tier":' in event.data and b'"service_tier":null' not in event.data
        if not untold and (
            b'"usage"' not in event.data or (b'"usage":null' in event.data and not _USAGE.search(event.data))
        ):
            return False
        chunk = decode(event.data)
        if chunk is None:
            return False
        self._tier = chunk.get("service_tier") or self._tier
        usage = self._read({**chunk, "service_tier": self._tier})
        if usage is not None or isinstance(chunk.get("usage"), dict):
            self.usage = usage
        return self._hide and chunk.get("choices") == [] and chunk.get("usage") is not None


@dataclass(frozen=True, slots=True)
class Moderations(TakesJson, WithoutLimit):
    """Moderations, which are free."""

    name: str = "moderations"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", frozenset(("input", "model")), {})
        return CallPlan(provider, self.name, model, metered=False, stream=False)

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body, content_type  # there is nothing to read
        return JsonMeter(lambda _: None)


@dataclass(frozen=True, slots=True)
class Embeddings(TakesJson, WithoutLimit):
    """Embeddings at one host."""

    fields: frozenset[str]
    read: ReadUsage
    name: str = "embeddings"

    def plan(self, provider: str, model: str, body: Object) -> CallPlan:
        """See the protocol."""
        check_fields(body, "", self.fields, {})
        bound = input_tokens_bound(body, shapes.walk_embedding(body))
        return CallPlan(provider, self.name, model, metered=True, stream=False, input_tokens_bound=bound)

    def meter(self, body: Object, content_type: str) -> Meter:
        """See the protocol."""
        del body
        return choose(content_type, self.read, lambda: SseMeter(ChatStream(self.read, hide=False)))
