"""The accept shim: bytes, ends and pressure pass through; peers come from the kernel; nobody takes our place unseen."""

import asyncio
import hashlib
import inspect
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from leasehold_broker.adapters.accept_shim import GRPC_ABSTRACT, AcceptShim, ShimLimits, private_name
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.peer_resolver import Connection, PeerResolver

ME = Peer(os.getuid())


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop of the standard library and on uvloop, whose transports differ in details."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    names = ("loop_factory", *inspect.signature(test).parameters)
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # tells pytest the fixtures
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    )
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)


class Peers:
    """A resolver that says what it is told."""

    def __init__(self, *answers: Peer | Refusal) -> None:
        """Answer in this order; the last one for ever."""
        self._answers = list(answers)

    def peer_of(self, connection: Connection) -> Peer:
        """The next answer."""
        assert connection.fileno() >= 0
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Refusal):
            raise answer
        return answer


class Private:
    """What stands behind the shim: a plain server on the abstract socket, in the hand of the test."""

    def __init__(self) -> None:
        """No connection yet."""
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep it in the turn in which it comes: one that nobody knew at the end would be told of in a later test."""
        self.connections.put_nowait((reader, writer))


@asynccontextmanager
async def _shim(
    folder: Path, peers: PeerResolver, limits: ShimLimits | None = None, replaced: asyncio.Event | None = None
) -> AsyncIterator[tuple[AcceptShim, Private, str, list[Refusal]]]:
    name, private, refused = private_name(), Private(), list[Refusal]()
    server = await asyncio.start_unix_server(private.accepted, "\0" + name)
    shim = AcceptShim(peers, name, refused.append, limits)
    path = folder / "run" / "s"
    public = PublicSocket(SocketPlace(path))
    await shim.listen_unix(public, (replaced or asyncio.Event()).set)
    try:
        yield shim, private, str(path), refused
    finally:
        await shim.close()
        server.close()
        while not private.connections.empty():
            private.connections.get_nowait()[1].close()


def _name(writer: asyncio.StreamWriter) -> str:
    """The connection as gRPC would name it."""
    raw = writer.get_extra_info("peername")
    return GRPC_ABSTRACT + (raw.decode() if isinstance(raw, bytes) else raw).lstrip("\0")


async def _closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 60) == b""
    except ConnectionError:
        return True


async def _ended(shim: AcceptShim) -> None:
    async with asyncio.timeout(240):
        while shim.connection_count:  # noqa: ASYNC110 - the shim tells nobody that it is empty
            await asyncio.sleep(0.005)


@on_both_loops
async def test_bytes_pass_both_ways_and_the_peer_is_known_while_it_lasts(tmp_path: Path) -> None:
    """What is sent at once arrives whole; the private leg's name leads to the peer until the connection ends."""
    async with _shim(tmp_path, Peers(Peer(1234))) as (shim, private, path, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"hello")
        back_reader, back_writer = await private.connections.get()
        assert await back_reader.readexactly(5) == b"hello"
        back_writer.write(b"world")
        assert await reader.readexactly(5) == b"world"
        name = _name(back_writer)
        assert Peer(1234) == shim.peer_of(name)
        assert len(name) > len(GRPC_ABSTRACT) + 32
        writer.close()
        assert await _closed(back_reader)
        back_writer.close()
        await _ended(shim)
        assert shim.peer_of(name) is None


@on_both_loops
async def test_a_stranger_on_the_private_socket_has_no_peer(tmp_path: Path) -> None:
    """A connection that did not come through the shim leads to nobody."""
    async with _shim(tmp_path, Peers(ME)) as (shim, private, _, _):
        assert shim.peer_of("unix:") is None
        assert shim.peer_of(f"{GRPC_ABSTRACT}leasehold-peer-{'0' * 32}") is None
        assert private.connections.empty()


@on_both_loops
async def test_a_half_close_is_passed_on_and_the_answer_still_comes(tmp_path: Path) -> None:
    """A client that has finished sending still gets everything that the server has to say."""
    async with _shim(tmp_path, Peers(ME)) as (shim, private, path, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"question")
        writer.write_eof()
        back_reader, back_writer = await private.connections.get()
        assert await back_reader.read() == b"question"
        back_writer.write(b"answer" * 100_000)
        back_writer.close()
        assert await asyncio.wait_for(reader.read(), 60) == b"answer" * 100_000
        writer.close()
        await _ended(shim)


