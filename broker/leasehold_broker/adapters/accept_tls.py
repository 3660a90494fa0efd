"""Accepts TLS for a door: the handshake is ours, so that what comes after it is bounded like any other connection.

Owns the wait for a handshake, its bounds, and whose it is. Refuses to know what is asked of a caller, and what a
certificate allows.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from typing import cast

import structlog

from leasehold_broker.adapters.accept_pipe import TurnedAway
from leasehold_broker.adapters.refusal_brake import RefusalBrake
from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.peer_resolver import PeerResolver

SHAKING_MAX = 256
SHAKING_PER_OWNER_MAX = 32
UNDISTURBED_SECONDS = 1.0
"""For a handshake. A fleet that comes back at once is more than there is room for: if each newcomer pushed out the
oldest, on a busy machine none would ever be through."""
HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 2.0
"""For the other side's last word, after ours."""
REST_SECONDS = 0.5
BACKLOG = 512
ACCEPTS_AT_ONCE = 100
"""Then others have their turn; who still waits is accepted in the next one."""

_log = structlog.get_logger("leasehold.accept")


class Shakers:
    """Who shakes hands: named by the kernel or the address, and turned away while too many of his came to nothing."""

    def __init__(
        self,
        peers: PeerResolver,
        brake: RefusalBrake,
        turned_away: TurnedAway,
        on_refused: Callable[[Refusal], None],
        full: Callable[[Transport, str], bool] = lambda _transport, _owner: False,
    ) -> None:
        """Prepare.

        Args:
            peers: asks the kernel.
            brake: where failed handshakes are counted.
            turned_away: where those are told that were not begun.
            on_refused: told of each connection of which nobody can say whose it is.
            full: whether an owner has as many connections as he may.
        """
        self._peers = peers
        self._brake = brake
        self._turned_away = turned_away
        self._on_refused = on_refused
        self._full = full

    def owner_of(self, connection: socket.socket) -> str | None:
        """Whose handshake begins; None when it must not."""
        try:
            peer = self._peers.peer_of(connection)
        except Refusal as refusal:
            self._on_refused(refusal)
            return None
        owner = owner_of(peer, _address(connection))
        if self._full(peer.transport, owner):
            return None
        if self._brake.holds(_shakes(owner)):
            self._turned_away.add("handshakes failed", owner)
            return None
        return owner

    def turned_away_for(self, owner: str) -> None:
        """One of his was not begun: too many are under way."""
        self._turned_away.add("handshakes under way", owner)

    def failed(self, owner: str) -> None:
        """One of his handshakes came to nothing."""
        self._brake.refused(_shakes(owner))


def owner_of(peer: Peer, address: object) -> str:
    """Whose share of the connections this is: of a user of this machine, or of an address beyond it (IPv6: a /64)."""
    if peer.uid is not None:
        return f"{peer.transport} uid:{peer.uid}"
    host = ipaddress.ip_address(cast("tuple[str]", address)[0].partition("%")[0])
    return f"from {ipaddress.ip_network((host, 64 if host.version == 6 else 32), strict=False)}"


def _address(connection: socket.socket) -> object:
    """The other end's address; of no meaning once it has gone."""
    try:
        return connection.getpeername()
    except OSError:
        return ("0.0.0.0",)


def _shakes(owner: str) -> str:
    """Failed handshakes count by themselves: whoever shares an address with a flooder keeps its calls."""
    return f"handshakes of {owner}"


class TlsListener:
    """Accepts on one listening socket, and shakes hands with a bounded number of callers at a time."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        shakers: Shakers,
        build: Callable[[], asyncio.Protocol],
    ) -> None:
        """Prepare.

        Args:
            context: for the next handshake; certificates change.
            shakers: whose share of the handshakes a connection is.
            build: makes the protocol of a connection whose handshake is done.
        """
        self._context = context
        self._shakers = shakers
        self._build = build
        self._shaking: Counter[str] = Counter()
        self._tasks: dict[asyncio.Task[None], str] = {}
        """Handshakes under way, oldest first, with their owners."""
        self._began: dict[asyncio.Task[None], float] = {}
        self._dropped: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._rest: asyncio.TimerHandle | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from `listener`, which is closed at the end."""
        listener.setblocking(False)  # noqa: FBT003 - the signature is the library's
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Take no more connections, and drop those that are not through with their handshake."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """After `close`: until nothing is left of it."""
        await asyncio.gather(*self._tasks, *self._dropped, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        """Take who waits; in no task, so that none can be cancelled with a connection in its hand."""
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                # Out of descriptors, mostly: those who are connected go on meanwhile.
                _log.warning("no connection could be accepted", fault=type(fault).__name__)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                self._rest = loop.call_later(REST_SECONDS, self.start, listener)
                return
            connection.setblocking(False)  # noqa: FBT003 - the signature is the library's
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        owner = self._shakers.owner_of(connection)
        if owner is None:
            connection.close()
            return
        if not self._makes_room(owner):
            self._shakers.turned_away_for(owner)
            connection.close()
            return
        self._shaking[owner] += 1
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._shake(connection, owner), name="TLS handshake")
        self._tasks[task], self._began[task] = owner, loop.time()
        task.add_done_callback(lambda over: self._end(over, connection))

    def _makes_room(self, owner: str) -> bool:
        """A good handshake takes milliseconds: where there are too many, the oldest is one that nobody goes on with."""
        if self._shaking[owner] >= SHAKING_PER_OWNER_MAX:
            oldest = next(task for task, one in self._tasks.items() if one == owner)
        elif len(self._tasks) >= SHAKING_MAX:
            oldest = next(iter(self._tasks))
        else:
            return True
        if asyncio.get_running_loop().time() - self._began[oldest] < UNDISTURBED_SECONDS:
            return False
        self._drop(oldest)
        return True

    def _drop(self, task: "asyncio.Task[None]") -> None:
        self._shakers.failed(self._tasks[task])
        self._forget(task)
        self._dropped.add(task)
        task.cancel()

    def _forget(self, task: "asyncio.Task[None]") -> None:
        owner = self._tasks.pop(task, None)
        self._began.pop(task, None)
        if owner is not None:
            self._shaking[owner] -= 1
            if not self._shaking[owner]:
                del self._shaking[owner]

    def _end(self, task: "asyncio.Task[None]", connection: socket.socket) -> None:
        self._forget(task)
        self._dropped.discard(task)
        if task.cancelled():
            connection.close()  # perhaps before its handshake began: then nobody else does

    async def _shake(self, connection: socket.socket, owner: str) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._build,
                connection,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:
            # ssl.SSLError, ConnectionError and TimeoutError are among them.
            self._shakers.failed(owner)
            connection.close()
