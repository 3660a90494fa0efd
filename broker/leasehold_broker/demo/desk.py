"""What the three voices of the stand-in share. Owns keys, pace, prompt caches and the book of what was served.

The book says what was *really* served, so that it can be held against what the broker charged; it knows keys by
fingerprint only.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

CACHE_TOKENS_MIN = 1024
CACHE_ENTRIES_MAX = 1024


class Problem(Exception):  # noqa: N818 - what a provider answers, not a fault of ours
    """An answer that is not a success."""

    def __init__(self, status: int, message: str) -> None:
        """Take HTTP status and words."""
        super().__init__(message)
        self.status = status
        self.message = message


class Reset(Exception):  # noqa: N818 - an order to the server, not a fault
    """The connection is to break here."""


@dataclass(slots=True)
class Tokens:
    """What one call really used; no token is counted twice, output includes reasoning."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0


@dataclass(slots=True)
class Served:
    """One line of the book.

    Args:
        provider, operation, model: what was called.
        key: fingerprint of the key that came; "" for none.
        stream: whether the answer was a stream.
        status: HTTP status that was answered.
        ended: "complete", "refused", "client_gone" or "reset".
        tokens: used until then.
    """

    provider: str
    operation: str
    key: str
    model: str = ""
    stream: bool = False
    status: int = 200
    ended: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    reset_after: int | None = None
    events: int = 0


class Voice(Protocol):
    """One vendor's wire format."""

    @property
    def name(self) -> str:
        """Name of the provider."""
        ...

    def credential(self, request: web.Request) -> str:
        """The key that the caller sent; "" for none."""
        ...

    def problem(self, status: int, message: str) -> dict[str, Any]:
        """An error in the vendor's shape."""
        ...


def fingerprint(key: str) -> str:
    """Names a key without showing it."""
    return hashlib.sha256(key.encode()).hexdigest()[:12] if key else ""


class Desk:
    """Checks keys, paces streams, remembers prompts, keeps the book."""

    def __init__(self, keys: Mapping[str, str], chunk_ms: int, journal: Path | None) -> None:
        """Serve with these keys, one per provider; write the book to `journal` as JSON lines, if given."""
        self._keys = dict(keys)
        self._pause_seconds = chunk_ms / 1000
        self._journal = journal
        self._seen: dict[str, None] = {}
        self._number = 0
        self.served: list[Served] = []

    def check_key(self, provider: str, presented: str) -> None:
        """Refuse any key but the provider's own.

        Raises:
            Problem: 401.
        """
        expected = self._keys.get(provider)
        if expected is None or not hmac.compare_digest(expected.encode(), presented.encode()):
            raise Problem(401, "invalid API key")

    def number(self) -> int:
        """For ids: rises by one."""
        self._number += 1
        return self._number

    def remembered(self, prefix: str) -> bool:
        """True when this prompt prefix came before; remembers it."""
        digest = hashlib.sha256(prefix.encode()).hexdigest()
        known = digest in self._seen
        self._seen[digest] = None
        while len(self._seen) > CACHE_ENTRIES_MAX:
            del self._seen[next(iter(self._seen))]
        return known

    def write_down(self, served: Served, ended: str) -> None:
        """Put a call into the book, once; later words about it are ignored."""
        if served.ended:
            return
        served.ended = ended
        self.served.append(served)
        if self._journal is not None:
            line = asdict(served)
            del line["reset_after"], line["events"]
            with self._journal.open("a") as file:
                file.write(json.dumps(line) + "\n")


class Stream:
    """One streamed answer, paced."""

    def __init__(self, desk: Desk, request: web.Request, served: Served, pause_seconds: float) -> None:
        """Answer this request."""
        self._desk = desk
        self._request = request
        self._served = served
        self._pause_seconds = pause_seconds
        self.response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})

    @classmethod
    async def open(cls, desk: Desk, request: web.Request, served: Served) -> "Stream":
        """Send the head."""
        served.stream = True
        stream = cls(desk, request, served, desk._pause_seconds)  # noqa: SLF001 - the pace is the desk's, the sleep ours
        await stream.response.prepare(request)
        return stream

    async def event(self, data: Any, name: str = "") -> None:
        """Send one event, at once.

        Raises:
            Reset: the prompt asked for a broken connection here.
            ConnectionResetError: the caller has gone.
        """
        served = self._served
        if served.reset_after is not None and served.events >= served.reset_after:
            raise Reset
        served.events += 1
        head = f"event: {name}\n" if name else ""
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        if self._request.transport is None or self._request.transport.is_closing():
            raise ConnectionResetError
        await self.response.write(f"{head}data: {text}\n\n".encode())

    async def pause(self) -> None:
        """Think before the next words."""
        await asyncio.sleep(self._pause_seconds)

    async def end(self) -> web.StreamResponse:
        """Everything was sent."""
        await self.response.write_eof()
        return self.response


async def body_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object.

    Raises:
        Problem: 400.
    """
    try:
        body = await request.json()
    except ValueError:
        raise Problem(400, "the body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Problem(400, "the body is not a JSON object")
    return body


def required(body: dict[str, Any], name: str, kind: type) -> Any:
    """A member that must be there.

    Raises:
        Problem: 400.
    """
    value = body.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Problem(400, f"{name}: field required")
    return value


def known_model(model: str, models: tuple[str, ...]) -> str:
    """The model, when it is served here.

    Raises:
        Problem: 404.
    """
    if model not in models:
        raise Problem(404, f"model: {model} does not exist")
    return model
