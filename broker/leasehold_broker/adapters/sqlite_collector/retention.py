"""Dropping old bodies. Owns how far it has come, so that no record is looked at twice."""

import sqlite3

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.domain.events import EventType

_MARK = "bodies_dropped"


def drop_bodies(connection: sqlite3.Connection, before_wall_ms: int, until_position: int, limit: int) -> int:
    """See `EventStore.drop_bodies`; runs on the writer's thread.

    Records come in the order of their positions: the first that is young enough ends it, whatever the clock did later.
    """
    row = connection.execute(rows.MARK, (_MARK,)).fetchone()
    done = 0 if row is None else int(row[0])
    until_position = min(until_position, connection.execute(rows.LAST_POSITION).fetchone()[0])
    young = connection.execute(rows.FIRST_YOUNG, (done, limit, before_wall_ms)).fetchone()
    end = min(until_position, done + limit, until_position if young is None else young[0] - 1)
    if end <= done:
        return 0
    connection.execute(rows.DROP_BODIES, (done, end, EventType.AUDIT_GAP_ACCEPTED))
    connection.execute(rows.DROP_KEYS, (done, end))
    connection.execute(rows.PUT_MARK, (_MARK, end))
    return end - done
