"""Who owns the other end of a connection, from the Linux kernel. Owns the look-ups; refuses to guess.

Unix sockets: SO_PEERCRED, the credentials at connect time. Loopback TCP: the owner of the *other end's* socket, asked
for by its exact four-tuple over NETLINK_SOCK_DIAG, or read from /proc/net where a sandbox forbids netlink. Anything
else has no uid.

Two traps, both answered with a refusal:
- A socket whose process has closed it lives on in the kernel without an owner and is reported as uid 0, which would
  make everybody root. It also has inode 0; so no inode, no answer.
- In a user namespace, every user without a mapping is reported as the overflow uid; there it names nobody.
"""

import errno
import ipaddress
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.peer_resolver import Connection

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
NO_UID = 0xFFFFFFFF

_NETLINK_HEADER = struct.Struct("=IHHII")
_REQUEST_HEAD = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_ANY_INTERFACE_AND_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ANSWER_NUMBERS = struct.Struct("=IIIII")
_CREDENTIALS = struct.Struct("=iII")
_FOUR_TUPLE_BYTES = 4 + 16 + 16
_SOCKET_ID_BYTES = _FOUR_TUPLE_BYTES + 12
_ANSWER_BYTES = _NETLINK_HEADER.size + 4 + _SOCKET_ID_BYTES + _ANSWER_NUMBERS.size
_RECEIVE_BYTES = 8192
_STALE_ANSWERS_MAX = 16

OWNED_STATES = frozenset({1, 4, 5, 8})
"""ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: connected at one time, and a process may still hold it (a client may
shut down its writing side before we accept). LISTEN, SYN_* and TIME_WAIT say nothing about who connected."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _End(NamedTuple):
    address: Address
    port: int


class _Owner(NamedTuple):
    state: int
    uid: int
    inode: int


class KernelPeers:
    """The `PeerResolver` of Linux. One netlink socket, opened at first need; used from one thread."""

    def __init__(self, proc: Path = Path("/proc"), *, netlink: bool = True) -> None:
        """Take the places to ask.

        Args:
            proc: where procfs is mounted.
            netlink: False reads /proc/net only.
        """
        self._proc = proc
        self._netlink_allowed = netlink
        self._netlink: socket.socket | None = None
        self._sequence = 0
        self._ambiguous_uid = _ambiguous_uid(proc)

    def close(self) -> None:
        """Close the netlink socket."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def peer_of(self, connection: Connection) -> Peer:
        """See the port."""
        try:
            borrowed = socket.socket(fileno=connection.fileno())
        except (OSError, ValueError):
            raise _no_answer("the descriptor is closed") from None
        try:
            if borrowed.family == socket.AF_UNIX:
                return Peer(self._told_apart(_peer_credentials(borrowed)), transport=Transport.UNIX)
            if borrowed.family not in {socket.AF_INET, socket.AF_INET6}:
                raise _no_answer("not a socket of this kind", borrowed.family)
            own, other = _end(borrowed.getsockname()), _end(borrowed.getpeername())
        except OSError as fault:
            raise _no_answer("not connected", fault.errno) from None
        finally:
            borrowed.detach()
        if not (own.address.is_loopback and other.address.is_loopback):
            return Peer(None)
        return Peer(self._told_apart(self._owner_uid(other, own)))

    def _told_apart(self, uid: int) -> int:
        if uid in {NO_UID, self._ambiguous_uid}:
            raise _no_answer("a uid that names nobody here", uid)
        return uid

    def _owner_uid(self, local: _End, remote: _End) -> int:
        """Uid of the process that holds the socket whose own side is `local`."""
        owner: _Owner | None
        try:
            owner = self._ask_netlink(local, remote) if self._netlink_allowed else self._read_proc(local, remote)
        except OSError:
            # Refused by a sandbox: the slower table says the same.
            self.close()
            self._netlink_allowed = False
            owner = self._read_proc(local, remote)
        if owner is None:
            raise _no_answer("the other end is gone")
        if owner.state not in OWNED_STATES or not owner.inode:
            raise _no_answer("the other end has no owner; state", owner.state)
        return owner.uid

    def _ask_netlink(self, local: _End, remote: _End) -> _Owner | None:
        if self._netlink is None:
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
            self._netlink.bind((0, 0))
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        socket_id = _socket_id(local, remote)
        family = socket.AF_INET if local.address.version == 4 else socket.AF_INET6
        body = _REQUEST_HEAD.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + socket_id
        length = _NETLINK_HEADER.size + len(body)
        header = _NETLINK_HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, self._sequence, 0)
        self._netlink.sendto(header + body, (0, 0))
        for _ in range(_STALE_ANSWERS_MAX):
            # The kernel answers within sendto; a missing answer is EAGAIN, never a wait.
            answer = self._netlink.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
            _, kind, _, sequence, _ = _NETLINK_HEADER.unpack_from(answer)
            if sequence == self._sequence:
                mapped = _socket_id(_mapped(local), _mapped(remote))
                return _read_answer(kind, answer, (socket_id[:_FOUR_TUPLE_BYTES], mapped[:_FOUR_TUPLE_BYTES]))
        raise OSError(errno.EPROTO, "no answer to the question asked")

    def _read_proc(self, local: _End, remote: _End) -> _Owner | None:
        mapped = (_mapped(local), _mapped(remote))
        tables = (
            [("tcp", local, remote), ("tcp6", *mapped)] if local.address.version == 4 else [("tcp6", local, remote)]
        )
        for table, own, other in tables:
            wanted = f" {_proc_end(own)} {_proc_end(other)} "
            try:
                with (self._proc / "net" / table).open(encoding="ascii") as lines:
                    for line in lines:
                        if wanted in line:
                            fields = line.split()
                            return _Owner(int(fields[3], 16), int(fields[7]), int(fields[9]))
            except FileNotFoundError:
                continue
            except OSError as fault:
                raise _no_answer("the socket table cannot be read", fault.errno) from None
        return None


