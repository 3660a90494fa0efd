"""The official SDKs with nothing but base URL and lease token, through real processes.

Each kind of call is made once; afterwards what the broker charged for it equals what the stand-in served, to the
micro-dollar. The stand-in knows nothing of the broker.
"""

import json

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from tests.e2e.conftest import eventually

from leasehold import Scope
from leasehold.http import anthropic_kwargs, google_kwargs, openai_kwargs
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.providers import load_price_book

pytestmark = [pytest.mark.timeout(120)]
CLAUDE, GPT, GEMINI = "claude-haiku-5-5", "gpt-6-luna", "gemini-3.5-flash-lite"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
EVERYWHERE = [Scope("anthropic"), Scope("openai"), Scope("gemini")]


@pytest.fixture(scope="module")
def client(house):
    """A researcher's client."""
    with house.client() as client:
        yield client


@pytest.fixture
def lease(client):
    """A lease for all three providers, 5 cents."""
    with client.acquire(scopes=EVERYWHERE, budget="0.05", purpose="e2e") as lease:
        yield lease


@pytest.fixture
def claude(lease):
    """Anthropic's SDK."""
    with anthropic.Anthropic(**anthropic_kwargs(lease)) as sdk:
        yield sdk


@pytest.fixture
def gpt(lease):
    """OpenAI's SDK."""
    with openai.OpenAI(**openai_kwargs(lease)) as sdk:
        yield sdk


@pytest.fixture
def gemini(lease):
    """Google's SDK."""
    sdk = genai.Client(**google_kwargs(lease))
    yield sdk
    sdk.close()


def asked(text):
    """One user message."""
    return [{"role": "user", "content": text}]


def claude_plain(sdk):
    """A message."""
    answer = sdk.messages.create(model=CLAUDE, max_tokens=200, messages=asked("Speak in 30 words."))
    return len(answer.content[0].text.split()), 30


def claude_stream(sdk):
    """A stream, with cumulative usage in the middle."""
    with sdk.messages.stream(model=CLAUDE, max_tokens=200, messages=asked("Speak in 40 words.")) as stream:
        return len("".join(stream.text_stream).split()), 40


def claude_tools(sdk):
    """A tool call."""
    tools = [{"name": "weather", "input_schema": WEATHER}]
    answer = sdk.messages.create(model=CLAUDE, max_tokens=200, tools=tools, messages=asked("Weather?"))
    return answer.content[0].input["city"], "Lisbon"


