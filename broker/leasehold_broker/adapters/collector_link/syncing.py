"""Keeps step with the centre: applies revocations in order, acknowledges them, beats, and earns authority."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from leasehold.v1 import sidecar_service_pb2_grpc
from leasehold_broker.adapters.collector_link.authority import Authority
from leasehold_broker.adapters.collector_link.reports import Reports
from leasehold_broker.adapters.collector_link.rest import Rest
from leasehold_broker.adapters.collector_link.settings import LinkSettings
from leasehold_broker.adapters.collector_link.streams import (
    WRITE_FAILURES,
    LinkBrokenError,
    UnansweredError,
    together,
    understood,
)
from leasehold_broker.domain.budget_changes import BudgetRows, next_changes
from leasehold_broker.domain.fleet_budget import SliceReport
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.revocation_progress import LiveLease, LiveLeases
from leasehold_broker.domain.sync import (
    HEARTBEATS_PER_AUTHORITY,
    Hello,
    Matching,
    Push,
    SyncMessage,
    agreed_changes,
    next_entries,
)
from leasehold_broker.ports.budget_changes import BudgetChangeSink
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.revocation_sink import RevocationSink
from leasehold_broker.ports.slice_holder import SliceHolder
from leasehold_broker.wire.sync import APPLIED_MAX, message_to_proto, push_from_proto

LIVE_SECONDS_MIN = 1.0
"""Live leases are reported at most this often."""
LIST_SHARE = 50
"""After a listing of them the link waits so many times as long as it took: calls come first."""
FIRST_HEARTBEAT_SECONDS = 1.0
SILENCE_SHARE = (HEARTBEATS_PER_AUTHORITY - 1) / HEARTBEATS_PER_AUTHORITY
"""Of the authority time: a collector from which no new answer came for this long has lost us.

