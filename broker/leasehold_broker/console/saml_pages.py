"""Signing in by SAML: the question, the response that the provider has the browser post, and who we are, as metadata.

The response comes from another site, with a cookie that is let through for it and holds nothing but what was asked.
"""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from leasehold_broker.console.browser import QUESTION_SECONDS, QuestionSeal, cookie, drop_cookie, set_cookie
from leasehold_broker.console.parts import Form
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.saml_sign_in import SamlSignIn
from leasehold_broker.ports.clock import Clock

SAML_COOKIE = "__Host-leasehold-saml"
RESPONSE_CHARACTERS_MAX = 48 * 1024
ACS = "/saml/acs"
METADATA = "/saml/metadata"

Enter = Callable[[web.Request, str, Callable[[Peer, str], Awaitable[tuple[str, object]]]], Awaitable[web.Response]]
"""Signs in with what a flow gives for the browser's connection and its old session, or answers with the refusal."""


class SamlPages:
    """See the module."""

    def __init__(self, sign_in: SamlSignIn, seal: QuestionSeal, clock: Clock, enter: Enter) -> None:
        """Ask `sign_in`; `enter` makes the session."""
        self._sign_in = sign_in
        self._seal = seal
        self._clock = clock
        self._enter = enter

    def pages(self) -> Mapping[tuple[str, str], Handler]:
        """By method and path."""
        return {
            ("GET", "/saml/sign-in"): self._ask,
            ("POST", ACS): self._answer,
            ("GET", METADATA): self._metadata,
        }

    async def _ask(self, _request: web.Request) -> web.StreamResponse:
        relay_state, request_id, address = self._sign_in.ask()
        response = web.Response(status=303, headers={"Location": address})
        sealed = self._seal.seal(SAML_COOKIE, (relay_state, request_id), self._clock.now().wall_ms)
        set_cookie(response, SAML_COOKIE, sealed, QUESTION_SECONDS, same_site="None")
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            posted = await request.post()
            fields = [(name, value) for name, value in posted.items() if isinstance(value, str)]
            form = Form(fields, RESPONSE_CHARACTERS_MAX)
        except Refusal:
            raise web.HTTPBadRequest from None
        asked = self._seal.open(
            SAML_COOKIE, cookie(request, SAML_COOKIE), form.text("RelayState"), self._clock.now().wall_ms
        )
        if asked is None:
            # No question of this browser: somebody else's sign-in, or one that the provider began by itself.
            raise web.HTTPBadRequest
        _, request_id = asked
        response = await self._enter(
            request,
            f"console POST {ACS}",
            lambda peer, replaced: self._sign_in.answer(form.text("SAMLResponse"), request_id, peer, replaced),
        )
        drop_cookie(response, SAML_COOKIE, same_site="None")
        return response

    async def _metadata(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._sign_in.metadata(), content_type="application/samlmetadata+xml")
