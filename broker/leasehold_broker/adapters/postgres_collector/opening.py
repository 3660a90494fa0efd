"""Opens one replica's store, and closes it. Owns its connections: how many, and what never waits for what."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.connections import PostgresAt, check_server, let_go, translated
from leasehold_broker.adapters.postgres_collector.follower import Follower
from leasehold_broker.adapters.postgres_collector.leadership import Leadership
from leasehold_broker.adapters.postgres_collector.line import Line
from leasehold_broker.adapters.postgres_collector.schema import Partitions, migrate
from leasehold_broker.adapters.postgres_collector.store import PostgresCollectorStore
from leasehold_broker.domain.log_plan import LogWriter
from leasehold_broker.domain.placed_turns import PlacedTurns
from leasehold_broker.wire.event_body import checked_columns, encode_event

HEAD_CONNECTIONS = 3
"""One for turns with events, one for those with revocations, one to read the head: none of them waits for another."""
STATE_CONNECTIONS_MAX = 3
"""For all else but the log's records: never behind a long question to these."""


@asynccontextmanager
async def open_store(
    at: PostgresAt,
    stream: str,
    epoch: str,
    *,
    accept_gaps: bool = False,
    issued: Callable[[], None] = lambda: None,
    fail: Callable[[str], None] = lambda _why: None,
) -> AsyncIterator[PostgresCollectorStore]:
    """One replica's store, while the context lasts.

    Args:
        at: the database; its schema is made or migrated when that is due.
        stream: name of this replica's own stream: no other replica has it.
        epoch: of this life of the replica: never used before.
        accept_gaps: let streams go on behind a hole, which is then an event.
        issued: told when there is a revocation or a change of a budget that this replica did not know.
        fail: told when the log is not the one that was opened: nothing may go on then.

    Raises:
        ValueError: the schema is of a newer version, or the server keeps no promise.
        Refusal: STORE_UNAVAILABLE.
    """
    writer = LogWriter(stream, epoch, accept_gaps, encode_event, checked_columns)
    channel = f"leasehold_{at.schema}"
    partitions = Partitions(at.schema, at.partition_records)
    async with AsyncExitStack() as closing:

        async def connected(least: int, most: int, **settings: float) -> Any:
            pool = await asyncpg.create_pool(**at.settings(), min_size=least, max_size=most, **settings)
            closing.push_async_callback(let_go, pool)
            return pool

        with translated("open"):
            # Kept while nothing happens: a revocation must not find that the server has no connection left.
            head = await connected(HEAD_CONNECTIONS, HEAD_CONNECTIONS, max_inactive_connection_lifetime=0.0)
            pool = await connected(1, STATE_CONNECTIONS_MAX)
            log = await connected(1, at.connections_max)
            async with pool.acquire() as connection:
                await check_server(connection)
                await migrate(connection, at.schema)
                await connection.execute("INSERT INTO replicas (stream) VALUES ($1) ON CONFLICT DO NOTHING", stream)
                await partitions.ready(connection, 0)
            follower = Follower(at, head, channel, issued, fail)
            await follower.start()
        closing.push_async_callback(follower.close)
        placed = PlacedTurns()
        ordinary, revocations = (
            Appender(line, head, writer, partitions, channel, placed, follower.advanced)
            for line in (Line.ORDINARY, Line.REVOCATIONS)
        )
        leadership = Leadership(at)
        closing.push_async_callback(leadership.close)
        closing.push_async_callback(revocations.close)
        closing.push_async_callback(ordinary.close)
        yield PostgresCollectorStore(stream, pool, log, ordinary, revocations, placed, follower, leadership)
