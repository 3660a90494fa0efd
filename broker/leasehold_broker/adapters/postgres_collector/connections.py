"""Connections to PostgreSQL: where, how durable, how long anything may take; and its failures as ours."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from leasehold_broker.domain.reasons import Reason, Refusal

SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
VERSION_MIN = 140_000
COMMAND_SECONDS_MAX = 30.0
CONNECT_SECONDS_MAX = 10.0
CLOSE_SECONDS_MAX = 3.0


class HeadMovedError(RuntimeError):
    """The log's head is not what it must be: the database was altered, or let two writers in. Nothing is written."""


# The internal one is what asyncpg raises on a connection that the server has just ended.
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_OURS = (asyncpg.InterfaceError, OSError, HeadMovedError)
"""Failures whose text holds nothing of a row."""
_SESSION = {
    "application_name": "leasehold-collector",
    "synchronous_commit": "on",  # whatever the server's default is: what is acknowledged is on the disk
    "statement_timeout": "30s",
    "lock_timeout": "20s",
    # The log has one appender at a time. One that froze or was cut off must not keep the turn.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class PostgresAt:
    """A database.

    Args:
        url: postgresql://user@host:port/database, with TLS settings as its query; without a password.
        schema: everything is in this schema of it; made when it is missing.
        password_file: read for each connection; None when the server asks for none.
        connections_max: of one replica, for questions to the log; it takes up to eight more.
        partition_records: records in each partition of the log.
    """

    url: str
    schema: str = "leasehold"
    password_file: Path | None = None
    connections_max: int = 8
    partition_records: int = 1 << 24

    def __post_init__(self) -> None:
        """Refuse a name that would have to be quoted: it is written into statements."""
        if not SCHEMA_NAME.fullmatch(self.schema):
            message = f"schema {self.schema!r} must be lower-case letters, digits and _, at most 48 of them"
            raise ValueError(message)

    def settings(self) -> dict[str, Any]:
        """For asyncpg: `connect` and `create_pool` take them."""
        settings: dict[str, Any] = {
            "dsn": self.url,
            "server_settings": _SESSION | {"search_path": self.schema},
            "timeout": CONNECT_SECONDS_MAX,
            "command_timeout": COMMAND_SECONDS_MAX,
        }
        if self.password_file is not None:
            settings["password"] = self._password
        return settings

    def _password(self) -> str:
        assert self.password_file is not None  # noqa: S101 - for the type; asked only then
        return self.password_file.read_text().strip()


@contextmanager
def translated(what: str = "use") -> Iterator[None]:
    """Failures of the database inside become a Refusal.

    Raises:
        Refusal: STORE_UNAVAILABLE.
    """
    try:
        yield
    except FAILURES as error:
        raise unavailable(error, what) from None


def unavailable(error: BaseException, what: str = "use") -> Refusal:
    """The refusal for a failure; tells the server's sentence, and not the row that it was about."""
    said = error.message if isinstance(error, asyncpg.PostgresError) else str(error) if isinstance(error, _OURS) else ""
    return Refusal(
        Reason.STORE_UNAVAILABLE,
        f"the collector cannot {what} its database; its operators must look at PostgreSQL",
        detail=f"{type(error).__name__}: {said or 'no more is known'}",
        retry_after_seconds=2.0,
    )


async def let_go(connections: Any) -> None:
    """Close a connection, or a pool, in peace; by force when that takes too long."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await connections.close()
    except FAILURES:
        connections.terminate()


async def check_server(connection: Any) -> None:
    """Go on only with a server that keeps what it commits.

    Raises:
        ValueError: says what is wrong with it.
    """
    version = connection.get_server_version()
    wrong = []
    if version.major * 10_000 < VERSION_MIN:
        wrong.append(f"is PostgreSQL {version.major}; 14 or newer is needed")
    if await connection.fetchval("SHOW fsync") != "on":
        wrong.append("runs with fsync = off: a power cut would lose acknowledged events")
    if await connection.fetchval("SELECT pg_is_in_recovery()"):
        wrong.append("is a standby; give the address of the primary")
    if wrong:
        message = "the collector's database " + ", and ".join(wrong)
        raise ValueError(message)
