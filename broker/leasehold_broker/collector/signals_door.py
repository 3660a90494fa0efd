"""The collector's HTTP door for security events: other systems push theirs here (RFC 8935).

Owns shape, bounds and the answers of the RFC; refuses everything else. Needs aiohttp, which is an extra: a collector
that listens to nobody has no such door.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from leasehold_broker.collector.http_surround import HttpSurround, is_bearer
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.security_events import SecurityEvent, SetError, SetRefusedError, SignalRule
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.receive_signals import ReceiveSignals
from leasehold_broker.ports.clock import Clock

BODY_BYTES_MAX = 16 * 1024
BODY_SECONDS_MAX = 10.0
REQUESTS_MAX = 64
"""At work at once; beyond, 503."""
MEDIA_TYPE = "application/secevent+jwt"

Verify = Callable[[str, str, Instant], Awaitable[SecurityEvent]]
BearerOf = Callable[[str], str | None]
"""The token that a transmitter must send, by rule; None where its signature is enough. OSError: it cannot be read."""


class SignalsDoor:
    """Takes pushed tokens; further routes are added before it listens."""

    def __init__(
        self,
        rules: Mapping[str, SignalRule],
        verify: Verify,
        bearer_of: BearerOf,
        take: ReceiveSignals,
        clock: Clock,
        surround: HttpSurround,
    ) -> None:
        """Serve these rules, each at /signals/{name}; `surround` bounds every request of the application."""
        self._rules = rules
        self._verify = verify
        self._bearer_of = bearer_of
        self._take = take
        self._clock = clock
        self._at_work = 0
        self.app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[surround.middleware()])
        self.app.router.add_post("/signals/{name}", self._push)

    async def _push(self, request: web.Request) -> web.Response:
        rule = self._rules.get(request.match_info["name"])
        if rule is None:
            raise web.HTTPNotFound
        try:
            self._authenticate(request, rule)
            token = await _body(request)
        except SetRefusedError as refused:
            await self._refused(rule, refused)
            return _refusal(refused)
        # Whoever sends slowly has taken nobody's place until here.
        if self._at_work >= REQUESTS_MAX:
            return web.Response(status=503, headers={"Retry-After": "1"})
        self._at_work += 1
        try:
            return await self._answer(token, rule)
        finally:
            self._at_work -= 1

    async def _answer(self, token: str, rule: SignalRule) -> web.Response:
        try:
            event = await self._verify(rule.name, token, self._clock.now())
        except SetRefusedError as refused:
            await self._refused(rule, refused)
            return _refusal(refused)
        except Refusal as refusal:
            return _later(refusal)
        try:
            await self._take.take(event, rule)
        except SetRefusedError as refused:
            return _refusal(refused)
        except Refusal as refusal:
            return _later(refusal)
        return web.Response(status=202)

    async def _refused(self, rule: SignalRule, refused: SetRefusedError) -> None:
        try:
            await self._take.refused(rule, refused)
        except Refusal:
            raise web.HTTPServiceUnavailable from None  # what cannot be recorded is not answered as if it were

    def _authenticate(self, request: web.Request, rule: SignalRule) -> None:
        try:
            expected = self._bearer_of(rule.name)
        except OSError:
            raise web.HTTPServiceUnavailable from None
        if expected is None:
            return
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not is_bearer(shown, expected):
            raise SetRefusedError(SetError.AUTHENTICATION_FAILED, "the bearer token is missing or wrong")


async def _body(request: web.Request) -> str:
    if request.content_type != MEDIA_TYPE:
        raise SetRefusedError(SetError.INVALID_REQUEST, f"the media type must be {MEDIA_TYPE}")
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return (await request.read()).decode("ascii").strip()
    except (TimeoutError, UnicodeDecodeError):
        raise SetRefusedError(SetError.INVALID_REQUEST, "the body is not one token") from None


def _refusal(refused: SetRefusedError) -> web.Response:
    unknown = refused.error is SetError.AUTHENTICATION_FAILED
    headers = {"Content-Language": "en"} | ({"WWW-Authenticate": "Bearer"} if unknown else {})
    body = {"err": refused.error.value, "description": refused.description}
    return web.json_response(body, status=401 if unknown else 400, headers=headers)


def _later(refusal: Refusal) -> web.Response:
    seconds = max(1, int(refusal.retry_after_seconds or 5))
    return web.Response(status=503, headers={"Retry-After": str(seconds)})
