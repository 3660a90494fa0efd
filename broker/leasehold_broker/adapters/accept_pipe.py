"""The pipe between a public connection and gRPC's private listener. Owns bytes, pressure and ends; changes nothing.

What comes from a caller that is refused too often waits here, on its way in.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from leasehold_broker.adapters.header_blocks import HeaderBlocks
from leasehold_broker.adapters.refusal_brake import RefusalBrake

PIPE_BUFFER_BYTES = 256 * 1024
TELL_SECONDS = 1.0
_log = structlog.get_logger("leasehold.accept")


class TurnedAway:
    """Connections that were closed by us, told to the log in sums: a flood of them must not fill the disk."""

    def __init__(self) -> None:
        """None yet."""
        self._counts: dict[str, tuple[int, str]] = {}
        self._due: asyncio.TimerHandle | None = None

    def add(self, why: str, peer: str) -> None:
        """One more of `peer`; `why` is one of few fixed words."""
        count, _ = self._counts.get(why, (0, ""))
        self._counts[why] = count + 1, peer
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(TELL_SECONDS, self.tell)

    def tell(self) -> None:
        """Log the sums now, if there are any."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        for why, (count, peer) in self._counts.items():
            _log.warning("connections turned away", why=why, count=count, last_peer=peer)
        self._counts.clear()


class Shim(Protocol):
    """What a public end asks of the shim."""

    brake: RefusalBrake
    turned_away: "TurnedAway"
    http2: bool

    def admit(self, front: "Front", transport: asyncio.Transport) -> "Pipe | None":
        """A new connection: its pipe, or None when it must be closed."""
        ...

    def gone(self, front: "Front") -> None:
        """A connection is closed to its end."""
        ...


