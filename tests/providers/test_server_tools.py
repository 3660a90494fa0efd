"""Tools that the vendor runs: what bounds them, what is refused, and that the hold covers whatever they may report."""

import json
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as genai_types
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.hosts import PROVIDERS
from tests.fakes.vendor_server import VendorServer, serving
from tests.providers.test_sdks import TOKEN, canned

from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan, worst_case
from leasehold_broker.domain.charge import charge_for
from leasehold_broker.domain.price import ModelPrice, Usage, cost_micro_usd
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.scope import Scope, forbids
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.gemini import Gemini
from leasehold_broker.providers.openai import OpenAI

BOOK = load_price_book()
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
FETCH = {"type": "web_fetch_20260318", "name": "web_fetch", "max_uses": 2, "allowed_callers": ["direct"]}
HI = [{"role": "user", "content": "Hi"}]


def messages(*tools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request of Anthropic's."""
    return {"model": "claude-sonnet-4-6", "max_tokens": 1000, "messages": HI, "tools": list(tools), **fields}


def responses(*tools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A request of OpenAI's."""
    return {"model": "gpt-5", "input": "Hi", "max_output_tokens": 1000, "tools": list(tools), **fields}


def generate(*tools: dict[str, Any]) -> dict[str, Any]:
    """A request of Gemini's."""
    limits = {"maxOutputTokens": 1000}
    return {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": limits, "tools": list(tools)}


PATHS = {
    "anthropic": "/v1/messages",
    "openai": "/v1/responses",
    "gemini": "/v1beta/models/{}:generateContent",
    "bedrock": "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
    "azure": "/openai/v1/responses",
}


def planned(vendor: str, body: dict[str, Any], model: str = "gemini-2.5-flash") -> CallPlan:
    """The plan of a request."""
    provider = PROVIDERS[vendor]
    return provider.plan(provider.route("POST", PATHS[vendor].format(model), ""), {}, body, 0)


def priced(plan: CallPlan) -> ModelPrice:
    """The price of a plan's model."""
    price = BOOK.price(plan.provider, plan.model or "")
    assert price is not None
    return price


def held(plan: CallPlan) -> tuple[int, int, int]:
    """Micro-USD, input and output that are held for it."""
    amounts = worst_case(plan, priced(plan), 0, NO_CAPS).amounts
    return amounts.cost_micro_usd, amounts.input_tokens, amounts.output_tokens


def test_anthropics_search_is_held_for_every_iteration_and_use() -> None:
    """Ten more readings of a million at 3.3 (any region), eleven answers of 1,000 at 16.5, three searches at a cent."""
    plan = planned("anthropic", messages(SEARCH))
    text = plan.input_tokens_bound
    assert (plan.tools, plan.rereads, plan.choices) == (("web_search_20250305",), 10, 11)
    read = 10_000_000 + text
    micro = (read * 3_300_000 + 11_000 * 16_500_000) // 1_000_000 + 3 * 10_000
    assert held(plan) in {(micro, read, 11_000), (micro + 1, read, 11_000)}


def test_a_fetch_has_no_fee_but_reads_as_much() -> None:
    """Uses cost nothing, so only the readings and answers are held; both kinds together are read by the same loop."""
    fetch, both = planned("anthropic", messages(FETCH)), planned("anthropic", messages(SEARCH, FETCH))
    assert (fetch.units_bound, fetch.rereads, fetch.runs_server_tools) == (Usage(), 10, True)
    assert (both.units_bound, both.rereads) == (Usage(web_searches=3), 10)
    assert both.tools == ("web_search_20250305", "web_fetch_20260318")


def test_openais_searches_are_held_for_every_call_that_is_allowed() -> None:
    """Two calls: three more readings of 400,000 at 1.25, four answers of 1,000 at 10, two searches at a cent."""
    plan = planned("openai", responses({"type": "web_search"}, max_tool_calls=2))
    text = plan.input_tokens_bound
    micro = -(-((1_200_000 + text) * 1_250_000 + 4_000 * 10_000_000) // 1_000_000) + 2 * 10_000
    assert (plan.tools, held(plan)) == (("web_search",), (micro, 1_200_000 + text, 4_000))
    files = planned("openai", responses({"type": "file_search", "vector_store_ids": ["v"]}, max_tool_calls=2))
    assert (files.tools, files.units_bound) == (("file_search",), Usage(file_searches=2))


def test_geminis_search_is_held_once() -> None:
    """One more reading of 1,048,576 at 0.3, two answers of 1,000 at 2.5, and 0.035 USD for the prompt."""
    plan = planned("gemini", generate({"googleSearch": {}}))
    micro = -(-((1_048_576 + plan.input_tokens_bound) * 300_000 + 2_000 * 2_500_000) // 1_000_000) + 35_000
    assert (plan.tools, held(plan)) == (("google_search",), (micro, 1_048_576 + plan.input_tokens_bound, 2_000))
    pages = planned("gemini", generate({"url_context": {}}))
    assert (pages.tools, pages.units_bound, pages.rereads) == (("url_context",), Usage(), 1)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("anthropic", messages({"type": "web_search_20250305", "name": "web_search"}), "max_uses"),
    ("anthropic", messages({"type": "web_search_20260318", "name": "web_search", "max_uses": 1}), "allowed_callers"),
    ("anthropic", messages({**SEARCH, "allowed_callers": ["code_execution_20260120"]}), "allowed_callers"),
    ("anthropic", messages({**SEARCH, "defer_loading": True}), "defer_loading"),
    ("anthropic", messages({"type": "code_execution_20260521", "name": "code_execution"}), "use custom tools"),
    ("openai", responses({"type": "web_search"}), "max_tool_calls"),
    ("openai", responses({"type": "web_search"}, max_tool_calls=1, model="gpt-4o-mini"), "not in its usage"),
    ("openai", responses({"type": "web_search_preview"}, max_tool_calls=1), "use function or custom tools"),
    ("openai", responses({"type": "code_interpreter"}, max_tool_calls=1), "use function or custom tools"),
    ("openai", responses({"type": "image_generation"}, max_tool_calls=1), "use function or custom tools"),
    ("gemini", generate({"codeExecution": {}}), "use functionDeclarations"),
    ("bedrock", messages(SEARCH, model=None), "the tool"),
]


@pytest.mark.parametrize(("vendor", "body", "said"), REFUSED)
def test_what_has_no_bound_is_refused_with_the_way_to_allow_it(vendor: str, body: dict[str, Any], said: str) -> None:
    """Uses without a limit, code that is billed by time, searches that are not reported: refused, and told how."""
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(Refusal, match=said) as caught:
        planned(vendor, body)
    assert caught.value.reason is Reason.COST_UNBOUNDED


def test_searches_that_are_billed_by_the_query_are_refused() -> None:
    """Since Gemini 3 each query costs, and no member of a request limits them."""
    with pytest.raises(Refusal, match="billed by the query") as caught:
        planned("gemini", generate({"googleSearch": {}}), "gemini-3-flash-preview")
    assert caught.value.reason is Reason.COST_UNBOUNDED


def test_a_window_that_is_not_known_bounds_no_tool() -> None:
    """The table has no window for one, and one that its own long-context tier contradicts for the other."""
    unknown = planned("gemini", generate({"googleSearch": {}}), "gemini-2.5-pro")
    contradicted = planned("anthropic", messages(SEARCH, model="claude-sonnet-4-5"))
    for plan in (unknown, contradicted):
        with pytest.raises(Refusal, match="context_tokens_max") as caught:
            held(plan)
        assert caught.value.reason is Reason.COST_UNBOUNDED


def test_a_tool_without_a_price_is_refused() -> None:
    """Azure's searches are not in the table: nothing is held for them, so nothing is sent."""
    plan = planned("azure", responses({"type": "web_search"}, max_tool_calls=1, model="my-o3"))
    with pytest.raises(Refusal, match="web_search") as caught:
        held(plan)
    assert caught.value.reason is Reason.PRICE_UNKNOWN


def test_a_lease_reaches_the_tools_that_its_grant_names() -> None:
    """A scope without tools forbids all of them; a pattern allows its own."""
    plan = planned("anthropic", messages(SEARCH))
    refusal = forbids(Scope("anthropic"), plan.operation, plan.model, plan.tools)
    assert refusal is not None
    assert refusal.reason is Reason.SCOPE_EXCEEDED
    assert forbids(Scope("anthropic", tools=("web_search_*",)), plan.operation, plan.model, plan.tools) is None


def test_what_a_search_found_comes_back_as_it_was_given() -> None:
    """A paused turn is sent back with its results: their encrypted text counts four times, a PDF is refused."""
    found = {"type": "web_search_result", "title": "t", "url": "u", "encrypted_content": "A" * 1000}
    told = {"type": "text", "text": "a", "citations": [{"type": "c", "encrypted_index": "B" * 100}]}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [found]}
    use = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
    turn = [*HI, {"role": "assistant", "content": [use, result, told]}]
    plan = planned("anthropic", messages(SEARCH, messages=turn))
    assert plan.input_tokens_bound > planned("anthropic", messages(SEARCH)).input_tokens_bound + 4 * 1000 + 4 * 100
    error = {**result, "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}}
    planned("anthropic", messages(SEARCH, messages=[*HI, {"role": "assistant", "content": [use, error]}]))
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    page = {"type": "web_fetch_result", "url": "u", "content": pdf}
    fetched = {"type": "web_fetch_tool_result", "tool_use_id": "s", "content": page}
    with pytest.raises(Refusal, match="PDFs"):
        planned("anthropic", messages(FETCH, messages=[*HI, {"role": "assistant", "content": [fetched]}]))


@given(st.data())
def test_no_report_within_the_bounds_costs_more_than_the_hold(data: st.DataObject) -> None:
    """B12: any searches up to the limit, each reading up to the window, each answer up to its limit."""
    vendor, body = data.draw(
        st.sampled_from(
            [
                ("anthropic", messages(SEARCH, cache_control={"type": "ephemeral"})),
                ("anthropic", messages(SEARCH, FETCH)),
                ("openai", responses({"type": "web_search"}, max_tool_calls=2)),
                ("openai", responses({"type": "web_search"}, max_tool_calls=2, model="gpt-5.4", service_tier="flex")),
                ("gemini", generate({"googleSearch": {}})),
            ]
        )
    )
    plan = planned(vendor, body)
    price = priced(plan)
    micro, read, said = held(plan)
    fresh = data.draw(st.integers(0, read))
    written = data.draw(st.booleans()) and plan.cache_writes and price.base.cache_write_5m is not None
    usage = Usage(
        input_tokens=fresh,
        cache_read_tokens=0 if written else read - fresh,
        cache_write_5m_tokens=read - fresh if written else 0,
        output_tokens=data.draw(st.integers(0, said)),
        web_searches=data.draw(st.integers(0, plan.units_bound.web_searches)),
        service_tier=data.draw(st.sampled_from(plan.service_tiers)),
    )
    assert cost_micro_usd(usage, price) <= micro


def test_a_search_that_is_cut_is_charged_its_hold() -> None:
    """What ran on after the last report is not known, so the input that it gave does not lower the charge."""
    plan = planned("anthropic", messages(FETCH))
    amounts = worst_case(plan, priced(plan), 0, NO_CAPS).amounts
    outcome = CallOutcome(CallEnd.CLIENT_GONE, sent=True, status=200, usage=Usage(200, output_tokens=3))
    charge = charge_for(outcome, amounts, priced(plan), plan)
    assert (charge.amounts, charge.estimated) == (amounts, True)


def test_the_official_sdks_search() -> None:
    """Each SDK asks for its vendor's search with its own types; what was found is in the answer, and is counted."""
    with serving(VendorServer(Anthropic())) as server:
        client = anthropic.Anthropic(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        canned(server, "stream_web_search")
        with client.messages.stream(**messages(SEARCH)) as stream:
            used = stream.get_final_message().usage.server_tool_use
        assert used is not None
        assert used.web_search_requests == 2
        assert server.last.meter is not None
        assert server.last.meter.usage == Usage(12_000, output_tokens=400, web_searches=2, service_tier="standard")
        assert json.loads(json.dumps(server.last.sent["tools"])) == [SEARCH]
        client.close()
    with serving(VendorServer(OpenAI())) as server:
        asker = openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)
        canned(server, "responses_web_search")
        answer = asker.responses.create(**responses({"type": "web_search"}, max_tool_calls=4))
        assert [item.type for item in answer.output].count("web_search_call") == 3
        assert server.last.meter is not None
        assert server.last.meter.usage is not None
        assert server.last.meter.usage.web_searches == 2
        asker.close()
    with serving(VendorServer(Gemini())) as server:
        google = genai.Client(api_key=TOKEN, http_options=genai_types.HttpOptions(base_url=server.base_url))
        canned(server, "stream_grounded")
        search = genai_types.GenerateContentConfig(tools=[genai_types.Tool(google_search=genai_types.GoogleSearch())])
        chunks = list(google.models.generate_content_stream(model="gemini-2.5-flash", contents="Hi", config=search))
        assert len(chunks) == 2
        assert server.last.meter is not None
        assert server.last.meter.usage is not None
        assert server.last.meter.usage.web_searches == 1
        google.close()
