"""The event-stream reader."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.providers.sse import SseEvent, SseReader


def read(data: bytes, *cuts: int) -> list[tuple[bytes, bytes]]:
    """Names and data of the events in `data`, fed in pieces."""
    reader = SseReader()
    events: list[SseEvent] = []
    at = 0
    for cut in (*sorted(cuts), len(data)):
        events += reader.feed(data[at:cut])
        at = max(at, cut)
    last = reader.finish()
    return [(event.name, event.data) for event in (*events, *([last] if last else []))]


def test_every_line_ending() -> None:
    """CR, LF and CRLF end lines alike; U+2028 does not."""
    for end in ("\n", "\r", "\r\n"):
        text = f"event: a{end}data: x\u2028y{end}data:z{end}{end}data{end}{end}"
        assert [(b"a", "x\u2028y\nz".encode()), (b"", b"")] == read(text.encode())


def test_bom_comments_and_unknown_fields() -> None:
    """A leading BOM, comments and fields that we do not use are skipped."""
    data = b"\xef\xbb\xbf: hello\nid: 7\nretry: 9\ndata: 1\n:\n\n\n\n: bye\n"
    assert read(data) == [(b"", b"1")]


def test_missing_last_newline() -> None:
    """An event that the stream ends in is given out, in whatever place it ends."""
    for data in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r", b"data: [DONE]\r\n\r"):
        assert read(data) == [(b"", b"[DONE]")]


def test_oversized_event_is_marked_and_bounded() -> None:
    """An event above the bound is marked, forgotten, and the next one is read again."""
    reader = SseReader(event_bytes_max=64, keep_raw=True)
    held = 0
    for _ in range(1000):
        assert reader.feed(b"data: " + b"x" * 50 + b"\n") == []
        reader.take_raw()
        held = max(held, sum(map(len, reader._data)) + sum(map(len, reader._line)))
    assert held <= 128
    events = reader.feed(b"\ndata: y\n\n")
    assert [(event.data, event.oversized) for event in events] == [(b"", True), (b"y", False)]


def test_one_endless_line_is_bounded() -> None:
    """A line without an end does not grow the reader beyond its bound."""
    reader = SseReader(event_bytes_max=1000)
    for _ in range(1000):
        assert reader.feed(b"x" * 100) == []
    assert sum(map(len, reader._line)) <= 1100
    assert reader.oversized


@pytest.mark.parametrize("size", range(20, 40))
def test_the_bound_does_not_depend_on_a_split_line_end(size: int) -> None:
    """An event around the bound is oversized or not however its CRLFs are split (found by fuzzing)."""
    data = b"event: a\r\ndata: " + b"x" * size + b"\r\n\r\n"
    seen = []
    for parts in ([data], [data[i : i + 1] for i in range(len(data))]):
        reader = SseReader(event_bytes_max=48)
        seen.append([(event.data, event.oversized) for part in parts for event in reader.feed(part)])
    assert seen[0] == seen[1]


LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"event: e", b": c", b"", b"id: 1", "data: é\u2028".encode(), b"datax: 1"]
    )
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=4), st.lists(st.integers(0, 200), max_size=6))
def test_splits_change_nothing(blocks: list[tuple[list[bytes], bytes]], cuts: list[int]) -> None:
    """However the bytes are split, the same events come out."""
    data = b"".join(line + end for lines, end in blocks for line in lines)
    assert read(data) == read(data, *(min(cut, len(data)) for cut in cuts))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    """Any bytes at any split are read without an error, to the same events, and all raw bytes come out once."""
    assert read(data) == read(data, *(min(cut, len(data)) for cut in cuts))
    reader = SseReader(keep_raw=True)
    raw = b"".join(event.raw for event in reader.feed(data))
    rest = reader.take_raw()
    assert data == raw + rest
