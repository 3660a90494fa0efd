"""One connection to a provider, and the one call it carries at a time. Owns parsing of the answer and its bounds."""

import asyncio
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from leasehold_broker.ports.upstream import KeyHeader, UpstreamFailure, UpstreamListener

_NEVER = float("inf")
_INTERIM_MAX = 8
REST_BYTES = 64 * 1024
"""After a read of so many bytes the connection lets the others have a turn."""


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Bounds of the upstream side.

    Args:
        connect_seconds: name look-up, TCP and TLS together.
        first_byte_seconds: from the end of the request to the answer's head; models think for minutes.
        read_idle_seconds: between two reads of an answer.
        pool_idle_seconds: how long an unused connection is kept.
        pool_connections_max: unused connections kept for one origin.
        connections_max: connections of one origin, used and opening.
        head_bytes_max, headers_max: of an answer.
        tick_seconds: how often deadlines are looked at.
    """

    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    read_idle_seconds: float = 300.0
    pool_idle_seconds: float = 20.0
    pool_connections_max: int = 64
    connections_max: int = 1024
    head_bytes_max: int = 64 * 1024
    headers_max: int = 100
    tick_seconds: float = 0.25


class ConnectionOwner(Protocol):
    """The pool, as its connections see it."""

    settings: UpstreamSettings
    connections: "set[UpstreamConnection]"

    def release(self, connection: "UpstreamConnection", now: float) -> None:
        """The connection may carry another call."""
        ...

    def forget(self, connection: "UpstreamConnection") -> None:
        """The connection is gone."""
        ...


class Call:
    """One call on a connection; turns into nothing once it is over, so that a late abort hits nobody else's call."""

    __slots__ = ("_connection", "sent")

    def __init__(self, connection: "UpstreamConnection") -> None:
        """Carried by `connection`."""
        self._connection: UpstreamConnection | None = connection
        self.sent = False

    def pause(self) -> None:
        """See the port."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """See the port."""
        if self._connection is not None:
            self._connection.resume()

    def abort(self) -> None:
        """See the port."""
        if self._connection is not None:
            self._connection.abort()

    def over(self) -> None:
        """Let go of the connection."""
        self._connection = None


class UpstreamConnection(asyncio.Protocol):
    """Carries one call at a time; calls its listener in the turn of the loop in which bytes come."""

    __slots__ = (
        "_answer_bytes",
        "_close_delimited",
        "_complete",
        "_framed",
        "_headers",
        "_in_head",
        "_interim",
        "_listener",
        "_loop",
        "_owner",
        "_parser",
        "_paused",
        "_pieces",
        "_resting",
        "_status",
        "_surplus",
        "_transport",
        "call",
        "deadline",
    )

    def __init__(self, owner: ConnectionOwner) -> None:
        """Belong to `owner`."""
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._listener: UpstreamListener | None = None
        self._paused = False
        self._resting = False
        self.call = Call(self)
        self.deadline = _NEVER
        self._reset()

    def _reset(self) -> None:
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._answer_bytes = 0
        self._status = 0
        self._interim = 0
        self._in_head = True
        self._framed = False
        self._close_delimited = False
        self._complete = False
        self._surplus = False

    # what the pool asks

    @property
    def reusable(self) -> bool:
        """True when a request may be written now."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, key_header: KeyHeader, body: bytes, listener: UpstreamListener) -> None:
        """Write one request. The key exists in plain only within this call and in the transport's buffer."""
        transport = self._transport
        self._reset()
        self.call = Call(self)
        if transport is None:
            self._loop.call_soon(listener.answer_failed, UpstreamFailure.CLOSED_EARLY)
            return
        self._listener = listener
        self.call.sent = True
        self.deadline = self._loop.time() + self._owner.settings.first_byte_seconds
        name, value = key_header()
        lines = b"%b\r\n%b: %b\r\n\r\n" % (head, name.encode("ascii"), value)
        if len(body) <= 16384:
            transport.write(lines + body)
        else:
            transport.writelines((lines, body))

    def expired(self) -> None:
        """The deadline has passed."""
        if self._paused:
            # The caller reads slowly: its own deadline decides.
            self.deadline = self._loop.time() + self._owner.settings.read_idle_seconds
        elif self._listener is None:
            self.drop()
        else:
            self.fail(UpstreamFailure.FIRST_BYTE_TIMEOUT if self._in_head else UpstreamFailure.IDLE_TIMEOUT)

    def drop(self) -> None:
        """Close at once and call nobody."""
        self._listener = None
        self.call.over()
        self._owner.forget(self)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def fail(self, failure: UpstreamFailure) -> None:
        """Close at once and tell the listener, if there is one."""
        listener = self._listener
        self.drop()
        if listener is not None:
            listener.answer_failed(failure)

    # what the call asks

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused and self._transport is not None:
            self._paused = True
            if not self._resting:
                self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport is not None:
            self._paused = False
            if not self._resting:
                self._transport.resume_reading()
            self.deadline = self._loop.time() + self._owner.settings.read_idle_seconds

    def abort(self) -> None:
        """Drop the call with its connection."""
        self.drop()

    # what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self._owner.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer."""
        if self._listener is None:
            self.drop()
            return
        settings = self._owner.settings
        if self._in_head:
            self._answer_bytes += len(data)
        else:
            self.deadline = self._loop.time() + settings.read_idle_seconds
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # Errors raised in a callback arrive here too, as HttpParserCallbackError.
            self._failed_parsing()
            return
        if self._in_head and self._answer_bytes > settings.head_bytes_max:
            self.fail(UpstreamFailure.BAD_ANSWER)
            return
        self._deliver()
        if self._complete:
            self._finish()
        if len(data) >= REST_BYTES:
            self._rest()

    def _rest(self) -> None:
        """Let the others have their turn: uvloop goes on reading from a busy connection, up to 8 MB in one turn."""
        if self._transport is None or self._paused or self._resting:
            return
        self._resting = True
        self._transport.pause_reading()
        self._loop.call_soon(self._rested)

    def _rested(self) -> None:
        self._resting = False
        if self._transport is not None and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The provider has closed: the end of an answer without a length, else a failure."""
        if self._listener is not None and self._close_delimited and not self._in_head:
            self._surplus = True
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """The connection is gone."""
        self.fail(UpstreamFailure.CLOSED_EARLY)

    # what the parser says

    def on_message_begin(self) -> None:
        """A second message after the end of the answer means that the two sides disagree."""
        self._surplus = self._surplus or self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer (which is dropped)."""
        if not self._in_head or self._complete:
            return
        text = name.decode("latin-1").lower()
        if text in {"content-length", "transfer-encoding"}:
            if text == "transfer-encoding" and value.lower() != b"chunked":
                raise ValueError("a transfer coding that was not asked for")
            self._framed = True
        self._headers.append((text, value.decode("latin-1")))
        if len(self._headers) > self._owner.settings.headers_max:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        listener = self._listener
        if self._complete or listener is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim += 1
            if self._interim > _INTERIM_MAX or status == 101:
                raise ValueError("too many interim answers, or a switch of protocols")
            return
        self._status = status
        self._in_head = False
        self._close_delimited = not self._framed and status not in {204, 304}
        self.deadline = self._loop.time() + self._owner.settings.read_idle_seconds
        listener.answer_started(status, self._headers)

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        if not self._complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer, or an interim one, is whole."""
        if self._in_head:
            self._headers = []
            self._framed = False
            return
        self._complete = True
        if not self._parser.should_keep_alive():
            self._surplus = True

    def _deliver(self) -> None:
        """Hand on what this read brought, in one piece: the same turn of the loop, but one step of the meter."""
        pieces = self._pieces
        if pieces:
            self._pieces = []
            if self._listener is not None:
                self._listener.body_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _failed_parsing(self) -> None:
        self._deliver()
        # A fault after the end of the answer does not make the answer worse.
        if self._complete and self._listener is not None:
            self._surplus = True
            self._finish()
        else:
            self.fail(UpstreamFailure.BAD_ANSWER)

    def _finish(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return  # aborted while the last bytes were handed on
        self.call.over()
        transport = self._transport
        if self._surplus or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            self.drop()
        else:
            if self._paused:
                self.resume()
            self._owner.release(self, self._loop.time())
        listener.answer_finished()
