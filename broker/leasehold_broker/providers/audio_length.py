"""How long a sound is, read from its bytes. Owns WAV and MP3, knows FLAC and Ogg Opus; refuses to guess others.

WAV with plain samples (RIFF, WAVE_FORMAT_PCM): all bytes of the file over its bytes a second, whatever its chunks say.
MP3 (ISO 11172-3 and 13818-3, layer III, and MPEG 2.5): every frame's header is read, and their samples are added up;
the file must be frames from its beginning to its end, with a tag (ID3) before and a tag after at most. A file that is
not exactly that could be decoded as something longer.
"""

import re
import struct
from typing import Final

from leasehold_broker.providers.audio_packets import flac_seconds, opus_seconds

WAV: Final = "wav"
MP3: Final = "mp3"
_SIGNATURES: Final = ((b"fLaC", "flac"), (b"OggS", "ogg"))
_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
_PCM_GUID: Final = bytes.fromhex("0100000000001000800000aa00389b71")
_RATES: Final = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBPS_1: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_ID3_BYTES: Final = 10
_TRAILING_TAG: Final = re.compile(rb"TAG[\s\S]{125}")
FRAMES_MAX: Final = 400_000


def audio_format(data: bytes) -> str:
    """What a file of this format is called by its ending; "" for a format that is not read here."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return WAV
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return MP3
    return next((name for start, name in _SIGNATURES if data.startswith(start)), "")


def seconds_max(data: bytes) -> int | None:
    """The most whole seconds that these bytes can sound; None when they are of no known format, or not well-formed."""
    match audio_format(data):
        case "wav":
            return _wav_seconds(data)
        case "mp3":
            return _mp3_seconds(data)
        case "flac":
            return flac_seconds(data)
        case "ogg":
            return opus_seconds(data)
        case _:
            return None


def _wav_seconds(data: bytes) -> int | None:
    """One format chunk before the samples: of two, parsers differ in which they believe."""
    place, chunk = 12, b""
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], struct.unpack_from("<I", data, place + 4)[0]
        if kind == b"data":
            return _wav_format(chunk, len(data))
        if kind == b"fmt ":
            if chunk:
                return None
            chunk = data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return None


def _wav_format(chunk: bytes, size: int) -> int | None:
    if len(chunk) < 16:
        return None
    tag, channels, rate, bytes_a_second, block, bits = struct.unpack_from("<HHIIHH", chunk)
    plain = tag == _PCM or (tag == _EXTENSIBLE and chunk[24:40] == _PCM_GUID)
    fits = bits in {8, 16, 24, 32} and 1 <= channels <= 8 and 8000 <= rate <= 192_000
    if not plain or not fits or block != channels * bits // 8 or bytes_a_second != rate * block:
        return None
    return -(-size // int(bytes_a_second))


def _mp3_seconds(data: bytes) -> int | None:
    place, end = 0, len(data)
    if data[:3] == b"ID3":
        if end < _ID3_BYTES or any(byte & 0x80 for byte in data[6:10]):
            return None
        size = data[6] << 21 | data[7] << 14 | data[8] << 7 | data[9]
        place = _ID3_BYTES + size + (_ID3_BYTES if data[5] & 0x10 else 0)
    if _TRAILING_TAG.fullmatch(data, max(0, end - 128)):
        end -= 128
    total = frames = 0
    first_rate = 0
    while place < end:
        frame = _frame(data, place)
        frames += 1
        if frame is None or frames > FRAMES_MAX:
            return None
        size, samples, rate = frame
        first_rate = first_rate or rate
        if rate != first_rate:
            return None
        total += samples
        place += size
    # The last frame may be cut short; it has been counted whole.
    return -(-total // first_rate) if first_rate else None


def _frame(data: bytes, place: int) -> tuple[int, int, int] | None:
    """(bytes, samples, samples a second) of the frame that starts here."""
    if place + 4 > len(data) or data[place] != 0xFF or data[place + 1] & 0xE6 != 0xE2:
        return None
    version = data[place + 1] >> 3 & 3
    third = data[place + 2]
    rates = _RATES.get(version)
    bits, rate_index = third >> 4, third >> 2 & 3
    if rates is None or rate_index == 3 or not 0 < bits < 15:
        return None
    rate = rates[rate_index]
    kbps = (_KBPS_1 if version == 3 else _KBPS_2)[bits]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // rate + (third >> 1 & 1), samples, rate
