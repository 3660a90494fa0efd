"""Golden transcripts: each answer through its meter, whole and at every split; its micro-USD was computed by hand."""

import base64
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.call import CallEnd, CallOutcome, CallPlan
from leasehold_broker.domain.charge import charge_for
from leasehold_broker.domain.price import ModelPrice, UnpricedUnitError, Usage, cost_micro_usd, micro_usd
from leasehold_broker.ports.provider import Meter, Provider, Route
from leasehold_broker.providers import load_price_book
from leasehold_broker.providers.event_stream import encode
from leasehold_broker.providers.prices.table import domain_rates
from leasehold_broker.providers.vertex import Vertex

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path for name in PROVIDERS for path in (VECTORS / name).glob("*.json"))
CUT = [path for path in FILES if '"cuts"' in path.read_text()]
BOOK = load_price_book()
COMMENT = re.compile(rb"(\A|\n\n):[^\n]*\n\Z")


def load(path: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """The vector, the answer's bytes, and the bytes that the caller sees."""
    vector = json.loads(path.read_text())
    hidden = vector.get("hidden", [])
    events = events_of(vector)
    shown = [event for index, event in enumerate(events) if index not in hidden]
    return vector, b"".join(events), b"".join(shown)


def events_of(vector: dict[str, Any]) -> list[bytes]:
    """The events of the answer; those of a binary stream are framed here, and what they hold is put into base64."""
    if "frames" not in vector:
        return [event.encode() for event in vector["answer"]]
    events = []
    for frame in vector["frames"]:
        held = json.dumps(frame.get("chunk")).encode()
        payload = {"bytes": base64.b64encode(held).decode(), "p": "abcdef"} if "chunk" in frame else frame["payload"]
        events.append(encode(frame["headers"], json.dumps(payload).encode()))
    return events


def provider_of(name: str, vector: dict[str, Any]) -> Provider:
    """The vector's provider, in the place that it names."""
    return Vertex("acme-research", vector["location"]) if "location" in vector else PROVIDERS[name]


def plan_for(path: Path, vector: dict[str, Any]) -> CallPlan:
    """A plan of the call that the vector answers."""
    stream = "event" in vector["content_type"]
    return CallPlan(path.parent.name, vector["operation"], vector["model"], metered=True, stream=stream)


def meter_for(path: Path, vector: dict[str, Any]) -> Meter:
    """A fresh meter for the vector's answer."""
    provider = provider_of(path.parent.name, vector)
    route = Route(vector["operation"], "POST", vector["model"], "/x", takes_body=True)
    return provider.meter(route, plan_for(path, vector), vector["request"], vector["content_type"])


def price_for(path: Path, vector: dict[str, Any]) -> ModelPrice:
    """The price that the file states, or the table's."""
    if "rates" in vector:
        return ModelPrice(vector["model"], domain_rates(vector["rates"]), (), 0, 0, "this file")
    price = BOOK.price(path.parent.name, vector["model"])
    assert price is not None
    return price


def check_arithmetic(sentence: str, micro: int) -> None:
    """The sum is right, and rounds up to this."""
    terms, _, total = sentence.rpartition(": ")[2].partition(" = ")
    pico = sum(math.prod(map(int, term.split(" * "))) for term in terms.split(" + "))
    assert (int(total), micro) == (pico, micro_usd(pico)), sentence


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
    if meter.usage is not None and vector["micro_usd"] is None:
        with pytest.raises(UnpricedUnitError):
            cost_micro_usd(meter.usage, price_for(path, vector))
    elif meter.usage is not None:
        check_arithmetic(vector["arithmetic"], vector["micro_usd"])
        assert vector["micro_usd"] == cost_micro_usd(meter.usage, price_for(path, vector))


@pytest.mark.parametrize("path", CUT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transcript_cut_after_every_event(path: Path) -> None:
    """Cut after each of its events, a stream is charged what was computed by hand: never less than the whole costs."""
    vector, _, _ = load(path)
    events = events_of(vector)
    held = Amounts(**vector["held"], requests=1, concurrency=1)
    for count, (sentence, micro) in enumerate(vector["cuts"]):
        meter = meter_for(path, vector)
        meter.feed(b"".join(events[:count]))
        outcome = CallOutcome(
            CallEnd.UPSTREAM_FAILED, sent=True, status=200, usage=meter.usage, usage_final=meter.final
        )
        charge = charge_for(outcome, held, price_for(path, vector), plan_for(path, vector))
        assert charge.amounts is not None
        assert (count, charge.amounts.cost_micro_usd, charge.estimated) == (count, micro, not meter.final)
        assert vector["micro_usd"] <= micro <= held.cost_micro_usd
        if sentence != "the hold":
            check_arithmetic(sentence, micro)
    assert len(vector["cuts"]) == len(events) + 1


def test_every_vendor_has_a_stream_that_is_cut() -> None:
    """No vendor is without a transcript, nor without one that is cut at each of its events."""
    assert {path.parent.name for path in CUT} == set(PROVIDERS)


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
    """A stream may be cut with an event of ours exactly where the relayed bytes end a block, or a comment after one."""
    vector, answer, _ = load(path)
    if "event" not in vector["content_type"]:
        return
    binary = set(itertools.accumulate(map(len, events_of(vector)), initial=0))
    for cut in range(1, len(answer) + 1):
        meter = meter_for(path, vector)
        relayed = meter.feed(answer[:cut])
        events = COMMENT.sub(rb"\1", relayed)
        whole = not events or events.endswith((b"\n\n", b"\r\r", b"\r\n\r\n", b"\r\n\r"))
        if "frames" in vector:
            whole = cut in binary
        assert whole == meter.at_event_boundary, cut


def test_usage_never_shrinks_to_a_partial_report() -> None:
    """Cut at every event, a stream's usage is never more than the whole stream's."""
    for path in FILES:
        vector, _, _ = load(path)
        usage = expected_usage(vector)
        if usage is None or "event" not in vector["content_type"]:
            continue
        events = events_of(vector)
        for count in range(len(events)):
            meter = meter_for(path, vector)
            meter.feed(b"".join(events[:count]))
            if meter.usage is not None:
                assert meter.usage.output_tokens <= usage.output_tokens
                assert meter.usage.all_input_tokens <= usage.all_input_tokens


def test_the_binary_vectors_are_what_botocore_reads() -> None:
    """The frames of every binary vector have the checksums and the parts that AWS's own parser wants."""
    seen = 0
    for path in FILES:
        vector, answer, _ = load(path)
        if "frames" in vector:
            buffer = EventStreamBuffer()
            buffer.add_data(answer)
            assert [event.headers for event in buffer] == [frame["headers"] for frame in vector["frames"]]
            seen += 1
    assert seen >= 8
