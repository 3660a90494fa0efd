"""Pictures in Gemini requests: their size is read from their first bytes, and bounds their tokens."""

import base64
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.providers.gemini import Gemini
from leasehold_broker.providers.image_size import image_size


def png(width: int, height: int) -> bytes:
    """A whole one-colour PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" * (1 + width) for _ in range(height)))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """The head of a JPEG whose APP1 segment holds a thumbnail with a frame of its own."""
    thumbnail = b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 11, 8, 9, 9) + b"\1" * 4
    app = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    return b"\xff\xd8" + app + b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 10


def webp(kind: bytes, width: int, height: int) -> bytes:
    """The head of a WebP of one of its three kinds."""
    body = {
        b"VP8X": b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
        b"VP8L": b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14),
    }[kind]
    return b"RIFF" + b"\0" * 4 + b"WEBP" + kind + struct.pack("<I", len(body)) + body + b"\0" * 8


@given(st.integers(1, 16000), st.integers(1, 16000))
def test_sizes_are_read(width: int, height: int) -> None:
    """Every format gives its width and height, a JPEG those of its picture and not of its thumbnail."""
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR" + struct.pack(">II", width, height)
    for picture in (head, jpeg(width, height), *(webp(kind, width, height) for kind in (b"VP8X", b"VP8 ", b"VP8L"))):
        assert image_size(base64.b64encode(picture).decode()) == (width, height)
        assert image_size(base64.urlsafe_b64encode(picture).decode()) == (width, height)


def frame(width: int, height: int) -> bytes:
    """A start of frame, whole."""
    return b"\xff\xc0" + struct.pack(">HBHH", 11, 8, height, width) + b"\1\1\x11\0"


def hidden(marker: bytes, large: bytes, small: bytes) -> bytes:
    """A JPEG in which who takes `marker` for a segment skips the large frame, and who does not skips the small one."""
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(small)) + small
    return b"\xff\xd8" + marker + struct.pack(">H", 2 + len(large) + 4) + large + comment


def test_no_frame_is_hidden_behind_a_marker_that_decoders_read_on_from() -> None:
    """What is no segment of a JPEG's head gives no size: libjpeg discards FF 00, and finds the large frame after it."""
    segments = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
    frames = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
    for code in {*range(256)} - frames:
        raw = hidden(bytes((0xFF, code)), frame(16_000, 16_000), frame(16, 8))
        expected = (16, 8) if code in segments else None
        assert image_size(base64.b64encode(raw).decode()) == expected, hex(code)


def test_a_segment_has_at_least_its_own_length() -> None:
    """A length below two is no length: decoders stop there, or guess."""
    for length in (0, 1):
        raw = b"\xff\xd8\xff\xe0" + struct.pack(">H", length) + frame(16, 8)
        assert image_size(base64.b64encode(raw).decode()) is None


def test_a_second_header_of_a_png_is_refused() -> None:
    """Some decoders believe the last IHDR, so there must be one; after the pixels nobody looks."""
    one, two = png(16, 8), png(4000, 4000)
    second = two[8:33]
    before, after = one.index(b"IDAT") - 4, one.index(b"IEND") - 4
    assert image_size(base64.b64encode(one[:before] + second + one[before:]).decode()) is None
    assert image_size(base64.b64encode(one[:after] + second + one[after:]).decode()) == (16, 8)


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", b"RIFF0000WEBPVP8L"]),
)
def test_any_bytes(tail: bytes, head: bytes) -> None:
    """Any bytes give a size above nothing, or none."""
    size = image_size(base64.b64encode(head + tail).decode())
    assert size is None or min(size) > 0


def bound(part: dict[str, Any]) -> int:
    """The input bound of a Gemini request with this part."""
    provider = Gemini()
    route = provider.route("POST", "/v1/models/gemini-2.5-flash:generateContent", "")
    return provider.plan(route, {}, {"contents": [{"parts": [part]}]}, 0).input_tokens_bound


def test_an_image_is_bounded_by_its_pixels() -> None:
    """A small picture counts its floor, a larger one its tiles; its bytes do not count."""
    small, large = (base64.b64encode(png(edge, edge)).decode() for edge in (10, 2048))
    empty = bound({"text": ""})
    assert 0 <= bound({"inlineData": {"mimeType": "image/png", "data": small}}) - empty - 2_304 <= 100
    assert 0 <= bound({"inline_data": {"mime_type": "image/png", "data": large}}) - empty - 65 * 258 <= 100


@pytest.mark.parametrize(
    "blob",
    [
        {"mimeType": "image/png", "data": "AAAA"},
        {"mimeType": "image/heic", "data": "AAAA"},
        {"mimeType": "application/pdf", "data": "AAAA"},
        {"mimeType": ["image/png"], "data": "AAAA"},
    ],
)
def test_what_cannot_be_measured_is_refused(blob: dict[str, Any]) -> None:
    """A picture whose size cannot be read, and every other medium, has no bound."""
    with pytest.raises(Refusal) as caught:
        bound({"inlineData": blob})
    assert caught.value.reason is Reason.COST_UNBOUNDED


def test_pictures_are_not_embedded() -> None:
    """A picture in an embedding has a price of its own and is refused."""
    provider = Gemini()
    route = provider.route("POST", "/v1/models/gemini-embedding-2:embedContent", "")
    blob = {"mimeType": "image/png", "data": base64.b64encode(png(8, 8)).decode()}
    with pytest.raises(Refusal) as caught:
        provider.plan(route, {}, {"content": {"parts": [{"inlineData": blob}]}}, 0)
    assert caught.value.reason is Reason.COST_UNBOUNDED
