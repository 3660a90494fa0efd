"""Bad clients at a door with mutual TLS: what they do before, in and after the handshake is bounded as without TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.loops import HUNG_UP
from tests.fakes.rpc import Door, open_door
from tests.rpc.bad_frames import START, floods
from tests.rpc.test_bad_clients import GROWTH_BYTES_MAX, resident_bytes, serve_on, settled
from tests.rpc.test_mutual_tls import Authority, acquire, server_tls

from leasehold_broker.adapters import accept_tls
from leasehold_broker.adapters.accept_shim import ShimLimits
from leasehold_broker.adapters.accept_tls import SHAKING_PER_OWNER_MAX

STEPS = 400
CUT_OFF = ("endless continuation", "empty continuation", "cut headers", "header bomb")
"""Floods of header blocks that the shim must see in order to end them."""


@pytest.fixture
def authority() -> Authority:
    """The authority that the server trusts."""
    return Authority()


@pytest.fixture
async def door(tmp_path: Path, authority: Authority) -> AsyncIterator[Door]:
    """The open door."""
    context = server_tls(tmp_path, authority).context
    async with open_door(
        tmp_path, serve_on, tls=context, shim_limits=ShimLimits(connections_per_peer_max=100)
    ) as opened:
        yield opened


def client_context(folder: Path, authority: Authority, *, protocols: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
    """The context of a client with a certificate."""
    own = authority.issue("agent")
    (folder / "client.pem").write_bytes(own.pem + own.key)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(folder / "client.pem")
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def port(door: Door) -> int:
    """Of the door."""
    return int(door.tcp.rpartition(":")[2])


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(240):
            while await reader.read(65536):
                pass
    return True


@pytest.mark.parametrize("name", CUT_OFF)
async def test_floods_of_header_blocks_end_their_connection(
    door: Door, authority: Authority, tmp_path: Path, name: str
) -> None:
    """A caller with a good certificate who never ends a header block is cut off before gRPC keeps its headers."""
    own, before = authority.issue("good"), resident_bytes()
    context = client_context(tmp_path, authority)
    reader, writer = await asyncio.open_connection("127.0.0.1", port(door), ssl=context, server_hostname="localhost")
    reading = asyncio.create_task(ended(reader))
    writer.write(START)
    sent = 0
    with contextlib.suppress(*HUNG_UP):
        for piece in floods(STEPS)[name]:
            writer.write(piece)
            await writer.drain()
            sent += 1
            if reading.done():
                break
            await asyncio.sleep(0)
    assert await reading
    writer.close()
    assert sent < STEPS
    assert (await acquire(door, authority, own)).lease_token == "served"
    assert resident_bytes() - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize(
    "hello", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", START, b"\x16\x03\x01\xff\xff" + bytes(70_000)]
)
async def test_whoever_does_not_shake_hands_is_closed(
    door: Door, authority: Authority, monkeypatch: pytest.MonkeyPatch, hello: bytes
) -> None:
    """Silence, garbage, plain HTTP and a hello that never ends reach nobody, and their connection ends."""
    monkeypatch.setattr(accept_tls, "HANDSHAKE_SECONDS", 1.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port(door))
    writer.write(hello)
    assert await ended(reader)
    writer.close()
    assert not door.recorder.kept
    assert (await acquire(door, authority, authority.issue("good"))).lease_token == "served"


async def test_pending_handshakes_are_bounded_and_leave_room(
    door: Door, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many connections of one owner that say nothing the newest are kept; who shakes hands is served among them."""
    monkeypatch.setattr(accept_tls, "UNDISTURBED_SECONDS", 0.0)
    opened = [await asyncio.open_connection("127.0.0.1", port(door)) for _ in range(SHAKING_PER_OWNER_MAX + 20)]
    ends = [asyncio.create_task(ended(reader)) for reader, _ in opened]
    async with asyncio.timeout(240):
        while sum(end.done() for end in ends) < 20:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    (listener,) = [one for one in door.shim._tls_listeners if one._shaking]
    assert max(listener._shaking.values()) == SHAKING_PER_OWNER_MAX
    assert all(end.done() for end in ends[:20])
    assert (await acquire(door, authority, authority.issue("good"))).lease_token == "served"
    for _, writer in opened:
        writer.close()
    await asyncio.gather(*ends)
    async with asyncio.timeout(240):
        while listener._shaking:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert (await acquire(door, authority, authority.issue("good"))).lease_token == "served"


async def test_a_handshake_has_a_while_before_a_newcomer_may_push_it_out(
    door: Door, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes when all places are taken by the young is closed at once, and counts as no failure of his."""
    monkeypatch.setattr(accept_tls, "UNDISTURBED_SECONDS", 60.0)
    opened = [await asyncio.open_connection("127.0.0.1", port(door)) for _ in range(SHAKING_PER_OWNER_MAX + 150)]
    ends = [asyncio.create_task(ended(reader)) for reader, _ in opened]
    async with asyncio.timeout(240):
        while sum(end.done() for end in ends) < 150:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert not any(end.done() for end in ends[:SHAKING_PER_OWNER_MAX])
    monkeypatch.setattr(accept_tls, "UNDISTURBED_SECONDS", 0.0)
    assert (await acquire(door, authority, authority.issue("good"))).lease_token == "served"
    for _, writer in opened:
        writer.close()
    await asyncio.gather(*ends)


async def test_a_flood_of_failed_handshakes_is_held_back(door: Door) -> None:
    """Whoever fails too many handshakes is closed at accept for a while: no more of them are computed."""

    async def fail() -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port(door))
            writer.write(b"no TLS at all\r\n")
            await ended(reader)
            writer.close()

    def held() -> bool:
        return any(door.shim.brake.holds(name) for name in door.shim.brake._holders if name.startswith("handshakes of"))

    for _ in range(40):  # a slow machine pays off some of the debt meanwhile
        await asyncio.gather(*(fail() for _ in range(30)))
        if held():
            break
    assert held()
    assert door.shim.connection_count == 0


@pytest.mark.parametrize("which", ["old version", "no ALPN", "another protocol"])
async def test_only_http2_over_tls_13_comes_through(
    door: Door, authority: Authority, tmp_path: Path, which: str
) -> None:
    """An older TLS fails in the handshake; without HTTP/2 agreed on, the connection is closed before gRPC sees it."""
    protocols = {"old version": ("h2",), "no ALPN": (), "another protocol": ("http/1.1",)}[which]
    context = client_context(tmp_path, authority, protocols=protocols)
    if which == "old version":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):  # noqa: PT011 - of which kind depends on who is faster
            await asyncio.open_connection("127.0.0.1", port(door), ssl=context, server_hostname="localhost")
    else:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port(door), ssl=context, server_hostname="localhost"
        )
        with contextlib.suppress(OSError):
            writer.write(START)
            assert await reader.read(65536) == b""
        writer.close()
    await settled(door)


async def test_no_session_is_resumed(door: Door, authority: Authority, tmp_path: Path) -> None:
    """Each connection shows its certificate anew: the server gives no tickets."""
    context = client_context(tmp_path, authority)
    reader, writer = await asyncio.open_connection("127.0.0.1", port(door), ssl=context, server_hostname="localhost")
    writer.write(START)
    assert await reader.read(9)
    session = writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket
    writer.close()
