"""Rows to values and questions to SQL. Pure functions; owns no connection."""

import msgspec

from leasehold_broker.adapters.log_rows import REVOCATION_COLUMNS
from leasehold_broker.domain.audit_query import EventFilter
from leasehold_broker.domain.budget_changes import BudgetChange

HEAD = "SELECT size, root, lives, epoch, budget_change FROM log_head"
MOVE_HEAD = (
    "WITH moved AS (UPDATE log_head SET size = $1, root = $2, lives = $3, epoch = $4, budget_change = $5 "
    "WHERE size = $6 AND root = $7 RETURNING size) SELECT pg_notify($8, size::text) FROM moved"
)
RECORDS = (
    "SELECT e.position, e.receive_wall_ms, e.type, l.stream, l.epoch, e.sequence, e.previous_digest, e.digest, e.body "
    "FROM events e JOIN lives l ON l.id = e.life WHERE e.position > $1"
)
_LIVES = "SELECT id, stream, epoch, sequence, digest, receive_wall_ms, state FROM lives"
LIVES = f"{_LIVES} ORDER BY stream, id"
LIVES_OF = f"{_LIVES} WHERE stream = ANY($1) AND (is_current OR epoch = ANY($2)) ORDER BY stream, id"
DIGESTS = "SELECT sequence, digest FROM events WHERE life = $1 AND sequence = ANY($2)"
PUT_LIVES = (
    "INSERT INTO lives (id, stream, epoch, sequence, digest, receive_wall_ms, state, is_current) "
    "SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], "
    "$7::smallint[], $8::boolean[]) "
    "ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest, "
    "receive_wall_ms = excluded.receive_wall_ms, state = excluded.state, is_current = excluded.is_current"
)
EDGE = "SELECT level, hashes FROM edge ORDER BY level"
PUT_EDGE = (
    "INSERT INTO edge (level, number, hashes) VALUES ($1, $2, $3) "
    "ON CONFLICT (level) DO UPDATE SET number = excluded.number, hashes = excluded.hashes"
)
TILE = "SELECT hashes FROM tiles WHERE level = $1 AND number = $2"
EDGE_TILE = "SELECT hashes FROM edge WHERE level = $1 AND number = $2"

REVOCATIONS = "SELECT epoch, selector, note, revoked_by, create_wall_ms, terms, request_id FROM revocations"
REVOCATIONS_ASKED = f"{REVOCATIONS} WHERE revoked_by = $1 AND request_id = ANY($2)"
PUT_REVOCATION = f"INSERT INTO revocations ({REVOCATION_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"  # noqa: S608 - constants
BUDGET_CHANGES_AFTER = "SELECT body FROM budget_changes WHERE number > $1 ORDER BY number LIMIT $2"
BUDGET_CHANGE_ASKED = "SELECT body FROM budget_changes WHERE changed_by = $1 AND request_id = $2"
PUT_BUDGET_CHANGE = "INSERT INTO budget_changes (number, changed_by, request_id, body) VALUES ($1, $2, $3, $4)"
BUDGET_CHANGE = msgspec.json.Decoder(BudgetChange)

SIDECARS = "SELECT name, environment, version, applied_epoch, last_heard_wall_ms, authority_ms FROM sidecars"
PUT_SIDECAR = (
    "INSERT INTO sidecars (name, environment, version, applied_epoch, last_heard_wall_ms, authority_ms) "
    "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO UPDATE SET environment = excluded.environment, "
    "version = excluded.version, applied_epoch = greatest(sidecars.applied_epoch, excluded.applied_epoch), "
    "last_heard_wall_ms = excluded.last_heard_wall_ms, "
    "authority_ms = greatest(sidecars.authority_ms, excluded.authority_ms)"
)
PUT_APPLIED = (
    "INSERT INTO applied (epoch, sidecar, leases_ended, calls_cut) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
)
APPLIED_BETWEEN = (
    "SELECT sidecar, max(epoch), sum(leases_ended)::bigint, sum(calls_cut)::bigint FROM applied "
    "WHERE epoch BETWEEN $1 AND $2 AND sidecar = ANY ($3::text[]) GROUP BY sidecar"
)

NEWEST_CHECKPOINT = "SELECT size, root, note, sign_wall_ms FROM checkpoints ORDER BY size DESC LIMIT 1"
PUT_CHECKPOINT = (
    "INSERT INTO checkpoints (size, root, note, sign_wall_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (size) DO NOTHING"
)
CHECKPOINT_ROOT = "SELECT root FROM checkpoints WHERE size = $1"
CURSOR = "SELECT position FROM sink_cursors WHERE sink = $1"
PUT_CURSOR = (
    "INSERT INTO sink_cursors (sink, position) VALUES ($1, $2) "
    "ON CONFLICT (sink) DO UPDATE SET position = excluded.position"
)

_CONDITIONS = {
    "stream": "e.life IN (SELECT id FROM lives WHERE stream = {})",
    "lease": "e.lease = {} AND e.lease <> ''",
    "subject": "e.subject = {} AND e.subject <> ''",
    "outcome": "e.outcome = {}",
    "start_wall_ms": "e.wall_ms >= {}",
    "end_wall_ms": "e.wall_ms < {}",
    "until_position": "e.position <= {}",
}


def question(
    wanted: EventFilter, after_position: int, limit: int, *, gapless: bool = False
) -> tuple[str, list[str | int]]:
    """The SQL for one page and its parameters; every value is bound, never written into the text.

    `gapless`: all records are wanted, and they are at the next positions: said so, no planner sorts all that follow.
    """
    if gapless:
        last = after_position + limit
        wanted = EventFilter(until_position=min(last, wanted.until_position or last))
    parameters: list[str | int] = [after_position]
    conditions = []

    def bound(value: str | int) -> str:
        parameters.append(value)
        return f"${len(parameters)}"

    for name, condition in _CONDITIONS.items():
        value = getattr(wanted, name)
        if value:
            conditions.append(condition.format(bound(value)))
    if wanted.type.endswith("."):
        conditions.append(f'e.type COLLATE "C" >= {bound(wanted.type)}')
        conditions.append(f'e.type COLLATE "C" < {bound(wanted.type[:-1] + "/")}')
    elif wanted.type:
        conditions.append(f"e.type = {bound(wanted.type)}")
    end = f"ORDER BY position LIMIT {bound(limit)}"
    if not wanted.key:
        return f"{' AND '.join([RECORDS, *conditions])} {end}", parameters
    key = bound(wanted.key)
    # Those of one key, and those of several: each in order and no more than needed, whatever the planner thinks of it.
    alone, among = (
        " AND ".join([RECORDS, *conditions, one.format(key)])
        for one in ("e.key = {0} AND e.key <> ''", "e.position IN (SELECT position FROM event_keys WHERE key = {0})")
    )
    return f"({alone} {end}) UNION ALL ({among} {end}) {end}", parameters
