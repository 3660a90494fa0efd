"""Rows to values and questions to SQL. Pure functions over sqlite-utils' dictionaries; owns no connection."""

import msgspec

from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.budget_changes import BudgetChange

RECORDS = (
    "SELECT e.position, e.receive_wall_ms, e.type, l.stream, l.epoch, e.sequence, e.previous_digest, e.digest, e.body "
    "FROM events e JOIN lives l ON l.id = e.life WHERE e.position > :after"
)
LIVES = "SELECT id, stream, epoch, sequence, digest, receive_wall_ms, state FROM lives ORDER BY stream, id"
REVOCATIONS = "SELECT epoch, selector, note, revoked_by, create_wall_ms, terms FROM revocations"

MARK = "SELECT value FROM marks WHERE name = ?"
PUT_MARK = "INSERT INTO marks (name, value) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
LAST_POSITION = "SELECT coalesce(max(position), 0) FROM events"
FIRST_YOUNG = (
    "SELECT position FROM (SELECT position, receive_wall_ms FROM events WHERE position > ? ORDER BY position LIMIT ?) "
    "WHERE receive_wall_ms >= ? ORDER BY position LIMIT 1"
)
DROP_BODIES = (
    "UPDATE events SET body = x'', lease = '', issuer = '', subject = '', key = '' "
    "WHERE position > ? AND position <= ? AND type <> ?"
)
DROP_KEYS = "DELETE FROM event_keys WHERE position > ? AND position <= ?"
NEWEST_CHECKPOINT = "SELECT size, root, note, sign_wall_ms FROM checkpoints ORDER BY size DESC LIMIT 1"
CURSOR = "SELECT position FROM sink_cursors WHERE sink = ?"
PUT_CURSOR = (
    "INSERT INTO sink_cursors (sink, position) VALUES (?,?) "
    "ON CONFLICT (sink) DO UPDATE SET position = excluded.position"
)
FOLLOWER = "SELECT position FROM followers WHERE name = ?"
PUT_FOLLOWER = (
    "INSERT INTO followers (name, position) VALUES (?,?) ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)
REMEMBERED = "SELECT key, body FROM remembered WHERE follower = ? ORDER BY key"
PUT_REMEMBERED = (
    "INSERT INTO remembered (follower, key, body) VALUES (?,?,?) "
    "ON CONFLICT (follower, key) DO UPDATE SET body = excluded.body"
)
DROP_REMEMBERED = "DELETE FROM remembered WHERE follower = ? AND key = ?"
APPLIED_BETWEEN = (
    "SELECT sidecar, max(epoch), sum(leases_ended), sum(calls_cut) FROM applied "
    "WHERE epoch BETWEEN ? AND ? AND sidecar IN (SELECT value FROM json_each(?)) GROUP BY sidecar"
)
PUT_CHECKPOINT = "INSERT INTO checkpoints (size, root, note, sign_wall_ms) VALUES (?,?,?,?)"

BUDGET_CHANGES_AFTER = "SELECT body FROM budget_changes WHERE number > :number ORDER BY number LIMIT :limit"
BUDGET_CHANGE_ASKED = "SELECT body FROM budget_changes WHERE changed_by = ? AND request_id = ?"
PUT_BUDGET_CHANGE = "INSERT INTO budget_changes (number, changed_by, request_id, body) VALUES (?,?,?,?)"
BUDGET_CHANGE = msgspec.json.Decoder(BudgetChange)

_CONDITIONS = {
    "stream": "e.life IN (SELECT id FROM lives WHERE stream = :stream)",
    "lease": "e.lease = :lease AND e.lease <> ''",
    "subject": "e.subject = :subject AND e.subject <> ''",
    "outcome": "e.outcome = :outcome",
    "start_wall_ms": "e.wall_ms >= :start_wall_ms",
    "end_wall_ms": "e.wall_ms < :end_wall_ms",
    "until_position": "e.position <= :until_position",
}


def question(wanted: EventFilter, after_position: int, limit: int) -> tuple[str, dict[str, str | int]]:
    """The SQL for one page and its parameters; every value is bound, never written into the text."""
    parameters: dict[str, str | int] = {"after": after_position, "limit": limit}
    conditions = []
    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value:
            conditions.append(condition)
            parameters[name] = value
    if wanted.type.endswith("."):
        conditions.append("e.type >= :type AND e.type < :type_end")
        parameters |= {"type": wanted.type, "type_end": wanted.type[:-1] + "/"}
    elif wanted.type:
        conditions.append("e.type = :type")
        parameters["type"] = wanted.type
    end = "ORDER BY position LIMIT :limit"
    if not wanted.key:
        return f"{' AND '.join([RECORDS, *conditions])} {end}", parameters
    parameters["key"] = wanted.key
    # Those of one key, and those of several: each in order and no more than needed.
    alone, among = (
        " AND ".join([RECORDS, *conditions, one])
        for one in ("e.key = :key AND e.key <> ''", "e.position IN (SELECT position FROM event_keys WHERE key = :key)")
    )
    return f"SELECT * FROM ({alone} {end}) UNION ALL SELECT * FROM ({among} {end}) {end}", parameters  # noqa: S608 - constants
