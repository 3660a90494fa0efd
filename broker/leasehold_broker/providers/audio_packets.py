"""How long FLAC and Ogg Opus can sound, read from every packet. Owns two formats; refuses what is ambiguous in them.

FLAC (RFC 9639): a decoder takes up sound only where a frame's header has its sync code and its CRC-8. So the samples of
all such headers, wherever they stand, are more than any decoder can find; what a header writes about the whole file is
not believed. Of two rates, the file's and the frame's, decoders differ in which they play at: the slower one counts.

Opus in Ogg (RFC 3533, 6716, 7845): pages from end to end, each with a true CRC, of one stream. The first byte of a
packet says how long it is. Positions that the pages claim must not lie beyond: a reader may believe them.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

FLAC_HEADERS_MAX: Final = 40_000
"""Places that are looked at: an hour of frames of 4,096 samples at 44.1 kHz. A hostile file costs half a second."""
OPUS_PACKETS_MAX: Final = 200_000
"""An hour of packets of 20 ms."""

_FLAC_BLOCKS: Final = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{c: 1 << c for c in range(8, 16)}}
_FLAC_RATES: Final = (0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_STREAMINFO: Final = slice(4, 42)
_OPUS_RATE: Final = 48_000
_OPUS_SILK: Final = (480, 960, 1920, 2880)
_OPUS_HYBRID: Final = (480, 960)
_OPUS_CELT: Final = (120, 240, 480, 960)
_OPUS_PACKET_MAX: Final = 5760
_PAGE: Final = struct.Struct("<4sBBqIIIB")
_CONTINUED, _BEGINS, _ENDS = 1, 2, 4
_NO_POSITION: Final = -1
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _crc8_table() -> bytes:
    table = bytearray(256)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
        table[byte] = value
    return bytes(table)


_CRC8: Final = _crc8_table()


def flac_seconds(data: bytes) -> int | None:
    """The most whole seconds of a FLAC file; None where it is not well-formed."""
    head = data[_STREAMINFO]
    if len(head) < 38 or head[0] & 0x7F or head[1:4] != b"\0\0\x22":
        return None
    file_rate = head[14] << 12 | head[15] << 4 | head[16] >> 4
    if not file_rate:
        return None
    by_rate: dict[int, int] = {}
    looked = 0
    for sync in (b"\xff\xf8", b"\xff\xf9"):
        place = data.find(sync)
        while place >= 0:
            looked += 1
            if looked > FLAC_HEADERS_MAX:
                return None
            samples, rate = _flac_header(data[place : place + 16])
            rate = min(rate or file_rate, file_rate)
            by_rate[rate] = by_rate.get(rate, 0) + samples
            place = data.find(sync, place + 1)
    return sum(-(-samples // rate) for rate, samples in by_rate.items()) or None


def _flac_header(head: bytes) -> tuple[int, int]:
    """(samples, samples a second; 0: the file's) of a frame whose header this is; no samples where it is none."""
    if len(head) < 6:
        return 0, 0
    block, rate = head[2] >> 4, head[2] & 0xF
    # The number of the frame, coded like UTF-8 with up to seven bytes.
    ones = next((count for count in range(8) if not head[4] << count & 0x80), 8)
    place = 4 + max(1, ones)
    sizes = {6: 1, 7: 2}.get(block, 0), {12: 1, 13: 2, 14: 2}.get(rate, 0)
    end = place + sum(sizes)
    if not block or rate == 15 or len(head) <= end or _crc8(head[:end]) != head[end]:
        return 0, 0
    samples = int.from_bytes(head[place : place + sizes[0]]) + 1 if sizes[0] else _FLAC_BLOCKS[block]
    told = int.from_bytes(head[place + sizes[0] : end]) * {12: 1000, 14: 10}.get(rate, 1)
    return (samples, told) if sizes[1] else (samples, _FLAC_RATES[rate])


def _crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def opus_seconds(data: bytes) -> int | None:
    """The most whole seconds of an Ogg file that is one Opus stream; None where it is anything else."""
    total, kept, number = 0, b"", 0
    try:
        for flags, position, body, lengths in _pages(data):
            if bool(flags & _CONTINUED) != bool(kept):
                return None
            start = 0
            for length, whole in lengths:
                packet, kept = kept + body[start : start + length], b""
                start += length
                if not whole:
                    kept = packet
                    break
                total += _opus_samples(packet, number)
                number += 1
                if number > OPUS_PACKETS_MAX:
                    return None
            if position != _NO_POSITION and not 0 <= position <= total:
                return None
    except ValueError:
        return None
    return -(-total // _OPUS_RATE) if number > 2 and not kept else None


def _pages(data: bytes) -> Iterator[tuple[int, int, bytes, list[tuple[int, bool]]]]:
    """(flags, position, body, lengths of its packets and whether they end here) of every page.

    Raises:
        ValueError: it is not pages of one stream from end to end.
    """
    place, first, count = 0, None, 0
    while place < len(data):
        if place + _PAGE.size > len(data):
            raise ValueError
        magic, version, flags, position, serial, number, crc, segments = _PAGE.unpack_from(data, place)
        table = data[place + _PAGE.size : place + _PAGE.size + segments]
        start = place + _PAGE.size + segments
        end = start + sum(table)
        first = serial if first is None else first
        wanted = flags & _BEGINS == (_BEGINS if count == 0 else 0) and number == count and serial == first
        if magic != b"OggS" or version or not wanted or len(table) < segments or end > len(data):
            raise ValueError
        if _ogg_crc(data[place : place + 22] + bytes(4) + data[place + 26 : end]) != crc:
            raise ValueError
        if flags & _ENDS and end != len(data):
            raise ValueError
        yield flags, position, data[start:end], _laced(table)
        place, count = end, count + 1


def _laced(table: bytes) -> list[tuple[int, bool]]:
    """Lengths of packets: a segment of 255 goes on in the next."""
    found: list[tuple[int, bool]] = []
    length = 0
    for segment in table:
        length += segment
        if segment < 255:
            found.append((length, True))
            length = 0
    if table and table[-1] == 255:
        found.append((length, False))
    return found


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC runs the other way round than zlib's, and starts at 0."""
    value = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(_MIRRORED))


def _opus_samples(packet: bytes, number: int) -> int:
    """Samples of a packet at 48 kHz; of the two that head a stream, none.

    Raises:
        ValueError: it is none, or cannot be decoded.
    """
    if number < 2:
        plain = number == 1 or (len(packet) >= 19 and packet[8] & 0xF0 == 0 and packet[18] == 0)
        if not packet.startswith((b"OpusHead", b"OpusTags")[number]) or not plain:
            raise ValueError
        return 0
    if not packet:
        raise ValueError
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        size = _OPUS_SILK[config % 4]
    elif config < 16:
        size = _OPUS_HYBRID[config % 2]
    else:
        size = _OPUS_CELT[config % 4]
    if code == 3 and len(packet) < 2:
        raise ValueError
    frames = (1, 2, 2, packet[1] & 0x3F if code == 3 else 0)[code]
    if not 0 < frames * size <= _OPUS_PACKET_MAX:
        raise ValueError
    return frames * size
