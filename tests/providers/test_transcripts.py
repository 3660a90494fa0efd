"""Golden transcripts: each answer through its meter, whole and at every split; its micro-USD was computed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage, cost_micro_usd
from leasehold_broker.ports.provider import Meter, Route
from leasehold_broker.providers import all_providers, load_price_book

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path for name in ("anthropic", "openai", "gemini") for path in (VECTORS / name).glob("*.json"))
BOOK = load_price_book()


def load(path: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """The vector, the answer's bytes, and the bytes that the caller sees."""
    vector = json.loads(path.read_text())
    hidden = vector.get("hidden", [])
    shown = [event for index, event in enumerate(vector["answer"]) if index not in hidden]
    return vector, "".join(vector["answer"]).encode(), "".join(shown).encode()


def meter_for(path: Path, vector: dict[str, Any]) -> Meter:
    """A fresh meter for the vector's answer."""
    provider = all_providers()[path.parent.name]
    route = Route(vector["operation"], "POST", vector["model"], "/x", takes_body=True)
    plan = CallPlan(
        provider.name, route.operation, vector["model"], metered=True, stream="event" in vector["content_type"]
    )
    return provider.meter(route, plan, vector["request"], vector["content_type"])


def expected_usage(vector: dict[str, Any]) -> Usage | None:
    """The vector's usage."""
    return None if vector["usage"] is None else Usage(**vector["usage"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transcript_whole(path: Path) -> None:
    """The usage and its cost are those computed by hand, and the caller sees the answer (less what is hidden)."""
    vector, answer, shown = load(path)
    meter = meter_for(path, vector)
    assert shown == meter.feed(answer) + meter.finish()
    assert expected_usage(vector) == meter.usage
    assert vector["final"] == meter.final
    price = BOOK.price(path.parent.name, vector["model"])
    assert price is not None
    if meter.usage is not None:
        assert vector["micro_usd"] == cost_micro_usd(meter.usage, price)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transcript_at_every_split(path: Path) -> None:
    """Wherever the answer is cut in two, the usage and the relayed bytes are the same."""
    vector, answer, shown = load(path)
    usage = expected_usage(vector)
    for cut in range(len(answer) + 1):
        meter = meter_for(path, vector)
        relayed = meter.feed(answer[:cut]) + meter.feed(answer[cut:]) + meter.finish()
        assert (shown, usage, vector["final"]) == (relayed, meter.usage, meter.final), cut


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transcript_byte_by_byte(path: Path) -> None:
    """Fed byte by byte, the usage and the relayed bytes are the same."""
    vector, answer, shown = load(path)
    meter = meter_for(path, vector)
    relayed = b"".join(meter.feed(answer[at : at + 1]) for at in range(len(answer))) + meter.finish()
    assert (shown, expected_usage(vector)) == (relayed, meter.usage)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_event_boundary_is_where_an_event_ended(path: Path) -> None:
    """A stream may be cut with an event of ours exactly where the relayed bytes end with a blank line."""
    vector, answer, _ = load(path)
    if "event" not in vector["content_type"]:
        return
    for cut in range(1, len(answer) + 1):
        meter = meter_for(path, vector)
        relayed = meter.feed(answer[:cut])
        whole = not relayed or relayed.endswith((b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\r"))
        assert whole == meter.at_event_boundary, cut


def test_usage_never_shrinks_to_a_partial_report() -> None:
    """Cut at every event, a stream's usage is never more than the whole stream's."""
    for path in FILES:
        vector, _, _ = load(path)
        usage = expected_usage(vector)
        if usage is None or "event" not in vector["content_type"]:
            continue
        for count in range(len(vector["answer"])):
            meter = meter_for(path, vector)
            meter.feed("".join(vector["answer"][:count]).encode())
            if meter.usage is not None:
                assert meter.usage.output_tokens <= usage.output_tokens
                assert meter.usage.all_input_tokens <= usage.all_input_tokens
