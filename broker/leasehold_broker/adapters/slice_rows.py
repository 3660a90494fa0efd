"""Slices as the collector's stores keep them. Owns which column is what; how they are read is each store's own."""

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
