"""Rotations in PostgreSQL. Owns that a step, its event and the check of the lead are one transaction.

The row of the lead is locked while a step is written: who takes the lead waits for a step that is being committed, and
reads what it left; a step that comes later finds another fence.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.connections import translated
from leasehold_broker.adapters.postgres_collector.turn import Turn
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.leads import HeldLead, LeadWatch, taken_by
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Rotation
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.rotation_log import Lead, RotationRequest

ROTATIONS_LEAD = "rotations"
_LEAD = "SELECT holder, fence, beat FROM leads WHERE name = $1 FOR UPDATE"
_FIRST_LEAD = "INSERT INTO leads (name, holder, fence, beat) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
_PUT_LEAD = "UPDATE leads SET holder = $2, fence = $3, beat = $4 WHERE name = $1"
_HELD = "SELECT 1 FROM leads WHERE name = $1 AND holder = $2 AND fence = $3 FOR SHARE"
_ASKED = (
    "SELECT r.body FROM rotation_requests q JOIN rotations r ON r.id = q.rotation "
    "WHERE q.requested_by = $1 AND q.request_id = $2"
)
_PUT_ASKED = "INSERT INTO rotation_requests (requested_by, request_id, rotation) VALUES ($1, $2, $3)"
_PUT = "INSERT INTO rotations (id, key, done, body) VALUES ($1, $2, false, $3)"
_REPLACE = "UPDATE rotations SET body = $3, done = $4 WHERE id = $1 AND body = $2"
_OPEN = "SELECT body FROM rotations WHERE NOT done ORDER BY number"
_OPEN_OF = "SELECT body FROM rotations WHERE NOT done AND key = $1 ORDER BY number DESC"
_NEWEST = (
    "SELECT body FROM rotations WHERE ($1 = '' OR key = $1) AND ($2 = '' OR number < "
    "(SELECT number FROM rotations WHERE id = $2)) ORDER BY number DESC LIMIT $3"
)
_ROTATION = msgspec.json.Decoder(Rotation)


class PostgresRotations:
    """Implements `RotationLog` for one replica."""

    def __init__(self, pool: Any, appender: Appender) -> None:
        """Share the connections and the writer of the collector's store."""
        self._pool = pool
        self._appender = appender
        self._watch = LeadWatch()

    async def take_lead(self, holder: str, seconds: float, now: Instant) -> Lead | None:
        """See the port."""
        with translated("write"):
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(_LEAD, ROTATIONS_LEAD)
                held = None if row is None else HeldLead(row["holder"], row["fence"], row["beat"])
                free = held is not None and self._watch.lapsed(held, seconds, now)
                taken = taken_by(held, holder, free=free)
                if taken is None:
                    return None
                put = _FIRST_LEAD if held is None else _PUT_LEAD
                done = await connection.execute(put, ROTATIONS_LEAD, taken.holder, taken.fence, taken.beat)
        # Of two that found no lead at all, one has made it.
        return None if done.endswith(" 0") else Lead(holder, taken.fence)

    async def request(self, request: RotationRequest, describe: Callable[[Rotation], Event]) -> Rotation:
        """See the port."""
        wanted = request.rotation
        asked = (wanted.requested_by, request.request_id)

        async def work(turn: Turn) -> Rotation:
            known = _one(await turn.ask(_ASKED, *asked))
            if known is not None:
                if known.key != wanted.key:
                    message = f"request_id {request.request_id} was used for key {known.key!r}; send a new UUID"
                    raise Refusal(Reason.REQUEST_ID_REUSED, message)
                return known
            open_ = [_ROTATION.decode(row["body"]) for row in await turn.ask(_OPEN_OF, wanted.key)]
            found = next((each for each in open_ if each.takes(wanted)), wanted)
            if found is wanted:
                turn.record(describe(wanted))
                await turn.change(_PUT, (wanted.id, wanted.key, _body(wanted)), None)
            await turn.change(_PUT_ASKED, (*asked, found.id), None)
            return found

        return await self._appender.submit(work)

    async def advance(self, lead: Lead | None, before: Rotation, after: Rotation, event: Event | None) -> None:
        """See the port."""

        async def work(turn: Turn) -> None:
            if lead is not None and not await turn.ask(_HELD, ROTATIONS_LEAD, lead.holder, lead.fence):
                raise Refusal(Reason.CONCURRENT_UPDATE, "another collector leads the rotations now")
            if not await turn.change(_REPLACE, (before.id, _body(before), _body(after), after.over), event):
                raise Refusal(Reason.CONCURRENT_UPDATE, f"{before.name} has gone on meanwhile; look again")

        await self._appender.submit(work)

    async def open_rotations(self) -> Sequence[Rotation]:
        """See the port."""
        return await self._read(_OPEN)

    async def find_rotation(self, rotation_id: str) -> Rotation | None:
        """See the port."""
        found = await self._read("SELECT body FROM rotations WHERE id = $1", rotation_id)
        return found[0] if found else None

    async def last_rotations(self, key: str, limit: int, before_id: str = "") -> Sequence[Rotation]:
        """See the port."""
        return await self._read(_NEWEST, key, before_id, limit)

    async def _read(self, sql: str, *values: object) -> list[Rotation]:
        with translated("read"):
            return [_ROTATION.decode(row["body"]) for row in await self._pool.fetch(sql, *values)]


def _body(rotation: Rotation) -> bytes:
    return msgspec.json.encode(rotation, order="sorted")


def _one(found: Sequence[Any]) -> Rotation | None:
    return _ROTATION.decode(found[0]["body"]) if found else None
