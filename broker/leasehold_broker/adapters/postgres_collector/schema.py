"""The tables of the collector's schema. Owns their shape, version and partitions; refuses one of a newer version.

Whoever starts first makes or migrates them, under an advisory lock, in one transaction for each step.
"""

from typing import Any

MIGRATE_LOCK = 0x1EA5E001
LEAD_LOCK = 0x1EA5E002
PARTITION_LOCK = 0x1EA5E003
HEAD_LOCK = 0x1EA5E004
ORDINARY_LOCK = 0x1EA5E005
"""First halves of advisory locks' keys; the second is the schema's hash."""

_LOG = """
CREATE TABLE log_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    size bigint NOT NULL, root bytea NOT NULL, lives bigint NOT NULL,
    epoch bigint NOT NULL, budget_change bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO log_head (size, root, lives, epoch, budget_change) VALUES (0, sha256(''), 0, 0, 0);

CREATE TABLE replicas (stream text PRIMARY KEY);

CREATE TABLE lives (
    id bigint PRIMARY KEY, stream text NOT NULL, epoch text NOT NULL, sequence bigint NOT NULL, digest bytea NOT NULL,
    receive_wall_ms bigint NOT NULL, state smallint NOT NULL, is_current boolean NOT NULL, UNIQUE (stream, epoch)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX lives_current ON lives (stream) WHERE is_current;

CREATE TABLE events (
    position bigint NOT NULL, life bigint NOT NULL, sequence bigint NOT NULL, receive_wall_ms bigint NOT NULL,
    wall_ms bigint NOT NULL, type text NOT NULL, outcome text NOT NULL, lease text NOT NULL, issuer text NOT NULL,
    subject text NOT NULL, previous_digest bytea NOT NULL, digest bytea NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE INDEX events_place ON events (life, sequence);
CREATE INDEX events_type ON events (type);
CREATE INDEX events_lease ON events (lease) WHERE lease <> '';
CREATE INDEX events_subject ON events (subject) WHERE subject <> '';
CREATE INDEX events_wall_ms ON events USING brin (wall_ms);

CREATE TABLE event_keys (key text NOT NULL, position bigint NOT NULL, PRIMARY KEY (key, position))
PARTITION BY RANGE (position);

CREATE TABLE tiles (
    level smallint NOT NULL, number bigint NOT NULL, root bytea NOT NULL, hashes bytea NOT NULL,
    PRIMARY KEY (level, number)
);
CREATE TABLE edge (level smallint PRIMARY KEY, number bigint NOT NULL, hashes bytea NOT NULL);
ALTER TABLE tiles ALTER hashes SET STORAGE EXTERNAL;
ALTER TABLE edge ALTER hashes SET STORAGE EXTERNAL;
CREATE TABLE checkpoints (
    size bigint PRIMARY KEY, root bytea NOT NULL, note bytea NOT NULL, sign_wall_ms bigint NOT NULL
);
CREATE TABLE sink_cursors (sink text PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE marks (name text PRIMARY KEY, value bigint NOT NULL);

CREATE TABLE revocations (
    epoch bigint PRIMARY KEY, selector text NOT NULL, terms text NOT NULL, note text NOT NULL,
    revoked_by text NOT NULL, request_id text NOT NULL, create_wall_ms bigint NOT NULL, UNIQUE (revoked_by, request_id)
);
CREATE TABLE applied (
    epoch bigint NOT NULL, sidecar text NOT NULL, leases_ended bigint NOT NULL, calls_cut bigint NOT NULL,
    PRIMARY KEY (epoch, sidecar)
);
CREATE TABLE sidecars (
    name text PRIMARY KEY, environment text NOT NULL, version text NOT NULL, applied_epoch bigint NOT NULL,
    last_heard_wall_ms bigint NOT NULL, authority_ms bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE budget_changes (
    number bigint PRIMARY KEY, changed_by text NOT NULL, request_id text NOT NULL, body bytea NOT NULL,
    UNIQUE (changed_by, request_id)
);
"""

_FLEET = """
ALTER TABLE replicas ADD COLUMN beat bigint NOT NULL DEFAULT 0;
CREATE TABLE fleet (
    sidecar text PRIMARY KEY, replica text NOT NULL, session bigint NOT NULL, connected boolean NOT NULL,
    heard_age_ms bigint NOT NULL, environment text NOT NULL, version text NOT NULL, applied_epoch bigint NOT NULL,
    last_heard_wall_ms bigint NOT NULL, authority_ms bigint NOT NULL, applied_budget_change bigint NOT NULL,
    live bytea NOT NULL, budgets bytea NOT NULL, changed xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX fleet_changed ON fleet (changed);
"""

