"""Puts the console together: every route, what surrounds each request, and how a refusal is answered.

In this order: host, route, session, form (where it comes from, and its token), page. What fails is recorded where
somebody is signed in, and answered with a page that says what to do; a fault of ours is answered without its text.
"""

import asyncio
import traceback
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from leasehold_broker.console.browser import (
    QUESTION_COOKIE,
    QUESTION_SECONDS,
    SESSION_COOKIE,
    QuestionSeal,
    cookie,
    dress,
    drop_cookie,
    is_ours,
    set_cookie,
)
from leasehold_broker.console.parts import Desk, Form, Recorder, SignedOutError, Visit
from leasehold_broker.console.reading import Reading
from leasehold_broker.console.rendering import Rendering
from leasehold_broker.console.revoking import Revoking
from leasehold_broker.console.saml_pages import SamlPages
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.domain.console_sessions import SessionEnd
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Reason, Refusal
from leasehold_broker.domain.sign_in_brake import SignInBrake
from leasehold_broker.flows.console_sign_in import ConsoleSignIn
from leasehold_broker.flows.saml_sign_in import SamlSignIn
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.openid_provider import SignInQuestion

FORM_BYTES_MAX = 60 * 1024
"""A SAML response and its relay state; every other field has a bound of its own."""
_STATUS = {
    Reason.OPERATOR_NOT_ALLOWED: 403,
    Reason.METADATA_MISSING: 403,
    Reason.EXPECTED_COUNT_MISMATCH: 409,
    Reason.REQUEST_ID_REUSED: 409,
    Reason.REVOCATION_NOT_FOUND: 404,
    Reason.ROTATION_NOT_FOUND: 404,
    Reason.ROUTE_NOT_ALLOWED: 404,
    Reason.STORE_UNAVAILABLE: 503,
    Reason.OVERLOADED: 503,
    Reason.CONCURRENCY_EXCEEDED: 503,
    Reason.KEYS_OF_ISSUER_UNAVAILABLE: 503,
    Reason.KEY_UNAVAILABLE: 503,
}
_log = structlog.get_logger("leasehold.console")

Page = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]
Action = Callable[[web.Request, Visit, Form], Awaitable[web.StreamResponse]]
Streaming = Callable[[asyncio.BaseTransport | None], None]


@dataclass(frozen=True, slots=True)
class Behind:
    """What stands behind the console.

    Args:
        sign_in: sessions.
        openid: people may sign in at the OpenID provider.
        saml: or by SAML; None: not.
        desk: operators' methods.
        roles_of: of a verified identity.
        peer_of: who is at the other end of a connection. Raises Refusal.
        recorder: of refusals.
        streaming: told the transport of an answer that goes on.
        clock, entropy: time, request ids, and the key of this process.
    """

    sign_in: ConsoleSignIn
    openid: bool
    saml: SamlSignIn | None
    desk: Desk
    roles_of: Callable[[Identity], frozenset[Role]]
    peer_of: Callable[[asyncio.BaseTransport | None], Peer]
    recorder: Recorder
    streaming: Streaming
    clock: Clock
    entropy: Entropy


