"""The bound on header blocks of a plaintext HTTP/2 connection."""

import pytest

from leasehold_broker.adapters.header_blocks import CONTINUATION, HEADER_BLOCK_BYTES_MAX, HEADERS, HeaderBlocks

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, SETTINGS = 0x0, 0x4


def frame(kind, payload=b"", stream=1):
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + stream.to_bytes(4, "big") + payload


def allowed(data, size=None):
    """Whether all of it passes, given in pieces of this size."""
    blocks = HeaderBlocks()
    size = size or len(data)
    return all(blocks.allow(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [None, 1, 7, 1000])
def test_ordinary_traffic_passes_however_it_is_cut(size):
    """Settings, many calls with headers of a few hundred bytes, and bodies of any length: whatever the pieces."""
    call = frame(HEADERS, b"h" * 300) + frame(DATA, b"d" * 40_000)

    assert allowed(PREFACE + frame(SETTINGS, stream=0) + call * 50, size)


@pytest.mark.parametrize("size", [None, 1, 7, 1000])
def test_a_block_of_exactly_the_bound_passes_and_one_byte_more_does_not(size):
    """The bound is the bound, whatever the pieces."""
    assert allowed(PREFACE + frame(HEADERS, b"h" * HEADER_BLOCK_BYTES_MAX), size)
    assert not allowed(PREFACE + frame(HEADERS, b"h" * (HEADER_BLOCK_BYTES_MAX + 1)), size)


@pytest.mark.parametrize("payload", [b"", b"c" * 100])
def test_a_flood_of_continuations_is_ended(payload):
    """Pieces of one block add up, and empty pieces too."""
    assert not allowed(PREFACE + frame(HEADERS, b"h") + frame(CONTINUATION, payload) * 2000)


def test_each_block_is_counted_for_itself():
    """A thousand calls with a continuation each are a thousand small blocks."""
    assert allowed(PREFACE + (frame(HEADERS, b"h" * 100) + frame(CONTINUATION, b"c" * 100)) * 1000)
