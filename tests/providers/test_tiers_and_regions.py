"""Service tiers and regions, through request, hold, answer and charge: each multiplier by a number computed by hand."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan, worst_case
from leasehold_broker.domain.charge import charge_for
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import Provider
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.bedrock import Bedrock
from leasehold_broker.providers.vertex import Vertex

BOOK = load_price_book()
HI = [{"role": "user", "content": "Hi"}]
OUTPUT = 1000
CHAT_USED = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
CLAUDE_USED = {"input_tokens": 100, "output_tokens": 10}
CONVERSE_USED = {"usage": {"inputTokens": 100, "outputTokens": 10, "totalTokens": 110}}
GEMINI_USED = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], "inferenceConfig": {"maxTokens": OUTPUT}}
GENERATE = {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": OUTPUT}}
SONNET_AT_BEDROCK = "anthropic.claude-sonnet-4-5-20250929-v1:0"


@dataclass
class Asked:
    """A request, and what its answer says: 100 tokens in, 10 out."""

    provider: Provider
    path: str
    body: dict[str, Any]
    answer: dict[str, Any] = field(default_factory=dict)

    def plan(self) -> CallPlan:
        """Its plan."""
        route = self.provider.route("POST", self.path, "")
        return self.provider.plan(route, {}, self.body, 0)

    def held(self) -> tuple[int, int]:
        """Micro-USD that are held, and the bound of its input."""
        plan = self.plan()
        amounts = worst_case(plan, BOOK.price(plan.provider, plan.model or ""), 0, NO_CAPS).amounts
        return amounts.cost_micro_usd, plan.input_tokens_bound

    def charged(self) -> tuple[int, bool]:
        """Micro-USD that are charged, and whether that is an estimate."""
        route, plan = self.provider.route("POST", self.path, ""), self.plan()
        price = BOOK.price(plan.provider, plan.model or "")
        meter = self.provider.meter(route, plan, self.body, "application/json")
        meter.feed(json.dumps(self.answer).encode())
        meter.finish()
        amounts = worst_case(plan, price, 0, NO_CAPS).amounts
        outcome = CallOutcome(CallEnd.FINISHED, sent=True, status=200, usage=meter.usage, usage_final=meter.final)
        charge = charge_for(outcome, amounts, price, plan)
        assert charge.amounts is not None
        return charge.amounts.cost_micro_usd, charge.estimated


def chat(tier: str | None, said: str | None, name: str = "openai", model: str = "gpt-5.2") -> Asked:
    """A chat at a host of OpenAI's dialect, with the tier that is asked for, and the one that the answer names."""
    path = {"openai": "/v1/chat/completions", "groq": "/openai/v1/chat/completions"}[name]
    body = {"model": model, "messages": HI, "max_completion_tokens": OUTPUT}
    return Asked(
        PROVIDERS[name],
        path,
        body | ({"service_tier": tier} if tier else {}),
        {"usage": CHAT_USED} | ({"service_tier": said} if said else {}),
    )


def message(asked: dict[str, Any], said: dict[str, Any], model: str = "claude-sonnet-4-6") -> Asked:
    """A message at Anthropic, and what its usage says beside the tokens."""
    body = {"model": model, "max_tokens": OUTPUT, "messages": HI, **asked}
    return Asked(PROVIDERS["anthropic"], "/v1/messages", body, {"usage": CLAUDE_USED | said})


def converse(region: str, model: str) -> Asked:
    """A Converse call in a region of AWS."""
    return Asked(Bedrock(region), f"/model/{model}/converse", CONVERSE, CONVERSE_USED)


def claude_at(location: str) -> Asked:
    """A message at a location of Vertex AI."""
    path = "/v1/projects/-/locations/-/publishers/anthropic/models/claude-sonnet-4-5@20250929:rawPredict"
    body = {"anthropic_version": "vertex-2023-10-16", "max_tokens": OUTPUT, "messages": HI}
    return Asked(Vertex("acme-research", location), path, body, {"usage": CLAUDE_USED})


def gemini_at(location: str, model: str) -> Asked:
    """A Gemini call at a location of Vertex AI."""
    path = f"/v1/projects/-/locations/-/publishers/google/models/{model}:generateContent"
    return Asked(Vertex("acme-research", location), path, GENERATE, {"usageMetadata": GEMINI_USED})


def gemini(tier: str, said: str, model: str = "gemini-3.5-flash") -> Asked:
    """A Gemini call with a tier."""
    return Asked(
        PROVIDERS["gemini"],
        f"/v1beta/models/{model}:generateContent",
        {**GENERATE, "serviceTier": tier},
        {"usageMetadata": GEMINI_USED | {"serviceTier": said}},
    )


