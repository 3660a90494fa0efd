"""Rows of the state database. Owns the schema and how each change is written and read; knows no threads."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import assert_never, cast

import msgspec

from leasehold_broker.domain.amounts import Amounts
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.engine_lease import EngineLease
from leasehold_broker.domain.keys import KeyMark, KeyMarkKind
from leasehold_broker.domain.lease import Lease
from leasehold_broker.domain.ledger import AccountId, Hold, HoldId, Leg
from leasehold_broker.domain.replay import Showing
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.selector_words import from_words, order_from_words, order_to_words, to_words
from leasehold_broker.ports.outbox import PendingRecord
from leasehold_broker.ports.state_store import (
    Change,
    DropAccount,
    DropBudgetChange,
    DropEngineLease,
    DropHold,
    DropLease,
    DropRequest,
    DropRevocation,
    PutAccount,
    PutBudgetChange,
    PutEngineLease,
    PutHold,
    PutKeyMark,
    PutLease,
    PutRequest,
    PutRevocation,
    PutShowing,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
  name TEXT PRIMARY KEY, digest BLOB NOT NULL, boot_id TEXT NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
  id TEXT PRIMARY KEY, caps TEXT NOT NULL, settled TEXT NOT NULL, overage TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
  id TEXT PRIMARY KEY, lease TEXT NOT NULL, carve INTEGER NOT NULL, amounts TEXT NOT NULL, legs TEXT NOT NULL)
  STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS requests (
  scope TEXT NOT NULL, request_id TEXT NOT NULL, fingerprint BLOB NOT NULL, lease TEXT NOT NULL,
  expire_wall_ms INTEGER NOT NULL, PRIMARY KEY (scope, request_id)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS revocations (epoch INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS showings (
  "table" TEXT NOT NULL, key TEXT NOT NULL, holder TEXT NOT NULL, until_wall_ms INTEGER NOT NULL,
  PRIMARY KEY ("table", key)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS showings_until ON showings (until_wall_ms);
CREATE TABLE IF NOT EXISTS key_marks (
  key TEXT NOT NULL, kind TEXT NOT NULL, lease TEXT NOT NULL, version INTEGER NOT NULL, wall_ms INTEGER NOT NULL,
  PRIMARY KEY (key, kind, lease)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS budget_changes (number INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS engine_leases (id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
  position INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, epoch TEXT NOT NULL, sequence INTEGER NOT NULL,
  previous BLOB NOT NULL, body BLOB NOT NULL, digest BLOB NOT NULL) STRICT;
"""

PUT_LEASE = "INSERT OR REPLACE INTO leases (name, digest, boot_id, body) VALUES (?, ?, ?, ?)"
PUT_LEASE_KEEP_TOKEN = "UPDATE leases SET boot_id = ?, body = ? WHERE name = ?"  # noqa: S105 - SQL, no secret
PUT_HOLD = "INSERT INTO holds (id, lease, carve, amounts, legs) VALUES (?, ?, ?, ?, ?)"
PUT_ACCOUNT = "INSERT OR REPLACE INTO accounts (id, caps, settled, overage) VALUES (?, ?, ?, ?)"
PUT_REQUEST = (
    "INSERT OR REPLACE INTO requests (scope, request_id, fingerprint, lease, expire_wall_ms) VALUES (?,?,?,?,?)"
)
PUT_REVOCATION = "INSERT OR REPLACE INTO revocations (epoch, body) VALUES (?, ?)"
DROP_REVOCATION = "DELETE FROM revocations WHERE epoch = ?"
PUT_BUDGET_CHANGE = "INSERT OR REPLACE INTO budget_changes (number, body) VALUES (?, ?)"
DROP_BUDGET_CHANGE = "DELETE FROM budget_changes WHERE number = ?"
PUT_ENGINE_LEASE = "INSERT OR REPLACE INTO engine_leases (id, body) VALUES (?, ?)"
DROP_ENGINE_LEASE = "DELETE FROM engine_leases WHERE id = ?"
PUT_SHOWING = 'INSERT OR REPLACE INTO showings ("table", key, holder, until_wall_ms) VALUES (?, ?, ?, ?)'
PUT_KEY_MARK = "INSERT OR REPLACE INTO key_marks (key, kind, lease, version, wall_ms) VALUES (?, ?, ?, ?, ?)"
DROP_OLD_KEY_MARKS = "DELETE FROM key_marks WHERE key = ? AND version < ?"
READ_KEY_MARKS = "SELECT key, version, kind, wall_ms, lease FROM key_marks"
PUT_RECORD = "INSERT INTO outbox (position, stream, epoch, sequence, previous, body, digest) VALUES (?,?,?,?,?,?,?)"
DROP_LEASE = "DELETE FROM leases WHERE name = ?"
DROP_HOLD = "DELETE FROM holds WHERE id = ?"
DROP_ACCOUNT = "DELETE FROM accounts WHERE id = ?"
DROP_SHOWINGS = "DELETE FROM showings WHERE until_wall_ms < ?"
DROP_REQUEST = "DELETE FROM requests WHERE scope = ? AND request_id = ?"

