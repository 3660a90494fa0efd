"""What clients of a collector have in common. Owns connecting to one, and who is shown there; asks for nothing."""

from types import TracebackType
from typing import Self

from leasehold._channel import Link
from leasehold._identity import Identity, Proof, TokenSource
from leasehold._settings import TIMEOUT_SECONDS, Settings, TlsFiles


class Connected:
    """A connection to a collector, or to an admin socket.

    Args:
        target: "unix:///path", "/path", or "host:port" (then TLS).
        token: as for `LeaseholdClient`. None: over TCP as there; over a Unix socket none is looked for, so that an
            agent's token that happens to lie in the environment does not stand in the way of the uid.
        tls, timeout_seconds, proof: as for `LeaseholdClient`.
    """

    def __init__(
        self,
        target: str,
        token: TokenSource | None = None,
        *,
        tls: TlsFiles | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        proof: Proof | None = None,
    ) -> None:
        """See the class. Connects at the first call."""
        settings = Settings.of(target, tls, timeout_seconds)
        by_uid = settings.tls is None and token is None
        self._link = Link(settings, Identity.nobody() if by_uid else Identity(token, required=False, proof=proof))

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    def __enter__(self) -> Self:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
