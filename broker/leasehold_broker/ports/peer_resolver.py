"""The port that says who owns the other end of an accepted connection."""

from typing import Protocol

from leasehold_broker.domain.identity import Peer


class Connection(Protocol):
    """An accepted stream socket: a `socket.socket`, or what an asyncio transport gives as its "socket"."""

    def fileno(self) -> int:
        """The open descriptor."""
        ...


class PeerResolver(Protocol):
    """Asks the kernel, never the caller. Call it once, right after accepting; it never blocks."""

    def peer_of(self, connection: Connection) -> Peer:
        """The other end of `connection`, without a certificate (TLS is read elsewhere).

        `uid` is None when the network lies between: then the caller needs a verified client certificate, or must
        refuse.

        Raises:
            Refusal: PEER_MISMATCH when the kernel gives no trustworthy answer (the other end has closed already, or
                is a user that this process cannot tell apart); `detail` says which.
        """
        ...
