"""Bans of sidecars in the collector's file. Owns that a ban and its event are one transaction."""

import sqlite3
from collections.abc import Sequence

from leasehold_broker.adapters.sqlite_collector.journal import WriterMemory
from leasehold_broker.adapters.sqlite_collector.reader import Reader
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.ports.sidecar_register import SidecarBan

_BANS = "SELECT sidecar, note, banned_by, create_wall_ms FROM bans ORDER BY sidecar"
_KNOWS = "SELECT 1 AS known FROM sidecars WHERE name = :name"
_PUT = "INSERT INTO bans (sidecar, note, banned_by, create_wall_ms) VALUES (?,?,?,?) ON CONFLICT DO NOTHING"


class SqliteRegister:
    """Implements `SidecarRegister`."""

    def __init__(self, writer: GroupWriter, memory: WriterMemory, reader: Reader) -> None:
        """Share the writer, its chain of events, and a reader of the collector's store."""
        self._writer = writer
        self._memory = memory
        self._reader = reader

    async def bans(self) -> Sequence[SidecarBan]:
        """See the port."""
        return await self._reader.ask(lambda database: [SidecarBan(**row) for row in database.query(_BANS)])

    async def ban(self, ban: SidecarBan, event: Event) -> bool:
        """See the port."""
        return await self._change(_PUT, (ban.sidecar, ban.note, ban.banned_by, ban.create_wall_ms), event)

    async def readmit(self, sidecar: str, event: Event) -> bool:
        """See the port."""
        return await self._change("DELETE FROM bans WHERE sidecar = ?", (sidecar,), event)

    async def knows(self, sidecar: str) -> bool:
        """See the port."""
        return await self._reader.ask(lambda database: any(database.query(_KNOWS, {"name": sidecar})))

    async def forget(self, sidecar: str, event: Event) -> bool:
        """See the port."""
        return await self._change("DELETE FROM sidecars WHERE name = ?", (sidecar,), event)

    async def _change(self, sql: str, parameters: tuple[object, ...], event: Event) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(sql, parameters).rowcount > 0
            if changed:
                self._memory.record(connection, event)
            return changed

        return await self._writer.submit(job, WriteRank.REVOCATIONS)
