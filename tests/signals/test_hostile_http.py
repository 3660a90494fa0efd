"""The collector's HTTP door against callers that send slowly, send too much, or keep what they take: raw sockets."""

import asyncio
import contextlib
import functools
import ssl

import aiohttp
import pytest
from tests.fakes.certificates import Authority
from tests.fakes.loops import HUNG_UP
from tests.signals.test_receiving import RULE, listening, token
from tests.signals.test_sending import telling

from leasehold_broker.adapters.http_guard import HttpGuard, HttpGuardLimits
from leasehold_broker.collector import signals_door as door_module
from leasehold_broker.wiring import signals_door

HEAD = b"POST /signals/idp HTTP/1.1\r\nhost: c\r\ncontent-type: application/secevent+jwt\r\n"
QUICK = HttpGuardLimits(
    connections_max=8, connections_per_owner_max=6, head_seconds=0.4, request_seconds=0.8, idle_seconds=0.4
)


@pytest.fixture
def quick(monkeypatch):
    """Bounds that are reached in a moment."""
    monkeypatch.setattr(signals_door, "HttpGuard", functools.partial(HttpGuard, limits=QUICK))


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes."""
    came = b""
    with contextlib.suppress(ConnectionError):
        while some := await asyncio.wait_for(reader.read(4096), 30):
            came += some
    return came


async def dripped(port: int, first: bytes, drop: bytes) -> bytes:
    """Send the beginning, then drop by drop for ever; what is answered until we are cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    answer = asyncio.create_task(closed(reader))
    for _ in range(3000):
        if answer.done():
            break
        with contextlib.suppress(*HUNG_UP):
            writer.write(drop)
            await writer.drain()
        await asyncio.sleep(0.01)
    writer.close()
    return await answer


async def served(world) -> int:
    """Whoever is honest. On a busy machine the quick bounds may cut him off like others; he comes again, as they do."""
    honest = token()
    async with asyncio.timeout(240):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                return (await world.push(honest))[0]


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"P", b""),
        (b"POST /sig", b"n"),
        (HEAD, b"x-a: b\r\n"),
        (HEAD + b"x-long: ", b"b"),
        (b"\r\n", b"\r\n"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (HEAD + b"content-length: 9000\r\n\r\n", b"a"),
    ],
    ids=["nothing", "one byte", "target", "headers", "one header", "empty lines", "chunks", "body"],
)
async def test_whoever_drips_is_cut_off(quick, first, drop):
    """Head and body have a time each, however steadily the drops come; nothing is revoked, and others are served."""
    async with listening() as world:
        dripping = [asyncio.create_task(dripped(world.port, first, drop)) for _ in range(4)]
        assert await served(world) == 202
        for answer in await asyncio.gather(*dripping):
            assert b" 202 " not in answer
        assert len(await world.revoked()) == 1


async def test_slow_bodies_take_no_place_at_work(monkeypatch):
    """However many bodies are on their way, a whole one is taken at once."""
    monkeypatch.setattr(door_module, "REQUESTS_MAX", 2)
    async with listening() as world:
        slow = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(HEAD + b"expect: 100-continue\r\ncontent-length: 900\r\n\r\n")
            assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")  # it waits for the body now
            slow.append(writer)
        assert await served(world) == 202
        for writer in slow:
            writer.close()


async def test_connections_are_bounded_and_places_come_back(quick):
    """One owner has a share, and who is idle loses his place to the next."""
    async with listening() as world:
        held = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(7)]
        assert await closed(held[6][0]) == b""
        for reader, _ in held[:6]:
            await closed(reader)
        assert await served(world) == 202
        for _, writer in held:
            writer.close()


async def test_a_request_is_bounded_in_bytes(quick):
    """A head without end, a body beyond its size, and a pipeline that nobody waits for: cut off, nothing kept."""
    async with listening() as world:
        endless = HEAD + b"x-a: " + b"b" * 4000 + b"\r\n"
        chunk = b"1000\r\n" + b"a" * 4096 + b"\r\n"
        piped = HEAD + b"content-length: 1\r\n\r\na"
        for first, more in (
            (endless, b"x-b: " + b"c" * 4000 + b"\r\n"),
            (HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk),
            (piped, piped * 600),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            with contextlib.suppress(*HUNG_UP):
                writer.write(first)
                for _ in range(64):
                    writer.write(more)
                    await writer.drain()
            assert b" 202 " not in await closed(reader)
            writer.close()
        assert await world.revoked() == []
        assert await served(world) == 202


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        HEAD + b"content-length: +1\r\n\r\na",
        HEAD + b"content-length: 1_0\r\n\r\naaaaaaaaaa",
        b"CONNECT c:443 HTTP/1.1\r\nhost: c\r\n\r\n",
        b"GET http://elsewhere/signals/idp HTTP/1.1\r\nhost: c\r\n\r\n",
        b"POST /signals/idp HTTP/1.1\r\nhost: c\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /signals/../signals/idp HTTP/1.1\r\nhost: c\r\ncontent-length: 0\r\n\r\n",
        b"POST /signals/%69dp HTTP/1.0\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"expect: 200-maybe\r\ncontent-length: 1\r\n\r\na",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_odd_requests_are_answered_once_or_cut_off(quick, head):
    """At most one answer to any bytes, never that of a good event, and no tunnel or other protocol behind it."""
    smuggled = HEAD + f"content-length: {len(token())}\r\n\r\n{token()}".encode()
    async with listening() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head)
        answer = await closed(reader)
        assert answer.count(b"HTTP/1.") <= 1
        assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 101"))
        with contextlib.suppress(*HUNG_UP):
            writer.write(smuggled)
            await writer.drain()
        writer.close()
        assert await world.revoked() == []


async def test_a_slow_poll_of_a_receiver_is_cut_off_too(quick, tmp_path):
    """The transmitter's routes are behind the same bounds."""
    async with telling(folder=tmp_path) as world:
        port = int(world.url.rpartition(":")[2])
        head = b"POST /signals/poll/x HTTP/1.1\r\nhost: c\r\ncontent-length: 100\r\n"
        assert await dripped(port, head, b"x-a: b\r\n") == b""
        assert b" 401 " in await dripped(port, head + b"\r\n", b" ")


async def test_certificates_of_the_door_are_followed_and_handshakes_are_bounded():
    """A new pair of files is shown to the next connection; a caller that never shakes hands is cut off by itself."""
    first, second = Authority(), Authority()
    rule = RULE.replace(
        'address = "127.0.0.1:0"',
        'address = "127.0.0.1:0"\ntls = {{ certificate = "door.pem", private_key = "door.key" }}',
    )
    folders = []

    class Leaf:
        """Remembers where its files went."""

        def files(self, folder, name):
            folders.append(folder)
            return first.issue().files(folder, name)

    async with listening(rule=rule, leaf=Leaf()) as world:

        async def shaken(authority: Authority) -> bool:
            context = ssl.create_default_context(cadata=authority.pem.decode())
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", world.port, ssl=context, server_hostname="localhost"
                )
            except ssl.SSLError:
                return False
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
            return True

        silent = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(33)]
        assert await closed(silent[0][0]) == b""
        assert await shaken(first)
        for _, writer in silent:
            writer.close()
        second.issue().files(folders[0], "door")
        for _ in range(200):
            if await shaken(second):
                break
            await asyncio.sleep(0.1)
        assert await shaken(second)
        assert not await shaken(first)
