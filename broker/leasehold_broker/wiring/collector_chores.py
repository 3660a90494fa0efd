"""What a collector does whoever calls: drops old events, ends blocks, watches its disk and traps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import structlog

from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.feed_sinks import FeedSink
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.lift_revocation import EndBlocks
from leasehold_broker.flows.publish_checkpoint import PublishCheckpoint
from leasehold_broker.flows.retain import Retain
from leasehold_broker.ports.clock import Clock
from leasehold_broker.wiring.collector_disk import watched_disk
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.laid_traps import LaidTraps
from leasehold_broker.wiring.supervision import Supervisor

RETENTION_SECONDS = 3600.0
log = structlog.get_logger("leasehold.collector")


@contextlib.asynccontextmanager
async def chores(
    retention_days: int,
    opened: OpenStore,
    publish: PublishCheckpoint,
    feeds: Sequence[FeedSink],
    issuer: FleetRevocations,
    traps: LaidTraps,
    clock: Clock,
    tasks: Supervisor,
) -> AsyncIterator[None]:
    """Go on with them while the context lasts; with `retention_days` 0 no event is dropped."""
    async with contextlib.AsyncExitStack() as stack:
        if retention_days:
            retain = Retain(opened.log, opened.log, clock, publish, feeds, _clock_jumped)
            retaining = opened.led("retention", lambda: _retaining(retain, retention_days))
            await stack.enter_async_context(tasks.keeping("retention", retaining))
        ending = opened.led("end-blocks", EndBlocks(issuer, clock).run)
        await stack.enter_async_context(tasks.keeping("end-blocks", ending))
        if opened.disk is not None:
            disk = watched_disk(opened.disk, opened.log, clock, tasks)
            await stack.enter_async_context(tasks.keeping("disk", disk))
        if traps.laid:
            await stack.enter_async_context(tasks.keeping("honeytoken watch", traps.watch))
        yield


async def _retaining(retain: Retain, retention_days: int) -> None:
    while True:
        try:
            dropped = await retain.run(retention_days)
        except Refusal as refusal:  # a disk that is full or slow: tried again in an hour
            log.warning("old events could not be dropped", reason=refusal.reason, detail=refusal.detail)
        else:
            log.info("old events dropped", events=dropped)
        await asyncio.sleep(RETENTION_SECONDS)


def _clock_jumped(jump_ms: int) -> None:
    log.error("the wall clock jumped: no old event is dropped until a restart", jump_ms=jump_ms)
