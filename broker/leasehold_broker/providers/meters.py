"""Meters: read usage out of an answer while it is relayed. Own buffering and its bounds; the vendors own the meaning.

A meter never delays a byte that the caller may see, except where an event may have to be hidden: there whole events are
relayed. What it cannot understand it relays and reports as "no usage", never as zero.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from leasehold_broker.domain.price import Usage
from leasehold_broker.ports.provider import Json, Meter
from leasehold_broker.providers.sse import EVENT_BYTES_MAX, SseEvent, SseReader

JSON_BYTES_MAX: Final = 8 * 1024 * 1024
"""Largest JSON answer that is kept for reading at its end. A larger one is relayed; its usage is then unknown."""

Object = dict[str, Json]


def decode(data: bytes) -> Object | None:
    """The object that these bytes are, or None."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class JsonMeter:
    """Meter of an answer that is one JSON object: relays at once, reads at the end."""

    __slots__ = ("_kept", "_limit", "_read", "_relayed", "_size", "_usage")

    def __init__(self, read: Callable[[Object], Usage | None], json_bytes_max: int = JSON_BYTES_MAX) -> None:
        """Args: read: gives the usage of a whole answer; json_bytes_max: bound on what is kept."""
        self._read = read
        self._limit = json_bytes_max
        self._kept: list[bytes] = []
        self._size = 0
        self._relayed = False
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """Relay, and keep a copy within the bound."""
        self._size += len(data)
        self._relayed = True
        if self._size <= self._limit:
            self._kept.append(data)
        else:
            self._kept.clear()
        return data

    def finish(self) -> bytes:
        """Read the whole answer."""
        if self._kept:
            answer = decode(b"".join(self._kept))
            self._kept.clear()
            if answer is not None:
                self._usage = self._read(answer)
        return b""

    @property
    def usage(self) -> Usage | None:
        """The answer's usage; None before the end, or when it has none."""
        return self._usage

    @property
    def final(self) -> bool:
        """True when a usage was read: a whole JSON answer is the last word."""
        return self._usage is not None

    @property
    def at_event_boundary(self) -> bool:
        """True before the first byte only: a JSON answer has no place where another event could follow."""
        return not self._relayed


class KnownMeter:
    """Meter of an answer whose cost follows from the request alone, once the answer has come to its end."""

    __slots__ = ("_known", "_relayed", "_usage")

    def __init__(self, known: Usage) -> None:
        """Args: known: what the whole answer costs."""
        self._known = known
        self._relayed = False
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """Relay."""
        self._relayed = True
        return data

    def finish(self) -> bytes:
        """The answer is whole."""
        self._usage = self._known
        return b""

    @property
    def usage(self) -> Usage | None:
        """What is known; None before the end."""
        return self._usage

    @property
    def final(self) -> bool:
        """True at the end."""
        return self._usage is not None

    @property
    def at_event_boundary(self) -> bool:
        """True before the first byte only."""
        return not self._relayed


class StreamReading(Protocol):
    """What one vendor makes of its events."""

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        ...

    @property
    def final(self) -> bool:
        """True when `usage` is the vendor's last word."""
        ...

    def event(self, event: SseEvent) -> bool:
        """Take one event; returns True when it must not be shown to the caller."""
        ...


class SseMeter:
    """Meter of an event stream that the caller sees as it is: every byte is relayed at once."""

    __slots__ = ("_reader", "_reading")

    def __init__(self, reading: StreamReading, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Args: reading: the vendor's part; event_bytes_max: bound on what is kept of one event."""
        self._reader = SseReader(event_bytes_max=event_bytes_max)
        self._reading = reading

    def feed(self, data: bytes) -> bytes:
        """Relay, and read."""
        for event in self._reader.feed(data):
            self._reading.event(event)
        return data

    def finish(self) -> bytes:
        """Read what was left without its end."""
        event = self._reader.finish()
        if event is not None:
            self._reading.event(event)
        return b""

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        return self._reading.usage

    @property
    def final(self) -> bool:
        """True once the vendor's last word came."""
        return self._reading.usage is not None and self._reading.final

    @property
    def at_event_boundary(self) -> bool:
        """True when an event of ours may follow."""
        return self._reader.at_boundary


class HidingSseMeter:
    """Meter of an event stream in which an event may have to be hidden: relays whole events.

    An event larger than the bound is relayed as it comes and never hidden.
    """

    __slots__ = ("_passing", "_reader", "_reading")

    def __init__(self, reading: StreamReading, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Args: reading: the vendor's part; event_bytes_max: bound on what is held back."""
        self._reader = SseReader(keep_raw=True, event_bytes_max=event_bytes_max)
        self._reading = reading
        self._passing = False

    def feed(self, data: bytes) -> bytes:
        """Read, and relay the events that are complete and not hidden."""
        shown = [event.raw for event in self._reader.feed(data) if not self._reading.event(event)]
        if self._reader.oversized or self._reader.at_boundary:
            shown.append(self._reader.take_raw())
        self._passing = self._reader.oversized
        return b"".join(shown)

    def finish(self) -> bytes:
        """Read and relay what was left without its end."""
        event = self._reader.finish()
        if event is None:
            return self._reader.take_raw()
        return b"" if self._reading.event(event) else event.raw

    @property
    def usage(self) -> Usage | None:
        """The last usage that came."""
        return self._reading.usage

    @property
    def final(self) -> bool:
        """True once the vendor's last word came."""
        return self._reading.usage is not None and self._reading.final

    @property
    def at_event_boundary(self) -> bool:
        """True unless an oversized event is on its way: everything else is relayed whole."""
        return not self._passing


def media_type(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def choose(
    content_type: str,
    read: Callable[[Object], Usage | None],
    stream: Callable[[], Meter],
    json_bytes_max: int = JSON_BYTES_MAX,
) -> Meter:
    """The meter for an answer of this type: a stream's errors come as JSON, whatever was asked for."""
    return stream() if media_type(content_type) == "text/event-stream" else JsonMeter(read, json_bytes_max)
