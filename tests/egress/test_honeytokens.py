"""Honeytokens at the egress: wherever one is presented, nothing goes upstream, and the answer warns nobody."""

import re

import pytest
from tests.fakes.egress import running

from leasehold_broker.domain.honeytokens import Honeytoken, HoneytokenKind, Traps, TrapSprung, digest_of

VALUE = "sk-ant-api03-laid-in-an-image-where-nobody-looks"
LAID = Honeytoken("image", HoneytokenKind.ANTHROPIC, digest_of(VALUE), 1)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/fake/v1/messages", "x-api-key: {}"),
        ("/fake/v1/messages", "authorization: Bearer {}"),
        ("/fake/v1/messages", "Authorization: bearer   {}"),
        ("/fake/v1/messages", "authorization: Basic {}"),
        ("/fake/v1/messages", "authorization: {}"),
        ("/fake/v1/messages", "x-goog-api-key: {}"),
        ("/fake/v1/messages", "api-key: {}"),
        ("/fake/v1/messages?key={}", "accept: */*"),
        ("/fake/v1/messages", "x-api-key: other\r\nauthorization: Bearer {}"),
        ("/elsewhere", "x-api-key: {}"),
        ("/fake/v1/unknown", "x-api-key: {}"),
        ("/fake/v1/messages", "x-api-key: {}\r\norigin: https://evil.example"),
    ],
)
async def test_a_honeytoken_springs_wherever_it_is_presented(path, headers):
    """In any place for a credential, also beside another one, and on a route that does not exist."""
    body = b"{}"
    async with running(traps=Traps([LAID])) as world:

        def request(value):
            head = f"POST {path.format(value)} HTTP/1.1\r\nhost: {world.host.decode()}\r\n{headers.format(value)}\r\n"
            more = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            return (head + more).encode() + body

        trapped = await world.exchange(request(VALUE))
        unknown = await world.exchange(request(VALUE.replace("laid", "lost")))
        first, second = world.refusals.given
        assert isinstance(first, TrapSprung)
        assert first.honeytoken == LAID
        assert not isinstance(second, TrapSprung)
        assert world.origin.requests == []
        assert not world.calls.admitted
    same = re.compile(rb"(leasehold-request-id: |request_id\": ?\"|req_)[0-9a-f]+")
    assert same.sub(b"", trapped) == same.sub(b"", unknown)
