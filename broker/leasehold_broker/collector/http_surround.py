"""What surrounds every request at the collector's HTTP door: its bounds, and an eye on what refused callers present."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.domain.reasons import Refusal

CREDENTIAL_HEADERS = ("Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key")
CREDENTIAL_PARAMETERS = ("access_token", "api_key", "key", "token")
REFUSED = 400


class Bounds(Protocol):
    """Is told where requests begin and end."""

    def begun(self, transport: asyncio.BaseTransport | None) -> None:
        """The head of a request has come."""
        ...

    def ended(self, transport: asyncio.BaseTransport | None) -> None:
        """It has its answer."""
        ...


class Presented(Protocol):
    """Makes the use of a honeytoken durable."""

    async def presented(self, honeytoken: Honeytoken, whose: str, where: str) -> None:
        """Record it.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        ...


class HttpSurround:
    """Bounds, and honeytokens, of every request of an application."""

    def __init__(self, bounds: Bounds, sprung_by: Callable[[list[str]], Honeytoken | None], records: Presented) -> None:
        """Tell `bounds` of requests, and `records` of the honeytokens that `sprung_by` knows."""
        self._bounds = bounds
        self._sprung_by = sprung_by
        self._records = records

    def middleware(self) -> Middleware:
        """For the application."""

        @web.middleware
        async def surrounded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._run(request, handler)

        return surrounded

    async def _run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        self._bounds.begun(transport)
        try:
            answer = await handler(request)
            if answer.status >= REFUSED:
                await self._look_at(request)
        except web.HTTPException:
            await self._look_at(request)
            raise
        finally:
            self._bounds.ended(transport)
        return answer

    async def _look_at(self, request: web.Request) -> None:
        honeytoken = self._sprung_by(_shown(request))
        if honeytoken is None:
            return
        try:
            await self._records.presented(
                honeytoken, f"from {request.remote}", f"{request.method} {request.path}"[:200]
            )
        except Refusal:
            raise web.HTTPServiceUnavailable from None  # what cannot be recorded is not answered as if it were


def is_bearer(shown: str, expected: str) -> bool:
    """Whether this is the token; in constant time, and also where bytes were shown that are no text."""
    return hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), expected.encode())


def _shown(request: web.Request) -> list[str]:
    found = [one.strip() for name in CREDENTIAL_HEADERS for one in request.headers.getall(name, ())]
    found += [one for name in CREDENTIAL_PARAMETERS for one in request.query.getall(name, ())]
    return [*found, *(one.rpartition(" ")[2] for one in found if " " in one)]
