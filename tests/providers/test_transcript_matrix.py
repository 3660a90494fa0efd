"""The golden transcripts as a matrix: every API of every vendor times every state that a call can end in.

What a transcript shows is read from its own bytes and its own usage, never from its name. A cell without a transcript
needs a reason here, and a reason for a cell that has one is a mistake as well.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.providers import cohere, hosts, openai
from leasehold_broker.providers.openai_host import HostShape

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path for name in PROVIDERS for path in (VECTORS / name).glob("*.json"))
STATES = (
    "normal",
    "tools",
    "thinking",
    "server_tools",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "error",
    "error_in_stream",
    "cut_at_every_event",
)
WRITES = ("cache_write_5m", "cache_write_1h")
CALLS_A_TOOL = re.compile(r'"(?:tool_calls|tool_use|toolUse|functionCall|function_call|tool-call-start)"')
THINKS = re.compile(r'"(?:thinking|thinking_delta|reasoningContent|reasoning_content|reasoning|reasoning_tokens)":?')
FAILS = re.compile(r'"(?:error|:exception-type|finish_reason": ?"ERROR)"')

OPERATIONS = {
    "converse": "converse",
    "converse_stream": "converse",
    "invoke_model": "invoke",
    "invoke_model_stream": "invoke",
    "generate_content": "generate",
    "stream_generate_content": "generate",
    "raw_predict": "claude",
    "stream_raw_predict": "claude",
    "chat.completions": "chat",
    "audio.translations": "audio.transcriptions",
}
"""Operations that are one API: whole and streamed, or read by one reader."""


def load(path: Path) -> dict[str, Any]:
    """A transcript."""
    vector: dict[str, Any] = json.loads(path.read_text())
    return vector


def api_of(path: Path, vector: dict[str, Any]) -> str:
    """The vendor and the API."""
    return f"{path.parent.name} {OPERATIONS.get(vector['operation'], vector['operation'])}"


def states_of(vector: dict[str, Any]) -> Iterable[str]:
    """What a transcript shows."""
    said = json.dumps(vector["frames"]) if "frames" in vector else "".join(vector["answer"])
    usage = vector["usage"] or {}
    if vector["final"] and vector["micro_usd"] is not None:
        yield "normal"
        for state, shown in (
            ("tools", CALLS_A_TOOL.search(said)),
            ("thinking", usage.get("reasoning_tokens") or THINKS.search(said)),
            ("server_tools", usage.get("web_searches") or usage.get("file_searches")),
            *((unit, usage.get(f"{unit}_tokens")) for unit in ("cache_read", *WRITES)),
        ):
            if shown:
                yield state
    elif "event" in vector["content_type"]:
        if FAILS.search(said):
            yield "error_in_stream"
    elif "json" in vector["content_type"] and {"error", "message"} & json.loads(said).keys():
        yield "error"
    if "cuts" in vector:
        yield "cut_at_every_event"


CACHES_BY_ITSELF = "its cache is its own affair: it reports what was read, and bills a write as input"
NO_HOUR = "it has no cache writes of an hour"
NO_CACHE = "it has no prompt cache"
NO_ANSWER = "a vector, a text or a picture is no answer that thinks or calls tools"
NO_STREAM = "it is not streamed"
SEARCHES = {"anthropic messages", "gemini generate", "openai responses", "vertex generate"}
NO_SEARCH = "what the vendor runs is refused here: it has no limit, or no price, or there is none"
EMBEDS = dict.fromkeys(("tools", "thinking"), NO_ANSWER) | dict.fromkeys(("cache_read", *WRITES), NO_CACHE)
EMBEDS_WHOLE = EMBEDS | dict.fromkeys(("error_in_stream", "cut_at_every_event"), NO_STREAM)
BY_ITSELF = dict.fromkeys(WRITES, CACHES_BY_ITSELF)

WITHOUT: dict[str, dict[str, str]] = {
    "azure chat": BY_ITSELF,
    "azure embeddings": EMBEDS_WHOLE,
    "azure responses": BY_ITSELF,
    "cohere chat": dict.fromkeys(("cache_read", *WRITES), NO_CACHE),
    "cohere embed": EMBEDS_WHOLE,
    "cohere rerank": EMBEDS_WHOLE,
    "deepseek chat": BY_ITSELF,
    "fireworks chat": BY_ITSELF,
    "fireworks embeddings": EMBEDS_WHOLE,
    "gemini embed_content": EMBEDS_WHOLE,
    "gemini generate": dict.fromkeys(WRITES, "a cache that is written is a stored one, which is refused"),
    "groq audio.speech": EMBEDS_WHOLE,
    "groq audio.transcriptions": EMBEDS_WHOLE,
    "groq chat": BY_ITSELF,
    "mistral audio.transcriptions": EMBEDS,
    "mistral chat": BY_ITSELF,
    "mistral embeddings": EMBEDS_WHOLE,
    "openai audio.speech": EMBEDS_WHOLE,
    "openai audio.transcriptions": EMBEDS,
    "openai chat": {"cache_write_1h": "the longer writes it reports have no price: they are charged at the hold"},
    "openai embeddings": EMBEDS_WHOLE,
    "openai images.edits": EMBEDS,
    "openai images.generations": EMBEDS,
    "openai moderations": dict.fromkeys(STATES, "it is free: no answer of it is read"),
    "openai responses": {"cache_write_1h": "the longer writes it reports have no price: they are charged at the hold"},
    "openrouter embeddings": EMBEDS_WHOLE,
    "openrouter chat": {"cache_write_1h": "it does not say for how long; what it charged is in its report"},
    "own-llm chat": BY_ITSELF,
    "together chat": BY_ITSELF,
    "together embeddings": EMBEDS_WHOLE,
    "vertex generate": dict.fromkeys(WRITES, "a cache that is written is a stored one, which is refused"),
    "xai chat": BY_ITSELF,
}
"""Cells that have no transcript, and why."""


def matrix() -> dict[str, dict[str, list[str]]]:
    """The transcripts of each cell."""
    cells: dict[str, dict[str, list[str]]] = {}
    for path in FILES:
        vector = load(path)
        states = cells.setdefault(api_of(path, vector), {})
        for state in states_of(vector):
            states.setdefault(state, []).append(path.stem)
    return cells


MATRIX = matrix()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("api", sorted({*MATRIX, *WITHOUT}))
def test_every_cell_has_a_transcript_or_a_reason(api: str, state: str) -> None:
    """Each API of each vendor in each state: a golden transcript, or a sentence that says why there is none."""
    shown = MATRIX.get(api, {}).get(state, [])
    reason = WITHOUT.get(api, {}).get(state)
    if state == "server_tools" and api not in SEARCHES:
        reason = NO_SEARCH
    assert shown or reason, f"{api}: no transcript of {state}, and no reason why not"
    assert not (shown and reason), f"{api}: {shown} show {state}, so its reason is out of date"


@pytest.mark.parametrize("shape", [openai.SHAPE, cohere.SHAPE, *hosts.SHAPES.values()], ids=lambda shape: shape.name)
def test_every_operation_of_a_host_is_in_the_matrix(shape: HostShape) -> None:
    """An operation that a host's table gains is a row here, or this fails."""
    served = {f"{shape.name} {OPERATIONS.get(each.name, each.name)}" for each in shape.operations.values()}
    assert served <= {*MATRIX, *WITHOUT}
