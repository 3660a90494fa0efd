"""The disk of a collector whose log is a file: watched, told and measured."""

from collections.abc import Iterator
from functools import partial

import structlog

from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.flows.watch_disk import WatchDisk
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.log_disk import DiskState, LogDisk
from leasehold_broker.wiring.collector_bus import Work
from leasehold_broker.wiring.supervision import Supervisor

FULL = "the log's disk"
log = structlog.get_logger("leasehold.disk")


def watched_disk(disk: LogDisk, events: EventLog, clock: Clock, tasks: Supervisor) -> Work:
    """What looks at it, to be kept running; health shows a disk that is full as degraded."""
    return WatchDisk(disk, events, clock, partial(_shown, tasks)).run


def disk_samples(disk: LogDisk | None) -> Iterator[Sample]:
    """Metrics of it; of a log elsewhere none."""
    if disk is None:
        return
    state = disk.state
    yield Sample("collector_disk_low", "1 while the disk is full but for revocations.", state.low)
    yield Sample("collector_disk_room_bytes", "Room on the log's disk, its reserve aside.", state.room_bytes)
    yield Sample("collector_disk_reserve_bytes", "Kept on the log's disk for revocations.", state.reserve_bytes)
    wanted = state.reserve_bytes_wanted
    yield Sample("collector_disk_reserve_bytes_wanted", "What is to be kept there for them.", wanted)


def _shown(tasks: Supervisor, state: DiskState) -> None:
    room = {"room_bytes": state.room_bytes, "reserve_bytes": state.reserve_bytes}
    if state.low:
        log.error("the disk is full: no events are taken, revocations are", **room)
    else:
        log.info("the disk has room again", **room)
    tasks.degraded_by(FULL, "it is full" if state.low else "")
