"""The bounds on header blocks of a plaintext HTTP/2 connection."""

import random

import pytest

from leasehold_broker.adapters.header_blocks import (
    CONTINUATION,
    HEADER_BLOCK_BYTES_MAX,
    HEADERS,
    HEADERS_MAX,
    PADDED,
    PRIORITY,
    HeaderBlocks,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, SETTINGS = 0x0, 0x4
SIZES = [None, 1, 7, 1000]


def frame(kind, payload=b"", stream=1, flags=0):
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(value):
    """A string literal, not coded (RFC 7541, section 5.2)."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, coded = len(value) - 127, b"\x7f"
    while rest >= 128:
        coded += bytes([rest % 128 + 128])
        rest //= 128
    return coded + bytes([rest]) + value


def value(length):
    """A header block of this many bytes: one header with a long value."""
    head = b"\x10" + text(b"x")
    found = next(head + text(b"h" * size) for size in range(length, -1, -1) if len(text(b"h" * size)) + 3 == length)
    assert len(found) == length
    return found


FORMS = {
    "reference": b"\x82",
    "far reference": b"\xff\x20",
    "value, remembered, known name": b"\x44" + text(b"/x"),
    "value, remembered, far name": b"\x7f\x10" + text(b"/x"),
    "value, remembered, new name": b"\x40" + text(b"name") + text(b"v" * 300),
    "value, known name": b"\x04" + text(b"/x"),
    "value, new name": b"\x00" + text(b"name") + text(b""),
    "value, never indexed": b"\x10" + text(b"n" * 200) + text(b"value"),
    "empty name and value": b"\x00\x00\x00",
    "coded strings": b"\x40\x82\x94\xe7\x83\x8c\x76\x7f",
    "table size": b"\x3f\xe1\x1f",
}


def allowed(data, size=None):
    """Whether all of it passes, given in pieces of this size."""
    blocks = HeaderBlocks()
    size = size or len(data)
    return all(blocks.allow(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", SIZES)
def test_ordinary_traffic_passes_however_it_is_cut(size):
    """Settings, many calls with headers of a few hundred bytes, and bodies of any length: whatever the pieces."""
    call = frame(HEADERS, value(300)) + frame(DATA, b"d" * 40_000)

    assert allowed(PREFACE + frame(SETTINGS, stream=0) + call * 50, size)


@pytest.mark.parametrize("size", SIZES)
def test_a_block_of_exactly_the_bound_passes_and_one_byte_more_does_not(size):
    """The bound is the bound, whatever the pieces."""
    assert allowed(PREFACE + frame(HEADERS, value(HEADER_BLOCK_BYTES_MAX)), size)
    assert not allowed(PREFACE + frame(HEADERS, value(HEADER_BLOCK_BYTES_MAX + 1)), size)


@pytest.mark.parametrize("payload", [b"", b"\x82" * 10])
def test_a_flood_of_continuations_is_ended(payload):
    """Pieces of one block add up, and empty pieces too."""
    assert not allowed(PREFACE + frame(HEADERS, b"\x82") + frame(CONTINUATION, payload) * 2000)


def test_each_block_is_counted_for_itself():
    """A thousand calls with a continuation each are a thousand small blocks."""
    assert allowed(PREFACE + (frame(HEADERS, b"\x82" * 100) + frame(CONTINUATION, b"\x82" * 20)) * 1000)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_headers_of_every_form_are_counted(form, size):
    """As many as the bound pass, one more does not: in one frame, or cut in the middle of one by a continuation."""
    most, more = FORMS[form] * HEADERS_MAX, FORMS[form] * (HEADERS_MAX + 1)
    for block, passes in ((most[:HEADER_BLOCK_BYTES_MAX], True), (more, False)):
        assert allowed(PREFACE + frame(HEADERS, block), size) is passes
        if len(block) < 9000:
            cut = len(block) // 2 + 1
            parts = frame(HEADERS, block[:cut]) + frame(CONTINUATION, block[cut:])
            assert allowed(PREFACE + parts, size) is passes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("flags", [PADDED, PRIORITY, PADDED | PRIORITY])
def test_padding_and_priority_are_no_headers(flags, size):
    """They are stepped over, and hide nothing."""
    before = (b"\xc8" if flags & PADDED else b"") + (b"\x82" * 5 if flags & PRIORITY else b"")
    padding = b"\x82" * 200 if flags & PADDED else b""
    for count, passes in ((HEADERS_MAX, True), (HEADERS_MAX + 1, False)):
        block = frame(HEADERS, before + b"\xbe" * count + padding, flags=flags)
        assert allowed(PREFACE + block + frame(DATA, b"d" * 10), size) is passes


def test_an_integer_with_idle_bytes_hides_nothing():
    """The core reads over zeros at the end of an integer, so a reader that waits for its end would count no more."""
    assert not allowed(PREFACE + frame(HEADERS, b"\xff" + b"\x80" * 6 + b"\x00" + b"\xbe" * 4000))
    assert not allowed(PREFACE + frame(HEADERS, b"\x00\x01x\x7f" + b"\x80" * 6 + b"\x00" + b"\xbe" * 4000))


def test_the_pieces_make_no_difference():
    """For random blocks, however they are cut, the answer is the same as in one piece."""
    chance = random.Random(6)
    seen = set()
    for _ in range(300):
        block = b"".join(chance.choice(list(FORMS.values())[:8]) for _ in range(chance.randint(1, 250)))
        block += chance.randbytes(chance.randint(0, 9))
        data = PREFACE + frame(HEADERS, block, flags=chance.choice([0, 0, PADDED, PRIORITY])) + frame(DATA, b"d" * 50)
        whole = allowed(data)
        assert all(allowed(data, size) is whole for size in (1, 5, 333))
        seen.add(whole)
    assert seen == {True, False}
