"""Signing in with a browser: authorization code and PKCE (RFC 6749, 4.1; RFC 7636).

`sign_in` is for a browser on this machine (RFC 8252). A web server asks with `question` and ends with `redeem`.
"""

import base64
import hashlib
import secrets
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from leasehold.signin.asking import ask, failed, shown
from leasehold.signin.issuer import Client, Issuer
from leasehold.signin.loopback import redirect
from leasehold.signin.tokens import Tokens, tokens_of

OFFLINE = "offline_access"


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, to hold the answer against.

    Args:
        redirect_uri: where the answer comes.
        state: that the answer must hold.
        nonce: that the ID token must hold.
        verifier: proves that the code is redeemed by who asked.
    """

    redirect_uri: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    @classmethod
    def fresh(cls, redirect_uri: str) -> "Question":
        """Never asked before."""
        return cls(redirect_uri, *(secrets.token_urlsafe(32) for _ in range(3)))

    def address(self, issuer: Issuer, client: Client) -> str:
        """What the browser must open.

        Raises:
            IdentityRejected: the issuer has no such page.
        """
        if not issuer.authorization_endpoint:
            raise failed("this issuer has no page to sign in at; try --device")
        asked = [
            *(("response_type", "code"), ("redirect_uri", self.redirect_uri)),
            *(("state", self.state), ("nonce", self.nonce)),
            *(("code_challenge", _challenge(self.verifier)), ("code_challenge_method", "S256")),
            *client.form(),
            # OpenID Connect Core, section 11: without it the scope is to be ignored.
            *([("prompt", "consent")] if OFFLINE in client.scopes else []),
        ]
        mark = "&" if "?" in issuer.authorization_endpoint else "?"
        return f"{issuer.authorization_endpoint}{mark}{urllib.parse.urlencode(asked)}"


def sign_in(
    issuer: Issuer, client: Client, show: Callable[[str], None], *, port: int = 0, wait_seconds: float = 300.0
) -> Tokens:
    """Have somebody sign in with a browser.

    Args:
        issuer: as discovered.
        client: as whom.
        show: is given the address that the browser must open.
        port: of the redirect address; 0 for any.
        wait_seconds: for the person.

    Raises:
        IdentityRejected: it did not come to that; nothing is kept. Unavailable: the issuer does not answer.
    """
    asked = Question.fresh("")
    with redirect(asked.state, port) as here:
        asked = Question(here.uri, asked.state, asked.nonce, asked.verifier)
        show(asked.address(issuer, client))
        answer = here.answer(wait_seconds)
    return redeem(issuer, client, asked, answer)


def redeem(issuer: Issuer, client: Client, asked: Question, answer: Mapping[str, str]) -> Tokens:
    """The tokens for an answer whose state is the question's.

    Raises:
        IdentityRejected: the issuer said no, or answered as another one. Unavailable: it does not answer.
    """
    code = _code_of(issuer, answer)
    form = [
        *(("grant_type", "authorization_code"), ("code", code), ("redirect_uri", asked.redirect_uri)),
        *(("code_verifier", asked.verifier), ("client_id", client.client_id)),
        *([("resource", client.resource)] if client.resource else []),
    ]
    found = ask(issuer.token_endpoint, form, client.credentials)
    if found.status != 200:
        message = f"the issuer gave no token: {found.error()}"
        raise failed(message)
    return tokens_of(found, client, int(time.time()), nonce=asked.nonce)


def _code_of(issuer: Issuer, answer: Mapping[str, str]) -> str:
    # RFC 9207, section 2.4: another issuer's answer must not be taken to this one.
    stated = answer.get("iss")
    if stated != issuer.name and (stated is not None or issuer.states_itself):
        raise failed("the answer is not of the issuer that was asked (its iss is missing, or another's)")
    if "error" in answer:
        told = ": ".join(shown(answer[name]) for name in ("error", "error_description") if name in answer)
        message = f"the issuer signed nobody in: {told}"
        raise failed(message)
    if not answer.get("code"):
        raise failed("the issuer's answer has no code")
    return answer["code"]


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
