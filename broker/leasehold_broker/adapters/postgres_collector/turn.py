"""One turn at the log: what a transaction that holds the head reads, decides and stores.

The head is one row. Who has locked it is the log's only writer until its transaction ends, in whichever replica; what
it knows it has read after taking the lock. So the log has one order, and no two heads of one size (A5).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from leasehold_broker.adapters.log_rows import revocation, revocation_values, stream_head
from leasehold_broker.adapters.postgres_collector import rows
from leasehold_broker.adapters.postgres_collector.connections import HeadMovedError
from leasehold_broker.adapters.postgres_collector.copied_rows import COLUMNS, clean, copied
from leasehold_broker.adapters.postgres_collector.followers import write_follower
from leasehold_broker.adapters.postgres_collector.slices import check_version, put_slices
from leasehold_broker.domain.audit_chain import Linked
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.checked_record import CheckedRecord
from leasehold_broker.domain.checkpoint import TreeHead
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.log_plan import LogPlan, LogWriter
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.domain.stream_lives import StreamLives
from leasehold_broker.domain.tiles import TileEdge, split
from leasehold_broker.ports.escrow_log import StoredSlice
from leasehold_broker.ports.log_followers import Remembered
from leasehold_broker.ports.revocation_issuer import RevocationDraft, earlier_entries


class TurnSpoiledError(RuntimeError):
    """A job failed half-way: nothing of this turn may be stored."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log stands."""

    head: TreeHead
    epoch: int
    budget_change: int


