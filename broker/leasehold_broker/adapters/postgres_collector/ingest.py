"""What comes through an ingest stream, taken into the log. Owns the place in that stream, kept with the records.

A batch was acknowledged before it comes here, so none is dropped: one that does not fit, a defect or a forgery, is put
aside whole, an event says so, and its sidecar is told with its next batch that nothing of it is taken any more.
"""

from collections.abc import Collection, Sequence
from typing import Any

from leasehold_broker.adapters.log_rows import stream_head
from leasehold_broker.adapters.postgres_collector import rows
from leasehold_broker.adapters.postgres_collector.appender import Appender
from leasehold_broker.adapters.postgres_collector.connections import FAILURES, translated
from leasehold_broker.adapters.postgres_collector.turn import Turn, TurnSpoiledError, repeated, stored_digests
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.audit_link import leaves_of
from leasehold_broker.domain.checked_record import CheckedRecord, must_be_whole
from leasehold_broker.domain.events import Detail, Event, EventType, Outcome
from leasehold_broker.domain.log_plan import own_stream
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.stream_head import accept
from leasehold_broker.domain.stream_lives import StreamLives
from leasehold_broker.ports.ingest_log import IngestState, InspectedBatch, Judgement
from leasehold_broker.ports.ingest_stream import KeptBatch

_BIND = "INSERT INTO ingest (incarnation, sequence) VALUES ($1, 0) ON CONFLICT DO NOTHING"
_STATE = (
    "SELECT incarnation, sequence, (SELECT coalesce(array_agg(DISTINCT stream), '{}') FROM ingest_refused) AS refused "
    "FROM ingest"
)
_MOVE = "UPDATE ingest SET sequence = $1 WHERE sequence = $2"
_PUT_ASIDE = (
    "INSERT INTO ingest_refused (sequence, stream, reason, detail, receive_wall_ms, batch) "
    "VALUES ($1, $2, $3, $4, $5, $6)"
)


class PostgresIngest:
    """Implements `IngestLog` for one replica."""

    def __init__(self, pool: Any, appender: Appender) -> None:
        """Share the connections and the writer of the collector's store."""
        self._pool = pool
        self._appender = appender

    def check(self, records: Sequence[ChainedRecord]) -> list[CheckedRecord]:
        """As the port says."""
        return self._appender.writer.check(records)

    async def bind(self, incarnation: str) -> IngestState:
        """As the port says."""
        with translated("write"):
            await self._pool.execute(_BIND, incarnation)
        return await self.ingest_state()

    async def ingest_state(self) -> IngestState:
        """As the port says."""
        with translated("read"):
            row = await self._pool.fetchrow(_STATE)
        if row is None:
            return IngestState("", 0)
        return IngestState(row["incarnation"], row["sequence"], frozenset(row["refused"]))

    async def judge(self, stream: str, records: Sequence[CheckedRecord], receive_wall_ms: int) -> Judgement:
        """As the port says."""
        with translated("read"):
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                own = frozenset(one["stream"] for one in await connection.fetch("SELECT stream FROM replicas"))
                if stream in own:
                    raise own_stream(stream)
                lives = StreamLives(own)
                epochs = list({record.epoch for record in records})
                for life in await connection.fetch(rows.LIVES_OF, [stream], epochs):
                    lives.know(life["id"], stream_head(life))
                digests = await stored_digests(connection, lives, stream, repeated(lives, stream, records), {})
        head = lives.head(stream)
        fresh, after, _ = accept(
            head,
            lives.earlier(stream),
            records,
            lambda epoch, number: digests.get((epoch, number)),
            receive_wall_ms,
            accept_gaps=self._appender.writer.accept_gaps,
        )
        return Judgement(fresh, head if not fresh else after)

    def inspect(self, kept: KeptBatch) -> InspectedBatch:
        """As the port says."""
        if not kept.records:
            what = "what the ingest stream kept here is no batch of this version"
            return InspectedBatch(kept, (), Refusal(Reason.BODY_INVALID, what))
        try:
            must_be_whole(kept.records)
        except Refusal as refusal:
            return InspectedBatch(kept, (), refusal)
        return InspectedBatch(kept, list(leaves_of(kept.records)), None)

    async def take_in(self, after: int, batches: Sequence[InspectedBatch]) -> Collection[str]:
        """As the port says."""
        streams: dict[str, set[str]] = {}
        for batch in batches:
            streams.setdefault(batch.kept.stream, set()).update(record.epoch for record in batch.kept.records)
        count = sum(len(batch.kept.records) for batch in batches)

        async def work(turn: Turn) -> Collection[str]:
            if not await turn.change(_MOVE, (batches[-1].kept.sequence, after), None):
                raise Refusal(
                    Reason.CONCURRENT_UPDATE, "the log is at another place of its ingest stream than this replica"
                )
            try:
                return {batch.kept.stream for batch in batches if not await _taken(turn, batch)}
            except (TurnSpoiledError, *FAILURES):
                raise
            except Exception as error:
                raise TurnSpoiledError from error  # the place has moved: all of it, or nothing

        return await self._appender.submit(work, streams, count)


async def _taken(turn: Turn, inspected: InspectedBatch) -> bool:
    """False when it was put aside."""
    batch = inspected.kept
    try:
        if inspected.wrong is not None:
            raise inspected.wrong
        await turn.append(batch.stream, batch.records, batch.receive_wall_ms, inspected.leaves)
    except Refusal as refusal:
        details: dict[str, Detail] = {
            "method": "ingest",
            "stream": batch.stream,
            "ingest_sequence": batch.sequence,
            "message": refusal.message,
        }
        event = Event(EventType.AUDIT_REFUSED, batch.receive_wall_ms, Outcome.DENIED, refusal.reason, details=details)
        values = (
            batch.sequence,
            batch.stream.replace("\0", ""),
            refusal.reason.value,
            refusal.detail.replace("\0", ""),
            batch.receive_wall_ms,
            batch.raw,
        )
        await turn.change(_PUT_ASIDE, values, event)
        return False
    return True
