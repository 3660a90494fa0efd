"""Slices of fleet budgets in the collector's file. Owns their rows and the mark of the highest fence ever used."""

import sqlite3
from collections.abc import Sequence

from sqlite_utils import Database

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.windows import Window
from leasehold_broker.ports.escrow_log import StoredSlice

FENCE_MARK = "slice_fence"
_PUT_SLICE = (
    "INSERT OR REPLACE INTO slices (fence, budget, metric, window_start_ms, window_end_ms, sidecar, life, granted, "
    "returned, reported, written_off, state) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_FENCE = (
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


def put_slices(connection: sqlite3.Connection, fence: int, slices: Sequence[StoredSlice]) -> None:
    """Insert or replace, and remember the highest fence."""
    connection.execute(_PUT_FENCE, (FENCE_MARK, fence))
    connection.executemany(
        _PUT_SLICE,
        [
            (
                one.fence,
                one.budget,
                one.metric.value,
                one.window.start_ms,
                one.window.end_ms,
                one.sidecar,
                one.life,
                one.granted,
                one.returned,
                one.reported,
                one.written_off,
                one.state.value,
            )
            for one in slices
        ],
    )


def forget_slices(connection: sqlite3.Connection, fences: Sequence[int]) -> None:
    """Drop them."""
    connection.executemany("DELETE FROM slices WHERE fence = ?", [(fence,) for fence in fences])


def read_slices(database: Database) -> tuple[int, list[StoredSlice]]:
    """The highest fence ever used, and what is remembered."""
    mark = database.execute("SELECT value FROM marks WHERE name = ?", (FENCE_MARK,)).fetchone()
    found = [
        StoredSlice(
            budget=row["budget"],
            metric=Metric(row["metric"]),
            window=Window(row["window_start_ms"], row["window_end_ms"]),
            fence=row["fence"],
            sidecar=row["sidecar"],
            life=row["life"],
            granted=row["granted"],
            returned=row["returned"],
            reported=row["reported"],
            written_off=row["written_off"],
            state=SliceState(row["state"]),
        )
        for row in database.query("SELECT * FROM slices ORDER BY fence")
    ]
    return (0 if mark is None else int(mark[0])), found
