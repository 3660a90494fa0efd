"""A vendor's own SDK through the egress, with the vendor's real module behind it."""

import asyncio
import json

import aiohttp
import anthropic
import openai
import pytest
from tests.fakes.egress import KEY, TOKEN, json_answer, running
from tests.providers.test_media import wav

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.domain.price import Usage
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers.anthropic import Anthropic
from leasehold_broker.providers.openai import OpenAI

USAGE = {"input_tokens": 11, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-6",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": USAGE | {"output_tokens": 5},
}
ASK = {"model": "claude-opus-4-6", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}


def event(kind: str, **data: object) -> bytes:
    """One server-sent event in one chunk."""
    raw = f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(raw), raw)


async def test_the_sdk_makes_a_plain_call():
    """The SDK needs only base URL and token; upstream sees the key; the meter reads the usage."""
    async with running(providers={"anthropic": Anthropic()}) as world:
        world.origin.answer = json_answer(json.dumps(MESSAGE).encode())
        async with anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{world.port}/anthropic", api_key=TOKEN, max_retries=0
        ) as client:
            message = await client.messages.create(**ASK)
        assert message.content[0].text == "hello"
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.usage.input_tokens, outcome.usage.output_tokens) == (CallEnd.FINISHED, 11, 5)
        assert b"x-api-key: " + KEY.encode() in world.origin.heads[0]
        assert TOKEN.encode() not in world.origin.heads[0]


async def test_the_sdk_streams_and_sees_the_cut():
    """Events reach the SDK one by one; a revocation in mid-stream reaches it as the vendor's own error."""
    async with running(providers={"anthropic": Anthropic()}) as world:
        never = asyncio.Event()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            writer.write(event("message_start", message=MESSAGE | {"content": [], "stop_reason": None}))
            writer.write(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
            writer.write(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "one"}))
            await never.wait()

        world.origin.answer = answer
        async with anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{world.port}/anthropic", api_key=TOKEN, max_retries=0
        ) as client:
            with pytest.raises(anthropic.APIStatusError, match="LEASE_REVOKED"):  # noqa: PT012 - it comes while iterating
                async with client.messages.stream(**ASK) as stream:
                    async for text in stream.text_stream:
                        assert text == "one"
                        refusal = Refusal(Reason.LEASE_REVOKED, "revoked")
                        world.calls.cuts["call-0"](CallEnd.CUT_BY_REVOCATION, refusal)
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.usage.input_tokens) == (CallEnd.CUT_BY_REVOCATION, 11)
        never.set()


async def test_the_sdk_understands_a_refusal():
    """A refusal is the SDK's own exception for that status, with the reason, after exactly one attempt."""
    async with running(providers={"anthropic": Anthropic()}) as world:
        world.calls.refuse_with = Refusal(Reason.MODEL_NOT_ALLOWED, "model is outside this lease's scope")
        async with anthropic.AsyncAnthropic(
            base_url=f"http://127.0.0.1:{world.port}/anthropic", api_key=TOKEN, max_retries=2
        ) as client:
            with pytest.raises(anthropic.PermissionDeniedError, match="MODEL_NOT_ALLOWED"):
                await client.messages.create(**ASK)
        assert [recorded[0] for recorded in world.refusals.recorded] == [Reason.MODEL_NOT_ALLOWED]


async def test_the_sdk_sends_a_file():
    """A form passes the gate; what goes upstream is written anew, with the key, and the report is read."""
    async with running(providers={"openai": OpenAI()}) as world:
        world.origin.answer = json_answer(b'{"text": "hello", "usage": {"type": "duration", "seconds": 2}}')
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{world.port}/openai/v1", api_key=TOKEN, max_retries=0
        ) as client:
            heard = await client.audio.transcriptions.create(model="whisper-1", file=("secret name.wav", wav(2)))
        assert heard.text == "hello"
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.usage) == (CallEnd.FINISHED, Usage(audio_seconds=2))
        assert b"content-type: multipart/form-data; boundary=" in world.origin.heads[0]
        assert b"secret name" not in world.origin.heads[0]


async def test_a_form_route_takes_forms_only():
    """JSON for a route of forms, and a form that is none: refused before anything is admitted, and recorded."""
    async with running(providers={"openai": OpenAI()}) as world, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{world.port}/openai/v1/audio/transcriptions"
        for kind, status in (("application/json", 415), ("multipart/form-data; boundary=b", 400)):
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": kind}
            async with session.post(url, data=b'{"model": "whisper-1"}', headers=headers) as answer:
                assert answer.status == status
        assert [recorded[0] for recorded in world.refusals.recorded] == [
            Reason.CONTENT_TYPE_NOT_ALLOWED,
            Reason.BODY_INVALID,
        ]
        assert not world.origin.heads
