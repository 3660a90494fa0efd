"""What a token endpoint hands out. Owns the checks of an ID token (OpenID Connect Core, 3.1.3.7 and 12.2).

Its signature is the collector's to check, which believes nothing that is checked here.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leasehold._identity import TOKEN_SHAPE
from leasehold.signin.asking import Answer, failed
from leasehold.signin.issuer import Client

SKEW_SECONDS = 60
SECONDS_MAX = 2**40


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one sign-in. None of it is ever shown.

    Args:
        bearer: what the collector is shown: a JWT.
        refresh: gets the next one; "" where none was given.
        subject: of the ID token.
        expires: end of the bearer's life, Unix seconds.
    """

    bearer: str = field(repr=False)
    refresh: str = field(repr=False)
    subject: str
    expires: int


def tokens_of(answer: Answer, client: Client, now: int, *, nonce: str | None, before: Tokens | None = None) -> Tokens:
    """The tokens of an answer of the token endpoint.

    Args:
        answer: of status 200.
        client: that asked.
        now: Unix seconds.
        nonce: that the ID token must hold; None: none was sent.
        before: on a refresh: what is refreshed. The subject must be the same; what is not handed out anew stays.

    Raises:
        IdentityRejected: a token is missing, or not for us, or its time is over.
    """
    if answer.text("token_type").lower() != "bearer":
        raise failed("the issuer's token is bound to a key (its token_type is not Bearer), which we do not have")
    id_token, access_token = answer.text("id_token"), answer.text("access_token")
    subject = before.subject if before is not None else ""
    if id_token or before is None or not client.resource:
        subject = _subject_of(id_token, client, now, nonce)
    if before is not None and subject != before.subject:
        raise failed("the issuer renewed the session of another subject than the one who signed in")
    bearer = access_token if client.resource else id_token
    what = "access token" if client.resource else "ID token"
    if not TOKEN_SHAPE.fullmatch(bearer):
        message = f"the issuer's {what} is no JWT, so the collector could not verify it"
        raise failed(message)
    expires = _expires(claims_of(bearer), now, what)
    refresh = answer.text("refresh_token") or (before.refresh if before is not None else "")
    return Tokens(bearer, refresh, subject, expires)


def claims_of(token: str) -> Mapping[str, Any]:
    """What a JWT says, unverified.

    Raises:
        IdentityRejected: it is no JWT.
    """
    return _part(token, 1)


def _part(token: str, index: int) -> Mapping[str, Any]:
    try:
        part = token.split(".")[index]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise failed("the issuer's token cannot be read as a JWT")
    return found


def _subject_of(id_token: str, client: Client, now: int, nonce: str | None) -> str:
    if not id_token:
        raise failed("the issuer gave no ID token; the scope openid is needed")
    header, claims = _part(id_token, 0), claims_of(id_token)
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") != "jwt" or header.get("alg") == "none":
        raise failed("what the issuer gave as ID token is another kind of token, or not signed")
    if claims.get("iss") != client.issuer:
        raise failed("the ID token is of another issuer")
    if claims.get("aud") not in (client.client_id, [client.client_id]):
        raise failed("the ID token is not for this client alone")
    if claims.get("azp", client.client_id) != client.client_id:
        raise failed("the ID token was issued to another client")
    if nonce is not None and claims.get("nonce") != nonce:
        raise failed("the ID token is not of this sign-in (its nonce differs)")
    issued = claims.get("iat")
    if type(issued) is not int or issued > now + SKEW_SECONDS:
        raise failed("the ID token says no time of issue, or one that is ahead; check this machine's clock")
    _expires(claims, now, "ID token")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise failed("the ID token names no subject")
    return subject


def _expires(claims: Mapping[str, Any], now: int, what: str) -> int:
    expires = claims.get("exp")
    if type(expires) is not int or not now - SKEW_SECONDS < expires < SECONDS_MAX:
        message = f"the {what} has no end, or is over already; check this machine's clock"
        raise failed(message)
    return expires