Every heartbeat is answered, and they are sent more often than this (`Sync._pause`): two answers are missing by then.
What is left of the authority is for connecting anew. One that is slow, but goes on answering, is left alone: its
answers follow each other as the heartbeats do, however late. No link connects anew for this more often than once in
this time, and a fleet's heartbeats, and with them these moments, are spread.
"""

BUDGETS_SECONDS_MIN = 5.0
"""How budgets stand is reported at most this often, and after each change of a cap."""

_log = structlog.get_logger("leasehold.collector_link")

LiveLeaseSource = Callable[[], Sequence[LiveLease]]


@dataclass(frozen=True, slots=True)
class BudgetTie:
    """Where changes of caps go, where it is said how budgets stand, and who holds the slices of fleet budgets."""

    sink: BudgetChangeSink
    rows: Callable[[], BudgetRows]
    slices: SliceHolder


class Sync:
    """One SyncState stream."""

    def __init__(
        self,
        settings: LinkSettings,
        sink: RevocationSink,
        live: LiveLeaseSource,
        budgets: BudgetTie,
        authority: Authority,
        reports: Reports,
        rest: Rest,
        clock: Clock,
    ) -> None:
        """Apply to this sink; earn this authority; `reports` outlive the stream."""
        self._rest = rest
        self._settings = settings
        self._sink = sink
        self._live = live
        self._budgets = budgets
        self._budgets_at = 0.0
        self._budgets_reported: BudgetRows | None = None
        self._authority = authority
        self._clock = clock
        self._reports = reports
        self._matching: Matching | None = Matching()
        """Of a session whose entries begin with the first: until it is found from where they differ."""
        self._acknowledge = asyncio.Event()
        self._acknowledged = asyncio.Event()
        """Changes of caps were applied: to be told, with how budgets stand now."""
        self._reported: tuple[LiveLease, ...] | None = None
        self._list_at = 0.0
        self._slices = budgets.slices
        self._told: dict[int, tuple[SliceReport, ...]] = {}
        """What was said of slices, by the heartbeat it went with, until that is answered."""
        self._uses_reported: tuple[KeyUse, ...] | None = None
        self._uses_at = 0.0

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Stay in step until the collector ends the stream in good order.

        Raises:
            grpc.aio.AioRpcError, LinkBrokenError (silence, a gap, a centre that is behind), OSError (token),
            Refusal (the sink could not apply, or an entry of a kind that this build does not know).
        """
        self._authority.new_session()
        self._reports.new_session()
        stub: Any = sidecar_service_pb2_grpc.SidecarServiceStub(channel)
        call: Any = stub.SyncState(metadata=await self._settings.metadata())
        try:
            await together(self._receive(call), self._send(call))
        finally:
            call.cancel()

    async def _send(self, call: Any) -> None:
        hello: Hello | None = Hello(
            self._settings.sidecar, self._settings.environment, self._settings.version, self._slices.life
        )
        self._slices.press = self._acknowledge.set
        loop = asyncio.get_running_loop()
        beat_at = loop.time()
        while True:
            acknowledged = self._acknowledged.is_set()
            pressing = self._slices.due_seconds(self._clock.now())
            asking = hello is not None or loop.time() >= beat_at or acknowledged or pressing == 0
            rest_seconds = self._rest.seconds_left()
            telling = asking or not rest_seconds
            applied = self._reports.due(APPLIED_MAX) if telling else ()
            live = self._changed_leases(loop.time) if telling else None
            uses = self._changed_uses(loop.time()) if telling else None
            if asking or applied or live is not None or uses is not None:
                self._acknowledged.clear()
                # Every heartbeat is answered: what only tells asks for no answer, unless slices are told with it.
                number = self._authority.heartbeat(self._clock.now()) if asking or self._slices.holding else 0
                message = SyncMessage(
                    hello,
                    self._sink.applied_epoch(),
                    applied,
                    live,
                    number,
                    self._budgets.sink.applied_budget_change(),
                    self._changed_budgets(loop.time(), at_once=hello is not None or acknowledged),
                    self._slice_reports(number),
                    uses,
                    self._sink.history_digest(),
                    self._budgets.sink.budget_history_digest(),
                )
                pressing = None
                self._reports.written(len(applied), number)
                try:
                    await call.write(message_to_proto(message))
                except WRITE_FAILURES:
                    return
                hello = None
                if number:
                    beat_at = loop.time() + self._pause()
            waits = (LIVE_SECONDS_MIN, self._pause(), pressing or LIVE_SECONDS_MIN, rest_seconds or LIVE_SECONDS_MIN)
            try:
                async with asyncio.timeout(min(waits)):
                    await self._acknowledge.wait()
            except TimeoutError:
                continue
            self._acknowledge.clear()

    def _slice_reports(self, number: int) -> tuple[SliceReport, ...]:
        if not self._slices.life or not number:
            return ()
        self._told[number] = self._slices.reports(self._clock.now())
        return self._told[number]

    def _take_slices(self, push: Push) -> None:
        if not self._slices.life:
            return
        sent = self._authority.sent_at(push.answers)
        self._slices.take(push.slices or (), sent, self._clock.now(), push.authority_seconds)
        for number in [number for number in self._told if number <= push.answers]:
            self._slices.answered(self._told.pop(number))

    def _changed_budgets(self, now: float, *, at_once: bool) -> BudgetRows | None:
        if now < self._budgets_at and not at_once:
            return None
        self._budgets_at = now + BUDGETS_SECONDS_MIN
        rows = self._budgets.rows()
        if rows == self._budgets_reported:
            return None
        self._budgets_reported = rows
        return rows

    def _changed_uses(self, now: float) -> tuple[KeyUse, ...] | None:
        if now < self._uses_at:
            return None
        self._uses_at = now + LIVE_SECONDS_MIN
        uses = self._settings.key_uses()
        if uses == self._uses_reported:
            return None
        self._uses_reported = uses
        return uses

    def _pause(self) -> float:
        authority = self._authority.authority_seconds
        return authority / (HEARTBEATS_PER_AUTHORITY + 1) if authority else FIRST_HEARTBEAT_SECONDS

    def _changed_leases(self, clock: Callable[[], float]) -> LiveLeases | None:
        began = clock()
        if began < self._list_at:
            return None
        leases = tuple(self._live())
        self._list_at = began + LIST_SHARE * (clock() - began)
        if leases == self._reported:
            return None
        self._reported = leases
        return LiveLeases(leases, len(leases))

    async def _receive(self, call: Any) -> None:
        """Whatever comes is taken; only a new answer shows that the collector hears us (`SILENCE_SHARE`).

        The waiting counts, and not the time that taking needs: after a stall of the disk here, answers have come.
        """
        clock = asyncio.get_running_loop().time
        waited, deaf = 0.0, 0
        while True:
            limit = self._authority.authority_seconds * SILENCE_SHARE or self._settings.answer_seconds_max
            if waited >= limit:
                raise _unanswered(limit, deaf)
            began = clock()
            try:
                async with asyncio.timeout(limit - waited):
                    answer = await call.read()
            except TimeoutError:
                raise _unanswered(limit, deaf) from None
            if answer is grpc.aio.EOF:
                return
            push = push_from_proto(understood(answer))
            waited, deaf = (0.0, 0) if self._advances(push) else (waited + clock() - began, deaf + 1)
            await self._take(push)

    def _advances(self, push: Push) -> bool:
        try:
            return self._authority.advances(push.answers)
        except ValueError as error:
            raise LinkBrokenError(str(error)) from None

    async def _take(self, push: Push) -> None:
        self._take_slices(push)
        self._reports.answered(push.answers)
        if not push.snapshot or await self._matched(push):
            await self._take_entries(push)
        if not await self._take_budget_changes(push):
            return  # more pushes follow; authority comes with the last
        # Only now: an answer gives authority once what it says is in force here.
        self._authority.answered(push, self._sink.applied_epoch(), self._sink.history_digest())

    async def _take_budget_changes(self, push: Push) -> bool:
        """True once all of them are in force here."""
        sink = self._budgets.sink
        if push.budget_snapshot:
            agreed = agreed_changes(sink.applied_budget_change(), push, sink.has_budget_change)
            if agreed is not None:
                _log.warning("the collector has lost changes of caps that are applied here", agreed_number=agreed)
                await sink.set_aside_budget_changes(agreed)
        try:
            changes = next_changes(sink.applied_budget_change(), push.budget_change, push.budget_changes)
        except ValueError as error:
            raise LinkBrokenError(str(error)) from None
        if changes:
            await sink.apply_budget_changes(changes)
            self._acknowledged.set()
            self._acknowledge.set()
        if sink.applied_budget_change() != push.budget_change:
            return False
        if push.budget_history is not None and sink.budget_history_digest() != push.budget_history:
            message = f"the collector numbers other changes of caps up to {push.budget_change} than are applied here"
            raise LinkBrokenError(message)
        return True

    async def _take_entries(self, push: Push) -> None:
        try:
            entries = next_entries(self._sink.applied_epoch(), push)
        except ValueError as error:
            raise LinkBrokenError(str(error)) from None
        if entries:
            self._rest.begin(push.report_spread_seconds)
            self._reports.add(await self._sink.apply(entries))
            self._acknowledge.set()
        level = self._sink.applied_epoch() == push.revocation_epoch
        if level and push.history is not None and self._sink.history_digest() != push.history:
            message = f"the collector numbers other revocations up to {push.revocation_epoch} than are applied here"
            raise LinkBrokenError(message)

    async def _matched(self, push: Push) -> bool:
        """Compare entries with those applied here, until they differ or end; what the collector lacks is set aside."""
        if self._matching is None:
            return True
        try:
            agreed = self._matching.agreed(push, self._sink.numbered)
        except ValueError as error:
            raise LinkBrokenError(str(error)) from None
        if agreed is None:
            return False
        _log.warning("the collector has lost revocations that are applied here", agreed_epoch=agreed)
        self._reports.forget(agreed)
        await self._sink.set_aside(agreed)
        self._matching = None
        return True


def _unanswered(seconds: float, deaf: int) -> LinkBrokenError:
    """What `seconds` without a new answer mean, after so many pushes that were none."""
    if not deaf:
        return LinkBrokenError("the collector is silent")
    return UnansweredError(f"no heartbeat was answered for {seconds:g} s, in {deaf} messages of the collector")
