"""Which replica does what only one should do: signing, feeding a sink, dropping old bodies, ending blocks.

Each duty has a lead of its own, held by an advisory lock; a replica holds all of its locks by one connection. They
end with it, so a replica that is killed, cut off or frozen is followed by another. For a moment two may believe that
they lead; what they do is safe then too, and done twice at most.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from leasehold_broker.adapters.postgres_collector.connections import FAILURES, PostgresAt, let_go
from leasehold_broker.adapters.postgres_collector.schema import LEAD_LOCK

RETRY_SECONDS = 1.0
ALIVE_SECONDS = 1.0
SILENT_SECONDS_MAX = 15.0
_TRY = "SELECT pg_try_advisory_lock($1, hashtext($2))"
_RELEASE = "SELECT pg_advisory_unlock($1, hashtext($2))"


class Leadership:
    """One replica's part in the leads of all duties."""

    def __init__(self, at: PostgresAt) -> None:
        """Nothing is led yet, and nothing connected."""
        self._at = at
        self._turn = asyncio.Lock()
        self._connection: Any = None

    def _settings(self) -> dict[str, Any]:
        """A process that froze says nothing, and yet its socket lives: the server ends the session of one so silent."""
        settings = self._at.settings()
        more = {"idle_session_timeout": f"{SILENT_SECONDS_MAX:g}s"}
        return settings | {"server_settings": settings["server_settings"] | more}

    async def close(self) -> None:
        """Let go of every lead."""
        if self._connection is not None:
            await let_go(self._connection)

    async def lead(self, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Do the duty of this name while this replica leads; for ever, until cancelled or until the duty raises.

        The duty is cancelled when the lead is lost, and done anew when it is won again.
        """
        lock = f"{self._at.schema} {name}"
        while True:
            connection = await self._won(lock)
            if connection is not None:
                try:
                    await self._while_held(connection, duty)
                finally:
                    await self._ask(connection, _RELEASE, LEAD_LOCK, lock)
            await asyncio.sleep(RETRY_SECONDS)

    async def _won(self, lock: str) -> Any:
        """The connection that holds the lead; None when another replica has it, or the database is away."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                with contextlib.suppress(*FAILURES):
                    self._connection = await asyncpg.connect(**self._settings())
            connection = self._connection
        if connection is not None and await self._ask(connection, _TRY, LEAD_LOCK, lock):
            return connection
        return None

    async def _ask(self, connection: Any, sql: str, *parameters: object) -> object:
        """The answer; None when the connection is gone."""
        async with self._turn:
            if not connection.is_closed():
                try:
                    return await connection.fetchval(sql, *parameters)
                except FAILURES:
                    connection.terminate()
        return None

    async def _while_held(self, connection: Any, duty: Callable[[], Awaitable[None]]) -> None:
        """Until the duty raises, or the connection is lost: then the duty is cancelled."""
        task = asyncio.ensure_future(duty())
        try:
            while not task.done():
                await asyncio.wait([task], timeout=ALIVE_SECONDS)
                if not task.done() and await self._ask(connection, "SELECT 1") is None:
                    return
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
