"""Slices of fleet budgets in the collector's file. Owns their rows, the highest fence ever used, and the version.

The version is that of the whole: there is one writer, so who reads after it is behind has lost everything.
"""

import sqlite3
from collections.abc import Sequence

from sqlite_utils import Database

from leasehold_broker.adapters.slice_rows import SLICE_COLUMNS, slice_of, slice_values
from leasehold_broker.ports.escrow_log import EscrowBooks, StoredSlice, put_since

FENCE_MARK = "slice_fence"
VERSION_MARK = "slices_version"
_PUT_SLICE = (
    f"INSERT OR REPLACE INTO slices ({', '.join(SLICE_COLUMNS)}) "  # noqa: S608 - constants
    f"VALUES ({','.join('?' * len(SLICE_COLUMNS))})"
)
_MARK = "SELECT value FROM marks WHERE name = ?"
_PUT_MARK = (
    "INSERT INTO marks (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
)


def create_slices(database: Database) -> None:
    """The table, for a file that has none."""
    database.create_table(
        "slices",
        {
            "fence": int,
            "budget": str,
            "metric": str,
            "window_start_ms": int,
            "window_end_ms": int,
            "sidecar": str,
            "life": str,
            "granted": int,
            "returned": int,
            "reported": int,
            "written_off": int,
            "state": str,
        },
        pk="fence",
        not_null=[
            "budget",
            "metric",
            "window_start_ms",
            "window_end_ms",
            "sidecar",
            "life",
            "granted",
            "returned",
            "reported",
            "written_off",
            "state",
        ],
        strict=True,
    )


def check_version(connection: sqlite3.Connection, version: int) -> None:
    """Go on when nothing was put since.

    Raises:
        Refusal: CONCURRENT_UPDATE.
    """
    found = connection.execute(_MARK, (VERSION_MARK,)).fetchone()
    if (0 if found is None else found[0]) != version:
        raise put_since(version)


def put_slices(connection: sqlite3.Connection, version: int, fence: int, slices: Sequence[StoredSlice]) -> None:
    """Insert or replace, and remember the highest fence and the version."""
    connection.execute(_PUT_MARK, (FENCE_MARK, fence))
    connection.execute(_PUT_MARK, (VERSION_MARK, version))
    connection.executemany(_PUT_SLICE, [slice_values(one) for one in slices])


def forget_slices(connection: sqlite3.Connection, fences: Sequence[int]) -> None:
    """Drop them."""
    connection.executemany("DELETE FROM slices WHERE fence = ?", [(fence,) for fence in fences])


def read_slices(database: Database, after_version: int) -> EscrowBooks:
    """What is remembered; no slices for who knows the newest version."""
    fence, version = (
        0 if found is None else int(found[0])
        for found in (database.execute(_MARK, (name,)).fetchone() for name in (FENCE_MARK, VERSION_MARK))
    )
    if after_version and after_version == version:
        return EscrowBooks(version, fence, ())
    slices = [slice_of(row) for row in database.query("SELECT * FROM slices ORDER BY fence")]
    return EscrowBooks(version, fence, slices)
