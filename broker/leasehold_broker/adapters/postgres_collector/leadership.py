"""Which replica does what only one should do: signing, feeding a sink, dropping old bodies, ending blocks.

Each duty has a lead of its own, held by an advisory lock of a connection: it ends with the connection, so a replica
that is killed or cut off is followed by another. For a moment two may believe that they lead; what they do is safe then
too, and done twice at most.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from leasehold_broker.adapters.postgres_collector.connections import FAILURES, PostgresAt
from leasehold_broker.adapters.postgres_collector.schema import LEAD_LOCK

RETRY_SECONDS = 1.0
ALIVE_SECONDS = 1.0


async def lead(at: PostgresAt, name: str, duty: Callable[[], Awaitable[None]]) -> None:
    """Do the duty of this name while this replica leads; for ever, until cancelled or until the duty raises.

    The duty is cancelled when the lead is lost, and done anew when it is won again.
    """
    while True:
        connection = await _won(at, name)
        if connection is not None:
            try:
                await _while_alive(connection, duty)
            finally:
                connection.terminate()
        await asyncio.sleep(RETRY_SECONDS)


async def _won(at: PostgresAt, name: str) -> Any:
    """A connection that holds the lead; None when another has it, or the database is away."""
    with contextlib.suppress(*FAILURES):
        connection = await asyncpg.connect(**at.settings())
        lock = f"{at.schema} {name}"
        if await connection.fetchval("SELECT pg_try_advisory_lock($1, hashtext($2))", LEAD_LOCK, lock):
            return connection
        connection.terminate()
    return None


async def _while_alive(connection: Any, duty: Callable[[], Awaitable[None]]) -> None:
    """Until the duty raises, or the connection is lost: then the duty is cancelled."""
    task = asyncio.ensure_future(duty())
    try:
        while not task.done():
            await asyncio.wait([task], timeout=ALIVE_SECONDS)
            try:
                await connection.fetchval("SELECT 1")
            except FAILURES:
                return
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
