"""Who owns the other end: asked of the real kernel, with real processes of another user."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="starting a process of another user needs root")
DIALLER = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
family, address = int(sys.argv[2]), sys.argv[3]
connection = socket.socket(family)
connection.connect(address if family == socket.AF_UNIX else (address, int(sys.argv[4])))
if sys.argv[5] == "half":
    connection.shutdown(socket.SHUT_WR)
print("connected", flush=True)
sys.stdin.read()
"""


def _listener(family: int, address: str, *, dual: bool = False) -> socket.socket:
    listener = socket.socket(family)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
    listener.bind(address if family == socket.AF_UNIX else (address, 0))
    listener.listen()
    listener.settimeout(60)
    return listener


@contextmanager
def _dialled(
    uid: int, listener: socket.socket, family: int, address: str, how: str = "whole"
) -> Iterator[socket.socket]:
    """A connection that a process of user `uid` has opened to `listener`; accepted."""
    port = "0" if family == socket.AF_UNIX else str(listener.getsockname()[1])
    command = [sys.executable, "-c", DIALLER, str(uid), str(int(family)), address, port, how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"connected\n"
        accepted, _ = listener.accept()
        with closing(accepted):
            yield accepted
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(params=["netlink", "proc"])
def peers(request: pytest.FixtureRequest) -> Iterator[KernelPeers]:
    """Both ways of asking."""
    resolver = KernelPeers(netlink=request.param == "netlink")
    yield resolver
    resolver.close()


TCP_CASES = {
    "v4": (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
    "v4 at another loopback address": (socket.AF_INET, "127.0.0.9", socket.AF_INET, "127.0.0.9"),
    "v6": (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    "v4 into a dual-stack listener": (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
    "v4-mapped into v4": (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
    "v4-mapped into dual-stack": (socket.AF_INET6, "::", socket.AF_INET6, "::ffff:127.0.0.1"),
}


@needs_root
@pytest.mark.parametrize("case", TCP_CASES)
def test_tcp_peer_is_the_owner_of_the_other_end(peers: KernelPeers, case: str) -> None:
    """On loopback TCP, the uid is that of the process that connected, in every mix of IPv4 and IPv6."""
    listen_family, listen_address, family, address = TCP_CASES[case]
    with (
        closing(_listener(listen_family, listen_address, dual=True)) as listener,
        _dialled(NOBODY, listener, family, address) as accepted,
    ):
        assert Peer(NOBODY) == peers.peer_of(accepted)


@needs_root
def test_a_client_that_has_shut_its_writing_side_is_still_known(peers: KernelPeers) -> None:
    """A half-closed client is still the owner of its socket."""
    with (
        closing(_listener(socket.AF_INET, "127.0.0.1")) as listener,
        _dialled(NOBODY, listener, socket.AF_INET, "127.0.0.1", "half") as accepted,
    ):
        assert Peer(NOBODY) == peers.peer_of(accepted)


def test_a_tcp_client_that_has_closed_is_refused_and_not_taken_for_root(peers: KernelPeers) -> None:
    """An orphaned socket is reported with uid 0 by the kernel; that must not make its former owner root."""
    with closing(_listener(socket.AF_INET, "127.0.0.1")) as listener:
        socket.create_connection(listener.getsockname()).close()
        accepted, _ = listener.accept()
        with closing(accepted), pytest.raises(Refusal) as caught:
            peers.peer_of(accepted)
    assert caught.value.reason == Reason.PEER_MISMATCH


@needs_root
def test_unix_peer_is_the_connecting_user(peers: KernelPeers) -> None:
    """On a Unix socket, the uid is that of the process at connect time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        listener = stack.enter_context(closing(_listener(socket.AF_UNIX, str(folder / "s"))))
        (folder / "s").chmod(0o666)
        accepted = stack.enter_context(_dialled(NOBODY, listener, socket.AF_UNIX, str(folder / "s")))
        assert Peer(NOBODY) == peers.peer_of(accepted)


def test_own_user_over_tcp(peers: KernelPeers) -> None:
    """A client in this process has this process's uid."""
    with (
        closing(_listener(socket.AF_INET, "127.0.0.1")) as listener,
        closing(socket.create_connection(listener.getsockname())),
    ):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert Peer(os.getuid()) == peers.peer_of(accepted)


def test_both_ways_agree_for_many_connections() -> None:
    """Netlink and /proc/net give the same owner, and one netlink socket serves many questions."""
    with ExitStack() as stack:
        netlink = stack.enter_context(closing(KernelPeers()))
        proc = stack.enter_context(closing(KernelPeers(netlink=False)))
        listener = stack.enter_context(closing(_listener(socket.AF_INET, "127.0.0.1")))
        for _ in range(40):
            stack.enter_context(closing(socket.create_connection(listener.getsockname())))
            accepted = stack.enter_context(closing(listener.accept()[0]))
            assert proc.peer_of(accepted) == netlink.peer_of(accepted)


def test_the_connection_stays_open_and_usable(peers: KernelPeers) -> None:
    """Looking up the peer borrows the descriptor and gives it back."""
    left, right = socket.socketpair()
    with closing(left), closing(right):
        assert Peer(os.getuid()) == peers.peer_of(left)
        right.send(b"x")
        assert left.recv(1) == b"x"


def test_a_closed_descriptor_is_refused(peers: KernelPeers) -> None:
    """A connection that is closed on our side gives no answer."""
    connection = socket.socket()
    connection.close()
    with pytest.raises(Refusal) as caught:
        peers.peer_of(connection)
    assert caught.value.reason == Reason.PEER_MISMATCH


def test_an_unconnected_socket_is_refused(peers: KernelPeers) -> None:
    """A socket without an other end gives no answer."""
    with closing(socket.socket()) as connection, pytest.raises(Refusal) as caught:
        peers.peer_of(connection)
    assert caught.value.reason == Reason.PEER_MISMATCH


def _proc(folder: Path, table: str, uid_map: str) -> Path:
    (folder / "net").mkdir()
    (folder / "self").mkdir()
    (folder / "sys" / "kernel").mkdir(parents=True)
    (folder / "net" / "tcp").write_text(table)
    (folder / "self" / "uid_map").write_text(uid_map)
    (folder / "sys" / "kernel" / "overflowuid").write_text("65534\n")
    return folder


@pytest.mark.parametrize(
    ("state", "uid", "inode", "uid_map", "expected"),
    [
        ("01", 1000, 7, "0 0 4294967295", Peer(1000)),
        ("01", 65534, 7, "0 0 4294967295", Peer(65534)),
        ("01", 65534, 7, "0 100000 65536", None),
        ("01", 1000, 7, "0 100000 65536", Peer(1000)),
        ("01", 0, 0, "0 0 4294967295", None),
        ("06", 0, 0, "0 0 4294967295", None),
        ("0A", 1000, 7, "0 0 4294967295", None),
    ],
)
def test_what_the_table_says_is_judged(
    tmp_path: Path, state: str, uid: int, inode: int, uid_map: str, expected: Peer | None
) -> None:
    """Ownerless sockets, listeners and users without a mapping in a user namespace are refused."""
    with closing(_listener(socket.AF_INET, "127.0.0.1")) as listener, ExitStack() as stack:
        client = stack.enter_context(closing(socket.create_connection(listener.getsockname())))
        accepted = stack.enter_context(closing(listener.accept()[0]))
        here, there = (f"0100007F:{end.getsockname()[1]:04X}" for end in (client, accepted))
        row = f"   0: {here} {there} {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1\n"
        resolver = KernelPeers(_proc(tmp_path, row, uid_map), netlink=False)
        if expected is not None:
            assert expected == resolver.peer_of(accepted)
            return
        with pytest.raises(Refusal) as caught:
            resolver.peer_of(accepted)
        assert caught.value.reason == Reason.PEER_MISMATCH


def test_beyond_loopback_there_is_no_uid() -> None:
    """A connection whose ends are not loopback addresses has no uid: a certificate must say who it is."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    resolver = KernelPeers()
    with (
        closing(resolver),
        closing(_listener(socket.AF_INET, address)) as listener,
        closing(socket.create_connection(listener.getsockname())),
    ):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert Peer(None) == resolver.peer_of(accepted)
