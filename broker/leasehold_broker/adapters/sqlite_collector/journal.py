"""What the writer's thread knows and does. Owns heads, positions, epochs and the statements that change the file.

Every method runs on the writer's thread inside a transaction. Its memory runs ahead of the commit by at most the
current group; after a rollback it is loaded afresh.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from typing import cast

import msgspec

from leasehold_broker.adapters.log_rows import REVOCATION_COLUMNS, revocation, revocation_values
from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.adapters.sqlite_collector.lives import load_lives, put_lives
from leasehold_broker.adapters.sqlite_collector.tree import load_edge, put_tiles
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.centre_events import SAID_BY_CENTRE, SAID_BY_RESPONDERS
from leasehold_broker.domain.checked_record import CheckedRecord
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.log_plan import LogPlan, LogWriter
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.domain.stream_lives import StreamLives
from leasehold_broker.domain.tiles import TileEdge
from leasehold_broker.ports.revocation_issuer import RevocationDraft, earlier_entries
from leasehold_broker.ports.revocation_log import SidecarReport
from leasehold_broker.wire.event_body import checked_columns, encode_event

_INSERT_EVENT = (
    "INSERT INTO events (position, life, sequence, receive_wall_ms, wall_ms, type, outcome, lease, issuer, subject, "
    "key, previous_digest, digest, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_SIDECAR = (
    "INSERT INTO sidecars (name, environment, version, applied_epoch, last_heard_wall_ms, authority_ms) "
    "VALUES (?,?,?,?,?,?) "
    "ON CONFLICT (name) DO UPDATE SET environment = excluded.environment, version = excluded.version, "
    "applied_epoch = max(applied_epoch, excluded.applied_epoch), last_heard_wall_ms = excluded.last_heard_wall_ms, "
    "authority_ms = max(authority_ms, excluded.authority_ms)"
)
_PUT_REVOCATION = f"INSERT INTO revocations ({REVOCATION_COLUMNS}) VALUES (?,?,?,?,?,?,?)"  # noqa: S608 - constants
_PUT_APPLIED = "INSERT INTO applied (epoch, sidecar, leases_ended, calls_cut) VALUES (?,?,?,?) ON CONFLICT DO NOTHING"


class WriterMemory:
    """Heads and counters, and the changes that move them."""

    def __init__(self, stream: str, epoch: str, *, accept_gaps: bool, alone: bool) -> None:
        """For a collector whose own stream has this name, in this life; `alone`: the centre of one sidecar."""
        self.stream = stream
        self.epoch = 0
        self.budget_change = 0
        forbidden = SAID_BY_CENTRE - SAID_BY_RESPONDERS if alone else SAID_BY_CENTRE
        self._writer = LogWriter(stream, epoch, accept_gaps, encode_event, checked_columns, forbidden)
        self._plan = LogPlan(self._writer, {stream}, StreamLives({stream}), TileEdge())
        self._issued: list[Revocation] = []

    def tree_head(self) -> TreeHead:
        """Size and root of the tree over all records."""
        return self._plan.edge.head()

    def load(self, connection: sqlite3.Connection) -> None:
        """Take everything from the file, as this connection sees it."""
        own = {self.stream}
        self._plan = LogPlan(self._writer, own, load_lives(connection, own), load_edge(connection))
        self.epoch = connection.execute("SELECT coalesce(max(epoch), 0) FROM revocations").fetchone()[0]
        newest = connection.execute("SELECT coalesce(max(number), 0) FROM budget_changes").fetchone()
        self.budget_change = newest[0]
        self._issued = [entry for entry in self._issued if entry.epoch <= self.epoch]

    def take_issued(self) -> list[Revocation]:
        """Entries issued since the last call, now committed."""
        issued, self._issued = self._issued, []
        return issued

    def check(self, records: Sequence[ChainedRecord]) -> list[CheckedRecord]:
        """Check records for themselves; touches no memory, so it may run on any thread.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN, BODY_INVALID.
        """
        return self._writer.check(records)

    def append(
        self, connection: sqlite3.Connection, stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int
    ) -> StreamHead | None:
        """Accept records of one stream.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN, AUDIT_EPOCH_FENCED, SIDECAR_BANNED (our own stream).
        """

        def digest_at(epoch: str, sequence: int) -> bytes | None:
            life = self._plan.lives.id_of(stream, epoch)
            found = connection.execute(
                "SELECT digest FROM events WHERE life = ? AND sequence = ?", (life, sequence)
            ).fetchone()
            return None if found is None else cast("bytes", found[0])

        after = self._plan.append(stream, records, digest_at, receive_wall_ms)
        self._store(connection)
        return after

    def cut_off(self, connection: sqlite3.Connection, records: Sequence[ChainedRecord], wall_ms: int) -> None:
        """Flag lives that were closed and went on."""
        self._plan.cut_off(records, wall_ms)
        self._store(connection)

    def record(self, connection: sqlite3.Connection, event: Event) -> None:
        """Chain an event of the collector itself."""
        self._plan.record(event)
        self._store(connection)

    def issue(
        self,
        connection: sqlite3.Connection,
        drafts: Sequence[RevocationDraft],
        describe: Callable[[Revocation, RevocationDraft], Event],
    ) -> list[Revocation]:
        """Next entries, each with its event; the earlier ones when the request is repeated.

        Raises:
            Refusal: REQUEST_ID_REUSED.
        """
        earlier = earlier_entries(drafts, [self._asked(connection, draft) for draft in drafts])
        if earlier:
            return earlier
        for draft in drafts:
            entry = draft.numbered(self.epoch + 1)
            connection.execute(_PUT_REVOCATION, revocation_values(entry, draft.request_id))
            self.record(connection, describe(entry, draft))
            self.epoch = entry.epoch
            self._issued.append(entry)
        return self._issued[-len(drafts) :]

    def _asked(self, connection: sqlite3.Connection, draft: RevocationDraft) -> Revocation | None:
        """What this responder has asked for with this id before."""
        cursor = connection.execute(
            f"{rows.REVOCATIONS} WHERE revoked_by = ? AND request_id = ?", (draft.revoked_by, draft.request_id)
        )
        found = cursor.fetchone()
        names = [column[0] for column in cursor.description]
        return None if found is None else revocation(dict(zip(names, found, strict=True)))

    def change_budget(
        self, connection: sqlite3.Connection, draft: BudgetChange, describe: Callable[[BudgetChange], Event]
    ) -> BudgetChange:
        """The next change with its event; the earlier one when an operator repeats a request.

        Raises:
            Refusal: REQUEST_ID_REUSED.
        """
        asked = (draft.changed_by, draft.request_id)
        earlier = connection.execute(rows.BUDGET_CHANGE_ASKED, asked).fetchone()
        if earlier is not None:
            known = rows.BUDGET_CHANGE.decode(earlier[0])
            if not known.same_as(draft):
                raise Refusal(
                    Reason.REQUEST_ID_REUSED,
                    f"request_id {draft.request_id} was used for another change ({known.name}); send a new UUID",
                )
            return known
        change = replace(draft, number=self.budget_change + 1)
        connection.execute(rows.PUT_BUDGET_CHANGE, (change.number, *asked, msgspec.json.encode(change)))
        self.record(connection, describe(change))
        self.budget_change = change.number
        return change

    def heard(self, connection: sqlite3.Connection, reports: Sequence[SidecarReport]) -> None:
        """Note sidecars and what they have applied; what ended nothing leaves no row of its own."""
        known = [astuple(report.sidecar) for report in reports]
        ended = [
            (entry.epoch, report.sidecar.name, entry.leases_ended, entry.calls_cut)
            for report in reports
            for entry in report.applied
            if entry.leases_ended or entry.calls_cut
        ]
        connection.executemany(_PUT_SIDECAR, known)
        connection.executemany(_PUT_APPLIED, ended)

    def _store(self, connection: sqlite3.Connection) -> None:
        """Store what the plan has added."""
        added = self._plan.take()
        put_lives(connection, added.lives)
        connection.executemany(_INSERT_EVENT, added.rows)
        connection.executemany("INSERT INTO event_keys (key, position) VALUES (?,?)", added.keys)
        put_tiles(connection, added.tiles)
