"""Five hundred calls at once through the real doors, on a budget that pays for two in five of them."""

import asyncio
from collections import Counter
from http import HTTPStatus

import httpx
import openai
import pytest

from leasehold import aio
from leasehold.http import openai_kwargs

pytestmark = pytest.mark.timeout(300)
CALLS, WORDS, TOKENS_MAX = 500, 100, 120
ONE_CALL_MICRO_USD = 55
CAP_MICRO_USD = CALLS * ONE_CALL_MICRO_USD * 4 // 10
ROUNDS_MAX = 20
TOO_SLOW = "too slow"
"""On a busy machine one client of 500 calls may not get its bodies out in time: no answer to the budget's question."""


async def one(sdk, streamed):
    """What a call cost by its own usage, in micro-USD, or the reason of its refusal."""
    ask = {
        "model": "gpt-6-luna",
        "messages": [{"role": "user", "content": f"Speak in {WORDS} words."}],
        "max_completion_tokens": TOKENS_MAX,
    }
    try:
        if streamed:
            options = {"include_usage": True}
            chunks = [
                chunk async for chunk in await sdk.chat.completions.create(**ask, stream=True, stream_options=options)
            ]
            usage = chunks[-1].usage
        else:
            usage = (await sdk.chat.completions.create(**ask)).usage
    except openai.APIStatusError as error:
        return (
            TOO_SLOW if error.status_code == HTTPStatus.REQUEST_TIMEOUT else error.response.headers["leasehold-reason"]
        )
    # A tenth of a micro-dollar for each token in, half of one for each out, rounded up.
    return -(-(usage.prompt_tokens + 5 * usage.completion_tokens) // 10)


async def until_none_fits(sdk):
    """Ask for all at once, then again for those refused, until a round serves none: costs, and the reasons met."""
    costs, reasons, waiting = [], Counter(), CALLS
    for _ in range(ROUNDS_MAX):
        ends = await asyncio.gather(*(one(sdk, streamed=n % 2 == 0) for n in range(waiting)))
        served = [end for end in ends if isinstance(end, int)]
        reasons.update(end for end in ends if isinstance(end, str))
        costs, waiting = costs + served, waiting - len(served)
        if not (served or TOO_SLOW in ends) or not waiting:
            return costs, reasons
    pytest.fail(f"still served after {ROUNDS_MAX} rounds")


async def test_b1_b10_five_hundred_calls_at_once_spend_the_cap_and_no_more(house):
    """Never above the cap by a micro-dollar; 99 % of it is used before the last no; all said of it is one sum."""
    token = house.stage.workload("crowd", "agents/research/crowd")
    limits = httpx.Limits(max_connections=CALLS)
    before = len(house.served())
    async with (
        aio.LeaseholdClient(house.stage.sidecar_target("sidecar-b"), token) as client,
        await client.acquire(provider="openai", budget=CAP_MICRO_USD, ttl="5m") as lease,
        httpx.AsyncClient(limits=limits, timeout=200) as http,
        openai.AsyncOpenAI(**{**openai_kwargs(lease), "http_client": http}, max_retries=0) as sdk,
    ):
        costs, reasons = await until_none_fits(sdk)
        own = next(usage for usage in await lease.usage() if usage.budget == "lease")

    assert set(reasons) - {TOO_SLOW} == {"BUDGET_EXHAUSTED"}
    assert max(costs) == ONE_CALL_MICRO_USD
    assert own.held == 0
    assert sum(costs) == own.settled <= own.cap == CAP_MICRO_USD
    assert own.settled * 100 >= own.cap * 99
    assert len(house.served()) - before == len(costs)
