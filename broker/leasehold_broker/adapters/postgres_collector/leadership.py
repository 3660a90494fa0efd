"""Which replica does what only one should do: signing, feeding sinks, dropping old bodies, ending blocks.

Held by an advisory lock of a connection: it ends with the connection, so a replica that is killed or cut off is
followed by another. For a moment two may believe that they lead; what they do is safe then too, and done twice at most.
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


async def lead(at: PostgresAt, duty: Callable[[], Awaitable[None]]) -> None:
    """Do `duty` while this replica leads; for ever, until cancelled or until the duty raises.

    The duty is cancelled when the lead is lost, and done anew when it is won again.
    """
    while True:
        with contextlib.suppress(*FAILURES):
            connection = await asyncpg.connect(**at.settings())
            try:
                while not await connection.fetchval(  # noqa: ASYNC110 - a lock announces its freedom to nobody
                    "SELECT pg_try_advisory_lock($1, hashtext($2))", LEAD_LOCK, at.schema
                ):
                    await asyncio.sleep(RETRY_SECONDS)
                await _while_alive(connection, duty)
            finally:
                connection.terminate()
        await asyncio.sleep(RETRY_SECONDS)


async def _while_alive(connection: Any, duty: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(duty())
    try:
        while True:
            done, _ = await asyncio.wait([task], timeout=ALIVE_SECONDS)
            if done:
                return await task
            await connection.fetchval("SELECT 1")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
