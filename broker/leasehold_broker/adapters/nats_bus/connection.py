"""A session with NATS: where, as whom; and its failures as ours.

A session is never mended by the library: what was decided before a connection was lost is not sent after it. Whoever
uses one begins anew, and looks first at what is there.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from leasehold_broker.domain.reasons import Reason, Refusal

PREFIX = re.compile(r"[a-z][a-z0-9-]{0,47}")
CONNECT_SECONDS_MAX = 5.0
REQUEST_SECONDS_MAX = 10.0
PING_SECONDS = 5
PINGS_LOST_MAX = 2
SERVER_MIN = (2, 10)
PAYLOAD_BYTES_MIN = 1024 * 1024

FAILURES = (NatsError, OSError, TimeoutError, asyncio.CancelledError)
"""What a session raises; the last when the library lets go of a request because the session ended.

Caught only of a task of its own: a cancellation that is meant for who asks is not one of them.
"""


@dataclass(frozen=True, slots=True)
class NatsAt:
    """A NATS with JetStream.

    Args:
        servers: addresses, nats:// or tls://.
        prefix: names everything of this collector there: the stream, its subjects, the bucket.
        creds_file: of a user, with its token and seed; None for none.
        nkey_file: a user's seed; None for none.
        ca_file: roots that the servers' certificates come from; None: no TLS, or the system's with tls://.
        bytes_max: of the ingest stream: more is refused.
        replicas: servers that keep each message.
    """

    servers: tuple[str, ...]
    prefix: str = "leasehold"
    creds_file: Path | None = None
    nkey_file: Path | None = None
    ca_file: Path | None = None
    bytes_max: int = 16 << 30
    replicas: int = 1

    def __post_init__(self) -> None:
        """Refuse a name that would be more than one word of a subject."""
        if not PREFIX.fullmatch(self.prefix):
            message = f"prefix {self.prefix!r} must be lower-case letters, digits and -, at most 48 of them"
            raise ValueError(message)


class Session:
    """One connection, from its beginning to its end."""

    def __init__(self, connection: Any, over: asyncio.Event) -> None:
        """Made by `open_session`."""
        self._connection = connection
        self._over = over
        self.js = connection.jetstream(timeout=REQUEST_SECONDS_MAX)

    async def ended(self) -> None:
        """Return once it is over."""
        await self._over.wait()

    @property
    def over(self) -> bool:
        """True once it is."""
        return self._over.is_set()

    async def close(self) -> None:
        """End it."""
        self._over.set()
        await attempted(self._connection.close())

    async def ask(self, question: Awaitable[Any]) -> Any:
        """The answer; when the session ends first, no answer.

        Raises:
            Refusal: STORE_UNAVAILABLE.
            APIError: the server's own refusal.
        """
        asking = asyncio.ensure_future(question)
        ending = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([asking, ending], return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise unavailable("the connection ended")
            with translated():
                return asking.result()
        finally:
            for task in (asking, ending):
                task.cancel()
            await asyncio.gather(asking, ending, return_exceptions=True)


async def attempted(work: Awaitable[Any]) -> None:
    """Do this to its end, whatever comes of it, for `CONNECT_SECONDS_MAX` at most.

    Raises:
        asyncio.CancelledError: who waits here is cancelled, once it is done; what the library cancels goes no further.
    """

    async def bounded() -> None:
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await work

    task = asyncio.ensure_future(bounded())
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            await asyncio.wait([task])


async def open_session(at: NatsAt, name: str) -> Session:
    """Connect.

    Raises:
        Refusal: STORE_UNAVAILABLE: nobody is there, or it lets us not in.
    """
    over = asyncio.Event()

    async def ended() -> None:
        over.set()

    async def failed(_error: Exception) -> None:
        return  # the session's end is told apart; what fails in between fails where it was asked for

    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS_MAX):
            connection = await nats.connect(
                list(at.servers),
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=0,
                reconnect_time_wait=0.1,
                connect_timeout=int(CONNECT_SECONDS_MAX),
                ping_interval=PING_SECONDS,
                max_outstanding_pings=PINGS_LOST_MAX,
                closed_cb=ended,
                disconnected_cb=ended,
                error_cb=failed,
                **_credentials(at),
            )
    except (NatsError, OSError, TimeoutError, ValueError) as error:
        raise unavailable(
            f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
        ) from None
    session = Session(connection, over)
    version = connection.connected_server_version
    if (version.major, version.minor) < SERVER_MIN or connection.max_payload < PAYLOAD_BYTES_MIN:
        await session.close()
        why = (
            f"the server is {version.major}.{version.minor} and takes messages of {connection.max_payload} bytes; "
            f"it must be {SERVER_MIN[0]}.{SERVER_MIN[1]} or newer and take {PAYLOAD_BYTES_MIN}"
        )
        raise unavailable(why)
    return session


def _credentials(at: NatsAt) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if at.creds_file is not None:
        given["user_credentials"] = str(at.creds_file)
    if at.nkey_file is not None:
        given["nkeys_seed"] = str(at.nkey_file)
    if at.ca_file is not None or any(server.startswith("tls://") for server in at.servers):
        given["tls"] = ssl.create_default_context(cafile=None if at.ca_file is None else str(at.ca_file))
    return given


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Failures of NATS inside become a Refusal; what the server itself refuses stays an APIError.

    Raises:
        Refusal: STORE_UNAVAILABLE.
    """
    try:
        yield
    except APIError:
        raise
    except FAILURES as error:
        raise unavailable(type(error).__name__) from None


def unavailable(why: str) -> Refusal:
    """The refusal for a failure."""
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        "the collector cannot use its ingest stream; its operators must look at NATS",
        detail=why,
        retry_after_seconds=2.0,
    )
