"""The stand-in's OpenAI Responses: one JSON answer, or the full sequence of events."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from leasehold_broker.demo import words
from leasehold_broker.demo.desk import Desk, Served, Stream, body_of, known_model, required
from leasehold_broker.demo.stand_in_openai import MESSAGE_TOKENS, MODELS, Said, count_input, function_call

Say = Callable[..., Awaitable[None]]


class Responses:
    """Speaks as POST /v1/responses does."""

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    async def create(self, request: web.Request, served: Served) -> web.StreamResponse:
        """An answer."""
        body = await body_of(request)
        served.model = known_model(required(body, "model", str), MODELS)
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])
        prompt = words.text_of(items[-1].get("content")) if items else ""
        words.steer(prompt, served)
        whole = words.text_of(body.get("instructions")) + words.text_of(body.get("tools"))
        whole += "".join(words.text_of(item.get("content")) or words.text_of(item.get("output")) for item in items)
        count_input(self._desk, whole, MESSAGE_TOKENS * (1 + len(items)), served)
        said = Said.to(prompt, body.get("max_output_tokens"), served.model)
        answered = bool(items) and items[-1].get("type") == "function_call_output"
        call = function_call(body.get("tools"), body.get("tool_choice"), answered=answered)
        if call is not None:
            said = Said.call(call, said.limit)
        response = _response(f"resp_{self._desk.number():08d}", served.model, body)
        if body.get("stream") is True:
            return await self._stream(request, served, response, said)
        served.tokens.output, served.tokens.reasoning = said.tokens, said.reasoning
        self._desk.write_down(served, "complete")
        return web.json_response(_ended(response, said, served))

    async def _stream(
        self, request: web.Request, served: Served, response: dict[str, Any], said: Said
    ) -> web.StreamResponse:
        stream = await Stream.open(self._desk, request, served)
        sequence = 0

        async def say(kind: str, **members: Any) -> None:
            nonlocal sequence
            await stream.event({"type": kind, "sequence_number": sequence, **members}, kind)
            sequence += 1

        await say("response.created", response=response)
        await say("response.in_progress", response=response)
        served.tokens.output = served.tokens.reasoning = said.reasoning
        item = _item(said)
        if said.function is None:
            await self._message(stream, say, served, said, item)
        else:
            await self._function(stream, say, served, said, item)
        await say("response.output_item.done", output_index=0, item=item)
        self._desk.write_down(served, "complete")
        end = _ended(response, said, served)
        await say("response.incomplete" if said.cut else "response.completed", response=end)
        return await stream.end()

    @staticmethod
    async def _message(stream: Stream, say: Say, served: Served, said: Said, item: dict[str, Any]) -> None:
        await say("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        await say("response.content_part.added", **place, part={**item["content"][0], "text": ""})
        for piece in words.pieces(said.words):
            await stream.pause()
            served.tokens.output += len(piece)
            await say("response.output_text.delta", **place, delta="".join(piece), logprobs=[])
        await say("response.output_text.done", **place, text=said.text, logprobs=[])
        await say("response.content_part.done", **place, part=item["content"][0])

    @staticmethod
    async def _function(stream: Stream, say: Say, served: Served, said: Said, item: dict[str, Any]) -> None:
        started = {**item, "status": "in_progress", "arguments": ""}
        await say("response.output_item.added", output_index=0, item=started)
        place = {"item_id": item["id"], "output_index": 0}
        for piece in words.pieces(said.words):
            await stream.pause()
            served.tokens.output += len(piece)
            await say("response.function_call_arguments.delta", **place, delta="".join(piece))
        await say("response.function_call_arguments.done", **place, name=item["name"], arguments=said.text)


def _response(name: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "object": "response",
        "created_at": 1_795_000_000,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "service_tier": "default",
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "usage": None,
    }


def _item(said: Said) -> dict[str, Any]:
    status = "incomplete" if said.cut else "completed"
    if said.function is not None:
        name = said.function["name"]
        return {
            "id": f"fc_{name}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{name}",
            "name": name,
            "arguments": said.text,
        }
    content = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    return {"id": "msg_0", "type": "message", "status": status, "role": "assistant", "content": [content]}


def _ended(response: dict[str, Any], said: Said, served: Served) -> dict[str, Any]:
    tokens = served.tokens
    prompt = tokens.input + tokens.cache_read
    return {
        **response,
        "status": "incomplete" if said.cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if said.cut else None,
        "output": [_item(said)],
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": 0},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": prompt + tokens.output,
        },
    }
