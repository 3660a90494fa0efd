"""The asynchronous SDKs and the async client, several calls at a time: the budget holds across all of them."""

import asyncio

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from leasehold import Scope, aio
from leasehold.http import anthropic_kwargs, google_kwargs, openai_kwargs

pytestmark = [
    pytest.mark.timeout(120),
    # google-genai derives a class from aiohttp's session, which aiohttp discourages
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]
CLAUDE, GPT, GEMINI = "claude-haiku-5-5", "gpt-6-luna", "gemini-3.5-flash-lite"
EVERYWHERE = [Scope("anthropic"), Scope("openai"), Scope("gemini")]


def asked(text):
    """One user message."""
    return [{"role": "user", "content": text}]


@pytest.fixture
async def client(house):
    """The async client of one sidecar."""
    token = house.stage.workload("async", "agents/research/async")
    async with aio.LeaseholdClient(house.stage.sidecar_target("sidecar-b"), token) as client:
        yield client


async def from_claude(lease):
    """Words of a stream."""
    async with (
        anthropic.AsyncAnthropic(**anthropic_kwargs(lease)) as sdk,
        sdk.messages.stream(model=CLAUDE, max_tokens=200, messages=asked("Speak in 40 words.")) as stream,
    ):
        return "".join([text async for text in stream.text_stream])


async def from_gpt(lease):
    """Words of a stream."""
    async with openai.AsyncOpenAI(**openai_kwargs(lease)) as sdk:
        chunks = await sdk.chat.completions.create(model=GPT, messages=asked("Speak in 40 words."), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def from_gemini(lease):
    """Words of a stream."""
    options = google_kwargs(lease)
    sdk = genai.Client(**{**options, "http_options": types.HttpOptions(**options["http_options"])})
    async with sdk.aio as session:
        chunks = await session.models.generate_content_stream(model=GEMINI, contents="Speak in 40 words.")
        words = "".join([chunk.text or "" async for chunk in chunks])
    sdk.close()
    return words


async def test_three_streams_at_a_time(client):
    """Streams of all three SDKs run side by side under one lease, and each is whole."""
    async with await client.acquire(scopes=EVERYWHERE, budget="0.05", ttl="5m") as lease:
        answers = await asyncio.gather(from_claude(lease), from_gpt(lease), from_gemini(lease))
        # The end of the last stream may come after its last event, at which an SDK stops.
        for _ in range(600):
            own = (await lease.usage())[0]
            if not own.held:
                break
            await asyncio.sleep(0.1)

    assert [len(answer.split()) for answer in answers] == [40, 40, 40]
    assert own.held == 0
    assert own.settled > 0


async def test_a_crowd_cannot_overspend(house, client):
    """Forty calls at once on a budget for a few: they are served, made smaller or refused, and the cap holds."""
    async with (
        await client.acquire(provider="openai", budget="0.001", ttl="5m") as lease,
        openai.AsyncOpenAI(**openai_kwargs(lease), max_retries=0) as sdk,
    ):

        async def one():
            try:
                answer = await sdk.chat.completions.create(
                    model=GPT, messages=asked("Speak in 300 words."), max_completion_tokens=400
                )
            except openai.APIStatusError as error:
                return error.response.headers["leasehold-reason"]
            # A tenth of a micro-dollar for each token in, half of one for each out, rounded up.
            return -(-(answer.usage.prompt_tokens + 5 * answer.usage.completion_tokens) // 10)

        ends = await asyncio.gather(*(one() for _ in range(40)))
        own = next(usage for usage in await lease.usage() if usage.budget == "lease")

    served = [end for end in ends if end != "BUDGET_EXHAUSTED"]
    assert 0 < len(served) < len(ends)
    # What was served is what was charged: 155 for the whole answer, less for one that was made smaller.
    assert max(served) == 155
    assert own.settled == sum(served) <= own.cap == 1000
    assert own.held == 0
