"""An admin API that speaks JSON. Owns where the admin key is written, what each status means, and every bound.

Nothing that a provider says is passed on beyond its status: an error may echo what it was sent. Redirects are not
followed; nothing is sent twice: repeating is for who knows what was done.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from leasehold_broker.adapters.whole_answer import Answer, NoAnswer, whole_answer
from leasehold_broker.domain.retry_after import retry_after_seconds
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider import UpstreamRequest
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState
from leasehold_broker.ports.upstream import Upstream

ASK_SECONDS_MAX = 20.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024
PAGES_MAX = 200
ABSENT = frozenset({404})

Reading = Callable[[], Awaitable[Secret]]
"""Reads a secret where it is kept. Raises ProviderKeyFault, LOGIN_REFUSED, when it cannot."""
Fields = Mapping[str, object]
_CODES = ("code", "type", "status", "reason")
_STATES = {
    401: (ProviderKeyState.LOGIN_REFUSED, "refuses the admin key; check that it lives, and the clocks"),
    403: (ProviderKeyState.DENIED, "denies this to the admin key; see deploy/keys/minters.md for what it needs"),
    404: (ProviderKeyState.MALFORMED, "knows nothing at this place; check the names in the configuration"),
    409: (ProviderKeyState.FAILING, "says that another change came between; try again"),
    429: (ProviderKeyState.RATE_LIMITED, "limits our rate"),
    507: (ProviderKeyState.FULL, "keeps no more keys; end one that nobody needs"),
}


@dataclass(frozen=True, slots=True)
class AdminPlace:
    """Where an admin API is and how it is spoken to.

    Args:
        who: the provider, for messages.
        origin: scheme and host.
        key_header: the header that carries the admin key, in lower case.
        key_prefix: what stands before it, e.g. b"Bearer ".
        headers: sent with every request.
        full_words: parts of an error's code by which this provider says that it keeps no more keys.
    """

    who: str
    origin: str
    key_header: str = "authorization"
    key_prefix: bytes = b"Bearer "
    headers: tuple[tuple[str, str], ...] = ()
    full_words: tuple[str, ...] = ("limit", "quota", "maximum", "too_many")


class AdminApi:
    """Asks one admin API, with an admin key that is read for each request and revealed while its header is written."""

    def __init__(self, upstream: Upstream, place: AdminPlace, admin: Reading) -> None:
        """Ask there; `upstream` knows the origin."""
        self._upstream = upstream
        self._place = place
        self._admin = admin

    async def ask(self, method: str, path: str, body: Fields | None = None) -> Fields:
        """The object that answers.

        Raises:
            ProviderKeyFault: an error status, no answer (it may have been done all the same), or no JSON object.
        """
        found = await self.look(method, path, body, absent=frozenset())
        assert found is not None  # noqa: S101 - without statuses that mean absence, there is an object or a fault
        return found

    async def look(
        self, method: str, path: str, body: Fields | None = None, absent: frozenset[int] = ABSENT
    ) -> Fields | None:
        """As `ask`; None where a status of `absent` says that there is no such thing."""
        answer = await self._answer(method, path, body)
        if answer.status in absent:
            return None
        if not 200 <= answer.status < 300:
            raise self.fault(answer.status, _codes(answer.body), answer.headers)
        if answer.status == 204 or not answer.body:
            return {}
        fields = _object(answer.body)
        if fields is None:
            raise self.malformed("did not answer with a JSON object")
        return fields

    async def pages(self, first: str, following: Callable[[Fields], str | None]) -> AsyncIterator[Fields]:
        """Every page of a list.

        Args:
            first: path of the first page.
            following: the path of the page after this one; None after the last.

        Raises:
            ProviderKeyFault: MALFORMED when the list does not end.
        """
        path = first
        for _ in range(PAGES_MAX):
            page = await self.ask("GET", path)
            yield page
            after = following(page)
            if after is None:
                return
            path = after
        raise self.malformed("lists more pages than anybody needs; end keys that nobody uses")

    def fault(
        self, status: int, codes: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> ProviderKeyFault:
        """What a status means, and the error's codes where they say more."""
        state, words = ProviderKeyState.FAILING, f"answers with a fault of its own (HTTP {status})"
        said = " ".join(codes).lower()
        if status in {400, 402, 403, 409, 422} and any(word in said for word in self._place.full_words):
            state, words = ProviderKeyState.FULL, "keeps no more keys; end one that nobody needs"
        elif status in _STATES:
            state, words = _STATES[status]
        elif 300 <= status < 400:
            state, words = ProviderKeyState.MALFORMED, "redirects, which is not followed; check the origin"
        elif 400 <= status < 500:
            state, words = (
                ProviderKeyState.MALFORMED,
                f"calls the request wrong (HTTP {status}); check the configuration",
            )
        known = headers or {}
        after = retry_after_seconds(known.get("retry-after", ""), known.get("date", ""))
        return ProviderKeyFault(state, f"{self._place.who} {words}", after)

    def malformed(self, what: str) -> ProviderKeyFault:
        """An answer that is not as documented."""
        return ProviderKeyFault(ProviderKeyState.MALFORMED, f"{self._place.who} {what}")

    def text(self, fields: object, *names: str) -> str:
        """The text at a path of members, which has to be there."""
        for name in names:
            fields = fields.get(name) if isinstance(fields, Mapping) else None
        if not isinstance(fields, str) or not fields:
            raise self.malformed("answered without " + ".".join(names))
        return fields

    def objects(self, fields: Fields, name: str) -> list[Fields]:
        """The objects of a list; an absent list is an empty one."""
        found = fields.get(name, [])
        if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
            raise self.malformed("answered with a list that is none: " + name)
        return found

    def secret(self, fields: object, *names: str) -> Secret:
        """The secret at a path of members."""
        text = self.text(fields, *names)
        # Asked before it is encoded: the error of a codec carries what it could not encode.
        try:
            return Secret(text.encode("ascii") if text.isascii() else b"")
        except ValueError:
            raise self.malformed("answered with a key that is none: " + ".".join(names)) from None

    def credential(self, admin: Secret, data: bytes) -> tuple[str, bytes]:
        """Name and value of the header by which a request with this body is believed."""
        del data
        return self._place.key_header, self._place.key_prefix + admin.reveal()

    async def _answer(self, method: str, path: str, body: Fields | None) -> Answer:
        place, admin = self._place, await self._admin()
        headers = (("accept", "application/json"), ("user-agent", "leasehold"), *place.headers)
        data = b""
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            headers = (("content-type", "application/json"), *headers)
        try:
            return await whole_answer(
                self._upstream,
                place.origin,
                UpstreamRequest(method, path, headers, data),
                lambda: self.credential(admin, data),
                seconds_max=ASK_SECONDS_MAX,
                bytes_max=ANSWER_BYTES_MAX,
            )
        except NoAnswer as none:
            message = f"{place.who} at {place.origin} {none}; whether it did what was asked is not known"
            raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, message) from None


def part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _object(body: bytes) -> Fields | None:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, Mapping) else None


def _codes(body: bytes) -> list[str]:
    """The codes of an error, wherever a provider puts them; its sentences are not read."""
    fields = _object(body) or {}
    error = fields.get("error", fields)
    found = [error.get(name) for name in _CODES] if isinstance(error, Mapping) else [error]
    return [code for code in found if isinstance(code, str) and len(code) <= 100]
