"""How answers come through, and what an upstream that fails does to a call."""

import asyncio
import base64
from urllib.parse import quote

import pytest
from tests.egress.answers import STREAM_HEAD, chunk, steps, unchunk
from tests.fakes.egress import GUARD_SECONDS, KEY, TOKEN, ended, json_answer, running

from leasehold_broker.domain.call import CallEnd
from leasehold_broker.egress.relay import REFUSAL_BYTES_MAX


async def test_a_json_answer_comes_through_and_is_settled():
    """A plain answer is relayed with our headers, and settled as finished with the usage the meter read."""
    async with running() as world:
        answer = await world.exchange(world.post())
        assert unchunk(answer) == b'{"ok":true,"usage:7":0}'
        assert b"leasehold-request-id: 0707" in answer
        assert b"leasehold-budget-remaining-micro-usd: 12345\r\n" in answer
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent, outcome.status, outcome.usage_final) == (CallEnd.FINISHED, True, 200, True)
        assert outcome.usage.output_tokens == 7


async def test_an_answer_that_was_made_smaller_says_so():
    """The lowered output limit is in a header of the answer; without one there is no such header."""
    async with running() as world:
        assert b"leasehold-output-limited" not in await world.exchange(world.post())
        world.calls.lowered_to = 40
        assert b"leasehold-output-limited: 40\r\n" in await world.exchange(world.post())


async def test_what_goes_upstream_is_ours():
    """Upstream gets the canonical body, our headers and the key; nothing of the caller's, above all not its token."""
    async with running() as world:
        await world.exchange(
            world.post(b'{ "model" : "m" }', extra=b"connection: close\r\nuser-agent: secret-agent\r\n")
        )
        (head,) = world.origin.heads
        assert world.origin.requests == [b'{"model":"m"}']
        assert b"authorization: Bearer " + KEY.encode() in head
        assert b"accept-encoding: identity\r\n" in head
        for absent in (TOKEN.encode(), b"x-api-key", b"secret-agent", world.host):
            assert absent not in head


async def test_connections_are_kept_on_both_sides():
    """Several requests of one caller use one connection to it and one to the provider."""
    async with running() as world:
        reader, writer = await world.connect()
        for _ in range(3):
            writer.write(world.post(extra=b""))
            await reader.readuntil(b"0\r\n\r\n")
        assert (len(world.origin.requests), world.origin.connections) == (3, 1)


async def test_events_come_as_they_are_sent():
    """Each event reaches the caller before the next one is produced."""
    async with running() as world:
        second = asyncio.Event()
        world.origin.answer = steps(STREAM_HEAD, chunk(b"data: 1\n\n"), second, chunk(b"data: 2\n\n"), b"0\r\n\r\n")
        reader, writer = await world.connect()
        writer.write(world.post(b'{"model":"m","stream":true}'))
        async with asyncio.timeout(GUARD_SECONDS):
            await reader.readuntil(b"data: 1\n\n")
            second.set()
            assert (await reader.readuntil(b"0\r\n\r\n")).count(b"data: 2") == 1


async def test_only_listed_answer_headers_come_through():
    """Request ids and rate limits come through; cookies, redirects, hop-by-hop and headers with the key do not."""
    async with running() as world:
        headers = (
            b"request-id: r1\r\nset-cookie: a=b\r\nlocation: /x\r\nx-ratelimit-limit-requests: 5\r\n"
            b"anthropic-ratelimit-tokens-remaining: 6\r\nconnection: x\r\nx-powered-by: y\r\n"
            b"x-request-id: " + KEY.encode() + b"\r\n"
        )
        world.origin.answer = json_answer(headers=headers)
        head = (await world.exchange(world.post())).partition(b"\r\n\r\n")[0]
        names = {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}
        assert {
            b"content-type",
            b"request-id",
            b"x-ratelimit-limit-requests",
            b"anthropic-ratelimit-tokens-remaining",
            b"leasehold-request-id",
            b"leasehold-budget-remaining-micro-usd",
            b"connection",
            b"transfer-encoding",
        } == names


