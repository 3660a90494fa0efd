"""Keeps both streams up. Owns reconnecting, waits, and the answer to "does this sidecar still speak for the centre?".

Both streams share one connection; one that has failed or gone half-open is never asked again. Nothing that goes wrong
here reaches a caller other than as lapsed authority or a spool that fills.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import grpc
import structlog

from leasehold_broker.adapters.collector_link.authority import Authority
from leasehold_broker.adapters.collector_link.line import Line, Lines
from leasehold_broker.adapters.collector_link.reports import Reports
from leasehold_broker.adapters.collector_link.rest import Rest
from leasehold_broker.adapters.collector_link.settings import LinkSettings
from leasehold_broker.adapters.collector_link.shipping import Shipment, SpoolDamagedError
from leasehold_broker.adapters.collector_link.streams import OPERATOR_REASONS, LinkBrokenError, reason_of
from leasehold_broker.adapters.collector_link.syncing import BudgetTie, LiveLeaseSource, Sync
from leasehold_broker.domain.audit_chain import ChainedRecord
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.outbox import Outbox
from leasehold_broker.ports.revocation_sink import RevocationSink

Session = Callable[[grpc.aio.Channel], Coroutine[None, None, None]]
SYNC, SHIP = "sync", "ship"
HEALTHY_SECONDS = 1.0
"""A stream that lived this long starts the waits anew."""

DETAIL_CHARACTERS_MAX = 500
"""Of what the collector, or gRPC itself, says of a failure, for the log."""

_log = structlog.get_logger("leasehold.collector_link")


@dataclass(slots=True)
class LinkCounters:
    """Plain counts for metrics; they only grow."""

    connects: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    records_acknowledged: int = 0
    spool_damaged: int = 0


class CollectorLink:
    """The link of one sidecar. Implements the port `Centre`."""

    def __init__(
        self,
        settings: LinkSettings,
        outbox: Outbox,
        sink: RevocationSink,
        live_leases: LiveLeaseSource,
        budgets: BudgetTie,
        clock: Clock,
    ) -> None:
        """Connect nothing yet.

        Args:
            settings: where and as whom.
            outbox: what to ship.
            sink: applies revocations.
            budgets: changes of caps, and how budgets stand.
            live_leases: called on the loop at most once a second; a full list in a stable order.
            clock: whose boot reading authority is counted on.
        """
        self._settings = settings
        self._outbox = outbox
        self._sink = sink
        self._live = live_leases
        self._budgets = budgets
        self._clock = clock
        self._authority = Authority(clock.now())
        self._reports = Reports()
        self._rest = Rest(settings.backoff.chance)
        self._lines = Lines(self._connect)
        self._acknowledged: ChainedRecord | None = None
        self.counters = LinkCounters()

    def authority_lapsed_seconds(self, now: Instant) -> float | None:
        """As the port says; lapsed from the start until the first answer is applied."""
        return self._authority.lapsed_seconds(now)

    async def run(self) -> None:
        """Keep both streams up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(SYNC, self._sync))
            group.create_task(self._keep(SHIP, self._ship))

    async def _connect(self) -> grpc.aio.Channel:
        return await self._settings.channel()

    async def _sync(self, channel: grpc.aio.Channel) -> None:
        sync = Sync(
            self._settings,
            self._sink,
            self._live,
            self._budgets,
            self._authority,
            self._reports,
            self._rest,
            self._clock,
        )
        await sync.run(channel)

    async def _ship(self, channel: grpc.aio.Channel) -> None:
        shipment = Shipment(self._settings, self._outbox, self._shipped, self._acknowledged, self._rest.seconds_left)
        await shipment.run(channel)

    def _shipped(self, count: int, last: ChainedRecord) -> None:
        self.counters.records_acknowledged += count
        self._acknowledged = last
        self._authority.unfence()

    async def _keep(self, name: str, session: Session) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            self.counters.connects[name] = self.counters.connects.get(name, 0) + 1
            began = loop.time()
            reason = await self._lasting(name, session)
            attempt = 0 if loop.time() - began >= HEALTHY_SECONDS else attempt + 1
            backoff, refused = self._settings.backoff, reason in OPERATOR_REASONS
            await asyncio.sleep(backoff.seconds(attempt, refused=refused, authority=self._authority.authority_seconds))

    async def _lasting(self, name: str, session: Session) -> Reason | None:
        """As `_attempt`; a cancellation that nobody has asked for is one more failure."""
        try:
            return await self._attempt(name, session)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(name, "CANCELLED", detail="by gRPC; nobody has told this link to end")
            return None

    async def _attempt(self, name: str, session: Session) -> Reason | None:
        """One stream. Returns the reason when the collector refused with one."""
        reason: Reason | None = None
        try:
            async with self._lines.line() as line:
                await self._carried(name, line, session)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            if reason is Reason.AUDIT_EPOCH_FENCED:
                self._authority.fence(self._clock.now())
            if reason is Reason.SIDECAR_BANNED:
                self._authority.lapse(self._clock.now())
            words = (error.details() or "")[:DETAIL_CHARACTERS_MAX]
            self._failed(name, reason.value if reason else error.code().name, detail=words)
        except LinkBrokenError as error:
            self._failed(name, error.failure, detail=str(error))
        except SpoolDamagedError as error:
            # What happens here can no longer be told to anybody: as a copy that is fenced, this sidecar must stop.
            self.counters.spool_damaged += 1
            self._authority.fence(self._clock.now())
            self._failed(name, "SPOOL_DAMAGED", detail=str(error))
        except OSError as error:
            self._failed(name, "FILE_UNREADABLE", detail=str(error))
        except Refusal as refusal:
            self._failed(name, refusal.reason.value)
        except Exception as fault:  # noqa: BLE001 - the border of the link: what nobody foresaw is a failure, too
            self._failed(name, "FAULT", detail=type(fault).__name__)
        return reason

    async def _carried(self, name: str, line: Line, session: Session) -> None:
        """One stream on a line, which is over with it where it says something of the line.

        With the sync stream it is always over: the next one shows the certificate of its day.
        """
        try:
            await line.carry(session(line.channel))
        except grpc.aio.AioRpcError as error:
            if reason_of(error) is None:
                line.end()
            raise
        except asyncio.CancelledError:  # also by gRPC, of a channel that is no good any more
            line.end()
            raise
        except LinkBrokenError:
            if not line.shared:  # else the sync stream tells whether the line is good: only the log may be slow
                line.end()
            raise
        finally:
            if name == SYNC:
                line.end()

    def _failed(self, name: str, why: str, detail: str = "") -> None:
        self.counters.failures[why] = self.counters.failures.get(why, 0) + 1
        _log.warning("link to the collector failed", stream=name, reason=why, detail=detail)
