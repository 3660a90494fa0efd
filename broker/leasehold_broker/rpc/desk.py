"""The same methods for an operator who came by another door of this process than gRPC. Owns what surrounds such a call.

The handlers, the access table, the roles and the events are the ones of gRPC, so that a door in front of this can do
nothing that the command cannot. Who the operator is was verified when they signed in.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.rpc.access import AccessTableError, Audit, Method, Plane, methods_of
from leasehold_broker.rpc.caller import CallContext, ReadRecorder, Recorder
from leasehold_broker.rpc.occupancy import Occupancy
from leasehold_broker.rpc.server import Handlers, StreamHandler, UnaryHandler

CALLS_OF_ONE_MAX = 32


class Desk:
    """Operators' methods, by path."""

    def __init__(
        self,
        allow: Callable[[Identity], None],
        recorder: Recorder,
        read_recorder: ReadRecorder,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Nothing is served yet.

        `allow` raises OPERATOR_NOT_ALLOWED for an identity without any role; the recorders are the gRPC door's.
        """
        self._allow = allow
        self._recorder = recorder
        self._read_recorder = read_recorder
        self._clock = clock
        self._entropy = entropy
        self._served: dict[str, tuple[Method, UnaryHandler | StreamHandler]] = {}
        self._calls = Occupancy("calls", CALLS_OF_ONE_MAX, "identity")
        self._streams: dict[str, Occupancy] = {}

    def serve(self, service: ServiceDescriptor, handlers: Handlers) -> None:
        """Serve a service of operators.

        Raises:
            AccessTableError: it is of another plane, or not as the access table has it.
        """
        for name, row in methods_of(service, handlers).items():
            if row.plane is not Plane.OPERATORS:
                raise AccessTableError(service.full_name, name, "is not for operators")
            path = f"{service.full_name}/{name}"
            self._served[path] = row, handlers[name]
            if row.streams_max:
                self._streams[path] = Occupancy(f"{name} streams", row.streams_max, "identity")

    async def call(self, path: str, request: Message, identity: Identity, peer: Peer) -> Any:
        """The answer of a unary method.

        Raises:
            Refusal: as the method says, after its event; METHOD_NOT_SERVED as ROUTE_NOT_ALLOWED.
        """
        request_id = self._request_id()
        try:
            row, handler = self._row(path)
            with self._calls.held(_holder(identity)):
                context = await self._admitted(path, row, identity, peer, request_id)
                answering = cast("Awaitable[Message]", handler(request, context))
                return await _within(row.seconds_max, answering)
        except Refusal as refusal:
            await self._recorder.rpc_refused(path, refusal, identity, peer, request_id)
            raise

    async def watch(self, path: str, request: Message, identity: Identity, peer: Peer) -> AsyncGenerator[Any]:
        """The answers of a stream, until it or its age ends; close it to leave.

        Raises:
            Refusal: as `call`.
        """
        request_id = self._request_id()
        try:
            row, handler = self._row(path)
            with self._streams[path].held(_holder(identity)):
                context = await self._admitted(path, row, identity, peer, request_id)
                async with aclosing(
                    cast("AsyncGenerator[Message]", cast("AsyncIterator[Message]", handler(request, context)))
                ) as answers:
                    until = self._clock.now().after(row.seconds_max)
                    async for answer in answers:
                        yield answer
                        if self._clock.now().boot_ns >= until:
                            return
        except Refusal as refusal:
            await self._recorder.rpc_refused(path, refusal, identity, peer, request_id)
            raise

    def _row(self, path: str) -> tuple[Method, UnaryHandler | StreamHandler]:
        found = self._served.get(path)
        if found is None:
            raise Refusal(Reason.ROUTE_NOT_ALLOWED, "this collector does not serve that", detail=path)
        return found

    async def _admitted(self, path: str, row: Method, identity: Identity, peer: Peer, request_id: str) -> CallContext:
        now = self._clock.now()
        if now.wall_ms >= identity.expires_wall_ms:
            raise Refusal(Reason.JWT_EXPIRED, "sign in again", detail="the session's identity is over")
        self._allow(identity)
        if row.audit is Audit.READ:
            await self._read_recorder.rpc_read(path, identity, peer, request_id)
        return CallContext(path, request_id, peer, identity, now)

    def _request_id(self) -> str:
        return str(uuid.UUID(bytes=self._entropy.bytes(16), version=4))


def _holder(identity: Identity) -> str:
    return f"{identity.subject.issuer} {identity.subject.subject}"


async def _within(seconds: float, work: Awaitable[Message]) -> Message:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
    raise Refusal(Reason.OVERLOADED, f"this took longer than {seconds:g} s; try again", retry_after_seconds=1.0)