class ConsoleDoor:
    """The application."""

    def __init__(self, origin: str, behind: Behind, surround: Sequence[Middleware] = ()) -> None:
        """Build it; nothing listens yet.

        Args:
            origin: as browsers see it, "https://console.example".
            behind: what it needs.
            surround: what is around every request, outermost first.
        """
        self._origin = origin
        self._host = urlsplit(origin).netloc
        self._behind = behind
        self._seal = QuestionSeal(behind.entropy.bytes(32))
        self._brake = SignInBrake()
        self._rendering = Rendering()
        self.app = web.Application(client_max_size=FORM_BYTES_MAX, middlewares=[*surround, self._middleware()])
        self.app.on_response_prepare.append(_dressed)
        self._add_routes()

    def _add_routes(self) -> None:
        add = self.app.router.add_route
        add("GET", "/static/{name}", self._static)
        if self._behind.openid:
            add("GET", "/sign-in", self._ask)
            add("GET", "/signed-in", self._answer)
        if self._behind.saml is not None:
            saml = SamlPages(self._behind.saml, self._seal, self._behind.clock, self._enter)
            for (method, path), handler in saml.pages().items():
                add(method, path, handler)
        add("POST", "/sign-out", self._acting(self._sign_out))
        reading = Reading(self._rendering, self._behind.desk, self._behind.streaming, self._behind.clock)
        for path, page in reading.pages().items():
            add("GET", path, self._reading(page))
        revoking = Revoking(self._rendering, self._behind.desk, self._behind.streaming, self._request_id)
        for path, page in revoking.pages().items():
            add("GET", path, self._reading(page))
        for path, action in revoking.actions().items():
            add("POST", path, self._acting(action))

    def _middleware(self) -> Middleware:
        @web.middleware
        async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._run(request, handler)

        return answered

    async def _run(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Another name for this address would be another site's way in (DNS rebinding).
        if request.headers.getall("Host", []) != [self._host]:
            return self._error(421, "This console has another name.", f"Open {self._origin} instead.")
        try:
            return await handler(request)
        except SignedOutError:
            return self._signed_out()
        except Refusal as refusal:
            return self._refused(refusal)
        except web.HTTPException as refused:
            if refused.status < 400:
                raise
            return self._error(refused.status, refused.reason, "Go back, or begin at the overview.")
        except Exception as fault:  # noqa: BLE001 - the border of the process: no fault's text may leave it
            frames = traceback.extract_tb(fault.__traceback__)[-4:]
            _log.error(
                "page failed",
                route=str(request.match_info.route.resource and request.match_info.route.resource.canonical),
                fault=type(fault).__name__,
                frames=[f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames],
            )
            return self._error(500, "That did not work.", "It is in the collector's log. Try again.")

    def _reading(self, page: Page) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await page(request, await self._visit(request))

        return handle

    def _acting(self, action: Action) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            visit = await self._visit(request)
            try:
                form = await self._form(request, visit)
            except Refusal as refusal:
                method = f"console {request.method} {request.match_info.route.resource.canonical}"  # type: ignore[union-attr]
                await self._behind.recorder.rpc_refused(method, refusal, visit.identity, visit.peer, self._request_id())
                raise
            return await action(request, visit, form)

        return handle

    async def _visit(self, request: web.Request) -> Visit:
        identifier = cookie(request, SESSION_COOKIE)
        peer = self._behind.peer_of(request.transport)
        # What goes on by itself keeps no session alive.
        session = await self._behind.sign_in.find(identifier, peer, used=not request.path.endswith("/live"))
        if session is None:
            raise SignedOutError

        async def alive() -> None:
            if await self._behind.sign_in.find(identifier, peer, used=False) is None:
                raise SignedOutError

        return Visit(session.identity, self._behind.roles_of(session.identity), peer, session.csrf, alive)

    async def _form(self, request: web.Request, visit: Visit) -> Form:
        if not is_ours(request, self._origin):
            raise Refusal(
                Reason.METADATA_MISSING,
                "this did not come from a page of the console; nothing was done",
                detail="Origin or Sec-Fetch-Site of another site",
            )
        if request.content_type != "application/x-www-form-urlencoded":
            raise Refusal(Reason.CONTENT_TYPE_NOT_ALLOWED, "a form was expected; nothing was done")
        fields = [(name, value) for name, value in (await request.post()).items() if isinstance(value, str)]
        form = Form(fields)
        if not visit.matches(form.text("csrf")):
            raise Refusal(
                Reason.METADATA_MISSING,
                "this form is of another session; reload the page and look again; nothing was done",
                detail="the form's token is missing or another session's",
            )
        return form

    async def _ask(self, _request: web.Request) -> web.StreamResponse:
        question, address = await self._behind.sign_in.ask()
        response = web.Response(status=303, headers={"Location": address})
        words = (question.state, question.nonce, question.verifier)
        sealed = self._seal.seal(QUESTION_COOKIE, words, self._behind.clock.now().wall_ms)
        set_cookie(response, QUESTION_COOKIE, sealed, QUESTION_SECONDS)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        answer = dict(request.query)
        once = len(answer) == len(request.query)
        asked = self._seal.open(
            QUESTION_COOKIE, cookie(request, QUESTION_COOKIE), answer.get("state", ""), self._behind.clock.now().wall_ms
        )
        if asked is None or not once:
            # Nobody of this browser asked: there is no one to tell about, and nothing was sent anywhere.
            return self._error(400, "This sign-in was not begun here, or too long ago.", "Sign in again.")
        question = SignInQuestion(*asked)
        response = await self._enter(
            request,
            "console GET /signed-in",
            lambda peer, replaced: self._behind.sign_in.answer(question, answer, peer, replaced),
        )
        drop_cookie(response, QUESTION_COOKIE)
        return response

    async def _enter(
        self,
        request: web.Request,
        method: str,
        sign_in: Callable[[Peer, str], Awaitable[tuple[str, object]]],
    ) -> web.Response:
        """Sign in; whoever is refused is told and recorded, and whatever session there was goes on."""
        peer = self._behind.peer_of(request.transport)
        address, now = request.remote or "", self._behind.clock.now()
        if self._brake.is_spent(address, now):
            return self._error(429, "Too many sign-ins from here were refused.", "Wait a minute, then sign in again.")
        try:
            identifier, _ = await sign_in(peer, cookie(request, SESSION_COOKIE))
        except Refusal as refusal:
            if self._brake.refused(address, now):
                refusal.detail += "; more from here are turned away for a while, without an event each"
            await self._behind.recorder.rpc_refused(method, refusal, None, peer, self._request_id())
            return self._refused(refusal)
        response = web.Response(status=303, headers={"Location": "/"})
        set_cookie(response, SESSION_COOKIE, identifier)
        return response

    async def _sign_out(self, request: web.Request, _visit: Visit, _form: Form) -> web.StreamResponse:
        await self._behind.sign_in.end(cookie(request, SESSION_COOKIE), SessionEnd.ASKED)
        response = self._signed_out(200)
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response

    async def _static(self, request: web.Request) -> web.StreamResponse:
        found = self._rendering.static.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return web.Response(body=found[0], headers={"Content-Type": found[1], "Cache-Control": "max-age=3600"})

    def _signed_out(self, status: int = 401) -> web.Response:
        response = _html(
            self._rendering.page("signed_out.html", openid=self._behind.openid, saml=self._behind.saml is not None),
            status,
        )
        drop_cookie(response, SESSION_COOKIE)
        return response

    def _refused(self, refusal: Refusal) -> web.Response:
        reason = Reason.IDENTITY_REJECTED if refusal.reason in IDENTITY_REASONS else refusal.reason
        status = _STATUS.get(refusal.reason, 401 if refusal.reason in IDENTITY_REASONS else 400)
        fields = "; ".join(f"{one.subject}: {one.description}" for one in refusal.violations)
        return self._error(status, refusal.message, fields, reason.value)

    def _error(self, status: int, what: str, then: str, reason: str = "") -> web.Response:
        return _html(self._rendering.page("error.html", what=what, then=then, reason=reason), status)

    def _request_id(self) -> str:
        return str(uuid.UUID(bytes=self._behind.entropy.bytes(16), version=4))


async def _dressed(_request: web.Request, response: web.StreamResponse) -> None:
    dress(response.headers)


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status)
