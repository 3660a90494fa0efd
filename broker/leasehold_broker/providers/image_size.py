"""Width and height of an inline picture, from its first bytes. Owns three formats; refuses to decode a pixel.

PNG (RFC 2083, IHDR), JPEG (ITU-T T.81, start of frame) and WebP (RFC 9649: VP8, VP8L, VP8X). The bound of a picture's
tokens rests on it, so what decoders repair or skip, each in its own way, has no size here.
"""

import base64
import binascii
from typing import Final

HEAD_CHARS: Final = 1_048_576
"""Base64 characters that are looked at; a picture whose size comes later is not understood."""
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that start a frame: all of C0 to CF but DHT, JPG and DAC."""
_SEGMENTS: Final = frozenset((0xC4, 0xCC, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))
"""What may stand before the frame: DHT, DAC, DQT, DRI, APP0 to APP15, COM. After any other, decoders disagree about
where the next marker is (from FF 00 they read on as if it were not there), and could see another frame than we do."""


def image_size(data: str) -> tuple[int, int] | None:
    """Width and height in pixels.

    Args:
        data: the picture in base64, either alphabet.

    Returns:
        None when the bytes are none of the three formats, or cut short.
    """
    head = data[:HEAD_CHARS].replace("-", "+").replace("_", "/").rstrip("=")
    head = head[: len(head) - (len(head) % 4 == 1)]
    try:
        raw = base64.b64decode(head + "=" * (-len(head) % 4), validate=True)
    except binascii.Error:
        return None
    if raw.startswith(b"\x89PNG\r\n\x1a\n") and raw[12:16] == b"IHDR":
        return _png(raw)
    if raw.startswith(b"\xff\xd8"):
        return _jpeg(raw)
    if raw.startswith(b"RIFF") and raw[8:12] == b"WEBP":
        return _webp(raw)
    return None


def _big(raw: bytes, at: int, size: int) -> int:
    return int.from_bytes(raw[at : at + size], "big") if len(raw) >= at + size else 0


def _little(raw: bytes, at: int, size: int) -> int:
    return int.from_bytes(raw[at : at + size], "little") if len(raw) >= at + size else 0


def _positive(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if width > 0 and height > 0 else None


def _png(raw: bytes) -> tuple[int, int] | None:
    """One IHDR before the pixels: of two, some decoders refuse the second and some believe it."""
    at = 33
    while raw[at + 4 : at + 8] not in {b"IDAT", b""}:
        if raw[at + 4 : at + 8] == b"IHDR":
            return None
        at += 12 + _big(raw, at, 4)
    return _positive(_big(raw, 16, 4), _big(raw, 20, 4))


def _jpeg(raw: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _FRAMES:
            return _positive(_big(raw, at + 7, 2), _big(raw, at + 5, 2))
        elif marker in _SEGMENTS and (size := _big(raw, at + 2, 2)) >= 2:
            at += 2 + size
        else:
            return None
    return None


def _webp(raw: bytes) -> tuple[int, int] | None:
    kind = raw[12:16]
    if kind == b"VP8X":
        return _positive(_little(raw, 24, 3) + 1, _little(raw, 27, 3) + 1) if len(raw) >= 30 else None
    if kind == b"VP8 ":
        return _positive(_little(raw, 26, 2) & 0x3FFF, _little(raw, 28, 2) & 0x3FFF)
    if kind == b"VP8L" and len(raw) >= 25:
        bits = _little(raw, 21, 4)
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    return None