class Pipe:
    """Two transports joined: bytes, pressure and ends pass through; when one is lost, both are."""

    def __init__(self, front: "Front", ended: Callable[[], None]) -> None:
        """For this public end; `ended` is called once."""
        self._front = front
        self._back: Back | None = None
        self._ended: Callable[[], None] | None = ended
        self.joining: asyncio.Task[None] | None = None

    def join(self, loop: asyncio.AbstractEventLoop, back: socket.socket) -> None:
        """Start the private leg."""
        self.joining = loop.create_task(self._join(loop, back), name="join of a connection")

    async def _join(self, loop: asyncio.AbstractEventLoop, back: socket.socket) -> None:
        try:
            _, self._back = await loop.create_unix_connection(lambda: Back(self), sock=back)
        except OSError:
            back.close()
            self.abort()
            return
        if self._ended is None:
            # The public leg went away meanwhile.
            self.abort()
            return
        self._front.other, self._back.other = self._back, self._front
        self._front.start()
        self._back.start()

    def descriptor(self) -> int | None:
        """The public leg's descriptor; None while it closes."""
        transport = self._front.transport
        if transport is None or transport.is_closing():
            return None
        number: int = transport.get_extra_info("socket").fileno()
        return number if number >= 0 else None

    def over(self) -> None:
        """Forget the connection; called by whichever leg is lost first, and once."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def abort(self) -> None:
        """Close both legs at once."""
        self.over()
        for leg in (self._front, self._back):
            if leg is not None and leg.transport is not None:
                leg.transport.abort()


class Leg(asyncio.Protocol):
    """One end of a pipe.

    Until the other end stands, what comes early is kept and reading is paused; pausing in `connection_made` would not
    do, because uvloop starts to read afterwards all the same. So at most one read's worth is ever kept.
    """

    def __init__(self) -> None:
        """Not connected yet."""
        self.transport: asyncio.Transport | None = None
        self.other: Leg | None = None
        self.pipe: Pipe | None = None
        self.finished = False
        self._early: list[bytes] = []

    def start(self) -> None:
        """The other end stands: pass on what came early, and go on."""
        if self.transport is None or self.transport.is_closing():
            return
        early, self._early = self._early, []
        for data in early:
            self.take(data)
        if not self.may_read():
            return
        if self.finished:
            self._pass_end_on()
        else:
            self.transport.resume_reading()

    def may_read(self) -> bool:
        """True unless something has to be passed on first."""
        return True

    def data_received(self, data: bytes) -> None:
        """Bytes from this end, each looked at once."""
        self.take(data)

    def take(self, data: bytes) -> None:
        """Pass on, or keep until the other end stands."""
        other = self._open_other()
        if other is not None:
            other.write(data)
        elif self.other is None and self.transport is not None:
            self._early.append(data)
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Pass a half-close on, and stay open for what still comes the other way; TLS has none, it ends."""
        self.finished = True
        if self.transport is not None and not self.transport.can_write_eof():
            return False
        return self.other is None or not self.may_read() or self._pass_end_on()

    def _pass_end_on(self) -> bool:
        other = self._open_other()
        if other is None or (self.other is not None and self.other.finished):
            if self.transport is not None:
                self.transport.close()
            return False
        if not other.can_write_eof():
            other.close()
            return False
        other.write_eof()
        return True

    def _open_other(self) -> asyncio.Transport | None:
        if self.other is None or self.other.transport is None or self.other.transport.is_closing():
            return None
        return self.other.transport

    def pause_writing(self) -> None:
        """This leg's reader is slow: stop reading from the other."""
        other = self._open_other()
        if other is not None:
            other.pause_reading()

    def resume_writing(self) -> None:
        """This leg's reader has caught up."""
        other = self._open_other()
        if other is not None and self.other is not None and self.other.may_read():
            other.resume_reading()

    def connection_lost(self, fault: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """Close the other leg too; what it still has to send is sent."""
        if self.pipe is not None:
            self.pipe.over()
        other = self._open_other()
        if other is not None:
            other.close()
        self._early = []


class Front(Leg):
    """The public end."""

    def __init__(self, shim: Shim) -> None:
        """For a connection that this shim accepts."""
        super().__init__()
        self._shim = shim
        self.holder = ""
        self._held = bytearray()
        self._blocks = HeaderBlocks() if shim.http2 else None

    def may_read(self) -> bool:
        """Not while the brake holds bytes back."""
        return not self._held

    def data_received(self, data: bytes) -> None:
        """Bytes from the caller: count its header blocks."""
        if self._blocks is not None and not self._blocks.allow(data):
            self._shim.turned_away.add("header block too long", self.holder)
            if self.pipe is not None:
                self.pipe.abort()
            return
        self.take(data)

    def take(self, data: bytes) -> None:
        """Pass on, or wait, with one read's worth at most."""
        if self.other is None or not (self._held or self._shim.brake.holds(self.holder)):
            super().take(data)
            return
        if not self._held:
            self._shim.brake.wait(self.holder, self._let_through)
        self._held += data
        if self.transport is not None:
            self.transport.pause_reading()

    def _let_through(self, count: int) -> bool:
        """Pass a little on; True while there is more."""
        other = self._open_other()
        if other is None or self.transport is None:
            self._held.clear()
            return False
        if other.get_write_buffer_size() < PIPE_BUFFER_BYTES:
            other.write(bytes(self._held[:count]))
            del self._held[:count]
        if self._held:
            return True
        if self.finished:
            self._pass_end_on()
        elif not self.transport.is_closing():
            self.transport.resume_reading()
        return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask who it is."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(PIPE_BUFFER_BYTES)
        self.pipe = self._shim.admit(self, self.transport)
        if self.pipe is None:
            self.transport.abort()

    def connection_lost(self, fault: Exception | None) -> None:
        """Closed to its end."""
        super().connection_lost(fault)
        self._shim.gone(self)


class Back(Leg):
    """The private end."""

    def __init__(self, pipe: Pipe) -> None:
        """Of this pipe."""
        super().__init__()
        self.pipe = pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what waits for gRPC."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(PIPE_BUFFER_BYTES)
