"""What the stand-in says, and how it counts. Owns both, deterministic; refuses to be clever.

A word of an answer is one token; a text that comes in is a token for each four characters, which no byte bound can be
below. A prompt steers the answer: "in 300 words" sets its length; "[[status 429]]" asks for that failure,
"[[reset after 5]]" for a connection that breaks after so many events.
"""

import hashlib
import json
import re
from typing import Any

from leasehold_broker.demo.desk import Problem, Served

_TEXT = (
    "A lease is a promise with an end. The key stays where it was put, the caller holds a paper that says what it may "
    "do, how long, and for how much; and when the paper is torn up, the door is closed while the foot is still in it. "
    "What was spent is written down before it is spent, and what was not spent goes back."
)
WORDS = tuple(_TEXT.split())
LENGTH_DEFAULT = 24
_LENGTH = re.compile(r"\bin (\d{1,5}) words\b")
_STATUS = re.compile(r"\[\[status (\d{3})\]\]")
_RESET = re.compile(r"\[\[reset after (\d{1,4})\]\]")


def tokens_of(text: str) -> int:
    """Tokens of a text that came in."""
    return -(-len(text) // 4)


def text_of(content: Any) -> str:
    """All text within a message's content, whatever the vendor calls its parts; structures count as their JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(text_of(part) for part in content)
    if isinstance(content, dict) and isinstance(content.get("text"), str):
        return str(content["text"])
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def steer(prompt: str, served: Served) -> None:
    """Do what the prompt asks of the server.

    Raises:
        Problem: "[[status N]]" was asked for.
    """
    status = _STATUS.search(prompt)
    if status is not None:
        raise Problem(int(status[1]), "the prompt asked for this failure")
    reset = _RESET.search(prompt)
    if reset is not None:
        served.reset_after = int(reset[1])


def answer(prompt: str, limit: int | None) -> tuple[list[str], bool]:
    """The words of the answer, each one token, and whether the limit cut it short.

    Args:
        prompt: what was asked.
        limit: most tokens; None for no limit.
    """
    asked = _LENGTH.search(prompt)
    length = int(asked[1]) if asked is not None else LENGTH_DEFAULT
    given = length if limit is None else min(length, limit)
    words = [WORDS[index % len(WORDS)] for index in range(given)]
    return [word if index == 0 else f" {word}" for index, word in enumerate(words)], given < length


def pieces(words: list[str], size: int = 3) -> list[list[str]]:
    """The answer as a stream sends it."""
    return [words[start : start + size] for start in range(0, len(words), size)]


def arguments(schema: Any) -> dict[str, Any]:
    """Arguments for a tool with this JSON schema: every property, by its type."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    made: dict[str, Any] = {}
    for name, rule in properties.items():
        kind = str(rule.get("type", "string")).lower()
        examples: dict[str, Any] = {"integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}}
        made[name] = rule["enum"][0] if rule.get("enum") else examples.get(kind, "Lisbon")
    return made


def vector(text: str, dimensions: int) -> list[float]:
    """A unit-less embedding that depends on the text."""
    seed = hashlib.sha256(text.encode()).digest()
    return [(seed[index % len(seed)] - 127.5) / 127.5 for index in range(dimensions)]
