"""Two public suites for HTTP/1.1 servers, over a raw socket: whatever is sent, the origin gets one request or none."""

import json
from pathlib import Path

import pytest
from tests.egress.hostile import BODY, HEADERS, LINE, SECOND
from tests.fakes.egress import TOKEN, running

FOLDER = Path(__file__).parent.parent / "vectors" / "smuggling"
PROBES = json.loads((FOLDER / "http11probe.json").read_text("utf-8"))
GUARDIAN = json.loads((FOLDER / "desync_guardian.json").read_text("utf-8"))
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def payload(parts):
    """The bytes of a case: a text, or texts and [text, count] in turn; marks stand for what is ours."""
    pieces = [parts] if isinstance(parts, str) else parts
    text = "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces).encode("latin-1")
    text = text.replace(b"<POST>", LINE + b"<HEADERS>").replace(b"<HEADERS>", HEADERS)
    return text.replace(b"TOKEN", TOKEN.encode())


def field(name, value):
    """One header line as the suite means it."""
    line = f"{name}: {value}\r\n"
    try:
        return line.encode("latin-1")
    except UnicodeEncodeError:
        return line.encode("utf-8")


async def outcome(world, data):
    """How many requests of a payload reach the origin, and what comes back before the connection is closed."""
    before = len(world.origin.requests)
    answer = await world.exchange(data.replace(b"HOST", world.host))
    world.clients.pop().close()
    return len(world.origin.requests) - before, answer.removeprefix(CONTINUE)


async def test_http11probe():
    """Exactly the well-formed requests go upstream, once; each other is answered once with a 4xx or 505, and closes."""
    assert len(PROBES) == 148
    async with running() as world:
        for name, case in PROBES.items():
            data = payload(case["bytes"])
            count, answer = await outcome(world, data + SECOND + SECOND)
            assert count == case.get("upstream", 0), name
            assert answer.count(b"leasehold-request-id: ") == 1, name
            assert answer[9:12] == b"200" if count else answer[9:10] == b"4" or answer[9:12] == b"505", (name, answer)


@pytest.mark.parametrize("tier", ["severe", "ambiguous"])
async def test_desync_guardian(tier):
    """No request of the tiers that a proxy must not forward reaches the origin, with our headers before or behind."""
    cases = [case for case in GUARDIAN if case["tier"] == tier]
    assert len(cases) == {"severe": 27, "ambiguous": 40}[tier]
    async with running() as world:
        for case in cases:
            method, version = case.get("method", "POST"), case.get("version", "HTTP/1.1")
            start = f"{method} /fake/v1/messages {version}".rstrip().encode() + b"\r\n"
            headers = b"".join(field(*pair) for pair in case["headers"])
            for both in (HEADERS + headers, headers + HEADERS):
                count, answer = await outcome(world, start + both + b"\r\n" + BODY + SECOND + SECOND)
                assert count == 0, case["name"]
                assert answer.count(b"leasehold-request-id: ") == 1, case["name"]
                assert answer[9:10] == b"4" or answer[9:12] == b"505", case["name"]
        assert world.origin.requests == []