_JSON = msgspec.json.Encoder()
_LEASE = msgspec.json.Decoder(Lease)
_AMOUNTS = msgspec.json.Decoder(Amounts)
_LEGS = msgspec.json.Decoder(list[tuple[str, tuple[bool, bool, bool, bool, bool]]])
_BUDGET_CHANGE = msgspec.json.Decoder(BudgetChange)
_ENGINE_LEASE = msgspec.json.Decoder(EngineLease)
_REVOCATION = msgspec.json.Decoder(dict[str, object])

Row = tuple[object, ...]


class Statements:
    """The changes of one transaction, gathered by statement so that each runs once over many rows.

    Later changes to the same row win; a hold that is opened and dropped within one transaction never reaches the disk.
    """

    def __init__(self, boot_id: str) -> None:
        """Start empty; lease deadlines are of this boot."""
        self._boot_id = boot_id
        self._leases: dict[str, tuple[Lease, bytes | None] | None] = {}
        self._holds: dict[str, PutHold | None] = {}
        self._new_holds: set[str] = set()
        self._accounts: dict[str, PutAccount | None] = {}
        self._requests: dict[tuple[str, str], PutRequest | None] = {}
        self._revocations: dict[int, Revocation | None] = {}
        self._showings: list[PutShowing] = []
        self._key_marks: list[KeyMark] = []
        self._budget_changes: dict[int, BudgetChange | None] = {}
        self._engine_leases: dict[str, EngineLease | None] = {}

    def add(self, changes: Iterable[Change]) -> None:
        """Take changes in order."""
        for change in changes:
            self._add(change)

    def _add(self, change: Change) -> None:  # noqa: C901, PLR0912 - one arm for each kind of change
        match change:
            case PutAccount():
                self._accounts[change.account] = change
            case PutHold():
                self._holds[change.hold.id] = change
                self._new_holds.add(change.hold.id)
            case DropHold():
                if change.hold in self._new_holds:
                    del self._holds[change.hold]
                    self._new_holds.discard(change.hold)
                else:
                    self._holds[change.hold] = None
            case PutLease():
                before = self._leases.get(change.lease.name)
                digest = change.token_digest or (before[1] if before else None)
                self._leases[change.lease.name] = (change.lease, digest)
            case DropLease():
                self._leases[change.lease] = None
            case DropAccount():
                self._accounts[change.account] = None
            case PutRequest():
                self._requests[change.scope, change.request_id] = change
            case DropRequest():
                self._requests[change.scope, change.request_id] = None
            case PutRevocation():
                self._revocations[change.revocation.epoch] = change.revocation
            case DropRevocation():
                self._revocations[change.epoch] = None
            case PutShowing():
                self._showings.append(change)
            case PutKeyMark():
                self._key_marks.append(change.mark)
            case PutBudgetChange():
                self._budget_changes[change.change.number] = change.change
            case DropBudgetChange():
                self._budget_changes[change.number] = None
            case PutEngineLease():
                self._engine_leases[change.engine_lease.id] = change.engine_lease
            case DropEngineLease():
                self._engine_leases[change.id] = None
            case _:
                assert_never(change)

    def run(self, connection: sqlite3.Connection) -> None:
        """Execute everything on the connection, inside its open transaction."""
        self._run_leases(connection)
        _put_and_drop(
            connection,
            PUT_HOLD,
            DROP_HOLD,
            [_hold_row(put) for put in self._holds.values() if put is not None],
            [(hold,) for hold, put in self._holds.items() if put is None],
        )
        _put_and_drop(
            connection,
            PUT_ACCOUNT,
            DROP_ACCOUNT,
            [
                (put.account, _text(put.caps), _text(put.settled), _text(put.overage))
                for put in self._accounts.values()
                if put is not None
            ],
            [(account,) for account, put in self._accounts.items() if put is None],
        )
        _put_and_drop(
            connection,
            PUT_REQUEST,
            DROP_REQUEST,
            [
                (put.scope, put.request_id, put.fingerprint, put.lease, put.expire_wall_ms)
                for put in self._requests.values()
                if put is not None
            ],
            [key for key, put in self._requests.items() if put is None],
        )
        _put_and_drop(
            connection,
            PUT_REVOCATION,
            DROP_REVOCATION,
            [(epoch, _revocation_body(entry)) for epoch, entry in self._revocations.items() if entry is not None],
            [(epoch,) for epoch, entry in self._revocations.items() if entry is None],
        )
        _put_and_drop(
            connection,
            PUT_BUDGET_CHANGE,
            DROP_BUDGET_CHANGE,
            [(number, _JSON.encode(change)) for number, change in self._budget_changes.items() if change is not None],
            [(number,) for number, change in self._budget_changes.items() if change is None],
        )
        _put_and_drop(
            connection,
            PUT_ENGINE_LEASE,
            DROP_ENGINE_LEASE,
            [(name, _JSON.encode(put)) for name, put in self._engine_leases.items() if put is not None],
            [(name,) for name, put in self._engine_leases.items() if put is None],
        )
        if self._showings:
            connection.execute(DROP_SHOWINGS, (min(put.now_wall_ms for put in self._showings),))
            connection.executemany(PUT_SHOWING, [_showing_row(put.showing) for put in self._showings])
        for mark in self._key_marks:
            connection.execute(DROP_OLD_KEY_MARKS, (mark.key, mark.version))
            connection.execute(PUT_KEY_MARK, (mark.key, mark.kind.value, mark.lease, mark.version, mark.wall_ms))

    def _run_leases(self, connection: sqlite3.Connection) -> None:
        for name, put in self._leases.items():
            if put is None:
                connection.execute(DROP_LEASE, (name,))
                continue
            lease, digest = put
            body = _JSON.encode(lease)
            if digest is None:
                connection.execute(PUT_LEASE_KEEP_TOKEN, (self._boot_id, body, name))
            else:
                connection.execute(PUT_LEASE, (name, digest, self._boot_id, body))


