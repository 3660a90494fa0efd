"""The event-stream reader over the cases of the web platform tests and of the HTML standard."""

import json
from pathlib import Path

import pytest

from leasehold_broker.providers.sse import SseEvent, SseReader

FILE = Path(__file__).parent.parent / "vectors" / "event_stream" / "cases.json"
CASES = {row["name"]: row for row in json.loads(FILE.read_text("utf-8"))}
STATED_DEPARTURES = {"unfinished", "empty"}


def read(stream: bytes, size: int) -> list[SseEvent]:
    """The events of a stream that comes in pieces of this size."""
    reader = SseReader()
    events = [event for at in range(0, len(stream), size) for event in reader.feed(stream[at : at + size])]
    last = reader.finish()
    return [*events, *([last] if last else [])]


@pytest.mark.parametrize("name", CASES)
def test_what_the_platform_sees_we_see(name: str) -> None:
    """Each case gives the events that its test demands, or what a stated departure makes of them, at any split."""
    row = CASES[name]
    coding = "utf-8" if row.get("utf8") else "latin-1"
    stream = row["stream"].encode(coding)
    assert ("ours" in row) == (row.get("why") in STATED_DEPARTURES)
    expected = [(kind.encode(coding), data.encode(coding)) for kind, data in row.get("ours", row["events"])]
    for size in (1, 2, 3, 7, len(stream)):
        assert expected == [(event.name, event.data) for event in read(stream, size)]


@pytest.mark.parametrize("name", [name for name, row in CASES.items() if "ours" in row])
def test_a_departure_only_adds_events(name: str) -> None:
    """Where we depart, we see every event that the platform sees, in its order, and never other data in it."""
    seen = iter(CASES[name]["ours"])
    assert all(event in seen for event in CASES[name]["events"])
