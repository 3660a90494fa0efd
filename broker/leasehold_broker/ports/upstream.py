"""The port to the providers' servers: one request out, one answer back through callbacks, no copy of a key kept.

Callbacks rather than an async iterator: bytes go to the caller in the same turn of the loop in which they came.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

from leasehold_broker.ports.provider import UpstreamRequest

KeyHeader = Callable[[], tuple[str, bytes]]
"""Reveals name and value of the one header that carries the key. Called once, when the head is written."""


class UpstreamFailure(StrEnum):
    """Why no whole answer came."""

    UNRESOLVED = "unresolved"
    ADDRESS_FORBIDDEN = "address_forbidden"
    CONNECT_FAILED = "connect_failed"
    TLS_FAILED = "tls_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    CLOSED_EARLY = "closed_early"
    BAD_ANSWER = "bad_answer"
    OVERLOADED = "overloaded"


class UpstreamListener(Protocol):
    """Gets one answer. `answer_finished` or `answer_failed` comes exactly once and last; nothing after `abort`."""

    def answer_started(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Status and headers have come (never an interim 1xx); names in lower case."""
        ...

    def body_received(self, data: bytes) -> None:
        """The next bytes of the body, decoded from their framing."""
        ...

    def answer_finished(self) -> None:
        """The body is complete."""
        ...

    def answer_failed(self, failure: UpstreamFailure) -> None:
        """No whole answer will come."""
        ...


class UpstreamCall(Protocol):
    """A request on its way."""

    @property
    def sent(self) -> bool:
        """False only while provably no byte of the request has been given to the socket."""
        ...

    def pause(self) -> None:
        """Read no more of the answer until `resume`."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def abort(self) -> None:
        """Drop the request and its connection at once. Nothing is called back. Idempotent."""
        ...


class Upstream(Protocol):
    """Sends requests to configured origins."""

    def send(
        self, origin: str, request: UpstreamRequest, key_header: KeyHeader, listener: UpstreamListener
    ) -> UpstreamCall:
        """Start one request; never waits. The listener is called from later turns of the loop only.

        Args:
            origin: scheme, host and port, one of those configured.
            request: all but the key; framing headers are added here.
            key_header: see `KeyHeader`; not called when no connection comes about.
            listener: gets the answer.
        """
        ...
