"""gRPC as both ends see it: the stub's channel at a sidecar, the handler's iterator at the centre, over the network.

What crosses are the real messages, serialized. How a handler ends is told as the real server tells it.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from tests.simulation.fleet.loop import Process
from tests.simulation.fleet.network import (
    CLOSE,
    CONNECT_SECONDS_MAX,
    DOWN,
    KEEPALIVE_SECONDS,
    MESSAGE,
    STATUS,
    UP,
    Inbox,
    Lane,
)

from leasehold_broker.adapters.collector_link import LinkSettings
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.wire.errors import STATUS_TRAILER, rpc_status

_CODES = {code.value[0]: code for code in grpc.StatusCode}
OK = "ok"
Ended = grpc.aio.AioRpcError | str


def _error(code: grpc.StatusCode, details: str, status: bytes = b"") -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata((STATUS_TRAILER, status)) if status else grpc.aio.Metadata()
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=details)


def refused(refusal: Refusal, request_id: str) -> grpc.aio.AioRpcError:
    """What a client is told of a refusal."""
    status = rpc_status(refusal, request_id)
    return _error(_CODES[status.code], status.message, status.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class Method:
    """How a method of the centre is reached."""

    name: str
    request: Any
    label: str


class Stream:
    """One call: both ends, and the two lanes between them."""

    def __init__(self, world: Any, host: str, name: str, process: Process, method: Method, decode: Any) -> None:
        """Open it; the centre learns of it when the first word arrives."""
        self._world = world
        self.host = host
        self.name = name
        self.process = process
        self.method = method
        self._decode = decode
        self.answers = Inbox()
        self.requests = Inbox()
        self.up = Lane(UP, self._at_centre)
        self.down = Lane(DOWN, self._at_sidecar)
        self.handler: Any = None
        self.centre: Any = None
        world.streams[self] = None
        world.network.send(host, self.up, "open", None, "")
        world.loop.call_later(CONNECT_SECONDS_MAX, self._connected_or_not)

    # The sidecar's end, as grpc.aio has it.

    async def write(self, message: Any) -> None:
        """Send one message."""
        if self.answers.ended is not None:
            raise _error(grpc.StatusCode.UNAVAILABLE, "the call has ended")
        self._world.writing(self, message)
        self._world.network.send(
            self.host, self.up, MESSAGE, message.SerializeToString(deterministic=True), f"{self.method.label} up"
        )

    async def read(self) -> Any:
        """The next answer, or the end."""
        found, what = await self.answers.get()
        if found:
            return self._decode(what)
        if what == OK:
            return grpc.aio.EOF
        raise what

    async def __aiter__(self) -> AsyncIterator[Any]:
        """All answers."""
        while (answer := await self.read()) is not grpc.aio.EOF:
            yield answer

    def cancel(self) -> None:
        """Let go: the other end learns of it when the word arrives."""
        if self.answers.ended is None:
            self.answers.end(_error(grpc.StatusCode.CANCELLED, "cancelled here"))
            self._world.network.send(self.host, self.up, CLOSE, None, "")
        self._world.network.cut(self.down)
        self._world.loop.call_later(KEEPALIVE_SECONDS, self._forgotten)

    # What happens between.

    def reset(self) -> None:
        """Both ends learn of the break now; what was under way is lost."""
        self._world.network.cut(self.up)
        self._world.network.cut(self.down)
        self.answers.end(_error(grpc.StatusCode.UNAVAILABLE, "connection reset"))
        self._hang_up()

    def _connected_or_not(self) -> None:
        if self.centre is None and self.answers.ended is None:
            self.reset()

    def _forgotten(self) -> None:
        self._world.network.cut(self.up)
        self._hang_up()

    def _hang_up(self) -> None:
        self._world.streams.pop(self, None)
        if self.handler is not None:
            self.handler.cancel()

    def _at_sidecar(self, kind: str, what: Any) -> None:
        if self.process.dead:
            return
        if kind == STATUS:
            self.answers.end(what)
            self._world.streams.pop(self, None)
        else:
            self._world.arrived(self, DOWN, what)
            self.answers.put(what)

    def _at_centre(self, kind: str, what: Any) -> None:
        if kind == "open":
            self.centre = self._world.centre.process
            if self.centre is None or self.centre.dead:
                self.reset()
                return
            self.handler = self.centre.spawn(self._serve(), f"{self.method.name} of {self.name}")
        elif self.handler is None or self.centre.dead:
            self.reset()
        elif kind == CLOSE:
            self._hang_up()
        else:
            self._world.arrived(self, UP, what)
            self.requests.put(what)

    # The centre's end, as the server has it.

    async def _requests(self) -> AsyncIterator[Any]:
        while True:
            found, what = await self.requests.get()
            if not found:
                return
            yield self.method.request.FromString(what)

    async def _serve(self) -> None:
        ended: Ended = OK
        try:
            async for answer in self._world.centre.handle(self.method.name, self.name, self._requests()):
                self._world.answering(self, answer)
                self._world.network.send(
                    self.host,
                    self.down,
                    MESSAGE,
                    answer.SerializeToString(deterministic=True),
                    f"{self.method.label} down",
                )
        except Refusal as refusal:
            ended = await self._world.centre.refused(self.method.name, self.name, refusal)
        self._world.network.send(self.host, self.down, STATUS, ended, "")


class SimChannel:
    """A grpc.aio channel, as far as stubs use it."""

    def __init__(self, open_stream: Callable[[str, Any], Stream]) -> None:
        """Nothing is open."""
        self._open = open_stream

    def stream_stream(self, path: str, *_: Any, response_deserializer: Any = None, **__: Any) -> Any:
        """A method."""

        def call(metadata: Any = None) -> Stream:
            del metadata
            return self._open(path, response_deserializer)

        return call

    async def close(self) -> None:
        """Its calls are cancelled by whoever made them."""


@dataclass(frozen=True, slots=True)
class SimLinkSettings(LinkSettings):
    """The real settings, but for what a channel is."""

    opens: Any = None

    async def channel(self) -> Any:
        """A new channel."""
        return SimChannel(self.opens)
