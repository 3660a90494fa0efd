"""Processes in memory: each peer is one, by its connection's name, and ends when a test says so."""

import itertools
from collections.abc import Callable

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.ports.peer_processes import Watched


class MemoryProcesses:
    """Implements `PeerProcesses`; `refusal` makes it refuse to watch."""

    def __init__(self) -> None:
        """Nobody runs yet: a process is there from its first watch on."""
        self.refusal: Refusal | None = None
        self.gone: set[str] = set()
        self.watching: dict[int, tuple[str, Callable[[], None]]] = {}
        self._numbers = itertools.count()

    def watch(self, peer: Peer, on_exit: Callable[[], None]) -> Watched:
        """Watch the process behind a connection."""
        if self.refusal is not None:
            raise self.refusal
        return self._watched(f"process of {peer.connection}", on_exit)

    def watch_again(self, mark: str, on_exit: Callable[[], None]) -> Watched | None:
        """Watch a process by its mark."""
        return None if mark in self.gone else self._watched(mark, on_exit)

    def end(self, connection: str = "") -> None:
        """A process ends."""
        mark = f"process of {connection}"
        self.gone.add(mark)
        for number, (name, on_exit) in tuple(self.watching.items()):
            if name == mark:
                del self.watching[number]
                on_exit()

    def _watched(self, mark: str, on_exit: Callable[[], None]) -> Watched:
        number = next(self._numbers)
        self.watching[number] = (mark, on_exit)
        return Watched(mark, lambda: self.watching.pop(number, None) and None)
