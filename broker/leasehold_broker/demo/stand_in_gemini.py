"""The stand-in's Gemini voice (Developer API, v1 and v1beta): generation, streams, counts, embeddings, models."""

from typing import Any

from aiohttp import web

from leasehold_broker.demo import words
from leasehold_broker.demo.desk import Desk, Problem, Served, Stream, body_of, known_model, required

MODELS = ("gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")
THOUGHT_TOKENS = 5
EMBEDDING_DIMENSIONS = 768
MESSAGE_TOKENS = 2
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class GeminiVoice:
    """Speaks as generativelanguage.googleapis.com does."""

    name = "gemini"

    def __init__(self, desk: Desk) -> None:
        """Share the desk."""
        self._desk = desk

    def credential(self, request: web.Request) -> str:
        """From x-goog-api-key, or the query."""
        return request.headers.get("x-goog-api-key") or request.query.get("key", "")

    def problem(self, status: int, message: str) -> dict[str, Any]:
        """In the vendor's shape."""
        return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "INTERNAL")}}

    async def models(self, request: web.Request, served: Served) -> web.StreamResponse:
        """List of models."""
        del request
        self._desk.write_down(served, "complete")
        return web.json_response({"models": [_model(name) for name in MODELS]})

    async def model(self, request: web.Request, served: Served) -> web.StreamResponse:
        """One model."""
        served.model = known_model(request.match_info["model"], MODELS)
        self._desk.write_down(served, "complete")
        return web.json_response(_model(served.model))

    async def count_tokens(self, request: web.Request, served: Served) -> web.StreamResponse:
        """Tokens of a prompt; not billed."""
        body = await self._checked(request, served)
        tokens = _prompt_tokens(body)
        self._desk.write_down(served, "complete")
        return web.json_response({"totalTokens": tokens, "promptTokensDetails": _modality(tokens)})

    async def generate(self, request: web.Request, served: Served) -> web.StreamResponse:
        """An answer."""
        body = await self._checked(request, served)
        answer = self._answer(body, served)
        served.tokens.output, served.tokens.reasoning = answer.tokens, answer.thoughts
        self._desk.write_down(served, "complete")
        candidates = [answer.candidate(index, answer.words, finish=True) for index in range(answer.choices)]
        return web.json_response(_chunk(served, answer, candidates))

    async def stream(self, request: web.Request, served: Served) -> web.StreamResponse:
        """An answer in chunks, each with the usage so far."""
        body = await self._checked(request, served)
        if request.query.get("alt") != "sse":
            raise Problem(400, "this stand-in streams with alt=sse only")
        answer = self._answer(body, served)
        stream = await Stream.open(self._desk, request, served)
        pieces = words.pieces(answer.words) or [[]]
        served.tokens.output = served.tokens.reasoning = answer.thoughts * answer.choices
        for number, piece in enumerate(pieces):
            await stream.pause()
            served.tokens.output += len(piece) * answer.choices
            last = number == len(pieces) - 1
            if last:
                served.tokens.output = answer.tokens
                self._desk.write_down(served, "complete")
            spoken = [answer.candidate(index, piece, finish=last) for index in range(answer.choices)]
            await stream.event(_chunk(served, answer, spoken))
        return await stream.end()

    async def embed(self, request: web.Request, served: Served) -> web.StreamResponse:
        """One vector."""
        served.model = known_model(request.match_info["model"], MODELS)
        body = await body_of(request)
        vector = self._vector(body, served)
        self._desk.write_down(served, "complete")
        return web.json_response({"embedding": {"values": vector}, "usageMetadata": _prompt_usage(served)})

    async def embed_batch(self, request: web.Request, served: Served) -> web.StreamResponse:
        """Several vectors."""
        served.model = known_model(request.match_info["model"], MODELS)
        body = await body_of(request)
        vectors = [self._vector(each, served) for each in required(body, "requests", list)]
        self._desk.write_down(served, "complete")
        told = [{"values": vector} for vector in vectors]
        return web.json_response({"embeddings": told, "usageMetadata": _prompt_usage(served)})

    async def _checked(self, request: web.Request, served: Served) -> dict[str, Any]:
        served.model = known_model(request.match_info["model"], MODELS)
        body = await body_of(request)
        if not required(body, "contents", list):
            raise Problem(400, "contents must not be empty")
        return body

    def _answer(self, body: dict[str, Any], served: Served) -> "_Answer":
        prompt = words.text_of(body["contents"][-1].get("parts"))
        words.steer(prompt, served)
        served.tokens.input = _prompt_tokens(body)
        return _Answer(f"resp{self._desk.number():08d}", body, prompt)

    @staticmethod
    def _vector(body: dict[str, Any], served: Served) -> list[float]:
        text = words.text_of(required(body, "content", dict).get("parts"))
        served.tokens.input += words.tokens_of(text)
        return words.vector(text, body.get("outputDimensionality") or EMBEDDING_DIMENSIONS)


