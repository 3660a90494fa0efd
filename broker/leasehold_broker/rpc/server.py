"""The gRPC server, with every limit set by us. Owns limits, wiring of services to handlers, health, start and stop.

Refuses to start with a method that the access table does not know, and offers no reflection.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from leasehold_broker.rpc.access import AccessTableError, Audit, Method, Plane, methods_of
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.health import Health
from leasehold_broker.rpc.requests import one_request
from leasehold_broker.rpc.surround import ServicerContext, Surround, Surroundings

UnaryHandler = Callable[[Any, CallContext], Awaitable[Message]]
"""Takes the request (or, for a stream of requests, an async iterator of them) and answers once."""
StreamHandler = Callable[[Any, CallContext], AsyncIterator[Message]]
"""Takes the same and answers with an async generator; it is closed when the caller goes away."""
Handlers = Mapping[str, UnaryHandler | StreamHandler]
ProbeHandler = Callable[[Any, ServicerContext], Awaitable[Message | None]]
HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Everything that the library would leave unlimited, or limit at its own discretion.

    Args:
        request_bytes_max: of one request message.
        answer_bytes_max: of one answer message; ours, so it may hold a page. Below a stock client's 4 MiB.
        metadata_bytes_max: soft and hard limit are the same, so that refusal is not a matter of chance.
        streams_max: concurrent calls on one connection.
        calls_max: concurrent calls in all; beyond, RESOURCE_EXHAUSTED at once.
        ping_seconds_min: a client that pings more often gets two strikes and is then disconnected.
        keepalive_seconds, keepalive_timeout_seconds: our own pings, to find dead peers.
        handshake_seconds_max: a connection that says nothing is closed.
        idle_seconds_max: a connection without calls is closed.
        age_seconds_max, age_grace_seconds: a connection is retired after this long; open calls have the grace to end
            (longer than the age of a watch, so that none is cut).
    """

    request_bytes_max: int = 64 * 1024
    answer_bytes_max: int = 1024 * 1024
    metadata_bytes_max: int = 8 * 1024
    streams_max: int = 100
    calls_max: int = 4096
    ping_seconds_min: int = 10
    keepalive_seconds: int = 60
    keepalive_timeout_seconds: int = 20
    handshake_seconds_max: int = 10
    idle_seconds_max: int = 600
    age_seconds_max: int = 3600
    age_grace_seconds: int = 1200


def server_options(limits: ServerLimits) -> list[tuple[str, int]]:
    """The channel arguments for these limits."""
    return [
        ("grpc.max_receive_message_length", limits.request_bytes_max),
        ("grpc.max_send_message_length", limits.answer_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.streams_max),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.ping_seconds_min * 1000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.keepalive_time_ms", limits.keepalive_seconds * 1000),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_seconds * 1000),
        ("grpc.server_handshake_timeout_ms", limits.handshake_seconds_max * 1000),
        ("grpc.max_connection_idle_ms", limits.idle_seconds_max * 1000),
        ("grpc.max_connection_age_ms", limits.age_seconds_max * 1000),
        ("grpc.max_connection_age_grace_ms", limits.age_grace_seconds * 1000),
        ("grpc.so_reuseport", 0),
    ]


