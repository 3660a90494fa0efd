"""The binary event stream of AWS, held against botocore's own parser, at every split and with every kind of damage."""

import itertools
import random
import zlib

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.price import Usage
from leasehold_broker.providers.event_stream import EventStreamMeter, EventStreamReader, Message, encode

NAMES = st.text("abc:-", min_size=1, max_size=12)
TEXTS = st.text(max_size=20)
MESSAGES = st.lists(st.tuples(st.dictionaries(NAMES, TEXTS, max_size=4), st.binary(max_size=200)), max_size=5)


def by_botocore(data: bytes) -> list[tuple[dict[str, str], bytes]]:
    """What botocore makes of these bytes."""
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(event.headers, event.payload) for event in buffer]


def read(pieces: list[bytes], reader: EventStreamReader | None = None) -> list[tuple[dict[str, str], bytes]]:
    """What our reader makes of them."""
    reader = reader or EventStreamReader()
    return [(dict(message.headers), message.payload) for piece in pieces for message in reader.feed(piece)]


def cut_up(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(MESSAGES, st.lists(st.integers(0, 10**6), max_size=6))
def test_what_we_write_botocore_reads_and_so_do_we(messages, cuts) -> None:
    """Both read what was written, wherever it is cut; between two messages is a boundary, and nowhere else."""
    data = b"".join(encode(headers, payload) for headers, payload in messages)
    assert by_botocore(data) == messages
    reader = EventStreamReader()
    assert read(cut_up(data, cuts), reader) == messages
    assert reader.at_boundary
    ends, at = {0}, 0
    for headers, payload in messages:
        at += len(encode(headers, payload))
        ends.add(at)
    for cut in range(len(data)):
        reader = EventStreamReader()
        reader.feed(data[:cut])
        assert reader.at_boundary == (cut in ends)


def typed(name: bytes, kind: int, value: bytes) -> bytes:
    """One header of any type."""
    return bytes((len(name),)) + name + bytes((kind,)) + value


def framed(block: bytes, payload: bytes) -> bytes:
    """A message around a block of headers."""
    lengths = (16 + len(block) + len(payload)).to_bytes(4) + len(block).to_bytes(4)
    frame = lengths + zlib.crc32(lengths).to_bytes(4) + block + payload
    return frame + zlib.crc32(frame).to_bytes(4)


def test_headers_of_other_types_are_passed_over() -> None:
    """Every type that the format has; only text says what a message is."""
    block = b"".join(
        [
            typed(b"yes", 0, b""),
            typed(b"no", 1, b""),
            typed(b"byte", 2, b"\x01"),
            typed(b"short", 3, b"\x00\x02"),
            typed(b"int", 4, b"\x00\x00\x00\x03"),
            typed(b"long", 5, bytes(8)),
            typed(b"bytes", 6, b"\x00\x02ab"),
            typed(b":event-type", 7, b"\x00\x08metadata"),
            typed(b"time", 8, bytes(8)),
            typed(b"uuid", 9, bytes(16)),
        ]
    )
    data = framed(block, b"{}")
    assert set(by_botocore(data)[0][0]) == {
        "yes", "no", "byte", "short", "int", "long", "bytes", ":event-type", "time", "uuid"
    }  # fmt: skip
    assert read([data]) == [({":event-type": "metadata"}, b"{}")]


@pytest.mark.parametrize(
    "block",
    [
        typed(b"x", 10, b""),
        typed(b"x", 7, b"\x00\x09short"),
        b"\x09x",
        b"\x01x",
        typed(b"\xff", 7, b"\x00\x00"),
        typed(b"x", 7, b"\x00\x01\xff"),
        typed(b"x", 4, b"\x00"),
    ],
)
def test_headers_that_cannot_be_read_end_the_reading(block: bytes) -> None:
    """With right checksums all the same: nothing after them is believed."""
    reader = EventStreamReader()
    assert read([framed(block, b""), encode({"a": "b"}, b"")], reader) == []
    assert reader.broken
    assert not reader.at_boundary


GOOD = encode({":message-type": "event"}, b"payload") + encode({":message-type": "event"}, b"more")


def test_one_wrong_bit_anywhere_and_nothing_more_is_believed() -> None:
    """Whatever bit flips: no altered message is given out, and none after it."""
    first = len(encode({":message-type": "event"}, b"payload"))
    for bit in range(8 * len(GOOD)):
        data = bytearray(GOOD)
        data[bit // 8] ^= 1 << bit % 8
        reader = EventStreamReader()
        found = read([bytes(data)], reader)
        assert found == [({":message-type": "event"}, b"payload")][: bit // 8 >= first]
        assert reader.broken or not reader.at_boundary, bit


def test_the_checksum_of_the_lengths_counts_by_itself() -> None:
    """A message whose own checksum is right, but not that of its lengths: neither botocore nor we take it."""
    frame = bytearray(encode({"a": "b"}, b"payload"))
    frame[8] ^= 1
    frame[-4:] = zlib.crc32(frame[:-4]).to_bytes(4)
    with pytest.raises(ChecksumMismatch):
        by_botocore(bytes(frame))
    reader = EventStreamReader()
    assert read([bytes(frame)], reader) == []
    assert reader.broken


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_garbage_is_never_a_message_and_never_an_error(data: bytes, cuts: list[int]) -> None:
    """Random bytes: no exception, the same at every split."""
    whole, pieces = EventStreamReader(), EventStreamReader()
    assert read([data], whole) == read(cut_up(data, cuts), pieces)
    assert (whole.broken, whole.at_boundary) == (pieces.broken, pieces.at_boundary)


def test_lengths_that_cannot_be() -> None:
    """A message shorter than its parts, larger than any, or with headers larger than any."""
    for size, headers in ((15, 0), (16, 1), (2**31, 0), (200_000, 129 * 1024), (0, 0), (2**32 - 1, 2**32 - 1)):
        lengths = size.to_bytes(4) + headers.to_bytes(4)
        reader = EventStreamReader()
        assert reader.feed(lengths + zlib.crc32(lengths).to_bytes(4)) == []
        assert reader.broken, (size, headers)


class Sum:
    """A reading that takes the last number."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.usage: Usage | None = None
        self.final = False

    def message(self, message: Message) -> None:
        """A payload of digits is a usage; the last one is final."""
        self.usage = Usage(int(message.payload))
        self.final = message.headers.get("last") == "yes"


def test_a_message_beyond_the_bound_is_passed_over_and_the_rest_is_no_last_word() -> None:
    """Memory stays bounded, the messages around it are read, every byte is relayed, and nothing is final."""
    data = encode({}, b"1") + encode({}, b"7" * 5000) + encode({"last": "yes"}, b"3")
    chance = random.Random(1)
    for _ in range(50):
        meter = EventStreamMeter(Sum(), message_bytes_max=200)
        pieces = cut_up(data, [chance.randrange(len(data)) for _ in range(5)])
        assert b"".join(meter.feed(piece) for piece in pieces) + meter.finish() == data
        assert (meter.usage, meter.final, meter.at_event_boundary) == (Usage(3), False, True)
    meter = EventStreamMeter(Sum())
    meter.feed(encode({"last": "yes"}, b"3"))
    assert (meter.usage, meter.final) == (Usage(3), True)
    meter.feed(b"\x00" * 12)
    assert (meter.usage, meter.final, meter.at_event_boundary) == (Usage(3), False, False)