@pytest.mark.parametrize("slow", ["server", "client"])
@on_both_loops
async def test_a_slow_reader_stops_the_sender_and_nothing_is_lost(tmp_path: Path, slow: str) -> None:
    """While one side does not read, the shim stops reading the other: bounded memory, and every byte in order."""
    block = os.urandom(1 << 20)
    async with _shim(tmp_path, Peers(ME)) as (_, private, path, _):
        client = await asyncio.open_unix_connection(path)
        client[1].write(b"x")
        server = await private.connections.get()
        await server[0].readexactly(1)
        (reader, _), (_, writer) = (server, client) if slow == "server" else (client, server)
        for _ in range(16):
            writer.write(block)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        pending = writer.transport.get_write_buffer_size()
        assert pending > 8 << 20
        digest, wanted = hashlib.sha256(), hashlib.sha256(block * 16).digest()
        for _ in range(16):
            digest.update(await asyncio.wait_for(reader.readexactly(1 << 20), 60))
        assert wanted == digest.digest()
        client[1].close()
        server[1].close()


@on_both_loops
async def test_an_unknown_peer_is_closed_before_a_byte_is_read_and_reported(tmp_path: Path) -> None:
    """When the kernel gives no answer, the connection is closed and the refusal handed over to be recorded."""
    refusal = Refusal(Reason.PEER_MISMATCH, "no answer")
    async with _shim(tmp_path, Peers(refusal)) as (shim, private, path, refused):
        reader, writer = await asyncio.open_unix_connection(path)
        assert await _closed(reader)
        assert [refusal] == refused
        assert private.connections.empty()
        assert shim.connection_count == 0
        writer.close()


async def _opened(shim: AcceptShim, count: int) -> None:
    """Wait until so many connections are open."""
    for _ in range(1000):
        if shim.connection_count == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(shim.connection_count)


def _prove(shim: AcceptShim) -> None:
    """As if a call on each connection had shown an identity."""
    for name in tuple(shim._pipes):
        shim.proven(GRPC_ABSTRACT + name)


@on_both_loops
async def test_who_has_shown_no_identity_gives_way(tmp_path: Path) -> None:
    """A flood of connections without a good call cannot keep others out, and cannot push out who has made one."""
    limits = ShimLimits(unix_connections_max=3, connections_per_peer_max=2)
    one, two = (Peer(uid, transport=Transport.UNIX) for uid in (1, 2))
    async with _shim(tmp_path, Peers(one, two, two, two, one, two), limits) as (shim, _, path, _):
        good = await asyncio.open_unix_connection(path)
        await _opened(shim, 1)
        _prove(shim)
        flood = [await asyncio.open_unix_connection(path) for _ in range(3)]
        assert await _closed(flood[0][0])  # the oldest of that peer
        newcomer = await asyncio.open_unix_connection(path)
        assert await _closed(flood[1][0])  # the oldest of all
        last = await asyncio.open_unix_connection(path)
        assert await _closed(flood[2][0])  # and not the good one, which is older
        assert shim.connection_count == 3
        for _, writer in (good, *flood, newcomer, last):
            writer.close()


@on_both_loops
async def test_connections_are_bounded_in_all_and_per_peer(tmp_path: Path) -> None:
    """One peer cannot take every place, and all together cannot take more than there are; places come back."""
    limits = ShimLimits(unix_connections_max=3, connections_per_peer_max=2)
    one, two = (Peer(uid, transport=Transport.UNIX) for uid in (1, 2))
    async with _shim(tmp_path, Peers(one, one, one, two, one), limits) as (shim, _, path, _):
        streams = []
        for count in range(1, 6):
            streams.append(await asyncio.open_unix_connection(path))
            await _opened(shim, min(count, 2) if count < 4 else 3)
            _prove(shim)
        assert await _closed(streams[2][0])
        assert await _closed(streams[4][0])
        assert shim.connection_count == 3
        streams[0][1].close()
        await asyncio.wait_for(streams[0][1].wait_closed(), 60)
        for _, writer in streams:
            writer.close()


