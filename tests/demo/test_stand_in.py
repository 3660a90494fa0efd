"""The stand-in satisfies the three official SDKs, called directly, and its book agrees with what they were told."""

import asyncio
import json
import stat
import sys

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai import types

from leasehold_broker.demo.desk import fingerprint
from leasehold_broker.demo.stand_in import StandIn

KEYS = {"anthropic": "sk-ant-stand-in", "openai": "sk-stand-in", "gemini": "AIza-stand-in"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
pytestmark = pytest.mark.filterwarnings(
    # google-genai derives a class from aiohttp's session, which aiohttp discourages
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"
)
LONG = "x" * 4 * 2048


@pytest.fixture
async def stand_in(tmp_path):
    """A running stand-in with a book on disk."""
    server = StandIn(KEYS, journal=tmp_path / "book.jsonl")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def claude(stand_in):
    """Anthropic's SDK."""
    async with anthropic.AsyncAnthropic(base_url=stand_in.origin, api_key=KEYS["anthropic"], max_retries=0) as client:
        yield client


@pytest.fixture
async def gpt(stand_in):
    """OpenAI's SDK."""
    url = f"{stand_in.origin}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=KEYS["openai"], max_retries=0) as client:
        yield client


@pytest.fixture
async def gemini(stand_in):
    """Google's SDK."""
    options = types.HttpOptions(base_url=stand_in.origin)
    client = genai.Client(api_key=KEYS["gemini"], vertexai=False, http_options=options)
    async with client.aio as session:
        yield session
    client.close()


def asked(text):
    """One user message."""
    return [{"role": "user", "content": text}]


async def test_anthropic_message(claude, stand_in):
    """A message has as many words as asked for, one token each, and the book says the same."""
    message = await claude.messages.create(
        model="claude-haiku-5-5", max_tokens=100, messages=asked("Speak in 10 words.")
    )

    assert message.stop_reason == "end_turn"
    assert len(message.content[0].text.split()) == message.usage.output_tokens == 10
    book = stand_in.served[0]
    assert (book.provider, book.operation, book.ended) == ("anthropic", "messages", "complete")
    assert (message.usage.input_tokens, 10) == (book.tokens.input, book.tokens.output)
    assert fingerprint(KEYS["anthropic"]) == book.key


async def test_anthropic_limit(claude):
    """The output limit is honoured and named as the reason to stop."""
    message = await claude.messages.create(model="claude-haiku-5-5", max_tokens=7, messages=asked("in 50 words"))

    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 7


async def test_anthropic_stream(claude, stand_in):
    """A stream adds up to the same message, usage cumulative."""
    async with claude.messages.stream(
        model="claude-haiku-5-5", max_tokens=100, messages=asked("in 20 words")
    ) as stream:
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()

    assert kinds[0] == "message_start"
    assert kinds.count("message_delta") == 2
    assert kinds[-1] == "message_stop"
    assert len(message.content[0].text.split()) == message.usage.output_tokens == 20
    assert stand_in.served[0].tokens.output == 20


async def test_anthropic_cache(claude):
    """A marked prompt is written to the cache once and read from it afterwards."""
    system = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    first, second = [
        (
            await claude.messages.create(
                model="claude-haiku-5-5", max_tokens=10, system=system, messages=asked("Hello")
            )
        ).usage
        for _ in range(2)
    ]

    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (2048, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 2048)
    assert first.input_tokens == second.input_tokens < 100


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_tools(claude, stream):
    """A tool is called with arguments of its schema; its result is answered in words."""
    tools = [{"name": "weather", "input_schema": WEATHER}]
    ask = {"model": "claude-haiku-5-5", "max_tokens": 100, "tools": tools}
    if stream:
        async with claude.messages.stream(messages=asked("Weather?"), **ask) as events:
            message = await events.get_final_message()
    else:
        message = await claude.messages.create(messages=asked("Weather?"), **ask)
    use = message.content[0]

    assert message.stop_reason == "tool_use"
    assert use.input == {"city": "Lisbon", "days": 3}
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny"}
    turns = [
        *asked("Weather?"),
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    assert (await claude.messages.create(messages=turns, **ask)).stop_reason == "end_turn"


async def test_anthropic_counts_and_models(claude):
    """Counting costs nothing and equals what a message is told; models are listed."""
    counted = await claude.messages.count_tokens(model="claude-haiku-5-5", messages=asked("How many?"))
    message = await claude.messages.create(model="claude-haiku-5-5", max_tokens=5, messages=asked("How many?"))

    assert counted.input_tokens == message.usage.input_tokens
    assert "claude-haiku-5-5" in [model.id async for model in claude.models.list()]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "claude-unknown"}, anthropic.NotFoundError),
        ({"messages": []}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": "[[status 429]]"}]}, anthropic.RateLimitError),
    ],
)
async def test_anthropic_refusals(claude, stand_in, change, error):
    """Mistakes are answered with the SDK's usual exceptions, and booked as refused."""
    with pytest.raises(error):
        await claude.messages.create(
            **{"model": "claude-haiku-5-5", "max_tokens": 5, "messages": asked("Hello"), **change}
        )

    assert stand_in.served[0].ended == "refused"


