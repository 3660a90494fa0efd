"""Slices as the collector's stores keep them. Owns which column is what; the questions are each store's own."""

from collections.abc import Mapping
from typing import Any

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import SliceState
from leasehold_broker.domain.windows import Window
from leasehold_broker.ports.escrow_log import StoredSlice


def slice_of(row: Mapping[str, Any]) -> StoredSlice:
    """The slice that a row holds, by the names of its columns."""
    return StoredSlice(
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


SLICE_COLUMNS = (
    "fence",
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
)


def slice_values(one: StoredSlice) -> tuple[int | str, ...]:
    """What is put into `SLICE_COLUMNS`."""
    return (
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