_FOLLOWERS = """
CREATE TABLE followers (name text PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE remembered (
    follower text NOT NULL, key text NOT NULL, body bytea NOT NULL, PRIMARY KEY (follower, key)
);
"""

_BANS = """
CREATE TABLE bans (
    sidecar text PRIMARY KEY, note text NOT NULL, banned_by text NOT NULL, create_wall_ms bigint NOT NULL
);
"""

_ROTATIONS = """
CREATE TABLE rotations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, key text NOT NULL,
    done boolean NOT NULL, body bytea NOT NULL
);
CREATE INDEX rotations_key ON rotations (key, number);
CREATE INDEX rotations_open ON rotations (number) WHERE NOT done;
CREATE TABLE rotation_requests (
    requested_by text NOT NULL, request_id text NOT NULL, rotation text NOT NULL REFERENCES rotations (id),
    PRIMARY KEY (requested_by, request_id)
);
CREATE TABLE leads (name text PRIMARY KEY, holder text NOT NULL, fence bigint NOT NULL, beat bigint NOT NULL);
ALTER TABLE fleet ADD COLUMN key_uses bytea NOT NULL DEFAULT 'null';
"""

_ESCROW = """
CREATE TABLE slices (
    fence bigint PRIMARY KEY, budget text NOT NULL, metric text NOT NULL, window_start_ms bigint NOT NULL,
    window_end_ms bigint NOT NULL, sidecar text NOT NULL, life text NOT NULL, granted bigint NOT NULL,
    returned bigint NOT NULL, reported bigint NOT NULL, written_off bigint NOT NULL, state text NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX slices_version ON slices (version);
INSERT INTO marks (name, value) VALUES ('slice_fence', 0), ('slices_version', 0);
ALTER TABLE fleet ADD COLUMN life text NOT NULL DEFAULT '', ADD COLUMN asks bytea NOT NULL DEFAULT '[]';
"""

_INGEST = """
CREATE TABLE ingest (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), incarnation text NOT NULL, sequence bigint NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE ingest_refused (
    sequence bigint PRIMARY KEY, stream text NOT NULL, reason text NOT NULL, detail text NOT NULL,
    receive_wall_ms bigint NOT NULL, batch bytea NOT NULL
);
"""

_KEYS = """
ALTER TABLE events ADD COLUMN key text NOT NULL DEFAULT '';
CREATE INDEX events_key ON events (key) WHERE key <> '';
"""
# Most events name one key, which is theirs like their lease; a table of its own cost as much as all else of an event.

_STEPS = (_LOG, _FLEET, _FOLLOWERS, _BANS, _ROTATIONS, _ESCROW, _INGEST, _KEYS)
"""What each version added."""
SCHEMA_VERSION = len(_STEPS)


async def migrate(connection: Any, schema: str) -> None:
    """Create what is missing.

    Raises:
        ValueError: the schema is of a version this program does not know.
    """
    await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", MIGRATE_LOCK, schema)
    try:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)")
        version = await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_version")
        if version > SCHEMA_VERSION:
            message = f"the collector's schema has version {version}, this program knows {SCHEMA_VERSION}; update it"
            raise ValueError(message)
        for number, step in enumerate(_STEPS[version:], start=version + 1):
            async with connection.transaction():
                await connection.execute(step)
                await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", number)
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1, hashtext($2))", MIGRATE_LOCK, schema)


class Partitions:
    """Makes room for records before they come: attaching beside a log that is read and written."""

    def __init__(self, schema: str, records: int) -> None:
        """In this schema, so many records to a partition."""
        self._schema = schema
        self._records = records
        self._end = 0

    def has_room(self, position: int) -> bool:
        """True when a record at `position` has its partition, as far as is known here."""
        return position < self._end

    async def ready(self, connection: Any, position: int) -> None:
        """Make partitions up to that of `position`, and one more."""
        if position + self._records < self._end:
            return
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", PARTITION_LOCK, self._schema)
            end = await connection.fetchval("SELECT value FROM marks WHERE name = 'partitions_end'") or 0
            # The size is the schema's for good once its first partition is there: other replicas may be told another.
            while end <= position + self._records:
                for table in ("events", "event_keys"):
                    name = f"{table}_{end:015d}"
                    await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
                    bounds = f"FROM ({end}) TO ({end + self._records})"
                    await connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds}")
                end += self._records
            await connection.execute(
                "INSERT INTO marks (name, value) VALUES ('partitions_end', $1) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                end,
            )
        self._end = end