@on_both_loops
async def test_remote_connections_are_bounded_per_address(tmp_path: Path) -> None:
    """One machine cannot take the places of a fleet: whoever has no uid here is counted by address."""
    limits = ShimLimits(tcp_connections_max=9, connections_per_peer_max=2)
    async with _shim(tmp_path, Peers(Peer(None)), limits) as (shim, *_):
        port = await shim.listen_tcp("127.0.0.1", 0)
        streams = []
        for number, address in enumerate(("127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3")):
            streams.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
            await _opened(shim, (1, 2, 2, 3)[number])
            _prove(shim)
        assert await _closed(streams[2][0])
        assert shim.connection_count == 3
        for _, writer in streams:
            writer.close()


@on_both_loops
async def test_tcp_and_the_unix_socket_have_places_of_their_own(tmp_path: Path) -> None:
    """Whoever fills TCP leaves the agents of this machine theirs, the user it runs as among them; and the reverse."""
    limits = ShimLimits(unix_connections_max=2, tcp_connections_max=2, connections_per_peer_max=2)
    peers = KernelPeers()
    async with _shim(tmp_path, peers, limits) as (shim, private, path, _):
        port = await shim.listen_tcp("127.0.0.1", 0)
        far = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await _opened(shim, 2)
        near = [await asyncio.open_unix_connection(path) for _ in range(2)]
        await _opened(shim, 4)
        _prove(shim)
        for more in (asyncio.open_connection("127.0.0.1", port), asyncio.open_unix_connection(path)):
            reader, writer = await more
            assert await _closed(reader)
            writer.close()
        (await private.connections.get())[1].close()
        far[0][1].close()
        await _opened(shim, 3)
        again = await asyncio.open_connection("127.0.0.1", port)
        await _opened(shim, 4)
        for _, writer in (*far, *near, again):
            writer.close()
    peers.close()


@on_both_loops
async def test_a_private_listener_that_is_gone_closes_the_connection(tmp_path: Path) -> None:
    """Without the gRPC server behind it, the shim closes what it accepts and keeps nothing."""
    shim = AcceptShim(Peers(ME), private_name(), [].append)
    port = await shim.listen_tcp("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await _closed(reader)
    assert shim.connection_count == 0
    writer.close()
    await shim.close()


IMPOSTOR = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(chr(0) + sys.argv[1])
listener.listen()
print("listening", flush=True)
sys.stdin.read()
"""


@on_both_loops
async def test_an_impostor_behind_the_private_name_gets_nothing(tmp_path: Path) -> None:
    """When another process listens under the private name, no byte of a client reaches it."""
    name = private_name()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IMPOSTOR, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    shim = AcceptShim(Peers(ME), name, [].append)
    port = await shim.listen_tcp("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await _closed(reader)
    assert shim.connection_count == 0
    writer.close()
    await shim.close()
    await process.communicate(b"")


@on_both_loops
async def test_the_kernel_is_asked_through_either_loops_sockets(tmp_path: Path) -> None:
    """The socket objects of both loops carry what the kernel needs to be asked, on Unix sockets and on TCP."""
    kernel = KernelPeers()
    async with _shim(tmp_path, kernel) as (shim, private, path, refused):
        port = await shim.listen_tcp("127.0.0.1", 0)
        for opened in (asyncio.open_unix_connection(path), asyncio.open_connection("127.0.0.1", port)):
            _, writer = await opened
            _, back_writer = await private.connections.get()
            assert shim.peer_of(_name(back_writer)) == ME
            writer.close()
            back_writer.close()
        assert not refused
    kernel.close()


@on_both_loops
async def test_a_replaced_socket_is_noticed(tmp_path: Path) -> None:
    """When somebody puts another socket in our place, the watch says so, and we do not remove his on leaving."""
    replaced = asyncio.Event()
    async with _shim(tmp_path, Peers(ME), ShimLimits(watch_seconds=0.02), replaced) as (_, _, path, _):
        Path(path).unlink()  # noqa: ASYNC240 - a test
        with socket.socket(socket.AF_UNIX) as thief:
            thief.bind(path)
            await asyncio.wait_for(replaced.wait(), 60)
    assert os.path.lexists(path)  # noqa: ASYNC240 - as above
