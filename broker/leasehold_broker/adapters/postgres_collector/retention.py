"""Dropping old bodies. Owns how far it has come, so that no record is looked at twice."""

from typing import Any

from leasehold_broker.domain.events import EventType

_MARK = "SELECT value FROM marks WHERE name = 'bodies_dropped' FOR UPDATE"
_PUT_MARK = (
    "INSERT INTO marks (name, value) VALUES ('bodies_dropped', $1) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_FIRST_YOUNG = "SELECT min(position) FROM events WHERE position > $1 AND position <= $2 AND receive_wall_ms >= $3"
_DROP_BODIES = (
    "UPDATE events SET body = '', lease = '', issuer = '', subject = '' "
    "WHERE position > $1 AND position <= $2 AND type <> $3"
)
_DROP_KEYS = "DELETE FROM event_keys WHERE position > $1 AND position <= $2"


async def drop_bodies(connection: Any, before_wall_ms: int, until_position: int, limit: int) -> int:
    """See `EventStore.drop_bodies`; in a transaction.

    Records come in the order of their positions: the first that is young enough ends it, whatever the clock did later.
    """
    done = await connection.fetchval(_MARK) or 0
    size = await connection.fetchval("SELECT size FROM log_head")
    end = min(until_position, size, done + limit)
    young = await connection.fetchval(_FIRST_YOUNG, done, end, before_wall_ms)
    end = end if young is None else min(end, young - 1)
    if end <= done:
        return 0
    await connection.execute(_DROP_BODIES, done, end, EventType.AUDIT_GAP_ACCEPTED.value)
    await connection.execute(_DROP_KEYS, done, end)
    await connection.execute(_PUT_MARK, end)
    return int(end - done)
