"""The collector's store in PostgreSQL: the ports of the log, of revocations and of budget changes, for one replica.

Keeps nothing that another replica needs. What it says is committed, with synchronous_commit on.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, TypeVar

from leasehold_broker.adapters.log_rows import revocation, stored_record, stream_head
from leasehold_broker.adapters.postgres_collector import retention, rows
from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.board import PostgresFleetBoard
from leasehold_broker.adapters.postgres_collector.connections import translated
from leasehold_broker.adapters.postgres_collector.copied_rows import clean
from leasehold_broker.adapters.postgres_collector.escrow_log import PostgresEscrowLog
from leasehold_broker.adapters.postgres_collector.follower import Follower
from leasehold_broker.adapters.postgres_collector.followers import read_follower, write_follower
from leasehold_broker.adapters.postgres_collector.ingest import PostgresIngest
from leasehold_broker.adapters.postgres_collector.leadership import Leadership
from leasehold_broker.adapters.postgres_collector.register import PostgresRegister
from leasehold_broker.adapters.postgres_collector.rotations import PostgresRotations
from leasehold_broker.adapters.postgres_collector.turn import Turn
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_query import EventFilter, StoredRecord
from leasehold_broker.domain.budget_changes import BudgetChange
from leasehold_broker.domain.checkpoint import SignedCheckpoint, TreeHead
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.merkle import NodeHash
from leasehold_broker.domain.placed_turns import PlacedTurn, PlacedTurns
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.stream_head import StreamHead
from leasehold_broker.domain.tiles import node_in_tiles
from leasehold_broker.ports.log_followers import FollowerState, Remembered
from leasehold_broker.ports.revocation_issuer import RevocationDraft
from leasehold_broker.ports.revocation_log import KnownSidecar, SidecarReport

PAGE_BYTES_MAX = 512 * 1024
"""Of bodies in one page: an answer with them stays well below a message limit of 1 MiB."""
PAGE_ROWS = 500
"""Asked for at once: of the largest bodies they are 32 MB."""

T = TypeVar("T")


class PostgresCollectorStore:
    """Made by `opening.open_store`."""

    def __init__(
        self,
        stream: str,
        pool: Any,
        log: Any,
        appender: Appender,
        revocations: Appender,
        placed: PlacedTurns,
        follower: Follower,
        leadership: Leadership,
    ) -> None:
        """Of one replica."""
        self.stream = stream
        self._pool = pool
        self._log = log
        self._appender = appender
        self._revocations = revocations
        self._placed = placed
        self._follower = follower
        self._loop = asyncio.get_running_loop()
        self.leadership = leadership
        self.board = PostgresFleetBoard(pool, stream)
        self.register = PostgresRegister(pool, appender)
        self.ingest = PostgresIngest(pool, appender)
        self.rotations = PostgresRotations(pool, appender)
        self.escrow = PostgresEscrowLog(pool, appender)

    def __repr__(self) -> str:
        """Who, and how far."""
        end = self._follower.end
        return f"PostgresCollectorStore({self.stream!r}, position={end.head.size}, epoch={end.epoch})"

    async def append(self, stream: str, records: Sequence[ChainedRecord], receive_wall_ms: int) -> StreamHead | None:
        """As the port says."""
        checked = self._appender.writer.check(records)
        streams = {stream: {record.epoch for record in records}}
        return await self._appender.submit(
            lambda turn: turn.append(stream, checked, receive_wall_ms), streams, len(records)
        )

    async def cut_off(self, stream: str, records: Sequence[ChainedRecord], wall_ms: int) -> None:
        """As the port says."""

        async def work(turn: Turn) -> None:
            turn.cut_off(records, wall_ms)

        await self._appender.submit(work, {stream: {record.epoch for record in records}}, len(records))

    async def record(self, event: Event) -> None:
        """Write an event of this replica itself into its own stream."""

        async def work(turn: Turn) -> None:
            turn.record(event)

        await self._appender.submit(work)

    async def page(self, wanted: EventFilter, after_position: int, limit: int) -> Sequence[StoredRecord]:
        """As the port says; a page ends early once it holds `PAGE_BYTES_MAX` of bodies."""
        found: list[StoredRecord] = []
        size, gapless, more = 0, wanted == EventFilter(until_position=wanted.until_position), True
        with translated("read"):
            async with self._log.acquire() as connection:
                while more and size < PAGE_BYTES_MAX and (due := min(PAGE_ROWS, limit - len(found))):
                    at = found[-1].position if found else after_position
                    sql, parameters = rows.question(wanted, at, due, gapless=gapless)
                    bound = [clean(one) if isinstance(one, str) else one for one in parameters]
                    some = [stored_record(row) for row in await connection.fetch(sql, *bound)]
                    more = len(some) == due
                    if not some and gapless and at < self.last_position():
                        gapless, more = False, True  # somebody took records out: what follows them is told
                    for one in some:
                        found.append(one)
                        size += len(one.record.body)
                        if size >= PAGE_BYTES_MAX:
                            break
        return found

    async def heads(self) -> Sequence[StreamHead]:
        """As the port says."""
        return [stream_head(row) for row in await self._fetch(rows.LIVES)]

    def last_position(self) -> int:
        """As the port says."""
        return self._follower.end.head.size

    async def wait_for_more(self, position: int) -> None:
        """As the port says."""
        await self._follower.wait_for_more(position)

    def tree_head(self) -> TreeHead:
        """As the port says: from what the appender hashed, in whichever replica."""
        return self._follower.end.head

    async def read_tree(self, question: Callable[[NodeHash], T]) -> T:
        """As the port says; the question runs on a thread, and each tile is read once."""
        tiles: dict[tuple[int, int], bytes] = {}

        def hashes_of(level: int, number: int) -> bytes:
            key = (level, number)
            if key not in tiles:
                reading = asyncio.run_coroutine_threadsafe(self._tile(level, number), self._loop)
                tiles[key] = reading.result()
            return tiles[key]

        with translated("read"):
            return await asyncio.to_thread(
                lambda: question(lambda level, index: node_in_tiles(level, index, hashes_of))
            )

    def placed_from(self, size: int) -> PlacedTurn | None:
        """As the port says."""
        return self._placed.first_from(size)

    async def newest_checkpoint(self) -> SignedCheckpoint | None:
        """As the port says."""
        found = await self._fetch(rows.NEWEST_CHECKPOINT)
        if found and found[0][0] > self.last_position():  # another replica's: the log behind it is to be known first
            with translated("read"):
                await self._follower.refresh()
        return SignedCheckpoint(TreeHead(found[0][0], found[0][1]), found[0][2], found[0][3]) if found else None

    async def keep_checkpoint(self, checkpoint: SignedCheckpoint) -> None:
        """As the port says. Another replica may have kept one of the same size: of the same root, or neither counts."""
        head = checkpoint.head
        with translated("write"):
            async with self._pool.acquire() as connection:
                await connection.execute(
                    rows.PUT_CHECKPOINT, head.size, head.root, checkpoint.note, checkpoint.sign_wall_ms
                )
                kept = await connection.fetchval(rows.CHECKPOINT_ROOT, head.size)
        if kept != head.root:
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                f"a checkpoint of {head.size} records with another root was published: the log has two histories",
            )

    async def cursor(self, sink: str) -> int | None:
        """As the port says."""
        found = await self._fetch(rows.CURSOR, sink)
        return int(found[0][0]) if found else None

    async def move_cursor(self, sink: str, position: int) -> None:
        """As the port says."""
        await self._fetch(rows.PUT_CURSOR, sink, position)

    async def follower(self, name: str) -> FollowerState | None:
        """As the port says."""
        with translated("read"):
            async with self._pool.acquire() as connection:
                return await read_follower(connection, name)

    async def advance(
        self,
        name: str,
        position: int,
        memory: Mapping[str, Remembered | None],
        events: Sequence[Event] = (),
        *,
        since: int | None = None,
    ) -> None:
        """As the port says; without events it needs no turn at the log."""
        if events:
            await self._appender.submit(lambda turn: turn.advance(name, position, memory, events, since))
            return
        with translated("write"):
            async with self._pool.acquire() as connection, connection.transaction():
                await write_follower(connection, name, position, memory, since)

    async def drop_bodies(self, before_wall_ms: int, until_position: int, limit: int) -> int:
        """As the port says."""
        with translated("write"):
            async with self._pool.acquire() as connection, connection.transaction():
                return await retention.drop_bodies(connection, before_wall_ms, until_position, limit)

    def epoch(self) -> int:
        """As the port says: the newest that this replica knows to be durable."""
        return self._follower.end.epoch

    def history(self) -> RevocationHistory:
        """As the port says."""
        return self._follower.history

    def when_current(self, asker: object, told: Callable[[], None]) -> None:
        """As the port says."""
        self._follower.when_current(asker, told)

    async def issue(self, draft: RevocationDraft, describe: Callable[[Revocation], Event]) -> Revocation:
        """As the port says."""
        return (await self.issue_all([draft], lambda entry, _: describe(entry)))[0]

    async def issue_all(
        self, drafts: Sequence[RevocationDraft], describe: Callable[[Revocation, RevocationDraft], Event]
    ) -> Sequence[Revocation]:
        """As the port says."""
        return await self._revocations.submit(lambda turn: turn.issue(drafts, describe), records=len(drafts))

    def budget_change_number(self) -> int:
        """As the port says."""
        return self._follower.end.budget_change

    async def change_budget(self, draft: BudgetChange, describe: Callable[[BudgetChange], Event]) -> BudgetChange:
        """As the port says."""
        return await self._appender.submit(lambda turn: turn.change_budget(draft, describe))

    async def budget_changes_after(self, number: int, limit: int) -> Sequence[BudgetChange]:
        """As the port says."""
        if number >= self._follower.end.budget_change:
            return ()
        found = await self._fetch(rows.BUDGET_CHANGES_AFTER, number, limit)
        return [rows.BUDGET_CHANGE.decode(row["body"]) for row in found]

    def on_issued(self, told: Callable[[], None]) -> None:
        """Tell of each new revocation or change of a budget as well."""
        self._follower.on_issued(told)

    async def hear(self, entries: Sequence[Revocation]) -> None:
        """Believe revocations that another replica says it has committed; ask for those that are missing.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        with translated("read"):
            await self._follower.hear(entries)

    async def find(self, epoch: int) -> Revocation | None:
        """As the port says."""
        found = await self._fetch(f"{rows.REVOCATIONS} WHERE epoch = $1", epoch)
        return revocation(found[0]) if found else None

    async def after(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says; recent entries come from memory, so that a push to many sidecars reads no database."""
        known, recent = self._follower.end.epoch, self._follower.recent
        if epoch >= known:
            return ()
        if recent and recent[0].epoch <= epoch + 1 and recent[-1].epoch >= known:
            return [entry for entry in recent if epoch < entry.epoch <= known][:limit]
        sql = f"{rows.REVOCATIONS} WHERE epoch > $1 ORDER BY epoch LIMIT $2"
        return [revocation(row) for row in await self._fetch(sql, epoch, limit)]

    async def before(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says."""
        sql = f"{rows.REVOCATIONS} WHERE epoch < $1 ORDER BY epoch DESC LIMIT $2"
        return [revocation(row) for row in await self._fetch(sql, epoch, limit)]

    async def applied_between(
        self, first_epoch: int, last_epoch: int, sidecars: Sequence[str]
    ) -> Mapping[str, AppliedRevocation]:
        """As the port says."""
        found = await self._fetch(rows.APPLIED_BETWEEN, first_epoch, last_epoch, list(sidecars))
        return {row[0]: AppliedRevocation(*row[1:]) for row in found}

    async def sidecars(self) -> Sequence[KnownSidecar]:
        """As the port says."""
        return [KnownSidecar(**row) for row in await self._fetch(f"{rows.SIDECARS} ORDER BY name")]

    async def heard(self, reports: Sequence[SidecarReport]) -> None:
        """As the port says; rows are taken in the order of names, so that two replicas cannot wait for each other."""
        known = sorted(astuple(report.sidecar) for report in reports)
        ended = sorted(
            (entry.epoch, report.sidecar.name, entry.leases_ended, entry.calls_cut)
            for report in reports
            for entry in report.applied
            if entry.leases_ended or entry.calls_cut
        )
        with translated("write"):
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.executemany(rows.PUT_SIDECAR, known)
                if ended:
                    await connection.executemany(rows.PUT_APPLIED, ended)

    async def _fetch(self, sql: str, *parameters: object) -> Sequence[Any]:
        with translated("read"):
            found: Sequence[Any] = await self._pool.fetch(sql, *parameters)
            return found

    async def _tile(self, level: int, number: int) -> bytes:
        """Hashes of a tile, as many as there are. One that becomes full in between is read as such."""
        for sql in (rows.TILE, rows.EDGE_TILE, rows.TILE):
            hashes: bytes | None = await self._log.fetchval(sql, level, number)
            if hashes is not None:
                return hashes
        return b""