# In micro-USD a token: the rates that are held, and what 100 tokens in and 10 out are charged.
CASES: list[tuple[str, Asked, tuple[float, float], int]] = [
    ("openai default", chat(None, "default"), (1.75, 14), 315),
    ("openai auto is sent as default", chat("auto", "default"), (1.75, 14), 315),
    ("openai priority is twice", chat("priority", "priority"), (3.5, 28), 630),
    ("openai priority that fell back", chat("priority", "default"), (3.5, 28), 315),
    ("openai fast is reported as priority", chat("fast", "priority"), (3.5, 28), 630),
    ("openai flex is half, and may fall back", chat("flex", "flex"), (1.75, 14), 158),
    ("openai flex that fell back", chat("flex", "default"), (1.75, 14), 315),
    ("groq flex costs what on-demand costs", chat("flex", "flex", "groq", "llama-3.3-70b-versatile"), (0.59, 0.79), 67),
    ("anthropic anywhere, served anywhere", message({}, {}), (3.3, 16.5), 450),
    ("anthropic anywhere, served in the us", message({}, {"inference_geo": "us"}), (3.3, 16.5), 495),
    ("anthropic us is a tenth more", message({"inference_geo": "us"}, {"inference_geo": "us"}), (3.3, 16.5), 495),
    ("anthropic global", message({"inference_geo": "global"}, {"inference_geo": "global"}), (3, 15), 450),
    ("anthropic batch, if it says so", message({"inference_geo": "global"}, {"service_tier": "batch"}), (3, 15), 225),
    ("bedrock, a profile of one part of the world", converse("us-east-1", f"us.{SONNET_AT_BEDROCK}"), (3.3, 16.5), 495),
    ("bedrock, the global profile", converse("us-east-1", f"global.{SONNET_AT_BEDROCK}"), (3, 15), 450),
    ("bedrock, the same in Europe", converse("eu-central-1", f"eu.{SONNET_AT_BEDROCK}"), (3.3, 16.5), 495),
    ("bedrock, the global profile in Europe", converse("eu-central-1", f"global.{SONNET_AT_BEDROCK}"), (3, 15), 450),
    ("vertex, claude at the global endpoint", claude_at("global"), (3, 15), 450),
    ("vertex, claude in a region is a tenth more", claude_at("europe-west4"), (3.3, 16.5), 495),
    ("vertex, claude in a multi-region is as well", claude_at("eu"), (3.3, 16.5), 495),
    ("vertex, gemini 2.5 costs the same everywhere", gemini_at("europe-west4", "gemini-2.5-flash"), (0.3, 2.5), 55),
]


@pytest.mark.parametrize(("asked", "rates", "micro"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_tier_and_a_region_decide_hold_and_charge(asked: Asked, rates: tuple[float, float], micro: int) -> None:
    """The hold is at the dearest that may apply, the charge at what the answer says."""
    held, bound = asked.held()
    assert abs(held - (bound * rates[0] + OUTPUT * rates[1])) < 1
    assert asked.charged() == (micro, False)


@pytest.mark.parametrize(
    "asked",
    [
        chat(None, "scale"),
        chat(None, "batch"),
        message({}, {"service_tier": "priority"}),
        message({}, {"inference_geo": "mars"}),
        chat(None, "performance", "groq", "llama-3.3-70b-versatile"),
    ],
)
def test_what_has_no_price_and_is_reported_all_the_same_is_charged_its_hold(asked: Asked) -> None:
    """Scale and priority capacity, a region nobody knows: the hold, flagged."""
    assert asked.charged() == (asked.held()[0], True)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (chat("scale", None), Reason.COST_UNBOUNDED),
        (chat("priority", None, model="gpt-5-pro"), Reason.PRICE_UNKNOWN),
        (message({"service_tier": "priority"}, {}), Reason.COST_UNBOUNDED),
        (message({"speed": "fast"}, {}), Reason.PRICE_UNKNOWN),
        (message({"inference_geo": "us"}, {}, "claude-haiku-4-5"), Reason.PRICE_UNKNOWN),
        (converse("eu-central-1", "eu.amazon.nova-lite-v1:0"), Reason.PRICE_UNKNOWN),
        (gemini_at("europe-west4", "gemini-3.5-flash"), Reason.PRICE_UNKNOWN),
        (gemini("flex", "flex", "gemini-2.5-pro"), Reason.PRICE_UNKNOWN),
    ],
)
def test_what_has_no_price_is_refused_before_it_is_sent(asked: Asked, reason: Reason) -> None:
    """A tier or a place that is asked for and not in the table is a refusal, never a guess."""
    with pytest.raises(Refusal) as caught:
        asked.held()
    assert caught.value.reason is reason


def test_batches_are_half_the_price_and_refused() -> None:
    """The table knows the rates of batches for reports; the route runs on after its lease, and is not served."""
    price = BOOK.price("openai", "gpt-5.2")
    assert price is not None
    assert (price.rates_for(0, "batch").input, price.rates_for(0).input) == (875_000, 1_750_000)
    for name, path in (("openai", "/v1/batches"), ("anthropic", "/v1/messages/batches")):
        with pytest.raises(Refusal) as caught:
            PROVIDERS[name].route("POST", path, "")
        assert caught.value.reason is Reason.ROUTE_NOT_ALLOWED
