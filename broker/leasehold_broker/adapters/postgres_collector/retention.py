"""Dropping old bodies. Owns how far it has come, so that no record is looked at twice.

A partition whose records are all old is written anew without bodies, piece by piece, and the old one is dropped whole:
its disk is free at once, and nothing is left for vacuum. Places, links and digests are in the new one, so chain,
repeats and proofs are what they were. Where only a part is old, rows are emptied.
"""

from dataclasses import dataclass
from typing import Any

from leasehold_broker.domain.events import EventType

LOOK_SECONDS_MAX = 600.0
"""At all records of a partition: many millions."""
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
"""For the change of a partition, which waits for readers and makes others wait: better tried again later."""
_MARK = "SELECT value FROM marks WHERE name = $1 FOR UPDATE"
_PUT_MARK = "INSERT INTO marks (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
_DROPPED, _COPIED = "bodies_dropped", "partition_copied"
_FIRST_YOUNG = "SELECT min(position) FROM events WHERE position > $1 AND position <= $2 AND receive_wall_ms >= $3"
_LAST_IS_OLD = "SELECT receive_wall_ms < $2 FROM events WHERE position = $1"
_DROP_BODIES = (
    "UPDATE events SET body = '', lease = '', issuer = '', subject = '', key = '' "
    "WHERE position > $1 AND position <= $2 AND type <> $3"
)
_DROP_KEYS = "DELETE FROM event_keys WHERE position > $1 AND position <= $2"
_PARTITIONS = (
    "SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'events'::regclass ORDER BY c.relname"
)
_COPY = (
    "INSERT INTO {kept} (position, life, sequence, receive_wall_ms, wall_ms, type, outcome, lease, issuer, subject, "
    "key, previous_digest, digest, body) SELECT position, life, sequence, receive_wall_ms, wall_ms, type, outcome, "
    "CASE WHEN type = $3 THEN lease ELSE '' END, CASE WHEN type = $3 THEN issuer ELSE '' END, "
    "CASE WHEN type = $3 THEN subject ELSE '' END, CASE WHEN type = $3 THEN key ELSE '' END, previous_digest, digest, "
    "CASE WHEN type = $3 THEN body ELSE '' END "
    "FROM {name} WHERE position > $1 AND position <= $2 ORDER BY position"
)


@dataclass(frozen=True, slots=True)
class _Partition:
    """Of the records from `start` to below `end`; `number` is in its tables' names."""

    number: str
    start: int
    end: int

    @property
    def last(self) -> int:
        """Position of its last record, once it is full."""
        return self.end - 1


async def drop_bodies(connection: Any, before_wall_ms: int, until_position: int, limit: int) -> int:
    """See `EventStore.drop_bodies`; in a transaction.

    Records come in the order of their positions: the first that is young enough ends it, whatever the clock did later.
    """
    total = 0
    while total < limit:
        gone = await _drop_next(connection, before_wall_ms, until_position, limit - total)
        if not gone:
            break
        total += gone
    return total


async def _drop_next(connection: Any, before_wall_ms: int, until_position: int, limit: int) -> int:
    """As far as one partition goes."""
    done = await connection.fetchval(_MARK, _DROPPED) or 0
    until = min(until_position, await connection.fetchval("SELECT size FROM log_head"))
    if until <= done:
        return 0
    partition = await _partition_of(connection, done + 1)
    if partition is not None and partition.last <= until:
        if await connection.fetchval(_LAST_IS_OLD, partition.last, before_wall_ms):
            copied = await _copy(connection, partition, before_wall_ms, limit)
            if copied is not None:
                return copied
        until = partition.last
    end = min(until, done + limit)
    young = await connection.fetchval(_FIRST_YOUNG, done, end, before_wall_ms)
    end = end if young is None else min(end, young - 1)
    if end <= done:
        return 0
    await connection.execute(_DROP_BODIES, done, end, EventType.AUDIT_GAP_ACCEPTED.value)
    await connection.execute(_DROP_KEYS, done, end)
    await connection.execute(_PUT_MARK, _DROPPED, end)
    return int(end - done)


async def _partition_of(connection: Any, position: int) -> _Partition | None:
    names = [row["name"] for row in await connection.fetch(_PARTITIONS)]
    numbers = [name.removeprefix("events_") for name in names]
    ends = [int(number) for number in numbers[1:]]
    ends.append(await connection.fetchval("SELECT value FROM marks WHERE name = 'partitions_end'") or 0)
    for number, end in zip(numbers, ends, strict=True):
        if int(number) <= position < end:
            return _Partition(number, int(number), end)
    return None


async def _copy(connection: Any, partition: _Partition, before_wall_ms: int, limit: int) -> int | None:
    """Copy the next records of a partition; with its last ones, put the copy in its place. None: one is young."""
    kept = f"events_{partition.number}_kept"
    done = await connection.fetchval(_MARK, _COPIED) or 0
    if done < partition.start or not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", kept):
        done = max(0, partition.start - 1)
        if await _young_in(connection, partition, before_wall_ms):
            return None
        await connection.execute(f"DROP TABLE IF EXISTS {kept}")
        await connection.execute(
            f"CREATE TABLE {kept} (LIKE events INCLUDING ALL, "
            f"CONSTRAINT within CHECK (position >= {partition.start} AND position < {partition.end}))"
        )
    end = min(partition.last, done + limit)
    name = f"events_{partition.number}"
    await connection.execute(_COPY.format(kept=kept, name=name), done, end, EventType.AUDIT_GAP_ACCEPTED.value)
    await connection.execute(_PUT_MARK, _COPIED, end)
    if end == partition.last:
        await _put_in_place(connection, partition, kept)
        await connection.execute(_PUT_MARK, _DROPPED, end)
    return int(end - done)


async def _young_in(connection: Any, partition: _Partition, before_wall_ms: int) -> bool:
    """Look at every record of it, once: clocks may have been set back in between."""
    await connection.execute(f"SET LOCAL statement_timeout = '{LOOK_SECONDS_MAX:.0f}s'")
    first = await connection.fetchval(
        _FIRST_YOUNG, partition.start - 1, partition.last, before_wall_ms, timeout=LOOK_SECONDS_MAX
    )
    return first is not None


async def _put_in_place(connection: Any, partition: _Partition, kept: str) -> None:
    """The table's own constraint spares the server a look at every row."""
    bounds = f"FROM ({partition.start}) TO ({partition.end})"
    await connection.execute(LOCK_TIMEOUT)
    for table in ("events", "event_keys"):
        old = f"{table}_{partition.number}"
        await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {old}")
        await connection.execute(f"DROP TABLE {old}")
        if table == "events":
            await connection.execute(f"ALTER TABLE {kept} RENAME TO {old}")
        else:
            await connection.execute(f"CREATE TABLE {old} (LIKE {table} INCLUDING ALL)")
        await connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {old} FOR VALUES {bounds}")
    await connection.execute(f"ALTER TABLE events_{partition.number} DROP CONSTRAINT within")