class _Answer:
    """What is answered, per candidate; thoughts come first and count against the limit."""

    def __init__(self, name: str, body: dict[str, Any], prompt: str) -> None:
        config = body.get("generationConfig") or {}
        limit = config.get("maxOutputTokens")
        thinking = (config.get("thinkingConfig") or {}).get("thinkingBudget")
        self.name = name
        self.choices: int = config.get("candidateCount") or 1
        self.thoughts = THOUGHT_TOKENS if thinking is None else min(thinking, THOUGHT_TOKENS)
        if limit is not None:
            self.thoughts = min(self.thoughts, limit)
        self.words, self._cut = words.answer(prompt, None if limit is None else limit - self.thoughts)
        self._call = _function_call(body)
        if self._call is not None:
            self.words = [""] * 12
            self.words = self.words if limit is None else self.words[: limit - self.thoughts]

    @property
    def tokens(self) -> int:
        return (self.thoughts + len(self.words)) * self.choices

    def candidate(self, index: int, piece: list[str], *, finish: bool) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": "".join(piece)}] if self._call is None else []
        if self._call is not None and finish:
            parts = [{"functionCall": self._call}]
        told: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": index}
        if finish:
            told["finishReason"] = "MAX_TOKENS" if self._cut and self._call is None else "STOP"
        return told


def _function_call(body: dict[str, Any]) -> dict[str, Any] | None:
    last = body["contents"][-1].get("parts") or []
    mode = ((body.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    if mode == "NONE" or any("functionResponse" in part for part in last):
        return None
    for tool in body.get("tools") or []:
        for function in tool.get("functionDeclarations") or []:
            names = ("parameters", "parametersJsonSchema", "parameters_json_schema")  # the SDK sends the last one
            schema = next((function[name] for name in names if function.get(name)), None)
            return {"name": function["name"], "args": words.arguments(schema)}
    return None


def _prompt_tokens(body: dict[str, Any]) -> int:
    texts = [words.text_of(each.get("parts")) for each in body["contents"]]
    system = body.get("systemInstruction") or {}
    texts += [words.text_of(system.get("parts")), words.text_of(body.get("tools"))]
    return words.tokens_of("".join(texts)) + MESSAGE_TOKENS * len(body["contents"])


def _chunk(served: Served, answer: _Answer, candidates: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = served.tokens
    usage = {
        "promptTokenCount": tokens.input,
        "candidatesTokenCount": tokens.output - tokens.reasoning,
        "thoughtsTokenCount": tokens.reasoning,
        "totalTokenCount": tokens.input + tokens.output,
        "promptTokensDetails": _modality(tokens.input),
    }
    return {
        "candidates": candidates,
        "usageMetadata": usage,
        "modelVersion": served.model,
        "responseId": answer.name,
    }


def _prompt_usage(served: Served) -> dict[str, Any]:
    tokens = served.tokens.input
    return {"promptTokenCount": tokens, "totalTokenCount": tokens, "promptTokensDetails": _modality(tokens)}


def _modality(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": tokens}]


def _model(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "displayName": name,
        "version": "001",
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