def claude_cache(sdk):
    """A prompt that is written to the cache and then read from it."""
    system = [{"type": "text", "text": "long " * 1200, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    ask = {"model": CLAUDE, "max_tokens": 20, "system": system, "messages": asked("Speak in 5 words.")}
    written, read = (sdk.messages.create(**ask).usage for _ in range(2))
    return (written.cache_creation_input_tokens, read.cache_read_input_tokens), (1500, 1500)


def chat_plain(sdk):
    """A chat answer."""
    answer = sdk.chat.completions.create(model=GPT, messages=asked("Speak in 30 words."))
    return len(answer.choices[0].message.content.split()), 30


def chat_stream(sdk):
    """A chat stream that did not ask for usage: metered all the same, and none is shown."""
    chunks = list(sdk.chat.completions.create(model=GPT, messages=asked("Speak in 40 words."), stream=True))
    words = len("".join(chunk.choices[0].delta.content or "" for chunk in chunks).split())
    return (words, [chunk.usage for chunk in chunks if chunk.usage]), (40, [])


def chat_stream_with_usage(sdk):
    """A chat stream that asked for usage, and gets it."""
    options = {"include_usage": True}
    chunks = list(
        sdk.chat.completions.create(model=GPT, messages=asked("in 9 words"), stream=True, stream_options=options)
    )
    return [chunk.usage.completion_tokens for chunk in chunks if chunk.usage], [15]


def chat_tools(sdk):
    """A function call."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    answer = sdk.chat.completions.create(model=GPT, messages=asked("Weather?"), tools=tools)
    return json.loads(answer.choices[0].message.tool_calls[0].function.arguments)["days"], 3


def responses_plain(sdk):
    """A response."""
    return len(sdk.responses.create(model=GPT, input="Speak in 30 words.", store=False).output_text.split()), 30


def responses_stream(sdk):
    """A response as events."""
    with sdk.responses.stream(model=GPT, input="Speak in 40 words.", store=False) as stream:
        for _ in stream:
            pass
        return len(stream.get_final_response().output_text.split()), 40


def embeddings(sdk):
    """Vectors."""
    answer = sdk.embeddings.create(model="text-embedding-3-small", input=["one", "two " * 300], dimensions=8)
    return [len(each.embedding) for each in answer.data], [8, 8]


def gemini_plain(sdk):
    """An answer with thoughts."""
    answer = sdk.models.generate_content(model=GEMINI, contents="Speak in 30 words.")
    return len(answer.text.split()), 30


def gemini_stream(sdk):
    """A stream of chunks."""
    chunks = sdk.models.generate_content_stream(model=GEMINI, contents="Speak in 40 words.")
    return len("".join(chunk.text or "" for chunk in chunks).split()), 40


def gemini_tools(sdk):
    """A function call."""
    function = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[function])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    answer = sdk.models.generate_content(model=GEMINI, contents="Weather?", config=config)
    return answer.function_calls[0].args["city"], "Lisbon"


def gemini_embed(sdk):
    """Vectors."""
    config = types.EmbedContentConfig(output_dimensionality=8)
    answer = sdk.models.embed_content(model="gemini-embedding-001", contents=["one", "two " * 90], config=config)
    return [len(each.values) for each in answer.embeddings], [8, 8]


CALLS = [
    *(("claude", call) for call in (claude_plain, claude_stream, claude_tools, claude_cache)),
    *(("gpt", call) for call in (chat_plain, chat_stream, chat_stream_with_usage, chat_tools)),
    *(("gpt", call) for call in (responses_plain, responses_stream, embeddings)),
    *(("gemini", call) for call in (gemini_plain, gemini_stream, gemini_tools, gemini_embed)),
]


@pytest.mark.parametrize(("sdk", "call"), CALLS, ids=[call.__name__ for _, call in CALLS])
def test_what_is_charged_is_what_was_served(house, lease, request, sdk, call):
    """The SDK gets its answer, and the lease is charged to the micro-dollar what the provider served."""
    before = len(house.served())

    got, expected = call(request.getfixturevalue(sdk))

    assert got == expected
    served = house.served()[before:]
    assert {"complete"} == {each["ended"] for each in served}
    cost = sum(cost_of(each) for each in served)
    assert cost > 0
    # An SDK may stop at the last event; the stream's end, at which the call is settled, may come a moment later.
    eventually(lambda: own_cost(lease).held == 0)
    own = own_cost(lease)
    assert (cost, 0) == (own.settled, own.held)


def own_cost(lease):
    """The lease's own budget in money."""
    return next(usage for usage in lease.usage() if (usage.budget, usage.metric) == ("lease", "cost_micro_usd"))


def cost_of(served):
    """What one call of the book costs, by the price table."""
    price = load_price_book(None).price(served["provider"], served["model"])
    tokens = served["tokens"]
    return cost_micro_usd(
        Usage(
            input_tokens=tokens["input"],
            cache_read_tokens=tokens["cache_read"],
            cache_write_5m_tokens=tokens["cache_write_5m"],
            cache_write_1h_tokens=tokens["cache_write_1h"],
            output_tokens=tokens["output"],
        ),
        price,
    )


def test_what_is_free_stays_free(lease, claude, gpt, gemini):
    """Counting tokens and listing models reach the provider and cost nothing."""
    counted = claude.messages.count_tokens(model=CLAUDE, messages=asked("How many?"))
    assert counted.input_tokens > 0
    assert CLAUDE in [model.id for model in claude.models.list()]
    assert GPT in [model.id for model in gpt.models.list()]
    assert gpt.models.retrieve(GPT).id == GPT
    assert gemini.models.count_tokens(model=GEMINI, contents="How many?").total_tokens > 0
    assert f"models/{GEMINI}" in [model.name for model in gemini.models.list()]

    assert [usage.settled for usage in lease.usage() if usage.metric == "cost_micro_usd"][:1] == [0]


def test_the_provider_sees_its_key_and_never_the_token(house, lease, claude):
    """What arrives upstream carries the real key: the stand-in refuses all others."""
    before = len(house.served())

    claude_plain(claude)

    assert house.served()[before]["status"] == 200
    assert lease.token.reveal() not in house.stage.layout.journal.read_text()


def refused_headers(response):
    """Who refused, and why."""
    return response.headers.get("leasehold-refused-by"), response.headers.get("leasehold-reason")


def test_a_model_outside_the_scope_is_permission_denied(house, claude, gpt, gemini):
    """The SDKs raise their own exception for 403, which says that leasehold refused, and nothing goes upstream."""
    before = len(house.served())
    with pytest.raises(anthropic.PermissionDeniedError) as from_claude:
        claude.messages.create(model="claude-opus-5-5", max_tokens=10, messages=asked("Hi"))
    with pytest.raises(openai.PermissionDeniedError) as from_gpt:
        gpt.chat.completions.create(model="gpt-6-astra", messages=asked("Hi"))
    with pytest.raises(genai_errors.ClientError) as from_gemini:
        gemini.models.generate_content(model="gemini-2.5-pro", contents="Hi")

    assert refused_headers(from_claude.value.response) == ("leasehold", "MODEL_NOT_ALLOWED")
    assert refused_headers(from_gpt.value.response) == ("leasehold", "MODEL_NOT_ALLOWED")
    assert from_gemini.value.code == 403
    assert "claude-opus-5-5" in str(from_claude.value)
    assert len(house.served()) == before


def test_no_lease_is_an_authentication_error(house, lease, claude, gpt):
    """A token that is none, or of a lease that has ended, is a 401 to the SDKs."""
    with pytest.raises(openai.AuthenticationError) as nobody:
        openai.OpenAI(**{**openai_kwargs(lease), "api_key": "sk-anything"}).models.list()
    lease.release()
    with pytest.raises(anthropic.AuthenticationError) as ended:
        claude_plain(claude)

    assert refused_headers(nobody.value.response) == ("leasehold", "LEASE_UNKNOWN")
    assert refused_headers(ended.value.response) == ("leasehold", "LEASE_RELEASED")


def spend_everything(sdk):
    """Ask until refused."""
    for _ in range(20):
        sdk.chat.completions.create(model=GPT, messages=asked("Speak in 900 words."))


def test_an_exhausted_budget_is_402_and_holds_exactly(house, client):
    """Calls go on until the budget is too small for one more; what was spent never exceeds the cap."""
    with client.acquire(provider="openai", budget="0.001") as lease, openai.OpenAI(**openai_kwargs(lease)) as sdk:
        with pytest.raises(openai.APIStatusError) as refused:
            spend_everything(sdk)
        own = next(usage for usage in lease.usage() if usage.budget == "lease")

    assert refused.value.status_code == 402
    assert refused_headers(refused.value.response) == ("leasehold", "BUDGET_EXHAUSTED")
    assert own.settled + own.remaining == own.cap == 1000
    assert own.held == 0
    assert own.settled >= 900


def test_a_provider_s_own_refusal_passes_through(house, lease, claude):
    """The provider's 429 reaches the SDK as it is, names nobody of ours, and costs nothing but the request."""
    with pytest.raises(anthropic.RateLimitError) as refused:
        claude.with_options(max_retries=0).messages.create(
            model=CLAUDE, max_tokens=10, messages=asked("[[status 429]]")
        )

    assert refused_headers(refused.value.response) == (None, None)
    assert lease.usage()[0].settled == 0


def test_a_broken_stream_is_charged_at_its_hold(house, lease, gpt):
    """When the provider breaks off without usage, the SDK sees a broken stream and the worst case is charged."""
    stream = gpt.chat.completions.create(
        model=GPT, messages=asked("[[reset after 4]] in 90 words"), stream=True, max_completion_tokens=500
    )
    with pytest.raises(openai.APIConnectionError):
        list(stream)

    eventually(lambda: own_cost(lease).held == 0)
    own = own_cost(lease)
    assert own.held == 0
    assert own.settled >= 250


def test_an_unlisted_route_is_refused(gpt):
    """What the table does not list is refused here, with the SDK's usual exception."""
    with pytest.raises(openai.PermissionDeniedError) as refused:
        gpt.files.list()

    assert refused_headers(refused.value.response) == ("leasehold", "ROUTE_NOT_ALLOWED")