class RpcServer:
    """One gRPC server in the running event loop."""

    def __init__(self, surroundings: Surroundings, limits: ServerLimits | None = None) -> None:
        """Build it; nothing is served yet."""
        limits = limits or ServerLimits()
        self._surroundings = surroundings
        self._surround = Surround(surroundings)
        self._server = grpc.aio.server(options=server_options(limits), maximum_concurrent_rpcs=limits.calls_max)
        self._planes: set[Plane] = set()
        self._health = Health()
        self._serve_health()

    def serve(self, service: ServiceDescriptor, handlers: Handlers) -> None:
        """Serve every method of `service`.

        Args:
            service: from the generated module: `lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]`.
            handlers: by method name as in the proto; coroutine functions, or async generator functions where the
                proto says that the answer is a stream.

        Raises:
            AccessTableError: a method lacks a handler, a row of the access table, or what that row asks for; or this
                server would serve agents and those who govern them.
        """
        rows = methods_of(service, handlers)
        self._planes |= {row.plane for row in rows.values()}
        if Plane.AGENTS in self._planes and len(self._planes) > 1:
            planes = " and ".join(sorted(self._planes))
            raise AccessTableError(service.full_name, "*", f"one server must not serve {planes}")
        for method in service.methods:
            row = rows[method.name]
            if row.access not in self._surroundings.authenticate:
                raise AccessTableError(
                    service.full_name, method.name, f"nobody authenticates access class {row.access}"
                )
            if row.audit is Audit.READ and self._surroundings.read_recorder is None:
                raise AccessTableError(service.full_name, method.name, "readings are audited, but nobody records them")
            if inspect.isasyncgenfunction(handlers[method.name]) != bool(method.server_streaming):
                raise AccessTableError(
                    service.full_name, method.name, "stream in the proto, but not in the handler, or the reverse"
                )
        bound = {
            method.name: self._bind(method, rows[method.name], handlers[method.name]) for method in service.methods
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, bound),))
        self._health.add(service.full_name)

    def _serve_health(self) -> None:
        handlers: dict[str, ProbeHandler] = {
            "Check": self._health.check,
            "List": self._health.list,
            "Watch": self._health.watch,
        }
        methods_of(HEALTH, handlers)
        bound = {method.name: self._bind_probe(method, handlers[method.name]) for method in HEALTH.methods}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(HEALTH.full_name, bound),))

    def listen(self, address: str) -> int:
        """Listen at a gRPC address ("unix-abstract:NAME", "127.0.0.1:0"), without TLS; the port for TCP.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Take calls, and say so in the health service."""
        await self._server.start()
        self._health.set_serving(serving=True)

    def announce_stop(self) -> None:
        """Say in the health service that we stop serving; calls are still taken."""
        self._health.set_serving(serving=False)

    def set_degraded(self, *, degraded: bool) -> None:
        """Say in the health service whether a task beside the doors fails; calls are taken all the same."""
        self._health.set_degraded(degraded=degraded)

    async def stop(self, grace_seconds: float) -> None:
        """Say so in the health service, take no more calls, let open ones end within the grace, cancel the rest."""
        self.announce_stop()
        await self._server.stop(grace_seconds)

    def _bind(
        self, method: MethodDescriptor, row: Method, handler: UnaryHandler | StreamHandler
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        path = f"{method.containing_service.full_name}/{method.name}"
        answers_stream, asks_stream = bool(method.server_streaming), bool(method.client_streaming)
        kind = GetMessageClass(method.input_type)

        async def run(requests: Any, context: ServicerContext) -> Message | None:
            streaming = False

            async def act(call: CallContext) -> Message | None:
                nonlocal streaming
                request = requests if asks_stream else await one_request(requests, kind)
                streaming = True
                outcome = handler(request, call)
                if answers_stream:
                    await self._relay(cast("AsyncIterator[Message]", outcome), row, context)
                    return None
                return await cast("Awaitable[Message]", outcome)

            try:
                return await self._surround.run(path, row, context, act, stream=answers_stream)
            except asyncio.CancelledError:
                # Whoever drops the calls that it begins is slowed down like one who is refused; leaving a stream is no
                # fault.
                if not (answers_stream and streaming):
                    self._surroundings.refused(context.peer())
                raise

        return _handler(method, run, kind.FromString if asks_stream else None)

    def _bind_probe(self, method: MethodDescriptor, handler: ProbeHandler) -> "grpc.RpcMethodHandler[Any, Any]":
        kind = GetMessageClass(method.input_type)

        async def run(requests: Any, context: ServicerContext) -> Message | None:
            async def act() -> Message | None:
                return await handler(await one_request(requests, kind), context)

            return await self._surround.probe(context, act)

        return _handler(method, run, None)

    async def _relay(self, answers: AsyncIterator[Message], row: Method, context: ServicerContext) -> None:
        """Write answers as they come, until the generator or the age of the stream ends it (then with OK)."""
        ends_at: float | None = None
        if row.seconds_max:
            jitter = int.from_bytes(self._surroundings.entropy.bytes(2)) / 65536
            ends_at = asyncio.get_running_loop().time() + row.seconds_max * (0.9 + 0.2 * jitter)
        async with aclosing(answers):  # type: ignore[type-var] # handlers are async generators: they have aclose
            while True:
                try:
                    async with asyncio.timeout_at(ends_at) as age:
                        answer = await anext(answers)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    if age.expired():
                        return
                    raise
                await context.write(answer)


def _handler(
    method: MethodDescriptor,
    run: Callable[[Any, ServicerContext], Awaitable[Message | None]],
    read: Callable[[bytes], Message] | None,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """What gRPC calls as soon as the headers are there: see `one_request`.

    Streams write through the context: one coroutine for all kinds, so that cancellation reaches the handler at once and
    not when a suspended generator is collected.
    """
    build: Callable[..., grpc.RpcMethodHandler[Any, Any]] = (
        grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    )
    return build(
        run, request_deserializer=read, response_serializer=GetMessageClass(method.output_type).SerializeToString
    )
