"""The port that tells when the process at the other end of a connection has ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.identity import Peer


@dataclass(frozen=True, slots=True)
class Watched:
    """A process that is being watched.

    Args:
        mark: names it for `watch_again`, also in a later life of the sidecar.
        stop: end the watch; harmless when it is over.
    """

    mark: str
    stop: Callable[[], None]


class PeerProcesses(Protocol):
    """Watches processes. Each is told of at most once, from the event loop, never within a call."""

    def watch(self, peer: Peer, on_exit: Callable[[], None]) -> Watched:
        """Watch the process that opened the peer's connection, also after the connection has closed.

        Args:
            peer: as it came with the call; its connection must still be open.
            on_exit: called when the process has ended.

        Raises:
            Refusal: FIELD_INVALID when the kernel does not show that process here, and the sentence says why;
                OVERLOADED when too many are watched.
        """
        ...

    def watch_again(self, mark: str, on_exit: Callable[[], None]) -> Watched | None:
        """Watch a process known from an earlier life; None when it has ended, or cannot be told from another one."""
        ...