class Turn:
    """Open from the lock of the head to the end of its transaction."""

    def __init__(self, connection: Any, plan: LogPlan, found: LogEnd) -> None:
        """Made by `take_turn`."""
        self._connection = connection
        self._plan = plan
        self.found = found
        self._epoch = found.epoch
        self._budget_change = found.budget_change

    async def append(
        self,
        stream: str,
        records: Sequence[CheckedRecord],
        receive_wall_ms: int,
        leaves: Sequence[bytes] | None = None,
    ) -> StreamHead | None:
        """Accept records of one stream; with their leaves, where these are hashed already.

        Raises:
            Refusal: those of `LogPlan.append`.
        """
        sent = repeated(self._plan.lives, stream, records)
        known: Mapping[tuple[str, int], bytes] = {}
        if sent:
            pending = self._plan.pending_digests()
            known = await stored_digests(self._connection, self._plan.lives, stream, sent, pending)
        return self._plan.append(
            stream, records, lambda epoch, number: known.get((epoch, number)), receive_wall_ms, leaves
        )

    def cut_off(self, records: Sequence[Linked], wall_ms: int) -> None:
        """Flag lives that were closed and went on."""
        self._plan.cut_off(records, wall_ms)

    def record(self, event: Event) -> None:
        """Chain an event of the collector itself."""
        self._plan.record(event)

    async def advance(
        self,
        name: str,
        position: int,
        memory: Mapping[str, Remembered | None],
        events: Sequence[Event],
        since: int | None,
    ) -> None:
        """Record events of the collector, with what a follower of the log remembers.

        Raises:
            Refusal: those of `record`; CONCURRENT_UPDATE.
        """
        # First, as it may be refused: what is recorded stays in the turn.
        await write_follower(self._connection, name, position, memory, since)
        for event in events:
            self._plan.record(event)

    async def issue(
        self, drafts: Sequence[RevocationDraft], describe: Callable[[Revocation, RevocationDraft], Event]
    ) -> list[Revocation]:
        """Next entries, each with its event; the earlier ones when the request is repeated.

        Raises:
            Refusal: REQUEST_ID_REUSED; before anything is recorded, which would stay in the turn.
        """
        earlier = earlier_entries(drafts, await self._asked(drafts))
        if earlier:
            return earlier
        entries = [draft.numbered(epoch) for epoch, draft in enumerate(drafts, self._epoch + 1)]
        for event in [describe(entry, draft) for entry, draft in zip(entries, drafts, strict=True)]:
            self._plan.record(event)
        await self._connection.executemany(
            rows.PUT_REVOCATION,
            [revocation_values(entry, draft.request_id) for entry, draft in zip(entries, drafts, strict=True)],
        )
        self._epoch = entries[-1].epoch
        return entries

    async def _asked(self, drafts: Sequence[RevocationDraft]) -> list[Revocation | None]:
        """What their responder has asked for with the id of each before."""
        ids = [draft.request_id for draft in drafts]
        found = await self._connection.fetch(rows.REVOCATIONS_ASKED, drafts[0].revoked_by, ids)
        known = {row["request_id"]: revocation(row) for row in found}
        return [known.get(one) for one in ids]

    async def change_budget(self, draft: BudgetChange, describe: Callable[[BudgetChange], Event]) -> BudgetChange:
        """The next change with its event; the earlier one when an operator repeats a request.

        Raises:
            Refusal: REQUEST_ID_REUSED.
        """
        asked = (draft.changed_by, draft.request_id)
        earlier = await self._connection.fetchval(rows.BUDGET_CHANGE_ASKED, *asked)
        if earlier is not None:
            known = rows.BUDGET_CHANGE.decode(earlier)
            if not known.same_as(draft):
                raise _reused(draft.request_id, "change", known.name)
            return known
        change = replace(draft, number=self._budget_change + 1)
        self._plan.record(describe(change))
        await self._connection.execute(rows.PUT_BUDGET_CHANGE, change.number, *asked, msgspec.json.encode(change))
        self._budget_change = change.number
        return change

    async def put_slices(self, version: int, fence: int, slices: Sequence[StoredSlice], events: Sequence[Event]) -> int:
        """Slices of fleet budgets with their events; gives the version of this.

        Raises:
            Refusal: CONCURRENT_UPDATE, and those of `record`.
        """
        await check_version(self._connection, version)
        for event in events:
            self._plan.record(event)
        await put_slices(self._connection, version + 1, fence, slices)
        return version + 1

    async def change(self, sql: str, values: Sequence[object], event: Event | None) -> bool:
        """Change one row, and record the event with it; False, and no event, when there was nothing to change."""
        changed: bool = (await self._connection.execute(sql, *values)).rpartition(" ")[2] != "0"
        if changed and event is not None:
            self._plan.record(event)
        return changed

    async def ask(self, sql: str, *values: object) -> Sequence[Any]:
        """Rows, as they are in this turn."""
        found: Sequence[Any] = await self._connection.fetch(sql, *values)
        return found

    @property
    def position(self) -> int:
        """Of the last record, with those that are planned."""
        return self._plan.position

    async def store(self, channel: str) -> LogEnd:
        """Write what was planned, move the head, and have every replica told at the commit.

        Raises:
            HeadMovedError: there were two writers; nothing may be committed.
        """
        added = self._plan.take()
        end = LogEnd(self._plan.edge.head(), self._epoch, self._budget_change)
        if end == self.found:
            return end
        connection = self._connection
        if added.lives:
            await connection.execute(rows.PUT_LIVES, *_columns_of(added.lives, self._plan.lives))
        await connection.copy_to_table("events", source=copied(added.rows), columns=COLUMNS, format="binary")
        if added.keys:
            keys: dict[str, dict[int, None]] = {}
            for key, position in added.keys:
                keys.setdefault(clean(key), {})[position] = None
            by_key = [(key, position) for key in sorted(keys) for position in keys[key]]
            await connection.copy_records_to_table("event_keys", records=by_key, columns=("key", "position"))
        if added.tiles:
            columns = ("level", "number", "root", "hashes")
            await connection.copy_records_to_table("tiles", records=added.tiles, columns=columns)
        changed = 2 + max((level for level, *_ in added.tiles), default=-1)
        await connection.executemany(rows.PUT_EDGE, self._plan.edge.rows()[:changed])
        found = self.found.head
        moved = await connection.fetch(
            rows.MOVE_HEAD,
            end.head.size,
            end.head.root,
            self._plan.lives.count,
            end.epoch,
            end.budget_change,
            found.size,
            found.root,
            channel,
        )
        if len(moved) != 1:
            message = f"the log's head is no longer at {found.size}, although it was locked there"
            raise HeadMovedError(message)
        return end


