"""How an issuer is asked. Owns TLS, bounds and the reading of answers; follows no redirect and uses no plain HTTP.

Plain HTTP is for an issuer on a loopback address alone. What an issuer says is shown only where it is short and
printable: a terminal obeys control characters.
"""

import base64
import ipaddress
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from leasehold.errors import ISSUER_UNREACHABLE, SIGN_IN_FAILED, IdentityRejected, Unavailable

ANSWER_BYTES_MAX = 262_144
SILENCE_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 20.0
WORDS_MAX = 200
_TOO_MANY, _BROKEN = 429, 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What an issuer answered: a status and a JSON object."""

    status: int
    body: Mapping[str, Any] = field(repr=False)

    def text(self, name: str, characters_max: int = 16_384) -> str:
        """A member that is text of visible ASCII; "" when it is missing.

        Raises:
            IdentityRejected: it is anything else.
        """
        value = self.body.get(name, "")
        if not isinstance(value, str) or len(value) > characters_max or not is_visible(value):
            message = f"the issuer's answer has a {name!r} that is no text of visible ASCII"
            raise failed(message)
        return value

    def seconds(self, name: str, default: int) -> int:
        """A member that is a number of seconds.

        Raises:
            IdentityRejected: it is anything else.
        """
        value = self.body.get(name, default)
        if type(value) is not int or not 0 < value < 2**31:
            message = f"the issuer's answer has a {name!r} that is no number of seconds"
            raise failed(message)
        return value

    def error(self) -> str:
        """The error in the issuer's words, safe to show: "invalid_grant: the code has expired"."""
        parts = (self.body.get(name) for name in ("error", "error_description"))
        return ": ".join(shown(part) for part in parts if isinstance(part, str) and part) or f"status {self.status}"


def failed(what: str) -> IdentityRejected:
    """Signing in did not work, in one sentence without its full stop; never holds a token."""
    return IdentityRejected(f"{what}.", reason=SIGN_IN_FAILED)


def shown(words: str) -> str:
    """Somebody else's words, so that a terminal can show them: printable and short."""
    return "".join(sign if sign.isprintable() else "?" for sign in words[:WORDS_MAX])


def is_visible(text: str) -> bool:
    """Visible ASCII alone; "" is."""
    return all("!" <= sign <= "~" for sign in text)


def url_wrong(url: str, *, loopback: bool) -> str | None:
    """What is wrong with an address that is to be asked or opened; None when it holds.

    Args:
        url: as given.
        loopback: plain HTTP to a loopback address is fine.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        return "cannot be read"
    if not is_visible(url) or not parts.hostname or "@" in parts.netloc or "#" in url:
        return "must be visible ASCII with a host, and have neither a user nor a fragment"
    if parts.scheme == "https" or (loopback and parts.scheme == "http" and is_loopback(parts.hostname)):
        return None
    return "must be https (plain http is for loopback addresses alone)"


def is_loopback(host: str) -> bool:
    """An address of this machine; names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ask(url: str, form: Sequence[tuple[str, str]] | None = None, credentials: tuple[str, str] | None = None) -> Answer:
    """GET, or POST of a form; a refusal is an answer too, as long as it is a JSON object.

    Args:
        url: whom; `url_wrong` has looked at it.
        form: what is posted.
        credentials: client id and secret (RFC 6749, section 2.3.1).

    Raises:
        Unavailable: no answer, or that it cannot answer now.
        IdentityRejected: a redirect, or no JSON object, or more than 256 KiB.
    """
    data = None if form is None else urllib.parse.urlencode(form).encode("ascii")
    headers = {"Accept": "application/json"}
    if credentials is not None:
        both = ":".join(map(urllib.parse.quote_plus, credentials)).encode("ascii")
        headers["Authorization"] = f"Basic {base64.b64encode(both).decode('ascii')}"
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - url_wrong has looked
    where = urllib.parse.urlsplit(url).netloc
    try:
        with _opener(url).open(request, timeout=SILENCE_SECONDS_MAX) as answer:
            return _read(answer.status, answer, where)
    except urllib.error.HTTPError as error:
        with error:
            return _read(error.code, error, where)
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        message = f"cannot reach the issuer at {where}: {shown(str(why))}."
        raise Unavailable(message, reason=ISSUER_UNREACHABLE) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An issuer that sends us elsewhere would send the code and the refresh token elsewhere."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect is an answer like any."""


def _opener(url: str) -> urllib.request.OpenerDirector:
    # A proxy of the environment sees of https where it goes; of http it would see everything.
    proxies = urllib.request.ProxyHandler(None if url.startswith("https://") else {})
    return urllib.request.build_opener(proxies, _NoRedirect)


def _read(status: int, answer: Any, where: str) -> Answer:
    until = time.monotonic() + ANSWER_SECONDS_MAX
    raw = bytearray()
    while part := answer.read1(65_536):
        raw += part
        if len(raw) > ANSWER_BYTES_MAX or time.monotonic() > until:
            message = f"the issuer at {where} sent more than 256 KiB, or took more than {ANSWER_SECONDS_MAX:g} s"
            raise failed(message)
    if 300 <= status < 400:
        message = f"the issuer at {where} redirects, which is not followed: give the address that it redirects to"
        raise failed(message)
    if status == _TOO_MANY or status >= _BROKEN:
        message = f"the issuer at {where} answered with status {status}."
        raise Unavailable(message, reason=ISSUER_UNREACHABLE)
    if status == 200 and not raw:
        return Answer(status, {})  # RFC 7009, section 2.2: a revocation has no body
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        message = f"the issuer at {where} answered with status {status} and no JSON object"
        raise failed(message)
    return Answer(status, body)
