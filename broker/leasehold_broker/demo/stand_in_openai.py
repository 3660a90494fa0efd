"""The stand-in's OpenAI voice: Chat Completions, Embeddings and Models; Responses stand in `stand_in_responses`."""

import base64
import json
import struct
from typing import Any

from aiohttp import web

from leasehold_broker.demo import words
from leasehold_broker.demo.desk import CACHE_TOKENS_MIN, Desk, Problem, Served, Stream, body_of, known_model, required

MODELS = ("gpt-6-luna", "gpt-6-sol", "gpt-6-astra", "gpt-4.1-nano", "text-embedding-3-small")
EMBEDDING_DIMENSIONS = 1536
MESSAGE_TOKENS = 4
REASONING_TOKENS = 6
_CACHE_STEP = 128
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAIVoice:
    """Speaks as api.openai.com does."""

    name = "openai"

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    def credential(self, request: web.Request) -> str:
        """The bearer token."""
        return request.headers.get("authorization", "").removeprefix("Bearer ")

    def problem(self, status: int, message: str) -> dict[str, Any]:
        """In the vendor's shape."""
        kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}}

    async def models(self, request: web.Request, served: Served) -> web.StreamResponse:
        """List of models."""
        del request
        self._desk.write_down(served, "complete")
        return web.json_response({"object": "list", "data": [_model(name) for name in MODELS]})

    async def model(self, request: web.Request, served: Served) -> web.StreamResponse:
        """One model."""
        served.model = known_model(request.match_info["model"], MODELS)
        self._desk.write_down(served, "complete")
        return web.json_response(_model(served.model))

    async def embeddings(self, request: web.Request, served: Served) -> web.StreamResponse:
        """Vectors, as floats or base64."""
        body = await body_of(request)
        served.model = known_model(required(body, "model", str), MODELS)
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Problem(400, "input: a string or a list of strings is required")
        served.tokens.input = sum(words.tokens_of(text) for text in texts)
        dimensions = body.get("dimensions") or EMBEDDING_DIMENSIONS
        vectors = [words.vector(text, dimensions) for text in texts]
        coded = [_packed(each) for each in vectors] if body.get("encoding_format") == "base64" else vectors
        self._desk.write_down(served, "complete")
        data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(coded)]
        usage = {"prompt_tokens": served.tokens.input, "total_tokens": served.tokens.input}
        return web.json_response({"object": "list", "model": served.model, "data": data, "usage": usage})

    async def chat(self, request: web.Request, served: Served) -> web.StreamResponse:
        """An answer, or several."""
        body = await body_of(request)
        served.model = known_model(required(body, "model", str), MODELS)
        messages = required(body, "messages", list)
        if not messages:
            raise Problem(400, "messages: must not be empty")
        prompt = words.text_of(messages[-1].get("content"))
        words.steer(prompt, served)
        whole = "".join(words.text_of(message.get("content")) for message in messages) + words.text_of(
            body.get("tools")
        )
        count_input(self._desk, whole, MESSAGE_TOKENS * (1 + len(messages)), served)
        said = Said.to(prompt, body.get("max_completion_tokens", body.get("max_tokens")), served.model)
        call = function_call(body.get("tools"), body.get("tool_choice"), answered=messages[-1].get("role") == "tool")
        if call is not None:
            said = Said.call(call, said.limit)
        head = {"id": f"chatcmpl-{self._desk.number():08d}", "created": 1_795_000_000, "model": served.model}
        choices = body.get("n") or 1
        if body.get("stream") is True:
            asked = (body.get("stream_options") or {}).get("include_usage") is True
            return await self._stream(request, served, head, said, choices, include_usage=asked)
        served.tokens.output = said.tokens * choices
        served.tokens.reasoning = said.reasoning * choices
        self._desk.write_down(served, "complete")
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None, "annotations": []}
        if said.function is not None:
            message |= {"content": None, "tool_calls": [said.tool_call()]}
        told = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": said.finish_reason}
            for index in range(choices)
        ]
        return web.json_response(
            {**head, "object": "chat.completion", "choices": told, "usage": _usage(served), "service_tier": "default"}
        )

    async def _stream(
        self,
        request: web.Request,
        served: Served,
        head: dict[str, Any],
        said: "Said",
        choices: int,
        *,
        include_usage: bool,
    ) -> web.StreamResponse:
        stream = await Stream.open(self._desk, request, served)
        chunk = {**head, "object": "chat.completion.chunk", "service_tier": "default"}
        if include_usage:
            chunk["usage"] = None

        async def say(index: int, delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            await stream.event({**chunk, "choices": [choice]})

        for index in range(choices):
            opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
            if said.function is not None:
                opening = {"role": "assistant", "content": None, "tool_calls": [{"index": 0, **said.tool_call("")}]}
            await say(index, opening)
            served.tokens.output += said.reasoning
            served.tokens.reasoning += said.reasoning
            for piece in words.pieces(said.words):
                await stream.pause()
                served.tokens.output += len(piece)
                text = "".join(piece)
                called = {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}
                await say(index, {"content": text} if said.function is None else called)
            await say(index, {}, said.finish_reason)
        self._desk.write_down(served, "complete")
        if include_usage:
            await stream.event({**chunk, "choices": [], "usage": _usage(served)})
        await stream.event("[DONE]")
        return await stream.end()


class Said:
    """What is answered: words of one token each, or a function call, and what was thought before."""

    def __init__(self, spoken: list[str], reasoning: int, limit: int | None, *, cut: bool) -> None:
        """Take the words."""
        self.words = spoken
        self.reasoning = reasoning
        self.limit = limit
        self.cut = cut
        self.function: dict[str, Any] | None = None

    @classmethod
    def to(cls, prompt: str, limit: Any, model: str) -> "Said":
        """The answer to a prompt; models that reason do so first, within the limit."""
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise Problem(400, "the output limit must be a positive integer")
        reasoning = REASONING_TOKENS if model.startswith("gpt-6") else 0
        if limit is not None:
            reasoning = min(reasoning, limit)
        spoken, cut = words.answer(prompt, None if limit is None else limit - reasoning)
        return cls(spoken, reasoning, limit, cut=cut)

    @classmethod
    def call(cls, function: dict[str, Any], limit: int | None) -> "Said":
        """A function call."""
        text = json.dumps(function["arguments"])
        tokens = [text[start : start + 4] for start in range(0, len(text), 4)]
        said = cls(tokens[:limit], 0, limit, cut=limit is not None and len(tokens) > limit)
        said.function = function
        return said

    @property
    def text(self) -> str:
        """The words as one text."""
        return "".join(self.words)

    @property
    def tokens(self) -> int:
        """Tokens of one answer, reasoning included."""
        return self.reasoning + len(self.words)

    @property
    def finish_reason(self) -> str:
        """As Chat Completions calls it."""
        if self.cut:
            return "length"
        return "stop" if self.function is None else "tool_calls"

    def tool_call(self, given: str | None = None) -> dict[str, Any]:
        """As Chat Completions shows it."""
        name = self.function["name"] if self.function is not None else ""
        shown = self.text if given is None else given
        return {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": shown}}


def function_call(tools: Any, choice: Any, *, answered: bool) -> dict[str, Any] | None:
    """The call that the model makes of the first function given; None when it answers in words."""
    if answered or choice == "none" or not isinstance(tools, list):
        return None
    for tool in tools:
        function = tool.get("function", tool)
        if tool.get("type") == "function":
            return {"name": function["name"], "arguments": words.arguments(function.get("parameters"))}
    return None


def count_input(desk: Desk, text: str, overhead: int, served: Served) -> None:
    """Count the prompt; a long beginning that came before is served from the cache, in steps of 128 tokens."""
    total = words.tokens_of(text) + overhead
    steps = (total - overhead) // _CACHE_STEP
    cached = 0
    for step in range(steps, CACHE_TOKENS_MIN // _CACHE_STEP - 1, -1):
        if desk.remembered(f"{served.model}\0{text[: 4 * _CACHE_STEP * step]}"):
            cached = max(cached, step * _CACHE_STEP)
    served.tokens.cache_read = cached
    served.tokens.input = total - cached


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1_790_000_000, "owned_by": "openai"}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _usage(served: Served) -> dict[str, Any]:
    tokens = served.tokens
    prompt = tokens.input + tokens.cache_read
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
