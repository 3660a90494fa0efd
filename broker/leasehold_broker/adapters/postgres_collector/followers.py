"""What followers of the log remember, beside the log."""

from collections.abc import Mapping
from typing import Any

import msgspec

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.log_followers import FollowerState, Remembered

_FOLLOWER = "SELECT position FROM followers WHERE name = $1"
_REMEMBERED = "SELECT key, body FROM remembered WHERE follower = $1 ORDER BY key"
_PUT_FOLLOWER = (
    "INSERT INTO followers (name, position) VALUES ($1, $2) "
    "ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)
_MOVE_FOLLOWER = "UPDATE followers SET position = $2 WHERE name = $1 AND position = $3"
_PUT_REMEMBERED = (
    "INSERT INTO remembered (follower, key, body) VALUES ($1, $2, $3) "
    "ON CONFLICT (follower, key) DO UPDATE SET body = excluded.body"
)
_DROP_REMEMBERED = "DELETE FROM remembered WHERE follower = $1 AND key = ANY($2)"
_DECODER = msgspec.json.Decoder(dict[str, Any])


async def read_follower(connection: Any, name: str) -> FollowerState | None:
    """The state of one follower; None for one that never followed."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        position = await connection.fetchval(_FOLLOWER, name)
        if position is None:
            return None
        found = await connection.fetch(_REMEMBERED, name)
    return FollowerState(position, {row["key"]: _DECODER.decode(row["body"]) for row in found})


async def write_follower(
    connection: Any, name: str, position: int, memory: Mapping[str, Remembered | None], since: int | None = None
) -> None:
    """Note a place, and what changed of the memory; in a transaction.

    Raises:
        Refusal: CONCURRENT_UPDATE: it is not noted at `since`, as two replicas have followed for a moment.
    """
    if since is None:
        await connection.execute(_PUT_FOLLOWER, name, position)
    elif await connection.execute(_MOVE_FOLLOWER, name, position, since) != "UPDATE 1":
        raise Refusal(Reason.CONCURRENT_UPDATE, f"{name} was followed by another meanwhile; look again")
    forgotten = [key for key, body in memory.items() if body is None]
    if forgotten:
        await connection.execute(_DROP_REMEMBERED, name, forgotten)
    kept = [(name, key, msgspec.json.encode(body, order="sorted")) for key, body in memory.items() if body is not None]
    if kept:
        await connection.executemany(_PUT_REMEMBERED, kept)
