"""Rotations in the collector's file. Owns that a step, its event and the check of the lead are one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from sqlite_utils import Database

from leasehold_broker.adapters.sqlite_collector.journal import WriterMemory
from leasehold_broker.adapters.sqlite_collector.reader import Reader
from leasehold_broker.adapters.sqlite_collector.writer import GroupWriter
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.leads import HeldLead, LeadWatch, taken_by
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Rotation
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.write_rank import WriteRank
from leasehold_broker.ports.rotation_log import Lead, RotationRequest

ROTATIONS_LEAD = "rotations"
_LEAD = "SELECT holder, fence, beat FROM leads WHERE name = ?"
_PUT_LEAD = (
    "INSERT INTO leads (name, holder, fence, beat) VALUES (?,?,?,?) ON CONFLICT (name) DO UPDATE SET "
    "holder = excluded.holder, fence = excluded.fence, beat = excluded.beat"
)
_ASKED = (
    "SELECT r.body FROM rotation_requests q JOIN rotations r ON r.id = q.rotation "
    "WHERE q.requested_by = ? AND q.request_id = ?"
)
_OPEN = "SELECT body FROM rotations WHERE over = 0 ORDER BY number"
_OPEN_OF = "SELECT body FROM rotations WHERE over = 0 AND key = ? ORDER BY number DESC"
_NEWEST = (
    "SELECT body FROM rotations WHERE (:key = '' OR key = :key) AND (:before = '' OR number < "
    "(SELECT number FROM rotations WHERE id = :before)) ORDER BY number DESC LIMIT :limit"
)
_ROTATION = msgspec.json.Decoder(Rotation)
T = TypeVar("T")


class SqliteRotations:
    """Implements `RotationLog`."""

    def __init__(self, writer: GroupWriter, memory: WriterMemory, reader: Reader) -> None:
        """Share the writer, its chain of events, and a reader of the collector's store."""
        self._writer = writer
        self._memory = memory
        self._reader = reader
        self._watch = LeadWatch()
        self._fresh_life = True
        """Whoever had the lead before is dead: this process has the file's lock."""

    async def take_lead(self, holder: str, seconds: float, now: Instant) -> Lead | None:
        """See the port."""

        def job(connection: sqlite3.Connection) -> Lead | None:
            row = connection.execute(_LEAD, (ROTATIONS_LEAD,)).fetchone()
            held = None if row is None else HeldLead(*row)
            free = held is not None and (self._fresh_life or self._watch.lapsed(held, seconds, now))
            taken = taken_by(held, holder, free=free)
            if taken is None:
                return None
            connection.execute(_PUT_LEAD, (ROTATIONS_LEAD, taken.holder, taken.fence, taken.beat))
            return Lead(holder, taken.fence)

        lead = await self._writer.submit(job, WriteRank.REVOCATIONS)
        self._fresh_life = False
        return lead

    async def request(self, request: RotationRequest, describe: Callable[[Rotation], Event]) -> Rotation:
        """See the port."""
        wanted = request.rotation
        asked = (wanted.requested_by, request.request_id)

        def job(connection: sqlite3.Connection) -> Rotation:
            known = _one(connection, _ASKED, asked)
            if known is not None:
                if known.key != wanted.key:
                    message = f"request_id {request.request_id} was used for key {known.key!r}; send a new UUID"
                    raise Refusal(Reason.REQUEST_ID_REUSED, message)
                return known
            open_ = [_ROTATION.decode(row[0]) for row in connection.execute(_OPEN_OF, (wanted.key,))]
            found = next((each for each in open_ if each.takes(wanted)), wanted)
            if found is wanted:
                connection.execute(
                    "INSERT INTO rotations (id, key, over, body) VALUES (?,?,0,?)",
                    (wanted.id, wanted.key, _body(wanted)),
                )
                self._memory.record(connection, describe(wanted))
            connection.execute(
                "INSERT INTO rotation_requests (requested_by, request_id, rotation) VALUES (?,?,?)", (*asked, found.id)
            )
            return found

        return await self._writer.submit(job, WriteRank.REVOCATIONS)

    async def advance(self, lead: Lead | None, before: Rotation, after: Rotation, event: Event | None) -> None:
        """See the port."""

        def job(connection: sqlite3.Connection) -> None:
            held = connection.execute(_LEAD, (ROTATIONS_LEAD,)).fetchone()
            if lead is not None and (held is None or (held[0], held[1]) != (lead.holder, lead.fence)):
                raise Refusal(Reason.CONCURRENT_UPDATE, "another collector leads the rotations now")
            self._replace(connection, before, after, event)

        await self._writer.submit(job, WriteRank.REVOCATIONS)

    async def open_rotations(self) -> Sequence[Rotation]:
        """See the port."""
        return await self._reader.ask(lambda database: _read(database, _OPEN, {}))

    async def find_rotation(self, rotation_id: str) -> Rotation | None:
        """See the port."""
        sql = "SELECT body FROM rotations WHERE id = :id"
        found = await self._reader.ask(lambda database: _read(database, sql, {"id": rotation_id}))
        return found[0] if found else None

    async def last_rotations(self, key: str, limit: int, before_id: str = "") -> Sequence[Rotation]:
        """See the port."""
        asked: dict[str, str | int] = {"key": key, "before": before_id, "limit": limit}
        return await self._reader.ask(lambda database: _read(database, _NEWEST, asked))

    def _replace(self, connection: sqlite3.Connection, before: Rotation, after: Rotation, event: Event | None) -> None:
        changed = connection.execute(
            "UPDATE rotations SET body = ?, over = ? WHERE id = ? AND body = ?",
            (_body(after), after.over, before.id, _body(before)),
        ).rowcount
        if changed != 1:
            raise Refusal(Reason.CONCURRENT_UPDATE, f"{before.name} has gone on meanwhile; look again")
        if event is not None:
            self._memory.record(connection, event)


def _body(rotation: Rotation) -> bytes:
    return msgspec.json.encode(rotation, order="sorted")


def _one(connection: sqlite3.Connection, sql: str, parameters: tuple[str, ...]) -> Rotation | None:
    row = connection.execute(sql, parameters).fetchone()
    return None if row is None else _ROTATION.decode(row[0])


def _read(database: Database, sql: str, parameters: dict[str, str | int]) -> list[Rotation]:
    return [_ROTATION.decode(row["body"]) for row in database.query(sql, parameters)]
