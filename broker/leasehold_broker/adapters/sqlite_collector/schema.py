"""The tables of the collector's file. Owns their shape and version; refuses a file of another version."""

import sqlite3

from sqlite_utils import Database

from leasehold_broker.adapters.sqlite_collector.escrow import create_slices
from leasehold_broker.adapters.sqlite_collector.reserve import CHECKPOINT_PAGES

SCHEMA_VERSION = 12


def prepare(connection: sqlite3.Connection) -> None:
    """Set the connection up for durable commits and create what is missing.

    Raises:
        ValueError: the file has a schema this program does not know.
    """
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    database = Database(connection)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if not 0 <= version < SCHEMA_VERSION:
        message = f"the collector's store has schema version {version}, this program knows {SCHEMA_VERSION}; update it"
        raise ValueError(message)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for earlier, create in enumerate(_STEPS):
            if version <= earlier:
                create(database)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _create_log(database: Database) -> None:
    lives = database.create_table(
        "lives",
        {
            "id": int,
            "stream": str,
            "epoch": str,
            "sequence": int,
            "digest": bytes,
            "receive_wall_ms": int,
        },
        pk="id",
        not_null=["stream", "epoch", "sequence", "digest", "receive_wall_ms"],
        strict=True,
    )
    lives.create_index(["stream", "epoch"], unique=True)
    events = database.create_table(
        "events",
        {
            "position": int,
            "life": int,
            "sequence": int,
            "receive_wall_ms": int,
            "wall_ms": int,
            "type": str,
            "outcome": str,
            "lease": str,
            "issuer": str,
            "subject": str,
            "previous_digest": bytes,
            "digest": bytes,
            "body": bytes,
        },
        pk="position",
        not_null=["life", "sequence", "receive_wall_ms", "wall_ms", "type", "outcome", "digest", "body"],
        foreign_keys=[("life", "lives", "id")],
        strict=True,
    )
    events.create_index(["life", "sequence"], unique=True)
    events.create_index(["type"])
    database.execute("CREATE INDEX idx_events_lease ON events (lease) WHERE lease <> ''")
    database.execute("CREATE INDEX idx_events_subject ON events (subject) WHERE subject <> ''")
    events.create_index(["wall_ms"])
    database.execute(
        "CREATE TABLE event_keys (key TEXT NOT NULL, position INTEGER NOT NULL REFERENCES events (position), "
        "PRIMARY KEY (key, position)) STRICT, WITHOUT ROWID"
    )


def _create_tree(database: Database) -> None:
    tiles = database.create_table(
        "tiles",
        {"id": int, "level": int, "number": int, "root": bytes, "hashes": bytes},
        pk="id",
        not_null=["level", "number", "root", "hashes"],
        strict=True,
    )
    tiles.create_index(["level", "number"], unique=True)
    database.create_table(
        "checkpoints",
        {"size": int, "root": bytes, "note": bytes, "sign_wall_ms": int},
        pk="size",
        not_null=["root", "note", "sign_wall_ms"],
        strict=True,
    )


def _create_revocations(database: Database) -> None:
    revocations = database.create_table(
        "revocations",
        {
            "epoch": int,
            "selector": str,
            "note": str,
            "revoked_by": str,
            "request_id": str,
            "create_wall_ms": int,
        },
        pk="epoch",
        not_null=["selector", "note", "revoked_by", "request_id", "create_wall_ms"],
        strict=True,
    )
    revocations.create_index(["revoked_by", "request_id"], unique=True)
    database.create_table(
        "applied",
        {"epoch": int, "sidecar": str, "leases_ended": int, "calls_cut": int},
        pk=("epoch", "sidecar"),
        not_null=["leases_ended", "calls_cut"],
        strict=True,
    )
    database.create_table(
        "sidecars",
        {
            "name": str,
            "environment": str,
            "version": str,
            "applied_epoch": int,
            "last_heard_wall_ms": int,
            "authority_ms": int,
        },
        pk="name",
        not_null=["environment", "version", "applied_epoch", "last_heard_wall_ms", "authority_ms"],
        strict=True,
    )


