"""Signing in with a browser on this machine: authorization code and PKCE (RFC 6749, 4.1; RFC 7636; RFC 8252)."""

import base64
import hashlib
import secrets
import time
import urllib.parse
from collections.abc import Callable

from leasehold.signin.asking import ask, failed
from leasehold.signin.issuer import Client, Issuer
from leasehold.signin.loopback import redirect
from leasehold.signin.tokens import Tokens, tokens_of

OFFLINE = "offline_access"


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
    if not issuer.authorization_endpoint:
        raise failed("this issuer has no page to sign in at; try --device")
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    with redirect(state, port) as address:
        asked = [
            *(("response_type", "code"), ("redirect_uri", address.uri), ("state", state), ("nonce", nonce)),
            *(("code_challenge", _challenge(verifier)), ("code_challenge_method", "S256")),
            *client.form(),
            # OpenID Connect Core, section 11: without it the scope is to be ignored.
            *([("prompt", "consent")] if OFFLINE in client.scopes else []),
        ]
        mark = "&" if "?" in issuer.authorization_endpoint else "?"
        show(f"{issuer.authorization_endpoint}{mark}{urllib.parse.urlencode(asked)}")
        code = address.code(issuer, wait_seconds)
    form = [
        *(("grant_type", "authorization_code"), ("code", code), ("redirect_uri", address.uri)),
        *(("code_verifier", verifier), ("client_id", client.client_id)),
        *([("resource", client.resource)] if client.resource else []),
    ]
    answer = ask(issuer.token_endpoint, form)
    if answer.status != 200:
        message = f"the issuer gave no token: {answer.error()}"
        raise failed(message)
    return tokens_of(answer, client, int(time.time()), nonce=nonce)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
