"""The lives of all streams, as the writer's thread knows them: heads, which life is current, and how each one ended."""

import sqlite3
from collections.abc import Container
from dataclasses import replace

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.domain.audit_chain import ChainedRecord, ChainEnd
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.stream_head import LifeState, StreamHead

_STOPS = frozenset({EventType.SIDECAR_STOPPED.value, EventType.COLLECTOR_STOPPED.value})
_PUT = (
    "INSERT INTO lives (id, stream, epoch, sequence, digest, receive_wall_ms, state) VALUES (?,?,?,?,?,?,?) "
    "ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest, "
    "receive_wall_ms = excluded.receive_wall_ms, state = excluded.state"
)


class Lives:
    """Changes with the writer's memory; after a rollback it is loaded afresh."""

    def __init__(self, own_stream: str) -> None:
        """For a collector whose own stream has this name: what its lives wrote is in this very store, all of it."""
        self._own_stream = own_stream
        self._heads: dict[str, StreamHead] = {}
        self._earlier: dict[str, set[str]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._touched: dict[tuple[str, str], StreamHead] = {}

    def load(self, connection: sqlite3.Connection) -> None:
        """Take everything from the file."""
        self._heads.clear()
        self._earlier.clear()
        self._ids.clear()
        self._touched.clear()
        for life, stream, epoch, sequence, digest, receive_wall_ms, state in connection.execute(rows.LIVES):
            if stream in self._heads:
                self._earlier.setdefault(stream, set()).add(self._heads[stream].epoch)
            self._heads[stream] = StreamHead(stream, epoch, sequence, digest, receive_wall_ms, LifeState(state))
            self._ids[stream, epoch] = life

    def head(self, stream: str) -> StreamHead | None:
        """Of the stream's current life."""
        return self._heads.get(stream)

    def earlier(self, stream: str) -> Container[str]:
        """Epochs of the lives before that."""
        return self._earlier.get(stream, set())

    def id_of(self, stream: str, epoch: str) -> int | None:
        """Row of a life; None when it is not known."""
        return self._ids.get((stream, epoch))

    def follow(
        self, record: ChainedRecord, type_: str, previous: ChainEnd | None, receive_wall_ms: int
    ) -> tuple[int, StreamHead | None]:
        """Move a stream's head to an accepted record.

        Args:
            record: accepted.
            type_: of its event.
            previous: how the life before ended, as this record says.
            receive_wall_ms: now.

        Returns:
            Row of the record's life, and the life that it ends with its tail unknown, when there is one.
        """
        last = self._heads.get(record.stream)
        unknown = None
        if last is not None and last.epoch != record.epoch:
            known = ChainEnd(last.epoch, last.sequence, last.digest)
            whole = last.state is LifeState.CLOSED or previous == known or record.stream == self._own_stream
            ended = replace(last, state=LifeState.CLOSED if whole else LifeState.TAIL_UNKNOWN)
            unknown = None if whole else ended
            self._earlier.setdefault(record.stream, set()).add(last.epoch)
            self._touched[last.stream, last.epoch] = ended
        state = LifeState.CLOSED if type_ in _STOPS else LifeState.OPEN
        head = StreamHead(record.stream, record.epoch, record.sequence, record.digest, receive_wall_ms, state)
        self._heads[record.stream] = head
        self._touched[record.stream, record.epoch] = head
        return self._ids.setdefault((record.stream, record.epoch), len(self._ids) + 1), unknown

    def put(self, connection: sqlite3.Connection) -> None:
        """Store what has changed; before the records that refer to it."""
        connection.executemany(
            _PUT,
            [
                (self._ids[life], one.stream, one.epoch, one.sequence, one.digest, one.receive_wall_ms, one.state)
                for life, one in self._touched.items()
            ],
        )
        self._touched.clear()
