"""The standard health service (grpc.health.v1). Owns its states; asks nobody for identity, and tells nothing else.

The library's own asyncio servicer writes to its watchers while it holds the lock that a change of state needs, so that
one watcher who does not read would hold up a shutdown. Here a watcher holds nothing but its own event.
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

WATCHERS_MAX = 64
OVERALL = ""
BACKGROUND = "leasehold.background"
"""Not serving while a task beside the doors fails: calls are taken all the same, so the overall state says nothing."""

_Response = health_pb2.HealthCheckResponse
_Context = grpc.aio.ServicerContext[Any, Any]


class Health:
    """Serving or not, for the whole server and each of its services."""

    def __init__(self) -> None:
        """Not serving yet."""
        self._services = {OVERALL, BACKGROUND}
        self._serving = False
        self._degraded = False
        self._watchers: set[asyncio.Event] = set()

    def add(self, service: str) -> None:
        """Report on this service too."""
        self._services.add(service)

    def set_serving(self, *, serving: bool) -> None:
        """All services take calls, or none does any more; watchers are told."""
        self._serving = serving
        for changed in self._watchers:
            changed.set()

    def set_degraded(self, *, degraded: bool) -> None:
        """A task beside the doors fails, or none does any more; watchers are told."""
        self._degraded = degraded
        for changed in self._watchers:
            changed.set()

    async def check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        """The state of one service; NOT_FOUND for one that we do not have."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return _Response(status=self._status(request.service))

    async def list(
        self,
        request: health_pb2.HealthListRequest,  # noqa: ARG002 - it is empty
        context: _Context,  # noqa: ARG002 - nothing can go wrong
    ) -> health_pb2.HealthListResponse:
        """The state of everything that is served."""
        statuses = {service: _Response(status=self._status(service)) for service in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def watch(self, request: health_pb2.HealthCheckRequest, context: _Context) -> None:
        """The state at once, and at each change."""
        if len(self._watchers) >= WATCHERS_MAX:
            # Watchers are anonymous: without a bound they would fill the server.
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many health watchers; use Check")
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                changed.clear()
                status = self._status(request.service)
                if status != told:
                    await context.write(_Response(status=status))
                    told = status
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    def _status(self, service: str) -> "health_pb2.HealthCheckResponse.ServingStatus":
        if service not in self._services:
            return _Response.SERVICE_UNKNOWN
        well = self._serving and not (self._degraded and service == BACKGROUND)
        return _Response.SERVING if well else _Response.NOT_SERVING