async def test_keys_are_checked(stand_in):
    """Every vendor refuses a key that is not its own."""
    foreign = anthropic.AsyncAnthropic(base_url=stand_in.origin, api_key=KEYS["openai"], max_retries=0)
    async with foreign:
        with pytest.raises(anthropic.AuthenticationError):
            await foreign.models.list()
    async with openai.AsyncOpenAI(base_url=f"{stand_in.origin}/v1", api_key="sk-no", max_retries=0) as unknown:
        with pytest.raises(openai.AuthenticationError):
            await unknown.models.list()
    client = genai.Client(api_key="no", http_options=types.HttpOptions(base_url=stand_in.origin))
    with pytest.raises(genai_errors.ClientError) as refused:
        await client.aio.models.generate_content(model="gemini-3.5-flash-lite", contents="Hello")
    await client.aio.aclose()
    client.close()

    assert refused.value.code == 401
    assert {"refused"} == {served.ended for served in stand_in.served}


async def test_openai_chat(gpt, stand_in):
    """A chat answer has usage with its reasoning inside the output."""
    answer = await gpt.chat.completions.create(model="gpt-6-luna", messages=asked("Speak in 10 words."))

    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 16
    assert answer.usage.completion_tokens_details.reasoning_tokens == 6
    assert stand_in.served[0].tokens.output == 16


async def test_openai_chat_limit_covers_reasoning(gpt):
    """Reasoning counts against the limit, as with the vendor."""
    answer = await gpt.chat.completions.create(
        model="gpt-6-luna", messages=asked("in 50 words"), max_completion_tokens=8, n=2
    )

    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.usage.completion_tokens == 16