def _put_and_drop(
    connection: sqlite3.Connection, put: str, drop: str, put_rows: Sequence[Row], drop_rows: Sequence[Row]
) -> None:
    if put_rows:
        connection.executemany(put, put_rows)
    if drop_rows:
        connection.executemany(drop, drop_rows)


def _text(amounts: Amounts) -> str:
    return _JSON.encode(amounts).decode()


def _hold_row(put: PutHold) -> Row:
    legs = _JSON.encode([(leg.account, leg.mask) for leg in put.hold.legs]).decode()
    return (put.hold.id, put.lease, int(put.carve), _text(put.hold.amounts), legs)


def _showing_row(showing: Showing) -> Row:
    return (showing.table, showing.key, showing.holder, showing.until_wall_ms)


def _revocation_body(entry: Revocation) -> bytes:
    return _JSON.encode(
        {
            "epoch": entry.epoch,
            "selector": to_words(entry.selector),
            "note": entry.note,
            "revoked_by": entry.revoked_by,
            "create_wall_ms": entry.create_wall_ms,
            "order": order_to_words(entry.order),
        }
    )


def put_records(connection: sqlite3.Connection, records: Iterable[PendingRecord]) -> None:
    """Put records into the outbox, each at its position."""
    found = [(one.position, one.record) for one in records]
    connection.executemany(
        PUT_RECORD,
        [(at, r.stream, r.epoch, r.sequence, r.previous_digest, r.body, r.digest) for at, r in found],
    )


