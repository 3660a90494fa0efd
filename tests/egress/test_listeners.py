"""Where the egress listens, and who its callers are."""

import asyncio
import hashlib
import socket
import ssl

import pytest
from tests.adapters.test_http_upstream import certificate
from tests.fakes.egress import GUARD_SECONDS, TOKEN, FakeProvider, running

from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.public_socket import PublicSocket, SocketPlace
from leasehold_broker.domain.identity import Peer
from leasehold_broker.egress.parts import EgressParts, Target
from leasehold_broker.egress.server import EgressServer
from leasehold_broker.wiring.public_sockets import tls_acceptor


class Seen:
    """Notes the peer that each call was authenticated for, and refuses nobody."""

    def __init__(self, calls) -> None:
        """Stand before `calls`."""
        self._calls = calls
        self.peers: list[Peer] = []

    def lease_of(self, unverified_token, peer):
        """Note the peer."""
        self.peers.append(peer)
        return self._calls.lease_of(unverified_token, Peer(1000))

    def __getattr__(self, name):
        """Everything else."""
        return getattr(self._calls, name)


class Fixed:
    """Certificates that never change."""

    def __init__(self, context) -> None:
        """Show these."""
        self.context = lambda: context


def lost() -> None:
    """Nobody takes over the socket of this test."""
    pytest.fail("the socket was taken over")


@pytest.fixture
def kernel():
    """The kernel's own word for peers."""
    peers = KernelPeers()
    yield peers
    peers.close()


def second_server(world, calls, kernel) -> EgressServer:
    """Another egress over the same neighbours."""
    parts = world.server.parts
    return EgressServer(
        EgressParts(
            calls,
            parts.refusals,
            {"fake": Target(FakeProvider(), world.origin.url)},
            parts.upstream,
            kernel,
            parts.entropy,
            limits=parts.limits,
            host_names=frozenset({"egress.test"}),
        )
    )


async def test_a_unix_socket_serves_with_the_kernels_word(tmp_path, kernel):
    """The caller's uid comes from the kernel, and a drain gives up the path."""
    async with running() as world:
        seen = Seen(world.calls)
        server = second_server(world, seen, kernel)
        path = tmp_path / "private" / "egress.sock"
        await server.listen_unix(PublicSocket(SocketPlace(path)), lost)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(world.post().replace(world.host, b"localhost"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        assert [Peer(path.stat().st_uid)] == seen.peers
        writer.close()
        await server.drain()
        assert not path.exists()
        PublicSocket(SocketPlace(path)).close()


async def test_a_unix_socket_that_is_taken_over_is_noticed_once(tmp_path, kernel):
    """Whoever renames another socket to our path gets our callers: the sidecar is told."""
    async with running() as world:
        server = second_server(world, world.calls, kernel)
        path, told = tmp_path / "private" / "egress.sock", asyncio.Queue()
        await server.listen_unix(PublicSocket(SocketPlace(path)), lambda: told.put_nowait(path))
        with socket.socket(socket.AF_UNIX) as thief:
            thief.bind(str(tmp_path / "thief"))
            (tmp_path / "thief").rename(path)
            await asyncio.wait_for(told.get(), GUARD_SECONDS)
            await server.drain()
        assert told.empty()


async def test_a_loopback_caller_has_its_kernel_uid(kernel):
    """Over loopback the owner of the other end's socket is the peer."""
    async with running() as world:
        seen = Seen(world.calls)
        server = second_server(world, seen, kernel)
        port = await server.listen_tcp("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for host in (b"127.0.0.1:%d" % port, b"localhost:%d" % port, b"egress.test", b"EGRESS.test:%d" % port):
            writer.write(world.post(extra=b"").replace(world.host, host))
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert seen.peers[0].uid is not None
        assert len(seen.peers) == 4
        writer.close()
        await server.drain()


async def test_a_client_certificate_names_the_peer(tmp_path, kernel):
    """Over TLS with a verified client certificate, the peer carries its digest."""
    pem, private = certificate("api.test")
    (tmp_path / "c.pem").write_bytes(pem)
    (tmp_path / "k.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    context.load_verify_locations(tmp_path / "c.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cadata=pem.decode())
    client.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    async with running() as world:
        seen = Seen(world.calls)
        server = second_server(world, seen, kernel)
        port = await server.listen_tcp("127.0.0.1", 0, tls=tls_acceptor(Fixed(context), kernel))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="api.test")
        for extra in (b"", b"connection: close\r\n"):
            writer.write(world.post(extra=extra).replace(world.host, b"egress.test"))
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.read(-1) == b""
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode())).hexdigest()
        assert {digest} == {peer.certificate_sha256 for peer in seen.peers}
        assert f"cert:{digest}" == seen.peers[0].binding
        writer.close()
        await server.drain()


async def test_a_token_in_a_log_line_is_never_written(capsys):
    """Nothing that the egress writes to its log or standard error holds the lease token."""
    async with running() as world:
        for request in (world.post(), world.post(b"{}"), world.post().replace(b"HTTP/1.1", b"HTTP/9.9")):
            await world.exchange(request)
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err


async def test_these_tests_run_on_the_loop_of_the_sidecar():
    """The room is tested on uvloop, whose transports differ from asyncio's in when they write."""
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
