"""Reads the binary event stream of AWS as it comes, at any split. Owns framing and checksums, not what messages mean.

A message (smithy.io, "Amazon Event Stream"): length of all of it, length of its headers, checksum of these eight bytes,
headers, payload, checksum of everything before it; numbers are big-endian, checksums CRC-32. Headers are a name, a type
and a value; those that say what a message is are strings.

A stream that breaks these rules is relayed as it is and no longer understood: what follows a wrong length has no sure
place, and a report in it is no report.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from leasehold_broker.domain.price import Usage

MEDIA_TYPE: Final = "application/vnd.amazon.eventstream"
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Largest message that is kept for reading. A larger one is passed over: its end is known from its length."""
_FRAME_BYTES_MAX: Final = 25 * 1024 * 1024
"""Larger than any that AWS sends: a length beyond it is no length."""
_PRELUDE: Final = 12
_CHECKSUM: Final = 4
_HEADERS_BYTES_MAX: Final = 128 * 1024
_STRING: Final = 7
_WIDTHS: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a value by its type, where the type says it; 6 and 7 (bytes and text) say their own length."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message whose checksums are right.

    Args:
        headers: those that are text.
        payload: its bytes.
    """

    headers: Mapping[str, str]
    payload: bytes


class EventStreamReader:
    """Incremental reader. Work is linear in the bytes fed; memory is bounded by `message_bytes_max`."""

    __slots__ = ("_kept", "_limit", "_missing", "_over", "broken", "skipped")

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        """Start before the first byte; `message_bytes_max` bounds what is kept of one message."""
        self._limit = message_bytes_max
        self._kept = bytearray()
        self._missing = _PRELUDE
        self._over = 0
        self.broken = False
        """A length or a checksum was wrong: nothing more is understood."""
        self.skipped = False
        """A message was larger than the bound: what it said is not known."""

    @property
    def at_boundary(self) -> bool:
        """True when the last byte fed ended a whole message."""
        return not self.broken and not self._kept and not self._over

    def feed(self, data: bytes) -> list[Message]:
        """Take the next bytes; returns the messages that they complete."""
        messages: list[Message] = []
        at = 0
        while at < len(data) and not self.broken:
            if self._over:
                passed = min(self._over, len(data) - at)
                self._over -= passed
                at += passed
                continue
            piece = data[at : at + self._missing]
            self._kept += piece
            at += len(piece)
            self._missing -= len(piece)
            if not self._missing:
                self._filled(messages)
        return messages

    def _filled(self, messages: list[Message]) -> None:
        kept = self._kept
        if len(kept) == _PRELUDE:
            self._begin(int.from_bytes(kept[:4]), int.from_bytes(kept[4:8]))
            return
        message = _message(bytes(kept))
        if message is None:
            self.broken = True
        else:
            messages.append(message)
        self._kept = bytearray()
        self._missing = _PRELUDE

    def _begin(self, size: int, headers: int) -> None:
        """The prelude is complete: now it is known how much follows."""
        right = zlib.crc32(self._kept[:8]) == int.from_bytes(self._kept[8:])
        least = _PRELUDE + headers + _CHECKSUM
        if not right or headers > _HEADERS_BYTES_MAX or not least <= size <= _FRAME_BYTES_MAX:
            self.broken = True
        elif size > self._limit:
            self.skipped = True
            self._over = size - _PRELUDE
            self._kept = bytearray()
            self._missing = _PRELUDE
        else:
            self._missing = size - _PRELUDE


def _message(frame: bytes) -> Message | None:
    if zlib.crc32(frame[:-_CHECKSUM]) != int.from_bytes(frame[-_CHECKSUM:]):
        return None
    end = _PRELUDE + int.from_bytes(frame[4:8])
    headers = _headers(frame[_PRELUDE:end])
    return None if headers is None else Message(headers, frame[end:-_CHECKSUM])


def _headers(data: bytes) -> dict[str, str] | None:
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        start = at + 1
        at = start + data[at]
        name, kind = data[start:at], data[at : at + 1]
        at += 1
        width = _WIDTHS.get(kind[0]) if kind else None
        if width is None:
            if not kind or kind[0] not in {_STRING - 1, _STRING}:
                return None
            width = int.from_bytes(data[at : at + 2])
            at += 2
        value = data[at : at + width]
        at += width
        if at > len(data):
            return None
        if kind[0] == _STRING:
            try:
                found[name.decode()] = value.decode()
            except UnicodeDecodeError:
                return None
    return found


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message with text headers."""
    block = b"".join(
        bytes((len(name.encode()),))
        + name.encode()
        + bytes((_STRING,))
        + len(value.encode()).to_bytes(2)
        + value.encode()
        for name, value in headers.items()
    )
    size = _PRELUDE + len(block) + len(payload) + _CHECKSUM
    lengths = size.to_bytes(4) + len(block).to_bytes(4)
    frame = lengths + zlib.crc32(lengths).to_bytes(4) + block + payload
    return frame + zlib.crc32(frame).to_bytes(4)


class MessageReading(Protocol):
    """What one operation makes of its messages."""

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        ...

    @property
    def final(self) -> bool:
        """True when `usage` is the vendor's last word."""
        ...

    def message(self, message: Message) -> None:
        """Take one message."""
        ...


class EventStreamMeter:
    """Meter of a binary event stream: every byte is relayed at once, and read."""

    __slots__ = ("_reader", "_reading")

    def __init__(self, reading: MessageReading, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        """Args: reading: the operation's part; message_bytes_max: bound on what is kept of one message."""
        self._reader = EventStreamReader(message_bytes_max)
        self._reading = reading

    def feed(self, data: bytes) -> bytes:
        """Relay, and read."""
        for message in self._reader.feed(data):
            self._reading.message(message)
        return data

    def finish(self) -> bytes:
        """Nothing is left: a message without its end is none."""
        return b""

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        return self._reading.usage

    @property
    def final(self) -> bool:
        """True once the vendor's last word came, and everything before it was understood."""
        clear = not self._reader.broken and not self._reader.skipped
        return clear and self._reading.usage is not None and self._reading.final

    @property
    def at_event_boundary(self) -> bool:
        """True when a message of ours may follow."""
        return self._reader.at_boundary
