"""Reads an event stream as it comes: any split, any line ending. Owns framing; refuses to know what events mean.

WHATWG HTML, section 9.2: lines end in CR, LF or CRLF and in nothing else; one leading BOM is dropped; a line that
starts with a colon is a comment; one space after the field's colon is dropped; several `data` fields join with LF.
Departure: an event that the end of the stream leaves without its blank line is still given out, because a usage report
may be in it.
"""

from leasehold_broker.domain.values import value

EVENT_BYTES_MAX = 8 * 1024 * 1024
"""Largest event that is kept for reading. A larger one is framed and relayed, but not understood."""
_BOM = b"\xef\xbb\xbf"


@value
class SseEvent:
    """One event.

    Args:
        name: the `event` field; empty when there was none.
        data: the `data` fields, joined; empty when the event was larger than the bound.
        raw: the bytes it came in, its end included; empty unless the reader keeps them.
        oversized: True when the event was larger than the bound.
    """

    name: bytes
    data: bytes
    raw: bytes
    oversized: bool


class SseReader:
    """Incremental reader. Work and memory are linear in the bytes fed; memory is bounded by `event_bytes_max`."""

    __slots__ = (
        "_after_cr",
        "_data",
        "_event_bytes",
        "_fields",
        "_first",
        "_keep_raw",
        "_limit",
        "_line",
        "_name",
        "_raw",
    )

    def __init__(self, *, keep_raw: bool = False, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Start before the first byte.

        Args:
            keep_raw: give each event with the bytes it came in.
            event_bytes_max: bound on what is kept of one event.
        """
        self._keep_raw = keep_raw
        self._limit = event_bytes_max
        self._line: list[bytes] = []
        self._raw: list[bytes] = []
        self._data: list[bytes] = []
        self._name = b""
        self._fields = False
        self._event_bytes = 0
        self._after_cr = False
        self._first = True

    @property
    def at_boundary(self) -> bool:
        """True when the last byte fed ended an event, or nothing but whole comment lines came since."""
        return not self._line and not self._fields

    @property
    def oversized(self) -> bool:
        """True while the event being read is larger than the bound."""
        return self._event_bytes > self._limit

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes; returns the events that they complete."""
        events: list[SseEvent] = []
        for piece in data.splitlines(keepends=True):
            # A CRLF counts as one byte, so that the bound does not depend on whether a packet ends between its two.
            self._event_bytes += len(piece) - piece.endswith(b"\r\n")
            if self._keep_raw:
                self._raw.append(piece)
            if self._after_cr and piece == b"\n":
                self._after_cr = False
                self._event_bytes -= 1
                continue
            last = piece[-1]
            self._after_cr = last == 0x0D
            if last not in {0x0A, 0x0D}:
                if not self.oversized or not self._line:
                    self._line.append(piece)
                continue
            line = piece if not self._line else b"".join((*self._line, piece))
            self._line.clear()
            event = self._end_line(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        return events

    def finish(self) -> SseEvent | None:
        """The stream has ended; returns the event that was left without its end, if there is one."""
        if self._line:
            line = b"".join(self._line)
            self._line.clear()
            self._end_line(line)
        return self._end_event() if self._fields else None

    def take_raw(self) -> bytes:
        """Bytes of the event being read so far, which are forgotten; empty unless the reader keeps them."""
        raw = b"".join(self._raw)
        self._raw.clear()
        return raw

    def _end_line(self, line: bytes) -> SseEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._fields:
                return self._end_event()
            self._event_bytes = 0
            return None
        if line[0] == 0x3A:
            return None
        self._fields = True
        if self.oversized:
            self._data.clear()
            return None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _end_event(self) -> SseEvent:
        oversized = self.oversized
        data = b"" if oversized else b"\n".join(self._data)
        event = SseEvent(self._name, data, self.take_raw() if self._keep_raw else b"", oversized)
        self._data.clear()
        self._name = b""
        self._fields = False
        self._event_bytes = 0
        return event
