"""What replicas remember together of fleet budgets. Owns that slices and their events are one turn at the log."""

from collections.abc import Sequence
from typing import Any

from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.connections import translated
from leasehold_broker.adapters.postgres_collector.slices import forget_slices, read_slices
from leasehold_broker.domain.events import Event
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice


class PostgresEscrowLog:
    """Implements `EscrowLog`."""

    def __init__(self, pool: Any, appender: Appender) -> None:
        """Share the connections and the writer of the collector's store."""
        self._pool = pool
        self._appender = appender

    async def slices(self, after_version: int = 0) -> EscrowBooks:
        """As the port says."""
        with translated("read"):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await read_slices(connection, after_version)

    async def put_slices(self, version: int, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> int:
        """As the port says."""
        return await self._appender.submit(lambda turn: turn.put_slices(version, fence, slices, events))

    async def forget_slices(self, fences: Sequence[int]) -> None:
        """As the port says."""
        with translated("write"):
            async with self._pool.acquire() as connection:
                await forget_slices(connection, fences)
