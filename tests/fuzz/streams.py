"""Fuzz targets for what comes in pieces: event streams with their meters, HTTP requests, and HTTP/2 header blocks.

However bytes are cut, the same must come out. The first bytes of an input say where it is cut.
"""

# ruff: noqa: PT017 - a refusal is one of the good answers here, not the expected one

from collections.abc import Callable, Iterator
from itertools import pairwise

import httptools
from tests.fakes.hosts import PROVIDERS

from leasehold_broker.adapters.header_blocks import HEADER_BLOCK_BYTES_MAX, HEADERS_MAX, PREFACE_BYTES, HeaderBlocks
from leasehold_broker.domain.call import CallPlan
from leasehold_broker.domain.price import Usage
from leasehold_broker.egress.http1 import FramingError, RequestHead, RequestReader
from leasehold_broker.egress.limits import EgressLimits
from leasehold_broker.ports.provider import Json, Meter, Provider, Route
from leasehold_broker.providers.sse import SseReader

CUTS = 4
LIMITS = EgressLimits(
    head_bytes_max=2048, request_line_bytes_max=512, headers_max=20, body_bytes_max=1024, body_chunks_max=32
)
HTTP_REFUSALS = frozenset({400, 413, 414, 417, 431, 505})
HTTP_TEXT_MAX = 200

_ASKED: dict[str, Json] = {"stream_options": {"include_usage": True}}
_STREAMS: tuple[tuple[str, str, dict[str, Json]], ...] = (
    ("anthropic", "messages", {}),
    ("openai", "chat.completions", {}),
    ("openai", "chat.completions", _ASKED),
    ("openai", "responses", {}),
    ("gemini", "stream_generate_content", {}),
    ("cohere", "chat", {}),
    ("groq", "chat.completions", {}),
    ("mistral", "chat.completions", {}),
    ("openrouter", "chat.completions", {}),
    ("xai", "chat.completions", _ASKED),
)


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The content of an input, and the same content in pieces."""
    content = data[CUTS:]
    places = sorted({0, len(content), *(min(len(content), byte) for byte in data[:CUTS])})
    return content, [content[start:end] for start, end in pairwise(places)]


def _meters() -> Iterator[Callable[[str], Meter]]:
    for name, operation, body in _STREAMS:
        provider: Provider = PROVIDERS[name]
        model = "m" if name == "gemini" else None
        route = Route(operation, "POST", model, "/x", takes_body=True)
        plan = CallPlan(name, operation, "m", metered=True, stream=True)
        yield lambda kind, p=provider, r=route, c=plan, b=body: p.meter(r, c, b, kind)


_METERS = tuple(_meters())


def _metered(meter: Meter, parts: list[bytes]) -> tuple[bytes, Usage | None, bool]:
    shown = b"".join(meter.feed(part) for part in parts) + meter.finish()
    if meter.usage is not None:
        amounts = (meter.usage.input_tokens, meter.usage.output_tokens)
        assert all(amount >= 0 for amount in amounts), amounts
    return shown, meter.usage, meter.final


def _framed(parts: list[bytes], limit: int) -> tuple[list[tuple[bytes, bytes, bool]], bytes]:
    reader = SseReader(keep_raw=True, event_bytes_max=limit)
    events = [event for part in parts for event in reader.feed(part)]
    last = reader.finish()
    raw = b"".join(event.raw for event in (*events, *([last] if last else [])))
    return [(e.name, e.data, e.oversized) for e in (*events, *([last] if last else []))], raw + reader.take_raw()


def sse_meters(data: bytes) -> None:
    """Events, relayed bytes, usage and finality do not depend on the cuts, and no byte is lost or made up.

    After the cuts, one byte chooses what reads: the framing under a small bound or a large one, or a vendor's meter.
    """
    chosen = data[CUTS] % (2 + len(_METERS)) if len(data) > CUTS else 0
    content, parts = pieces(data[:CUTS] + data[CUTS + 1 :])
    if chosen < 2:
        limit = (48, 1 << 20)[chosen]
        events, raw = _framed([content], limit)
        assert raw == content
        assert (events, raw) == _framed(parts, limit)
        return
    meter = _METERS[chosen - 2]
    for kind in ("text/event-stream", "application/json"):
        whole = _metered(meter(kind), [content])
        assert whole == _metered(meter(kind), parts)
        assert kind == "text/event-stream" or whole[0] == content


Outcome = tuple[RequestHead | None, bytes | None, bytes, int]


def _read(parts: list[bytes]) -> Outcome:
    """Head, body, what follows, and the status of the refusal (0: none)."""
    reader = RequestReader(LIMITS)
    head: RequestHead | None = None
    body: bytes | None = None
    left = b""
    try:
        for part in parts:
            if body is not None:
                left += part
                continue
            reader.feed(part)
            head = head or reader.take_head()
            if head is not None:
                body = reader.take_body()
                left = bytes(reader._buffer) if body is not None else b""
    except FramingError as error:
        assert error.status in HTTP_REFUSALS
        assert len(error.refusal.message) <= HTTP_TEXT_MAX
        return None, None, b"", error.status
    return head, body, left, 0


class _Seen:
    """What another parser sees in the same bytes."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.messages = 0
        self.complete = 0

    def on_message_begin(self) -> None:
        """Another message begins."""
        self.messages += 1

    def on_url(self, url: bytes) -> None:
        """Target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name.decode().lower(), value.decode().rstrip(" ")))

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """The end of a message."""
        self.complete += 1


def _same_elsewhere(data: bytes, head: RequestHead, body: bytes) -> None:
    seen = _Seen()
    parser = httptools.HttpRequestParser(seen)
    parser.feed_data(data)
    target = head.path + (f"?{head.query}" if head.query else "")
    assert (seen.messages, seen.complete) == (1, 1)
    assert parser.get_method().decode() == head.method
    assert seen.url.decode().removesuffix("?") == target.removesuffix("?")
    assert dict(seen.headers) == head.headers
    assert seen.body == body


_KNOWN_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"})


def http_codec(data: bytes) -> None:
    """A request is read or refused alike however it is cut; what is read, another parser reads the same way."""
    content, parts = pieces(data)
    whole = _read([content])
    for cut in (parts, [bytes([byte]) for byte in content]):
        outcome = _read(cut)
        if whole[3] == 0:
            assert outcome == whole
        else:
            assert outcome[3] != 0
    head, body, left, _ = whole
    if head is None or body is None:
        return
    assert head.headers["host"]
    assert head.path.startswith("/")
    assert not (head.chunked and head.content_length is not None)
    if head.method in _KNOWN_METHODS:
        _same_elsewhere(content[: len(content) - len(left)], head, body)


def header_blocks(data: bytes) -> None:
    """Frames pass or end the connection whatever the pieces; what passes was counted, and little of it is kept."""
    content, cut = pieces(data)
    whole, parts = HeaderBlocks(), HeaderBlocks()
    for blocks in (whole, parts):
        assert blocks.allow(bytes(PREFACE_BYTES))
    allowed = whole.allow(content)
    assert all(parts.allow(piece) for piece in cut) is allowed
    assert len(whole._rest) <= HEADER_BLOCK_BYTES_MAX
    if allowed:
        assert whole._headers <= HEADERS_MAX
        assert whole._block_bytes <= HEADER_BLOCK_BYTES_MAX