def repeated(lives: StreamLives, stream: str, records: Sequence[Linked]) -> Mapping[str, list[int]]:
    """Sequences of those that may be stored already, by epoch."""
    head, earlier = lives.head(stream), lives.earlier(stream)
    found: dict[str, list[int]] = {}
    for record in records:
        if record.epoch in earlier or (head and record.epoch == head.epoch and record.sequence <= head.sequence):
            found.setdefault(record.epoch, []).append(record.sequence)
    return found


async def stored_digests(
    connection: Any,
    lives: StreamLives,
    stream: str,
    wanted: Mapping[str, list[int]],
    pending: Mapping[tuple[int, int], bytes],
) -> Mapping[tuple[str, int], bytes]:
    """Digests by epoch and sequence, of what is stored or pending."""
    found: dict[tuple[str, int], bytes] = {}
    for epoch, sequences in wanted.items():
        life = lives.id_of(stream, epoch)
        if life is None:
            continue
        found |= {(epoch, one): pending[life, one] for one in sequences if (life, one) in pending}
        for row in await connection.fetch(rows.DIGESTS, life, sequences):
            found[epoch, row["sequence"]] = row["digest"]
    return found


async def take_turn(
    connection: Any, writer: LogWriter, edge: TileEdge | None, streams: Mapping[str, Iterable[str]]
) -> tuple[Turn, TileEdge]:
    """Lock the head, and know what is stored of these streams (each with the epochs that will be written).

    Args:
        connection: in a transaction.
        writer: this replica.
        edge: the tree's, as the last turn of this replica left it; used when nobody wrote since.
        streams: to be written, without the writer's own.

    Returns:
        The turn, and the edge that it moves.
    """
    row = await connection.fetchrow(f"{rows.HEAD} FOR UPDATE")
    head = TreeHead(row["size"], row["root"])
    if edge is None or edge.head() != head:
        levels = {one["level"]: split(one["hashes"]) for one in await connection.fetch(rows.EDGE)}
        edge = TileEdge([levels.get(level, []) for level in range(len(levels))])
        if edge.head() != head:
            message = f"the tree's edge is not that of the log's head at {head.size}: the database was altered"
            raise HeadMovedError(message)
    own = frozenset(one["stream"] for one in await connection.fetch("SELECT stream FROM replicas"))
    epochs = {epoch for some in streams.values() for epoch in some} | {writer.epoch}
    lives = StreamLives(own, row["lives"])
    for life in await connection.fetch(rows.LIVES_OF, [*streams, writer.stream], list(epochs)):
        lives.know(life["id"], stream_head(life))
    plan = LogPlan(writer, own, lives, edge)
    return Turn(connection, plan, LogEnd(head, row["epoch"], row["budget_change"])), edge


def _columns_of(touched: Sequence[tuple[int, StreamHead]], lives: StreamLives) -> tuple[list[Any], ...]:
    heads = [head for _, head in touched]
    return (
        [life for life, _ in touched],
        [head.stream for head in heads],
        [head.epoch for head in heads],
        [head.sequence for head in heads],
        [head.digest for head in heads],
        [head.receive_wall_ms for head in heads],
        [int(head.state) for head in heads],
        [lives.head(head.stream) == head for head in heads],
    )


def _reused(request_id: str, what: str, known: str) -> Refusal:
    return Refusal(
        Reason.REQUEST_ID_REUSED, f"request_id {request_id} was used for another {what} ({known}); send a new UUID"
    )
