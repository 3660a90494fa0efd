"""Routes of the collector's HTTP door for receivers of our security events: what is sent, the key, and polling.

The minimum of the Shared Signals Framework 1.0: streams are configured by the operator, not made over HTTP; a receiver
may look at its own, ask for a verification event, and poll.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from leasehold_broker.collector.http_surround import is_bearer
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.outgoing_signals import SignalStream
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.send_signals import OfferSignals
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog

PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"
POLL_MAX = 25
LONG_POLL_SECONDS = 8.0
"""A question that may wait is answered after this at the latest; the door cuts a request after 20 s."""
STATE_CHARACTERS_MAX = 256
T = TypeVar("T")
CODES_MAX = 100
BODY_SECONDS_MAX = 10.0


class _Poll(msgspec.Struct, rename="camel", forbid_unknown_fields=False):
    max_events: int = POLL_MAX
    return_immediately: bool = False
    ack: list[str] = []
    set_errs: dict[str, dict[str, object]] = {}


class _Verify(msgspec.Struct):
    stream_id: str
    state: str = ""


class TransmitterDoor:
    """Adds its routes to an application."""

    def __init__(
        self,
        streams: Mapping[str, SignalStream],
        push_urls: Mapping[str, str],
        offers: Mapping[str, OfferSignals],
        bearer_of: Callable[[str], str | None],
        jwks: Mapping[str, object],
        events: EventLog,
        clock: Clock,
    ) -> None:
        """Serve these.

        Args:
            streams: by name.
            push_urls: where a stream is pushed to, by name.
            offers: streams that are polled, by name.
            bearer_of: what a stream's receiver must send as bearer token; None: it may not ask for anything.
            jwks: public key set.
            events: where a wish for a verification event is kept: the log is the queue of every stream.
            clock: for labels.
        """
        self._streams = streams
        self._push_urls = push_urls
        self._offers = offers
        self._bearer_of = bearer_of
        self._jwks = jwks
        self._events = events
        self._clock = clock
        self._base = ""
        self._waiting: set[str] = set()

    def add_to(self, app: web.Application, issuer: str) -> None:
        """The routes; `issuer` is our own address, as receivers see it."""
        base = issuer.rstrip("/")
        document = {
            "spec_version": "1_0",
            "issuer": issuer,
            "jwks_uri": f"{base}/signals/jwks.json",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{base}/signals/streams",
            "status_endpoint": f"{base}/signals/status",
            "verification_endpoint": f"{base}/signals/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}],
            "default_subjects": "ALL",
        }
        self._base = base
        router = app.router
        # The path of an issuer stands behind the well-known one (SSF 1.0, 7.2); a proxy may have cut it off.
        for path in {"", urlsplit(base).path}:
            router.add_get(f"/.well-known/ssf-configuration{path}", _constant(document))
        router.add_get("/signals/jwks.json", _constant(self._jwks))
        router.add_get("/signals/streams", self._configuration)
        router.add_get("/signals/status", self._status)
        router.add_post("/signals/verify", self._verify)
        router.add_post("/signals/poll/{name}", self._poll)

    async def _configuration(self, request: web.Request) -> web.Response:
        name = self._whose(request)
        stream, url = self._streams[name], self._push_urls.get(name, "")
        kinds = sorted(stream.types)
        delivery = (
            {"method": PUSH, "endpoint_url": url}
            if url
            else {
                "method": POLL,
                "endpoint_url": f"{self._base}/signals/poll/{name}",
            }
        )
        answer = {
            "stream_id": name,
            "iss": stream.issuer,
            "aud": stream.audience,
            "events_supported": kinds,
            "events_requested": kinds,
            "events_delivered": kinds,
            "delivery": delivery,
        }
        return web.json_response(answer if "stream_id" in request.query else [answer])

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response({"stream_id": self._whose(request), "status": "enabled"})

    async def _verify(self, request: web.Request) -> web.Response:
        name = self._whose(request)
        asked = await _read(request, _Verify)
        if asked.stream_id != name:
            raise web.HTTPNotFound
        if len(asked.state) > STATE_CHARACTERS_MAX or not asked.state.isprintable():
            raise web.HTTPBadRequest(text="state must be printable, at most 256 characters")
        details: dict[str, Detail] = {"stream": name}
        if asked.state:
            details["state"] = asked.state
        event = Event(EventType.SIGNAL_VERIFICATION, self._clock.now().wall_ms, Outcome.ALLOWED, details=details)
        try:
            await self._events.record(event)
        except Refusal:
            raise web.HTTPServiceUnavailable from None
        return web.Response(status=204)

    async def _poll(self, request: web.Request) -> web.Response:
        name = self._whose(request)
        offer = self._offers.get(name)
        if offer is None or request.match_info["name"] != name:
            raise web.HTTPNotFound
        asked = await _read(request, _Poll)
        refused = {one: str(why.get("err", ""))[:64] for one, why in list(asked.set_errs.items())[:CODES_MAX]}
        count_max = max(0, min(asked.max_events, POLL_MAX))
        try:
            tokens, more = await offer.poll(count_max, asked.ack[:CODES_MAX], refused, self._clock.now().wall_ms)
            if not tokens and count_max and not asked.return_immediately and name not in self._waiting:
                tokens, more = await self._later(name, offer, count_max)
        except Refusal:
            raise web.HTTPServiceUnavailable from None
        return web.json_response({"sets": tokens, "moreAvailable": more})

    async def _later(self, name: str, offer: OfferSignals, count_max: int) -> tuple[dict[str, str], bool]:
        """What comes while the receiver waits (RFC 8936, section 2.5); of one stream, one question waits at a time.

        Raises:
            Refusal: STORE_UNAVAILABLE, OVERLOADED.
        """
        deadline = asyncio.get_running_loop().time() + LONG_POLL_SECONDS
        self._waiting.add(name)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        await offer.more()
                except TimeoutError:
                    return {}, False
                found = await offer.poll(count_max, (), {}, self._clock.now().wall_ms)
                if found[0]:
                    return found
        finally:
            self._waiting.discard(name)

    def _whose(self, request: web.Request) -> str:
        """The stream whose receiver this is: each has a bearer token of its own."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for name in self._streams:
                try:
                    expected = self._bearer_of(name)
                except OSError:
                    continue
                if expected is not None and is_bearer(shown, expected):
                    if request.query.get("stream_id", name) != name:
                        raise web.HTTPNotFound
                    return name
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": _challenge(shown)})


def _challenge(shown: str) -> str:
    """What a 401 asks for; an error is named where a token was shown (RFC 6750, section 3.1)."""
    return 'Bearer error="invalid_token"' if shown.strip() else "Bearer"


def _constant(document: Mapping[str, object]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(document)

    return answer


async def _read(request: web.Request, shape: type[T]) -> T:
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            return msgspec.json.decode(await request.read() or b"{}", type=shape)
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text="the body is not the JSON object that is asked for here") from None
