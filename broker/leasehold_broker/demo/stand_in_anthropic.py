"""The stand-in's Anthropic voice: Messages, count_tokens and Models, JSON and SSE."""

import json
from typing import Any

from aiohttp import web

from leasehold_broker.demo import words
from leasehold_broker.demo.desk import CACHE_TOKENS_MIN, Desk, Problem, Served, Stream, body_of, known_model, required

MODELS = ("claude-haiku-5-5", "claude-haiku-4-5", "claude-sonnet-5-5", "claude-opus-5-5")
MESSAGE_TOKENS = 4
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicVoice:
    """Speaks as api.anthropic.com does."""

    name = "anthropic"

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    def credential(self, request: web.Request) -> str:
        """From x-api-key, or a bearer token."""
        return request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")

    def problem(self, status: int, message: str) -> dict[str, Any]:
        """In the vendor's shape."""
        kind = _TYPES.get(status, "api_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": message},
            "request_id": f"req_{self._desk.number():08d}",
        }

    async def models(self, request: web.Request, served: Served) -> web.StreamResponse:
        """List of models."""
        del request
        self._desk.write_down(served, "complete")
        data = [_model(name) for name in MODELS]
        return web.json_response({"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})

    async def model(self, request: web.Request, served: Served) -> web.StreamResponse:
        """One model."""
        served.model = known_model(request.match_info["model"], MODELS)
        self._desk.write_down(served, "complete")
        return web.json_response(_model(served.model))

    async def count_tokens(self, request: web.Request, served: Served) -> web.StreamResponse:
        """Tokens of a request; not billed."""
        body = await self._checked(request, served)
        self._desk.write_down(served, "complete")
        return web.json_response({"input_tokens": words.tokens_of(_whole_text(body)) + _overhead(body)})

    async def messages(self, request: web.Request, served: Served) -> web.StreamResponse:
        """An answer."""
        body = await self._checked(request, served)
        limit = required(body, "max_tokens", int)
        if limit < 1:
            raise Problem(400, "max_tokens: must be greater than or equal to 1")
        prompt = words.text_of(body["messages"][-1].get("content"))
        words.steer(prompt, served)
        self._count_input(body, served)
        spoken, cut = words.answer(prompt, limit)
        blocks, spoken, stop = _blocks(body, spoken, cut=cut, limit=limit)
        message = {
            "id": f"msg_{self._desk.number():08d}",
            "type": "message",
            "role": "assistant",
            "model": served.model,
            "content": blocks,
            "stop_reason": stop,
            "stop_sequence": None,
        }
        if body.get("stream") is True:
            return await self._stream(request, served, message, spoken)
        served.tokens.output = len(spoken)
        self._desk.write_down(served, "complete")
        return web.json_response({**message, "usage": _usage(served)})

    async def _checked(self, request: web.Request, served: Served) -> dict[str, Any]:
        if not request.headers.get("anthropic-version"):
            raise Problem(400, "anthropic-version: header is required")
        body = await body_of(request)
        served.model = known_model(required(body, "model", str), MODELS)
        messages = required(body, "messages", list)
        if not messages or any(entry.get("role") not in {"user", "assistant"} for entry in messages):
            raise Problem(400, "messages: at least one, each with role user or assistant")
        return body

    def _count_input(self, body: dict[str, Any], served: Served) -> None:
        total = words.tokens_of(_whole_text(body)) + _overhead(body)
        marked, hour = _cached_prefix(body)
        cached = words.tokens_of(marked)
        if cached < CACHE_TOKENS_MIN:
            cached = 0
        elif self._desk.remembered(f"{served.model}\0{marked}"):
            served.tokens.cache_read = cached
        elif hour:
            served.tokens.cache_write_1h = cached
        else:
            served.tokens.cache_write_5m = cached
        served.tokens.input = total - cached

    async def _stream(
        self, request: web.Request, served: Served, message: dict[str, Any], spoken: list[str]
    ) -> web.StreamResponse:
        stream = await Stream.open(self._desk, request, served)
        served.tokens.output = 1  # the head carries a placeholder, as the vendor's does
        start = {**message, "content": [], "stop_reason": None, "usage": _usage(served)}
        await stream.event({"type": "message_start", "message": start}, "message_start")
        await stream.event({"type": "ping"}, "ping")
        served.tokens.output = 0
        block = message["content"][0]
        kind = block["type"]
        opening = {**block, "text": ""} if kind == "text" else {**block, "input": {}}
        await stream.event({"type": "content_block_start", "index": 0, "content_block": opening}, "content_block_start")
        pieces = words.pieces(spoken)
        for number, piece in enumerate(pieces):
            await stream.pause()
            served.tokens.output += len(piece)
            if kind == "text":
                delta = {"type": "text_delta", "text": "".join(piece)}
            else:
                delta = {"type": "input_json_delta", "partial_json": "".join(piece)}
            await stream.event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
            if number == len(pieces) // 2:  # cumulative: whoever adds this to the last one counts twice
                await stream.event(_delta(None, served), "message_delta")
        await stream.event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        self._desk.write_down(served, "complete")
        await stream.event(_delta(message["stop_reason"], served), "message_delta")
        await stream.event({"type": "message_stop"}, "message_stop")
        return await stream.end()


def _model(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2026-09-01T00:00:00Z"}


def _delta(stop: str | None, served: Served) -> dict[str, Any]:
    usage = {name: count for name, count in _usage(served).items() if name.endswith("_tokens")}
    return {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}


def _usage(served: Served) -> dict[str, Any]:
    tokens = served.tokens
    return {
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write_5m + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write_5m,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
        "service_tier": "standard",
        "inference_geo": "global",
    }


def _blocks(
    body: dict[str, Any], spoken: list[str], *, cut: bool, limit: int
) -> tuple[list[dict[str, Any]], list[str], str]:
    """Content blocks, the pieces that they are streamed in (one token each), and the stop reason."""
    last = body["messages"][-1].get("content")
    answered = isinstance(last, list) and any(part.get("type") == "tool_result" for part in last)
    choice = body.get("tool_choice") or {}
    tools = body.get("tools") or []
    if tools and not answered and choice.get("type") != "none":
        name = choice.get("name") or tools[0]["name"]
        tool = next((each for each in tools if each["name"] == name), tools[0])
        made = words.arguments(tool.get("input_schema"))
        text = json.dumps(made)
        tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
        block = {"type": "tool_use", "id": f"toolu_{words.tokens_of(text):06d}", "name": tool["name"], "input": made}
        return [block], tokens[:limit], "tool_use" if len(tokens) <= limit else "max_tokens"
    return [{"type": "text", "text": "".join(spoken)}], spoken, "max_tokens" if cut else "end_turn"


def _parts_in_order(body: dict[str, Any]) -> list[Any]:
    parts: list[Any] = list(body.get("tools") or [])
    for content in (body.get("system"), *(message.get("content") for message in body["messages"])):
        parts.extend(content if isinstance(content, list) else [content])
    return parts


def _whole_text(body: dict[str, Any]) -> str:
    return "".join(words.text_of(part) for part in _parts_in_order(body))


def _overhead(body: dict[str, Any]) -> int:
    return MESSAGE_TOKENS * (1 + len(body["messages"])) + (200 if body.get("tools") else 0)


def _cached_prefix(body: dict[str, Any]) -> tuple[str, bool]:
    """The text up to the last cache mark, and whether that mark asks for an hour."""
    seen, marked, hour = "", "", False
    for part in _parts_in_order(body):
        seen += words.text_of(part)
        mark = part.get("cache_control") if isinstance(part, dict) else None
        if mark:
            marked, hour = seen, mark.get("ttl") == "1h"
    return marked, hour
