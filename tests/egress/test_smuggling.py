"""Public smuggling collections over a raw socket: whatever is sent, the origin gets one request or none."""

import json
from pathlib import Path

import pytest
from tests.egress.hostile import LINE, SECOND
from tests.fakes.egress import TOKEN, running

TABLE = json.loads((Path(__file__).parent.parent / "vectors" / "smuggling" / "techniques.json").read_text("utf-8"))
HEADERS = b"host: HOST\r\nx-api-key: " + TOKEN.encode() + b"\r\ncontent-type: application/json\r\nconnection: close\r\n"
BODY = b'{"model":"m"}'
CHUNKS = b"d\r\n" + BODY + b"\r\n0\r\n\r\n"
HARMLESS = {
    "valueprefix1": "optional white space before a value is part of HTTP (RFC 9112, section 5)",
    "midspace-20": "as above",
    "endspace-20": "optional white space behind a value",
    "nospace1": "no white space before a value",
    "vanilla": "the header undisguised",
    "multiCase": "names have no case",
    "UPPERCASE": "names have no case",
}
"""Techniques that say plainly what they say; with one framing header alone they are a good request."""


def smuggler():
    """Gadgets by name."""
    table = TABLE["smuggler"]
    found = {name: gadget.encode("latin-1") for name, gadget in table["single"].items()}
    for family, form in table["families"].items():
        for first, last in table["bytes"]:
            for byte in range(first, last + 1):
                found[f"{family}-{byte:02x}"] = form.replace("{}", chr(byte)).encode("latin-1")
    return found


def shaped(form, name, value):
    """One technique applied to a header."""
    changed = {
        "N(-,_)": name.replace("-", "_"),
        "N(-, )": name.replace("-", " "),
        "N(-,\\)": name.replace("-", "\\"),
        "N(multi)": name[0].lower() + name[1:].upper(),
        "N(upper)": name.upper(),
        "N(0d)": name[:3] + "\r" + name[3:],
    }
    for mark, text in changed.items():
        if mark in form:
            return f"{text}{form.replace(mark, '').replace('V', value)}".encode("latin-1")
    return form.replace("N", name).replace("V", value).encode("latin-1")


def burp(name, value):
    """Techniques for a header, by name."""
    table = TABLE["http_request_smuggler"]
    found = {technique: shaped(form, name, value) for technique, form in table["any_header"].items()}
    for technique, form in table["with_special_bytes"].items():
        for byte in table["special_bytes"]:
            found[f"{technique}:{byte}"] = shaped(form, name, value).replace(b"{}", bytes([byte]))
    if name == "Transfer-Encoding":
        found |= {technique: form.encode("latin-1") for technique, form in table["transfer_encoding"].items()}
    return found


def framings(gadget):
    """A disguised Transfer-Encoding beside a length that ends early or late, before it and behind; more follows."""
    late = b"content-length: %d\r\n" % (len(CHUNKS) + len(SECOND))
    for own in (b"content-length: 13\r\n", late):
        yield LINE + gadget + b"\r\n" + HEADERS + own + b"\r\n" + CHUNKS + SECOND + SECOND
        yield LINE + HEADERS + own + gadget + b"\r\n\r\n" + CHUNKS + SECOND + SECOND
    yield LINE + HEADERS + b"content-length: 13\r\n" + gadget + b"\r\n\r\n" + BODY + SECOND


def alone(gadget, body):
    """The gadget as the only header that says how the body ends; then a second request."""
    return LINE + HEADERS + gadget + b"\r\n\r\n" + body + SECOND + SECOND


async def reached(world, payload):
    """How many requests the origin gets of a payload; there is at most one answer, and the connection is closed."""
    before = len(world.origin.requests)
    answer = await world.exchange(payload.replace(b"HOST", world.host))
    writer = world.clients.pop()
    writer.close()
    await writer.wait_closed()
    assert answer.count(b"leasehold-request-id: ") == 1, payload
    assert answer.count(b"HTTP/1.1 ") == 1, payload
    return len(world.origin.requests) - before


@pytest.mark.parametrize(("collection", "size"), [("smuggler", 668), ("burp", 61)])
async def test_a_disguised_transfer_encoding_beside_a_length_reaches_nobody(collection, size):
    """However Transfer-Encoding is disguised beside a Content-Length, no request goes upstream."""
    gadgets = smuggler() if collection == "smuggler" else burp("Transfer-Encoding", "chunked")
    assert len(gadgets) == size
    async with running() as world:
        for name, gadget in gadgets.items():
            for payload in framings(gadget):
                assert await reached(world, payload) == 0, name
        assert world.origin.requests == []


@pytest.mark.parametrize("collection", ["smuggler", "burp"])
async def test_a_disguised_transfer_encoding_alone_is_read_in_one_way(collection):
    """Without a length, exactly the harmless spellings of Transfer-Encoding are a request, and exactly one."""
    gadgets = smuggler() if collection == "smuggler" else burp("Transfer-Encoding", "chunked")
    passed = set()
    async with running() as world:
        for name, gadget in gadgets.items():
            count = await reached(world, alone(gadget, CHUNKS))
            assert count <= 1, name
            if count:
                passed.add(name)
        assert set(world.origin.requests) == {BODY}
    assert passed == HARMLESS.keys() & gadgets.keys()


async def test_a_disguised_length_is_read_in_one_way():
    """Exactly the harmless spellings of Content-Length are a request, and exactly one; beside a second length, none."""
    passed = set()
    async with running() as world:
        for name, gadget in burp("Content-Length", "13").items():
            count = await reached(world, alone(gadget, BODY))
            assert count <= 1, name
            if count:
                passed.add(name)
            for other in (b"content-length: 13\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n"):
                for headers in (other + gadget + b"\r\n", gadget + b"\r\n" + other):
                    assert await reached(world, LINE + HEADERS + headers + b"\r\n" + CHUNKS + SECOND) == 0, name
    assert passed == HARMLESS.keys() & burp("Content-Length", "13").keys()
