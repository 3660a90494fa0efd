"""What the writer's thread knows and does. Owns heads, positions, epochs and the statements that change the file.

Every method runs on the writer's thread inside a transaction. Its memory runs ahead of the commit by at most the
current group; after a rollback it is loaded afresh.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import msgspec

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.adapters.sqlite_collector.lives import Lives
from leasehold_broker.adapters.sqlite_collector.tree import TreeEdge, put_tiles
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, chain
from leasehold_broker.domain.audit_link import entry_hash
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.selector_words import order_to_words, to_words
from leasehold_broker.domain.stream_head import Gap, StreamHead, accept
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar
from leasehold_broker.wire.event_body import encode_event, event_columns

_INSERT_EVENT = (
    "INSERT INTO events (position, life, sequence, receive_wall_ms, wall_ms, type, outcome, lease, issuer, subject, "
    "previous_digest, digest, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_SIDECAR = (
    "INSERT INTO sidecars (name, environment, version, applied_epoch, last_heard_wall_ms, authority_ms) "
    "VALUES (?,?,?,?,?,?) "
    "ON CONFLICT (name) DO UPDATE SET environment = excluded.environment, version = excluded.version, "
    "applied_epoch = max(applied_epoch, excluded.applied_epoch), last_heard_wall_ms = excluded.last_heard_wall_ms, "
    "authority_ms = max(authority_ms, excluded.authority_ms)"
)
_PUT_APPLIED = "INSERT INTO applied (epoch, sidecar, leases_ended, calls_cut) VALUES (?,?,?,?) ON CONFLICT DO NOTHING"


class WriterMemory:
    """Heads and counters, and the changes that move them."""

    def __init__(self, stream: str, epoch: str, *, accept_gaps: bool) -> None:
        """For a collector whose own stream has this name, in this life."""
        self._accept_gaps = accept_gaps
        self.stream = stream
        self._own_epoch = epoch
        self.last_position = 0
        self.epoch = 0
        self.budget_change = 0
        self.tree = TreeEdge()
        self._lives = Lives(stream)
        self._issued: list[Revocation] = []

    def load(self, connection: sqlite3.Connection) -> None:
        """Take everything from the file, as this connection sees it."""
        self._lives.load(connection)
        self.last_position = connection.execute(rows.LAST_POSITION).fetchone()[0]
        self.epoch = connection.execute("SELECT coalesce(max(epoch), 0) FROM revocations").fetchone()[0]
        newest = connection.execute("SELECT coalesce(max(number), 0) FROM budget_changes").fetchone()
        self.budget_change = newest[0]
        self.tree.load(connection)
        self._issued = [entry for entry in self._issued if entry.epoch <= self.epoch]

    def take_issued(self) -> list[Revocation]:
        """Entries issued since the last call, now committed."""
        issued, self._issued = self._issued, []
        return issued

    def append(
        self, connection: sqlite3.Connection, stream: str, records: Sequence[ChainedRecord], receive_wall_ms: int
    ) -> StreamHead | None:
        """Accept records of one stream.

        Raises:
            Refusal: AUDIT_CHAIN_BROKEN, AUDIT_EPOCH_FENCED, BODY_INVALID, SIDECAR_BANNED (our own stream).
        """
        if stream == self.stream:
            raise Refusal(
                Reason.SIDECAR_BANNED, f"{stream!r} is the collector's own stream; give this sidecar another name"
            )

        def digest_at(epoch: str, sequence: int) -> bytes | None:
            life = self._lives.id_of(stream, epoch)
            found = connection.execute(
                "SELECT digest FROM events WHERE life = ? AND sequence = ?", (life, sequence)
            ).fetchone()
            return None if found is None else cast("bytes", found[0])

        head, earlier = self._lives.head(stream), self._lives.earlier(stream)
        fresh, after, gaps = accept(head, earlier, records, digest_at, receive_wall_ms, accept_gaps=self._accept_gaps)
        for gap in gaps:  # before the records that follow it: so a verifier knows of it in time
            self.record(connection, _gap_event(gap, receive_wall_ms))
        for tail in self._insert(connection, fresh, receive_wall_ms):
            self.record(connection, _tail_event(tail, receive_wall_ms))
        return after

    def record(self, connection: sqlite3.Connection, event: Event) -> None:
        """Chain an event of the collector itself."""
        head = self._lives.head(self.stream)
        sequence, previous = 1, GENESIS
        if head is not None and head.epoch == self._own_epoch:
            sequence, previous = head.sequence + 1, head.digest
        record = chain(self.stream, self._own_epoch, sequence, previous, encode_event(event))
        self._insert(connection, [record], event.wall_ms)

    def issue(
        self, connection: sqlite3.Connection, draft: RevocationDraft, describe: Callable[[Revocation], Event]
    ) -> Revocation:
        """Next entry, with its event; the earlier one when the request is repeated.

        Raises:
            Refusal: REQUEST_ID_REUSED.
        """
        selector = msgspec.json.encode(to_words(draft.selector), order="sorted").decode()
        cursor = connection.execute(
            f"{rows.REVOCATIONS} WHERE revoked_by = ? AND request_id = ?", (draft.revoked_by, draft.request_id)
        )
        earlier = cursor.fetchone()
        if earlier is not None:
            names = [column[0] for column in cursor.description]
            known = rows.revocation(dict(zip(names, earlier, strict=True)))
            if not draft.same_as(known):
                raise Refusal(
                    Reason.REQUEST_ID_REUSED,
                    f"request_id {draft.request_id} was used for another revocation ({known.name}); send a new UUID",
                )
            return known
        entry = Revocation(self.epoch + 1, draft.selector, draft.note, draft.revoked_by, draft.wall_ms, draft.order)
        order = msgspec.json.encode(order_to_words(draft.order), order="sorted").decode()
        connection.execute(
            "INSERT INTO revocations (epoch, selector, note, revoked_by, request_id, create_wall_ms, terms) "
            "VALUES (?,?,?,?,?,?,?)",
            (entry.epoch, selector, entry.note, entry.revoked_by, draft.request_id, entry.create_wall_ms, order),
        )
        self.record(connection, describe(entry))
        self.epoch = entry.epoch
        self._issued.append(entry)
        return entry

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

    def heard(
        self, connection: sqlite3.Connection, sidecar: KnownSidecar, applied: Sequence[AppliedRevocation]
    ) -> None:
        """Note a sidecar and what it has applied."""
        connection.execute(
            _PUT_SIDECAR,
            (
                sidecar.name,
                sidecar.environment,
                sidecar.version,
                sidecar.applied_epoch,
                sidecar.last_heard_wall_ms,
                sidecar.authority_ms,
            ),
        )
        connection.executemany(
            _PUT_APPLIED, [(entry.epoch, sidecar.name, entry.leases_ended, entry.calls_cut) for entry in applied]
        )

    def _insert(
        self, connection: sqlite3.Connection, records: Sequence[ChainedRecord], receive_wall_ms: int
    ) -> list[StreamHead]:
        """Store accepted records; gives the lives that they ended with a tail that nobody knows."""
        events: list[tuple[object, ...]] = []
        keys: list[tuple[str, int]] = []
        unknown: list[StreamHead] = []
        position = self.last_position
        for record in records:
            try:
                columns = event_columns(record.body)
            except ValueError as error:
                raise Refusal(
                    Reason.BODY_INVALID,
                    f"record {record.sequence} of stream {record.stream!r} is not an event; nothing was stored",
                    detail=str(error),
                ) from None
            position += 1
            life, ended = self._lives.follow(record, columns.type, columns.previous, receive_wall_ms)
            unknown += () if ended is None else (ended,)
            keys.extend((key, position) for key in columns.keys)
            events.append(
                (
                    position,
                    life,
                    record.sequence,
                    receive_wall_ms,
                    columns.wall_ms,
                    columns.type,
                    columns.outcome,
                    columns.lease,
                    columns.issuer,
                    columns.subject,
                    record.previous_digest,
                    record.digest,
                    record.body,
                )
            )
        self._lives.put(connection)
        connection.executemany(_INSERT_EVENT, events)
        connection.executemany("INSERT INTO event_keys (key, position) VALUES (?,?)", keys)
        put_tiles(connection, self.tree.append(map(entry_hash, records)))
        self.last_position = position
        return unknown


def _gap_event(gap: Gap, wall_ms: int) -> Event:
    details: dict[str, Detail] = {
        "gap_stream": gap.stream,
        "gap_epoch": gap.epoch,
        "first_missing": gap.first,
        "last_missing": gap.last,
        "digest": gap.digest.hex(),
    }
    return Event(EventType.AUDIT_GAP_ACCEPTED, wall_ms, Outcome.FAILED, details=details)


def _tail_event(tail: StreamHead, wall_ms: int) -> Event:
    details: dict[str, Detail] = {
        "tail_stream": tail.stream,
        "tail_epoch": tail.epoch,
        "last_sequence": tail.sequence,
        "digest": tail.digest.hex(),
    }
    return Event(EventType.AUDIT_TAIL_UNKNOWN, wall_ms, Outcome.FAILED, details=details)
