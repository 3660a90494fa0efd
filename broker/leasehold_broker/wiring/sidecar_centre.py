"""How a sidecar is tied to its centre: linked to a collector, or its own centre with local revocation."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from leasehold_broker import __version__
from leasehold_broker.adapters.collector_link import (
    BudgetTie,
    CollectorLink,
    LinkCounters,
    LinkSettings,
    TlsFiles,
)
from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.config.sidecar import CollectorAt
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.budget_report import budget_rows
from leasehold_broker.flows.key_uses import ReportKeyUses
from leasehold_broker.flows.live_leases import ReportLeases
from leasehold_broker.flows.watch_spool import WatchSpool
from leasehold_broker.ports.centre import Centre
from leasehold_broker.ports.clock import Clock
from leasehold_broker.wiring.sidecar_parts import SidecarParts

FLUSH_SECONDS_MAX = 5.0
FLUSH_LOOK_SECONDS = 0.02
FIRST_ANSWER_SECONDS_MAX = 1.5
FIRST_ANSWER_LOOK_SECONDS = 0.005
TOKEN_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Linked:
    """The centre as the flows see it, and how it is called in logs."""

    centre: Centre
    kind: str
    counters: LinkCounters | None = None

    def samples(self, now: Instant) -> Iterator[Sample]:
        """Metrics of the link, when there is one."""
        if self.counters is None:
            return
        lapsed = self.centre.authority_lapsed_seconds(now) is not None
        yield Sample("authority_lapsed", "1 while the collector was silent for so long that all is refused.", lapsed)
        counters = self.counters
        yield Sample(
            "link_acknowledged", "Audit records the collector has.", counters.records_acknowledged, counter=True
        )
        yield Sample("spool_damaged", "Times a damaged record was found.", counters.spool_damaged, counter=True)
        for why, count in tuple(counters.failures.items()):
            yield Sample("link_failures", "Broken sessions by reason.", count, counter=True, label=("reason", why))


class OwnCentre:
    """The centre of a sidecar that runs alone: never silent."""

    def authority_lapsed_seconds(self, now: Instant) -> float | None:  # noqa: ARG002 - the port's signature
        """Authority never lapses."""
        return None


@contextlib.asynccontextmanager
async def linked_centre(parts: SidecarParts) -> AsyncIterator[Linked]:
    """Tie the sidecar to its centre for as long as it serves; ships the outbox before it lets go."""
    if parts.config.alone is not None:
        # Imported only here: a sidecar with a collector needs none of it, and starts faster without.
        from leasehold_broker.wiring.sidecar_alone import own_centre  # noqa: PLC0415

        async with own_centre(parts, parts.config.alone) as shipping, _kept_up(parts, shipping):
            yield Linked(OwnCentre(), "alone")
    elif parts.config.collector is not None:
        link = _link(parts, parts.config.collector)
        async with _kept_up(parts, link.run()):
            # Doors that open before the first answer would refuse the first caller. Without an answer they open all the
            # same, and say why they refuse.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_ANSWER_SECONDS_MAX):
                    await _heard(link, parts.clock)
            yield Linked(link, "collector", link.counters)


def _read_token(path: Path) -> str:
    return path.read_text()[:TOKEN_BYTES_MAX].strip()


@contextlib.asynccontextmanager
async def _kept_up(parts: SidecarParts, shipping: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Ship; at the end, give the outbox a while to be shipped (what remains is shipped at the next start)."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            parts.fail(f"shipping the audit log ended: {type(task.exception()).__name__}")

    limit = parts.config.spool_bytes_max
    spool = WatchSpool(parts.journal, parts.clock, lambda: parts.store.spooled_bytes, limit)
    task = asyncio.create_task(shipping, name="shipping")
    task.add_done_callback(ended)
    try:
        async with parts.tasks.keeping("spool watch", spool.run):
            yield
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS_MAX):
                await _shipped(parts)
        task.cancel()
        await asyncio.wait([task])


async def _heard(centre: Centre, clock: Clock) -> None:
    while centre.authority_lapsed_seconds(clock.now()) is not None:  # noqa: ASYNC110 - once, at the start
        await asyncio.sleep(FIRST_ANSWER_LOOK_SECONDS)


async def _shipped(parts: SidecarParts) -> None:
    """Every event has been acknowledged, and what was held of fleet budgets has been given back."""
    while await parts.store.pending_after(0, 1) or parts.books.slices.holding:  # noqa: ASYNC110 - once, at the end; an event would outlive its use
        await asyncio.sleep(FLUSH_LOOK_SECONDS)


def _link(parts: SidecarParts, at: CollectorAt) -> CollectorLink:
    settings = LinkSettings(
        target=at.target,
        sidecar=parts.config.name,
        environment="",
        version=__version__,
        token=None if at.token_file is None else partial(_read_token, at.token_file),
        tls=None if at.ca_file is None else TlsFiles(at.ca_file, at.certificate_file, at.private_key_file),
        key_uses=ReportKeyUses(parts.config.name, parts.books, parts.keys.ring),
    )
    parts.books.slices.life = parts.store.epoch
    budgets = BudgetTie(
        parts.apply_budgets,
        lambda: budget_rows(parts.books, parts.policies.current(), parts.clock.now()),
        parts.books.slices,
    )
    return CollectorLink(settings, parts.store, parts.apply, ReportLeases(parts.books), budgets, parts.clock)
