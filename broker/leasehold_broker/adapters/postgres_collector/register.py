"""Bans of sidecars in PostgreSQL. Owns that a ban and its event are one transaction."""

from collections.abc import Sequence
from typing import Any

from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.connections import translated
from leasehold_broker.adapters.postgres_collector.turn import Turn
from leasehold_broker.domain.events import Event
from leasehold_broker.ports.sidecar_register import SidecarBan

_BANS = "SELECT sidecar, note, banned_by, create_wall_ms FROM bans ORDER BY sidecar"
_PUT = "INSERT INTO bans (sidecar, note, banned_by, create_wall_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"


class PostgresRegister:
    """Implements `SidecarRegister`."""

    def __init__(self, pool: Any, appender: Appender) -> None:
        """Share the connections and the writer of the collector's store."""
        self._pool = pool
        self._appender = appender

    async def bans(self) -> Sequence[SidecarBan]:
        """See the port."""
        with translated("read"):
            return [SidecarBan(**row) for row in await self._pool.fetch(_BANS)]

    async def ban(self, ban: SidecarBan, event: Event) -> bool:
        """See the port."""
        return await self._change(_PUT, (ban.sidecar, ban.note, ban.banned_by, ban.create_wall_ms), event)

    async def readmit(self, sidecar: str, event: Event) -> bool:
        """See the port."""
        return await self._change("DELETE FROM bans WHERE sidecar = $1", (sidecar,), event)

    async def knows(self, sidecar: str) -> bool:
        """See the port."""
        with translated("read"):
            return bool(await self._pool.fetch("SELECT 1 FROM sidecars WHERE name = $1", sidecar))

    async def forget(self, sidecar: str, event: Event) -> bool:
        """See the port; what replicas told each other of it goes as well."""
        await self._change("DELETE FROM fleet WHERE sidecar = $1 AND NOT connected", (sidecar,), None)
        return await self._change("DELETE FROM sidecars WHERE name = $1", (sidecar,), event)

    async def _change(self, sql: str, values: tuple[object, ...], event: Event | None) -> bool:
        async def work(turn: Turn) -> bool:
            return await turn.change(sql, values, event)

        return await self._appender.submit(work)
