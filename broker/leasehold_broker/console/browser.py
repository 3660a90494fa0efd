"""What is said to a browser, and what of its words is believed: cookies, headers, where a request comes from."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence

from aiohttp import web
from multidict import CIMultiDict

SESSION_COOKIE = "__Host-leasehold"
QUESTION_COOKIE = "__Host-leasehold-question"
QUESTION_SECONDS = 600
COOKIE_CHARACTERS_MAX = 2048
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not "no-referrer": with that a browser says "Origin: null" in a form, which is then nobody's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Strict-Transport-Security": "max-age=31536000",
}
NO_STORE = "no-store"


def dress(headers: "CIMultiDict[str]") -> None:
    """Give an answer the headers that every answer has."""
    for name, value in HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", NO_STORE)
    headers["Server"] = "leasehold"


def set_cookie(
    response: web.StreamResponse, name: str, value: str, seconds: int | None = None, same_site: str = "Lax"
) -> None:
    """Of this host alone, over TLS alone, for no script. Lax: an identity provider sends people back with a GET.

    "None" is for what must come with its POST, and authorizes nothing.
    """
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite=same_site)


def drop_cookie(response: web.StreamResponse, name: str, same_site: str = "Lax") -> None:
    """Have the browser forget it."""
    response.del_cookie(name, path="/", secure=True, httponly=True, samesite=same_site)


def cookie(request: web.Request, name: str) -> str:
    """A cookie; "" when there is none, or none that we would set."""
    value = request.cookies.get(name, "")
    return value if len(value) <= COOKIE_CHARACTERS_MAX and value.isascii() else ""


def is_ours(request: web.Request, origin: str) -> bool:
    """A form of a page of ours, as far as the browser says; a page elsewhere cannot make it say so."""
    if request.headers.getall("Origin", []) != [origin]:
        return False
    return request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


class QuestionSeal:
    """What was asked of the identity provider is kept by the browser that asks, sealed: here it needs no room."""

    def __init__(self, key: bytes) -> None:
        """Seal with this key, of this process alone."""
        self._key = key

    def seal(self, purpose: str, words: Sequence[str], wall_ms: int) -> str:
        """For the cookie of that purpose; the first word is what the answer must bring back."""
        raw = json.dumps([*words, wall_ms]).encode()
        return f"{_text(raw)}.{_text(self._tag(purpose, raw))}"

    def open(self, purpose: str, cookie_value: str, unverified_first: str, wall_ms: int) -> tuple[str, ...] | None:
        """The words, when they are ours, for this purpose, not old, and the answer's first one is theirs; else None."""
        body, _, tag = cookie_value.partition(".")
        try:
            raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            given = base64.urlsafe_b64decode(tag + "=" * (-len(tag) % 4))
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(self._tag(purpose, raw), given):
            return None
        *words, sealed_ms = json.loads(raw)
        if not 0 <= wall_ms - sealed_ms <= QUESTION_SECONDS * 1000:
            return None
        first = unverified_first.encode("utf-8", "surrogatepass")
        return tuple(words) if hmac.compare_digest(words[0].encode(), first) else None

    def _tag(self, purpose: str, raw: bytes) -> bytes:
        return hmac.new(self._key, purpose.encode() + b"\0" + raw, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