def read_records(connection: sqlite3.Connection, position: int, limit: int) -> list[PendingRecord]:
    """Records of the outbox after a position, oldest first."""
    found = connection.execute(
        "SELECT position, stream, epoch, sequence, previous, body, digest FROM outbox WHERE position > ? "
        "ORDER BY position LIMIT ?",
        (position, limit),
    ).fetchall()
    return [PendingRecord(row[0], ChainedRecord(*row[1:])) for row in found]


def read_leases(connection: sqlite3.Connection) -> list[tuple[Lease, bytes, str]]:
    """Every lease with its token digest and the boot its deadlines belong to."""
    rows = connection.execute("SELECT body, digest, boot_id FROM leases ORDER BY name").fetchall()
    return [(_LEASE.decode(body), digest, boot_id) for body, digest, boot_id in rows]


def keep_translated(connection: sqlite3.Connection, leases: Iterable[Lease], boot_id: str) -> None:
    """Store leases whose deadlines were translated to this boot, so that it is done once for each boot."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(PUT_LEASE_KEEP_TOKEN, [(boot_id, _JSON.encode(lease), lease.name) for lease in leases])
    connection.execute("COMMIT")


def read_accounts(connection: sqlite3.Connection) -> list[PutAccount]:
    """Every budget."""
    rows = connection.execute("SELECT id, caps, settled, overage FROM accounts").fetchall()
    return [
        PutAccount(AccountId(name), _AMOUNTS.decode(caps), _AMOUNTS.decode(settled), _AMOUNTS.decode(overage))
        for name, caps, settled, overage in rows
    ]


def read_holds(connection: sqlite3.Connection) -> list[PutHold]:
    """Every open hold."""
    rows = connection.execute("SELECT id, lease, carve, amounts, legs FROM holds ORDER BY id").fetchall()
    return [
        PutHold(
            Hold(
                HoldId(name),
                tuple(Leg(AccountId(account), mask) for account, mask in _LEGS.decode(legs)),
                _AMOUNTS.decode(amounts),
            ),
            lease,
            bool(carve),
        )
        for name, lease, carve, amounts, legs in rows
    ]


def read_requests(connection: sqlite3.Connection) -> list[PutRequest]:
    """Every remembered request."""
    rows = connection.execute("SELECT scope, request_id, fingerprint, lease, expire_wall_ms FROM requests").fetchall()
    return [PutRequest(*row) for row in rows]


def read_showings(connection: sqlite3.Connection) -> list[Showing]:
    """What tokens and proofs were shown."""
    return [
        Showing(*row)
        for row in connection.execute('SELECT "table", key, holder, until_wall_ms FROM showings').fetchall()
    ]


def read_key_marks(connection: sqlite3.Connection) -> list[KeyMark]:
    """What is remembered of keys."""
    return [
        KeyMark(key, version, KeyMarkKind(kind), wall_ms, lease)
        for key, version, kind, wall_ms, lease in connection.execute(READ_KEY_MARKS).fetchall()
    ]


def read_engine_leases(connection: sqlite3.Connection) -> list[EngineLease]:
    """What secret engines made for us and has not been revoked."""
    found = connection.execute("SELECT body FROM engine_leases ORDER BY id").fetchall()
    return [_ENGINE_LEASE.decode(body) for (body,) in found]


def read_budget_changes(connection: sqlite3.Connection) -> list[BudgetChange]:
    """Every change of a cap, in order of their numbers."""
    found = connection.execute("SELECT body FROM budget_changes ORDER BY number").fetchall()
    return [_BUDGET_CHANGE.decode(body) for (body,) in found]


def read_revocations(connection: sqlite3.Connection) -> list[Revocation]:
    """Every revocation entry, in order of epoch."""
    found = []
    for (body,) in connection.execute("SELECT body FROM revocations ORDER BY epoch").fetchall():
        match _REVOCATION.decode(body):
            case {
                "epoch": int(epoch),
                "selector": dict(selector),
                "note": str(note),
                "revoked_by": str(revoked_by),
                "create_wall_ms": int(create_wall_ms),
                **rest,
            }:
                order = order_from_words(cast("dict[str, object]", rest.get("order", {})))
                found.append(Revocation(epoch, from_words(selector), note, revoked_by, create_wall_ms, order))
            case _:
                message = "a stored revocation is damaged"
                raise ValueError(message)
    return found