async def test_a_coded_echo_is_redacted_in_body_stream_and_headers():
    """In base64, with escapes and backwards, cut in the middle: neither the body nor a header brings the key out."""
    key = KEY.encode()
    for echo in (base64.b64encode(b"user:" + key), quote(KEY, safe="").replace("-", "%2D").encode(), key[::-1]):
        async with running() as world:
            head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nx-request-id: " + echo + b"\r\n\r\n")
            half = len(echo) // 2
            world.origin.answer = steps(
                head, chunk(b'data: {"e":"' + echo[:half]), chunk(echo[half:] + b'"}\n\n'), b"0\r\n\r\n"
            )
            answer = await world.exchange(world.post())
            assert b"x-request-id" not in answer
            shown = unchunk(answer)
            assert echo[4:-4] not in shown
            assert shown.startswith(b'data: {"e":"')
            assert shown.endswith(b'"}\n\n')
            assert world.server.parts.counts.keys_redacted >= 1


@pytest.mark.parametrize("cut", range(1, len(KEY)))
async def test_an_echo_of_the_key_is_redacted_across_chunks(cut):
    """However an echoed key is split over chunks, no byte of it past the split reaches the caller in plain."""
    async with running() as world:
        key = KEY.encode()
        world.origin.answer = steps(
            STREAM_HEAD, chunk(b"before " + key[:cut]), chunk(key[cut:] + b" after"), b"0\r\n\r\n"
        )
        body = unchunk(await world.exchange(world.post()))
        assert b"before " + b"*" * len(key) + b" after" == body
        assert world.server.parts.counts.keys_redacted == 1


async def test_the_start_of_a_key_that_is_none_comes_through():
    """What only looks like the key is relayed whole, also at the end of the answer."""
    async with running() as world:
        world.origin.answer = steps(STREAM_HEAD, chunk(b"sk-test-0123"), chunk(b"x sk-test-"), b"0\r\n\r\n")
        assert unchunk(await world.exchange(world.post())) == b"sk-test-0123x sk-test-"


async def test_a_providers_error_comes_through():
    """A provider's own refusal is relayed with its body, and settled as refused by the provider."""
    async with running() as world:
        world.origin.answer = json_answer(b'{"error":1}', "429 Too Many Requests", b"retry-after: 7\r\n")
        answer = await world.exchange(world.post())
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"retry-after: 7\r\n" in answer
        assert b"leasehold-refused-by" not in answer
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.status) == (CallEnd.PROVIDER_REFUSED, 429)


@pytest.mark.parametrize(
    ("status", "headers", "end"),
    [
        ("302 Found", b"location: http://169.254.169.254/\r\n", CallEnd.PROVIDER_REFUSED),
        ("307 Temporary Redirect", b"location: /v1/other\r\n", CallEnd.PROVIDER_REFUSED),
        ("200 OK", b"content-encoding: gzip\r\n", CallEnd.UNKNOWN),
        ("200 OK", b"content-encoding: gzip\r\ncontent-encoding: identity\r\n", CallEnd.UNKNOWN),
        ("200 OK", b"content-encoding: identity\r\nContent-Encoding: deflate\r\n", CallEnd.UNKNOWN),
    ],
)
async def test_redirects_and_codings_are_not_followed(status, headers, end):
    """A redirect or a compressed answer becomes our 502; it was sent, so it is settled as such; nothing is retried."""
    async with running() as world:
        world.origin.answer = json_answer(b"secret", status, headers)
        answer = await world.exchange(world.post())
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"secret" not in answer
        assert b"169.254" not in answer
        outcome = await world.calls.outcome()
        assert (end, True) == (outcome.end, outcome.sent)
        assert len(world.origin.requests) == 1


BAD_ANSWERS = {
    "reset at once": (b"reset",),
    "closed at once": (b"close",),
    "half a status line": (b"HTTP/1.1 20", b"close"),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-", b"reset"),
    "garbage": (b"\x00\x01\x02garbage\r\n\r\n", b"close"),
    "switch of protocols": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",),
    "endless interim": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(300)),),
    "huge header": (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000,),
    "another transfer coding": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",),
    "transfer coding in two lines": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ),
    "length and chunks": (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_no_answer_becomes_a_502_and_is_settled_as_sent(name):
    """An upstream that fails before its answer's head is whole: 502, settled as sent, once, without a retry."""
    async with running() as world:
        world.origin.answer = steps(*BAD_ANSWERS[name])
        answer = await world.exchange(world.post())
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"leasehold-reason: UPSTREAM_UNREACHABLE" in answer
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.UPSTREAM_FAILED, True)
        assert len(world.origin.requests) == 1


