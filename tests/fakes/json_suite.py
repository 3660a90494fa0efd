"""The parsing cases of JSONTestSuite, out of tests/vectors/json_test_suite."""

import json
from pathlib import Path

_FILE = Path(__file__).parent.parent / "vectors" / "json_test_suite" / "parsing.json"


def cases(verdict: str) -> dict[str, bytes]:
    """Cases by name: verdict "y" must be accepted, "n" must be rejected, "i" is each parser's own choice."""
    rows = json.loads(_FILE.read_text("utf-8"))
    return {name: _bytes(row) for name, row in rows.items() if name.startswith(f"{verdict}_")}


def _bytes(row: dict) -> bytes:
    if "hex" in row:
        return bytes.fromhex(row["hex"])
    if "repeat" in row:
        return "".join(text * count for text, count in row["repeat"]).encode()
    return row["text"].encode()


def as_member(case: bytes) -> bytes:
    """The case as the value of a member, because both gates take objects only."""
    return b'{"a":' + case + b"}"