@pytest.mark.parametrize("include_usage", [False, True])
async def test_openai_chat_stream(gpt, include_usage):
    """A stream ends with usage only when that was asked for."""
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = [
        chunk
        async for chunk in await gpt.chat.completions.create(
            model="gpt-6-luna", messages=asked("in 9 words"), stream=True, **options
        )
    ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    assert len(text.split()) == 9
    assert [15] * include_usage == [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]


async def test_openai_chat_tools(gpt):
    """A function is called with arguments of its schema, streamed or not."""
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    ask = {"model": "gpt-6-luna", "messages": asked("Weather?"), "tools": tools}
    answer = await gpt.chat.completions.create(**ask)
    async with gpt.chat.completions.stream(**ask) as stream:
        streamed = await stream.get_final_completion()

    for completion in (answer, streamed):
        assert completion.choices[0].finish_reason == "tool_calls"
        call = completion.choices[0].message.tool_calls[0].function
        assert json.loads(call.arguments) == {"city": "Lisbon", "days": 3}


async def test_openai_cache(gpt):
    """A long beginning that came before is counted as cached, inside the prompt's total."""
    first, second = [
        (await gpt.chat.completions.create(model="gpt-6-luna", messages=asked(LONG))).usage for _ in range(2)
    ]

    assert first.prompt_tokens == second.prompt_tokens
    assert (first.prompt_tokens_details.cached_tokens, second.prompt_tokens_details.cached_tokens) == (0, 2048)


async def test_openai_responses(gpt):
    """A response has its text and usage, and says when the limit cut it."""
    answer = await gpt.responses.create(model="gpt-6-luna", input="Speak in 10 words.")
    cut = await gpt.responses.create(model="gpt-6-luna", input="Speak in 100 words.", max_output_tokens=20)

    assert len(answer.output_text.split()) == 10
    assert answer.usage.output_tokens == 16
    assert (cut.status, cut.incomplete_details.reason, cut.usage.output_tokens) == (
        "incomplete",
        "max_output_tokens",
        20,
    )


async def test_openai_responses_stream(gpt):
    """The event sequence is the vendor's, for words and for functions."""
    tools = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    async with gpt.responses.stream(model="gpt-6-luna", input="in 10 words") as stream:
        kinds = [event.type async for event in stream]
        words = await stream.get_final_response()
    async with gpt.responses.stream(model="gpt-6-luna", input="Weather?", tools=tools) as stream:
        called = [event.type async for event in stream]
        function = await stream.get_final_response()

    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == called[-1] == "response.completed"
    assert "response.function_call_arguments.done" in called
    assert words.usage.output_tokens == 16
    assert json.loads(function.output[0].arguments) == {"city": "Lisbon", "days": 3}


async def test_openai_embeddings(gpt):
    """Vectors come as base64 (the SDK's default) and as floats, and are the same."""
    default = await gpt.embeddings.create(model="text-embedding-3-small", input=["one", "two"], dimensions=8)
    floats = await gpt.embeddings.create(
        model="text-embedding-3-small", input=["one", "two"], dimensions=8, encoding_format="float"
    )

    assert default.usage.prompt_tokens == 2
    assert [each.index for each in default.data] == [0, 1]
    assert default.data[0].embedding == pytest.approx(floats.data[0].embedding)


async def test_gemini_generate(gemini, stand_in):
    """An answer's thoughts are told apart from its candidates, and both are booked as output."""
    answer = await gemini.models.generate_content(model="gemini-3.5-flash-lite", contents="Speak in 10 words.")

    assert len(answer.text.split()) == answer.usage_metadata.candidates_token_count == 10
    assert answer.usage_metadata.thoughts_token_count == 5
    assert stand_in.served[0].tokens.output == 15


async def test_gemini_limit(gemini):
    """Thoughts count against the limit."""
    answer = await gemini.models.generate_content(
        model="gemini-3.5-flash-lite",
        contents="in 50 words",
        config=types.GenerateContentConfig(max_output_tokens=12),
    )

    assert answer.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
    assert answer.usage_metadata.candidates_token_count + answer.usage_metadata.thoughts_token_count == 12


async def test_gemini_stream(gemini):
    """Each chunk carries the usage so far; the last one is the total."""
    stream = await gemini.models.generate_content_stream(model="gemini-3.5-flash-lite", contents="in 10 words")
    chunks = [chunk async for chunk in stream]

    assert len("".join(chunk.text or "" for chunk in chunks).split()) == 10
    assert chunks[-1].usage_metadata.candidates_token_count == 10
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP


async def test_gemini_tools(gemini):
    """A function is called with arguments of its schema."""
    function = types.FunctionDeclaration(name="weather", parameters_json_schema=WEATHER)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[function])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    answer = await gemini.models.generate_content(model="gemini-3.5-flash-lite", contents="Weather?", config=config)

    assert answer.function_calls[0].args == {"city": "Lisbon", "days": 3}


async def test_gemini_counts_embeds_and_lists(gemini):
    """Counts, vectors and models come in the vendor's shapes."""
    counted = await gemini.models.count_tokens(model="gemini-3.5-flash-lite", contents="How many?")
    embedded = await gemini.models.embed_content(
        model="gemini-embedding-001",
        contents=["one", "two"],
        config=types.EmbedContentConfig(output_dimensionality=8),
    )
    listed = [model.name async for model in await gemini.models.list()]

    assert counted.total_tokens == 5
    assert [len(each.values) for each in embedded.embeddings] == [8, 8]
    assert "models/gemini-3.5-flash-lite" in listed


async def test_a_broken_stream_is_booked(gpt, stand_in):
    """A connection that breaks in the middle leaves in the book what was said until then."""
    stream = await gpt.chat.completions.create(
        model="gpt-6-luna", messages=asked("[[reset after 3]] in 90 words"), stream=True
    )
    with pytest.raises(openai.APIConnectionError):
        async for _ in stream:
            pass

    book = stand_in.served[0]
    assert (book.ended, book.events, book.tokens.output) == ("reset", 3, 15)


async def test_own_process(tmp_path):
    """As a process it prints its origin, writes the book to a file, and stops on a signal."""
    keys, book = tmp_path / "keys.json", tmp_path / "book.jsonl"
    keys.write_text(json.dumps(KEYS))
    keys.chmod(stat.S_IRUSR | stat.S_IWUSR)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "leasehold_broker.demo.stand_in", "--keys-file", str(keys), "--journal", str(book)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        origin = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["origin"]
        async with openai.AsyncOpenAI(base_url=f"{origin}/v1", api_key=KEYS["openai"]) as client:
            await client.embeddings.create(model="text-embedding-3-small", input="one")
    finally:
        process.terminate()
        code = await asyncio.wait_for(process.wait(), 20)

    assert code == 0
    assert json.loads(book.read_text())["tokens"]["input"] == 1