def _no_answer(what: str, number: int | None = None) -> Refusal:
    return Refusal(
        Reason.PEER_MISMATCH,
        "the kernel does not say who opened this connection; connect again and keep the connection open",
        detail=what if number is None else f"{what}: {number}",
    )


def _peer_credentials(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> _End:
    """Address and port; an IPv4 address in IPv6 clothes is taken as what it is."""
    address = ipaddress.ip_address(name[0].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return _End(address, name[1])


def _mapped(end: _End) -> _End:
    if isinstance(end.address, ipaddress.IPv6Address):
        return end
    return _End(ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + end.address.packed), end.port)


def _socket_id(local: _End, remote: _End) -> bytes:
    return (
        _PORTS.pack(local.port, remote.port)
        + local.address.packed.ljust(16, b"\0")
        + remote.address.packed.ljust(16, b"\0")
        + _ANY_INTERFACE_AND_COOKIE
    )


def _read_answer(kind: int, answer: bytes, accepted: tuple[bytes, bytes]) -> _Owner | None:
    """The socket's owner; None when there is no such socket. `accepted`: the four-tuple, plain and IPv4-mapped.

    Raises:
        OSError: the kernel or a sandbox refused the question.
    """
    if kind == NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _NETLINK_HEADER.size)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, "socket diagnostics refused")
    if kind != SOCK_DIAG_BY_FAMILY or len(answer) < _ANSWER_BYTES:
        raise OSError(errno.EPROTO, "not an answer of socket diagnostics")
    state = answer[_NETLINK_HEADER.size + 1]
    start = _NETLINK_HEADER.size + 4
    if answer[start : start + _FOUR_TUPLE_BYTES] not in accepted:
        # A listener on the same port answers when the connection itself is gone.
        return None
    uid, inode = _ANSWER_NUMBERS.unpack_from(answer, start + _SOCKET_ID_BYTES)[3:5]
    return _Owner(state, uid, inode)


def _proc_end(end: _End) -> str:
    packed = end.address.packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{end.port:04X}"


def _ambiguous_uid(proc: Path) -> int:
    """The overflow uid when this process sees only some users; else NO_UID."""
    try:
        ranges = [line.split() for line in (proc / "self" / "uid_map").read_text("ascii").splitlines()]
        overflow = int((proc / "sys" / "kernel" / "overflowuid").read_text("ascii"))
    except (OSError, ValueError):
        return 65534
    sees_everyone = any(int(first) == 0 and int(count) == NO_UID for first, _, count in ranges)
    return NO_UID if sees_everyone else overflow
