"""The lives of all streams in the collector's file."""

import sqlite3
from collections.abc import Container, Iterable

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.domain.stream_head import LifeState, StreamHead
from leasehold_broker.domain.stream_lives import StreamLives

_PUT = (
    "INSERT INTO lives (id, stream, epoch, sequence, digest, receive_wall_ms, state) VALUES (?,?,?,?,?,?,?) "
    "ON CONFLICT (id) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest, "
    "receive_wall_ms = excluded.receive_wall_ms, state = excluded.state"
)


def load_lives(connection: sqlite3.Connection, own_streams: Container[str]) -> StreamLives:
    """All of them."""
    found = connection.execute(rows.LIVES).fetchall()
    lives = StreamLives(own_streams, len(found))
    for life, stream, epoch, sequence, digest, receive_wall_ms, state in found:
        lives.know(life, StreamHead(stream, epoch, sequence, digest, receive_wall_ms, LifeState(state)))
    return lives


def put_lives(connection: sqlite3.Connection, lives: Iterable[tuple[int, StreamHead]]) -> None:
    """Store what has changed; before the records that refer to it."""
    connection.executemany(
        _PUT,
        [
            (life, one.stream, one.epoch, one.sequence, one.digest, one.receive_wall_ms, one.state)
            for life, one in lives
        ],
    )
