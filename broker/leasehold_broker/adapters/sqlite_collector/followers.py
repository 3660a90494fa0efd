"""What followers of the log remember, in the log's own file: read on a reader's thread, written on the writer's."""

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlite_utils import Database

from leasehold_broker.adapters.sqlite_collector import rows
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.log_followers import FollowerState, Remembered

_DECODER = msgspec.json.Decoder(dict[str, Any])


def read_follower(database: Database, name: str) -> FollowerState | None:
    """The state of one follower; None for one that never followed.

    Raises:
        msgspec.DecodeError: a row was damaged.
    """
    row = database.execute(rows.FOLLOWER, (name,)).fetchone()
    if row is None:
        return None
    found = database.execute(rows.REMEMBERED, (name,)).fetchall()
    return FollowerState(int(row[0]), {key: _DECODER.decode(body) for key, body in found})


def write_follower(
    connection: sqlite3.Connection,
    name: str,
    position: int,
    memory: Mapping[str, Remembered | None],
    since: int | None = None,
) -> None:
    """Note a place, and what changed of the memory.

    Raises:
        Refusal: CONCURRENT_UPDATE: it is not noted at `since`.
    """
    if since is not None and connection.execute(rows.FOLLOWER, (name,)).fetchone() != (since,):
        raise Refusal(Reason.CONCURRENT_UPDATE, f"{name} was followed by another meanwhile; look again")
    connection.execute(rows.PUT_FOLLOWER, (name, position))
    for key, body in memory.items():
        if body is None:
            connection.execute(rows.DROP_REMEMBERED, (name, key))
        else:
            connection.execute(rows.PUT_REMEMBERED, (name, key, msgspec.json.encode(body, order="sorted").decode()))