def _create_sinks(database: Database) -> None:
    database.create_table("sink_cursors", {"sink": str, "position": int}, pk="sink", not_null=["position"], strict=True)


def _create_first(database: Database) -> None:
    _create_log(database)
    _create_revocations(database)


def _create_ends(database: Database) -> None:
    database.execute("ALTER TABLE lives ADD COLUMN state INTEGER NOT NULL DEFAULT 0")
    # Of lives that had ended before anybody kept their ends, nothing is known.
    database.execute("UPDATE lives SET state = 2 WHERE id NOT IN (SELECT max(id) FROM lives GROUP BY stream)")
    database.create_table("marks", {"name": str, "value": int}, pk="name", not_null=["value"], strict=True)


def _create_budget_changes(database: Database) -> None:
    changes = database.create_table(
        "budget_changes",
        {"number": int, "changed_by": str, "request_id": str, "body": bytes},
        pk="number",
        not_null=["changed_by", "request_id", "body"],
        strict=True,
    )
    changes.create_index(["changed_by", "request_id"], unique=True)


def _create_orders(database: Database) -> None:
    # A file of version 5 may have it already: the version was once not raised for it.
    if "terms" not in database["revocations"].columns_dict:
        database.execute("ALTER TABLE revocations ADD COLUMN terms TEXT NOT NULL DEFAULT '{}'")


def _create_followers(database: Database) -> None:
    database.create_table("followers", {"name": str, "position": int}, pk="name", not_null=["position"], strict=True)
    database.execute(
        "CREATE TABLE remembered (follower TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, "
        "PRIMARY KEY (follower, key)) STRICT, WITHOUT ROWID"
    )


def _create_rotations(database: Database) -> None:
    rotations = database.create_table(
        "rotations",
        {"number": int, "id": str, "key": str, "over": int, "body": bytes},
        pk="number",
        not_null=["id", "key", "over", "body"],
        strict=True,
    )
    rotations.create_index(["id"], unique=True)
    rotations.create_index(["key", "number"])
    database.execute("CREATE INDEX idx_rotations_open ON rotations (number) WHERE over = 0")
    database.create_table(
        "rotation_requests",
        {"requested_by": str, "request_id": str, "rotation": str},
        pk=("requested_by", "request_id"),
        not_null=["rotation"],
        foreign_keys=[("rotation", "rotations", "id")],
        strict=True,
    )
    database.create_table(
        "leads",
        {"name": str, "holder": str, "fence": int, "until_wall_ms": int},
        pk="name",
        not_null=["holder", "fence", "until_wall_ms"],
        strict=True,
    )


def _create_bans(database: Database) -> None:
    database.create_table(
        "bans",
        {"sidecar": str, "note": str, "banned_by": str, "create_wall_ms": int},
        pk="sidecar",
        not_null=["note", "banned_by", "create_wall_ms"],
        strict=True,
    )


def _count_beats_of_leads(database: Database) -> None:
    # A lead is kept by going on, not until a time of day: any number is a beat to begin with.
    # A file of version 10 may have it already: the version was once not raised for it.
    if "beat" not in database["leads"].columns_dict:
        database.execute("ALTER TABLE leads RENAME COLUMN until_wall_ms TO beat")


def _create_key_of_event(database: Database) -> None:
    # Most events name one key, which is theirs like their lease.
    database.execute("ALTER TABLE events ADD COLUMN key TEXT NOT NULL DEFAULT ''")
    database.execute("CREATE INDEX idx_events_key ON events (key) WHERE key <> ''")


_STEPS = (
    _create_first,
    _create_tree,
    _create_sinks,
    _create_ends,
    _create_budget_changes,
    _create_orders,
    _create_followers,
    _create_rotations,
    create_slices,
    _create_bans,
    _count_beats_of_leads,
    _create_key_of_event,
)
"""What each version added; a file of an earlier one gets what it lacks, in the transaction that says so."""
