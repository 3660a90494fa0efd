"""Slices of fleet budgets in PostgreSQL: their rows, the highest fence ever used, and the version of the whole.

Owns that a commit is refused when another was made since the version that it was decided upon (E1).
"""

from collections.abc import Sequence
from typing import Any

from leasehold_broker.adapters.slice_rows import SLICE_COLUMNS, slice_of, slice_values
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice, put_since

FENCE_MARK = "slice_fence"
VERSION_MARK = "slices_version"
_COLUMNS = (*SLICE_COLUMNS, "version")
_LOCK = "SELECT value FROM marks WHERE name = $1 FOR UPDATE"
_PUT = (
    f"INSERT INTO slices ({', '.join(_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({', '.join(f'${number + 1}' for number in range(len(_COLUMNS)))}) ON CONFLICT (fence) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)
_PUT_MARK = "UPDATE marks SET value = greatest(value, $2) WHERE name = $1"
_MARKS = "SELECT name, value FROM marks WHERE name = ANY($1)"
_AFTER = "SELECT * FROM slices WHERE version > $1 ORDER BY fence"
_FORGET = "DELETE FROM slices WHERE fence = ANY($1)"


async def check_version(connection: Any, version: int) -> None:
    """Go on when nothing was put since; nobody puts anything before this transaction ends.

    Raises:
        Refusal: CONCURRENT_UPDATE.
    """
    if await connection.fetchval(_LOCK, VERSION_MARK) != version:
        raise put_since(version)


async def put_slices(connection: Any, version: int, fence: int, slices: Sequence[StoredSlice]) -> None:
    """Insert or replace, and remember the highest fence and the version."""
    await connection.execute(_PUT_MARK, FENCE_MARK, fence)
    await connection.execute(_PUT_MARK, VERSION_MARK, version)
    await connection.executemany(_PUT, [(*slice_values(one), version) for one in slices])


async def read_slices(connection: Any, after_version: int) -> EscrowBooks:
    """What was put after this version, in a transaction that sees one moment."""
    marks = {row["name"]: row["value"] for row in await connection.fetch(_MARKS, [FENCE_MARK, VERSION_MARK])}
    slices = [slice_of(row) for row in await connection.fetch(_AFTER, after_version)]
    return EscrowBooks(marks[VERSION_MARK], marks[FENCE_MARK], slices)


async def forget_slices(connection: Any, fences: Sequence[int]) -> None:
    """Drop them."""
    await connection.execute(_FORGET, list(fences))