@pytest.mark.parametrize("how", [b"reset", b"close"])
@pytest.mark.parametrize(
    "partial",
    [
        STREAM_HEAD + chunk(b"data: usage:3\n\n"),
        STREAM_HEAD + b"5\r\nab",
        STREAM_HEAD + b"zz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
    ],
)
async def test_an_answer_that_breaks_off_breaks_off_for_the_caller(partial, how):
    """When the upstream ends in mid-answer, the caller's answer has no proper end either, and the call is settled."""
    async with running() as world:
        world.origin.answer = steps(partial, how)
        answer = await world.exchange(world.post())
        assert not answer.endswith(b"0\r\n\r\n")
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.UPSTREAM_FAILED, True)


async def test_an_answer_without_a_length_ends_with_its_connection():
    """A close-delimited answer is finished by the close, and its connection is not used again."""
    async with running() as world:
        world.origin.answer = steps(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nabc", b"close")
        assert unchunk(await world.exchange(world.post())) == b"abc"
        assert CallEnd.FINISHED is (await world.calls.outcome()).end
        world.origin.answer = json_answer()
        await world.exchange(world.post())
        assert world.origin.connections == 2


async def test_bytes_after_an_answer_spoil_the_connection():
    """An upstream that says more than its answer is not asked again on that connection; the extra bytes go nowhere."""
    async with running() as world:
        extra = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nSMUGGLED"
        world.origin.answer = steps(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + extra)
        assert unchunk(await world.exchange(world.post())) == b"ok"
        assert unchunk(await world.exchange(world.post())) == b"ok"
        assert world.origin.connections == 2


async def test_an_unreachable_upstream_is_not_sent():
    """Where no connection comes about, the call is settled as not sent and the caller may retry."""
    async with running() as world:
        await world.origin.stop()
        await asyncio.sleep(0)
        answer = await world.exchange(world.post())
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"x-should-retry" not in answer
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.sent) == (CallEnd.NOT_SENT, False)


async def test_a_silent_upstream_is_given_up():
    """No first byte in time is a 502; silence in mid-answer breaks the answer off; both are settled as sent."""
    async with running() as world:
        never = asyncio.Event()
        world.origin.answer = steps(never)
        reader, writer = await world.connect()
        writer.write(world.post())
        await world.origin.arrived.wait()
        world.clock.push(world.upstream.settings.first_byte_seconds)
        assert (await ended(reader)).startswith(b"HTTP/1.1 502 ")
        world.origin.answer = steps(STREAM_HEAD, chunk(b"data: 1\n\n"), never)
        reader, writer = await world.connect()
        writer.write(world.post())
        assert b" 200 " in await reader.readuntil(b"data: 1\n\n")
        world.clock.push(world.upstream.settings.read_idle_seconds)
        assert not (await ended(reader)).endswith(b"0\r\n\r\n")
        for call in ("call-0", "call-1"):
            assert CallEnd.UPSTREAM_FAILED is (await world.calls.outcome(call)).end
        never.set()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"empty", (17.0, True)),
        (b"other error", (17.0, False)),
        (b"broken", (None, False)),
        (b"x" * (REFUSAL_BYTES_MAX + 1), (17.0, False)),
    ],
)
async def test_what_an_error_says_of_the_key_is_told_with_its_end(body, told):
    """Headers and body go to the vendor's reading, whole or not at all; the answer comes through all the same."""
    async with running() as world:
        head = b"HTTP/1.1 429 Too Many\r\nretry-after: 17\r\ncontent-length: %d\r\n\r\n" % len(body)
        world.origin.answer = steps(head, body[:2], body[2:])
        assert unchunk(await world.exchange(world.post())) == body
        outcome = await world.calls.outcome()
        assert (outcome.end, outcome.status) == (CallEnd.PROVIDER_REFUSED, 429)
        assert (outcome.wait_seconds, outcome.exhausted) == told
        assert outcome.refused is told[1]


async def test_a_good_answer_says_nothing_of_the_key():
    """Only errors are read for it."""
    async with running() as world:
        world.origin.answer = json_answer(headers=b"retry-after: 17\r\n")
        await world.exchange(world.post())
        outcome = await world.calls.outcome()
        assert (outcome.wait_seconds, outcome.exhausted, outcome.refused) == (None, False, False)
