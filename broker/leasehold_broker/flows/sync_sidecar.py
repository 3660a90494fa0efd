"""Keep one sidecar in step with the centre. Owns the session: supersession, pushes, heartbeats, acknowledgements.

A sidecar speaks for the centre only when what it has applied is how the log begins, content and all: by its number
alone, a collector that was restored from an older copy would count a revocation as applied that never was.

A session holds one pending wake-up and re-reads from the last epoch it sent: a slow sidecar costs no memory.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation_history import NOTHING
from leasehold_broker.domain.sync import HEARTBEATS_PER_AUTHORITY, Push, SyncMessage, report_spread
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.keep_reports import KeepReports
from leasehold_broker.flows.sync_history import (
    ReadBudgetHistory,
    SyncLog,
    agrees,
    agrees_in_budgets,
    behind,
    behind_in_budgets,
    check_budget_history,
    check_history,
)
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.revocation_log import KnownSidecar

PUSH_ENTRIES_MAX = 200
CURRENT_SECONDS_MAX = 5.0
"""How long a replica may take to read what another has committed, before a sidecar that knows more is told to wait."""


class SyncSession:
    """One open session of one sidecar."""

    def __init__(
        self,
        fleet: Fleet,
        escrow: FleetEscrow,
        log: SyncLog,
        reports: KeepReports,
        clock: Clock,
        member: Member,
        first: SyncMessage,
        expire_ns: int,
        budgets: ReadBudgetHistory,
        *,
        snapshot: bool,
        budget_snapshot: bool,
    ) -> None:
        """Made by `SyncSidecar.open`; the snapshots: what the sidecar has applied is not how the log begins."""
        self._fleet = fleet
        self._escrow = escrow
        self._life = "" if first.hello is None else first.hello.life
        self._log = log
        self._reports = reports
        self._clock = clock
        self._member = member
        self._number = member.session
        self._snapshot = snapshot
        self._sent = 0 if snapshot else first.applied_epoch
        self._budgets = budgets
        self._budget_snapshot = budget_snapshot
        self._sent_change = 0 if budget_snapshot else first.applied_budget_change
        self._heartbeat = 0
        self._answerable = 0
        self._expire_ns = expire_ns
        self._wake = asyncio.Event()
        self._ended: Refusal | None = None
        self._expelled: Refusal | None = None
        self._finished = False

    async def heard(self, message: SyncMessage) -> None:
        """Take what the sidecar says; its acknowledgements are durable on return.

        Once it is expelled those are all that is taken: one that goes on speaking, and reads nothing, would never count
        as gone, and hold up every revocation.

        Raises:
            Refusal: FIELD_INVALID, CENTRE_BEHIND, STORE_UNAVAILABLE, OVERLOADED.
        """
        member = self._member
        if self._superseded():
            return
        if self._snapshot and not agrees(message, self._log):
            # It speaks of entries that are unknown here.
            message = replace(message, applied_epoch=0, applied=(), history=NOTHING)
        await self._budgets.newest()
        if self._budget_snapshot and not agrees_in_budgets(message, self._budgets):
            message = replace(message, applied_budget_change=0, budget_history=NOTHING)
        check_history(message, self._log)
        check_budget_history(message, self._budgets)
        speaks = self._expelled is None
        if speaks and self._life and message.heartbeat:  # what asks for no answer says nothing of slices
            self._escrow.heard(member.known.name, self._life, message.slices)
        now = self._clock.now()
        member.heard = now if speaks else member.heard
        member.applied_budget_change = max(member.applied_budget_change, message.applied_budget_change)
        member.take_reports(message)
        known = replace(
            member.known,
            applied_epoch=max(member.known.applied_epoch, message.applied_epoch),
            last_heard_wall_ms=now.wall_ms,
        )
        if known.applied_epoch > member.known.applied_epoch or message.applied:
            await self._reports.run(known, message.applied)
            if self._superseded():
                return
            member.known = known
            self._fleet.changed(known.name)
        else:
            member.known = known
        if speaks and message.heartbeat > self._heartbeat:
            self._heartbeat = message.heartbeat
            self._log.when_current(self, partial(self._current, message.heartbeat))

    def _current(self, heartbeat: int) -> None:
        """Whatever was revoked before this heartbeat came is known here by now; a replica may be the last to know."""
        self._answerable = max(self._answerable, heartbeat)
        self._wake.set()

    def end(self, refusal: Refusal | None = None) -> None:
        """Let `pushes` end: with this refusal, or quietly."""
        self._ended = self._ended or refusal
        self._finished = True
        self._wake.set()

    def expel(self, refusal: Refusal) -> None:
        """Let `pushes` send what is revoked by now, and then end with this refusal."""
        self._expelled = refusal
        self._wake.set()

    async def pushes(self) -> AsyncIterator[Push]:
        """What to send: the first at once, then on every change and heartbeat, until the session is over.

        Raises:
            Refusal: SESSION_SUPERSEDED, or what `end` was told.
        """
        pause = self._fleet.authority_seconds / HEARTBEATS_PER_AUTHORITY
        with (
            self._fleet.session_wakes(self._member.known.name, self._wake),
            self._escrow.waking(self._member.known.name, self._life, self._wake),
        ):
            while True:
                self._wake.clear()
                self._check()
                now = self._clock.now()
                if self._finished or now.boot_ns >= self._expire_ns or self._fleet.lapsed(self._member, now):
                    return
                push = await self._next()
                yield push
                if self._sent < push.revocation_epoch or self._sent_change < push.budget_change:
                    continue
                if self._expelled is not None:
                    raise self._expelled
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def close(self) -> None:
        """The connection is gone."""
        if not self._superseded():
            self._member.connected = False
            self._escrow.left(self._member.known.name, self._life)
            self._fleet.changed(self._member.known.name)

    async def _next(self) -> Push:
        # The heartbeat is read before the epoch: what was revoked before it came is in this answer (R3).
        answers = self._answerable
        epoch = self._log.epoch()
        entries = tuple(await self._log.after(self._sent, PUSH_ENTRIES_MAX)) if epoch > self._sent else ()
        entries = tuple(entry for entry in entries if entry.epoch <= epoch)
        if entries:
            self._sent = entries[-1].epoch
        history = self._log.history().digest_at(epoch)
        newest = await self._budgets.newest()
        changes = tuple(await self._log.budget_changes_after(self._sent_change, PUSH_ENTRIES_MAX))
        changes = tuple(change for change in changes if change.number <= newest)
        if changes:
            self._sent_change = changes[-1].number
        slices = self._escrow.told(self._member.known.name, self._life, self._clock.now()) if self._life else None
        spread = report_spread(self._fleet.session_count) if entries else 0.0
        return Push(
            epoch,
            entries,
            self._fleet.authority_seconds,
            answers,
            newest,
            changes,
            slices,
            spread,
            history,
            self._snapshot,
            self._budgets.history.digest_at(newest),
            self._budget_snapshot,
        )

    def _superseded(self) -> bool:
        return self._member.session != self._number

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._superseded():
            raise Refusal(
                Reason.SESSION_SUPERSEDED,
                f"a newer session of sidecar {self._member.known.name!r} took over; if this one is not an old "
                "connection of the same process, two copies are running: stop one",
            )


class SyncSidecar:
    """Opens sessions."""

    def __init__(
        self,
        fleet: Fleet,
        escrow: FleetEscrow,
        log: SyncLog,
        events: EventLog,
        clock: Clock,
        *,
        accept_gaps: bool = False,
    ) -> None:
        """Serve this fleet, and its shared budgets, from this log.

        With `accept_gaps`, sidecars that have applied what this log has lost are given all that it has, instead of
        being refused.
        """
        self._accept_gaps = accept_gaps
        self._fleet = fleet
        self._escrow = escrow
        self._log = log
        self._reports = KeepReports(log)
        self._events = events
        self._clock = clock
        self._budgets = ReadBudgetHistory(log)
        self._open: dict[str, SyncSession] = {}

    async def open(self, name: str, first: SyncMessage, seconds_max: float) -> SyncSession:
        """Start a session; an older one of the same sidecar ends as superseded.

        Args:
            name: the sidecar's, from its verified identity.
            first: its first message.
            seconds_max: how long its identity lasts; the session ends then, and it connects anew.

        Raises:
            Refusal: FIELD_INVALID, SIDECAR_BANNED (it says another name), CENTRE_BEHIND, STORE_UNAVAILABLE.
        """
        hello = first.hello
        if hello is None:
            raise field_invalid("hello", "is missing on the first message")
        if hello.sidecar != name:
            raise Refusal(
                Reason.SIDECAR_BANNED,
                f"this identity belongs to sidecar {name!r}, not to {hello.sidecar!r}; correct the sidecar's name",
            )
        snapshot = await self._lacks(first)
        budget_snapshot = await self._lacks_budgets(first)
        if not snapshot:
            check_history(first, self._log)
        if not budget_snapshot:
            check_budget_history(first, self._budgets)
        applied_epoch = 0 if snapshot else first.applied_epoch
        now = self._clock.now()
        authority_ms = math.ceil(self._fleet.authority_seconds * 1000)
        earlier = self._fleet.members.get(name)
        if earlier is not None:
            authority_ms = max(authority_ms, earlier.known.authority_ms)
        known = KnownSidecar(name, hello.environment, hello.version, applied_epoch, now.wall_ms, authority_ms)
        await self._reports.run(known, ())
        await self._events.record(
            Event(
                EventType.SIDECAR_CONNECTED,
                now.wall_ms,
                Outcome.ALLOWED,
                details={
                    "sidecar": name,
                    "environment": hello.environment,
                    "version": hello.version,
                    "applied_epoch": first.applied_epoch,
                    **({"snapshot": True} if snapshot else {}),
                    **({"budget_snapshot": True} if budget_snapshot else {}),
                },
            )
        )
        return await self._install(
            known, first, now.after(seconds_max), snapshot=snapshot, budget_snapshot=budget_snapshot
        )

    async def _lacks(self, first: SyncMessage) -> bool:
        """True when this log lacks what the sidecar has applied, and that is accepted.

        Raises:
            Refusal: CENTRE_BEHIND.
        """
        if agrees(first, self._log):
            return False
        current = await self._current()
        if agrees(first, self._log):
            return False
        if not current or not self._accept_gaps:
            raise behind(first.applied_epoch, self._log.epoch())
        return True

    async def _current(self) -> bool:
        """Once all that was committed by now is known here; False when it does not come in time."""
        current = asyncio.Event()
        self._log.when_current(current, current.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CURRENT_SECONDS_MAX):
                await current.wait()
        return current.is_set()

    async def _lacks_budgets(self, first: SyncMessage) -> bool:
        """The same of changes of caps.

        Raises:
            Refusal: CENTRE_BEHIND, STORE_UNAVAILABLE.
        """
        await self._budgets.newest()
        if agrees_in_budgets(first, self._budgets):
            return False
        current = await self._current()
        newest = await self._budgets.newest()
        if agrees_in_budgets(first, self._budgets):
            return False
        if not current or not self._accept_gaps:
            raise behind_in_budgets(first.applied_budget_change, newest)
        return True

    def expel(self, name: str, refusal: Refusal) -> None:
        """End the open session of this sidecar, once it was sent what is revoked by now."""
        session = self._open.get(name)
        if session is not None:
            session.expel(refusal)

    async def _install(
        self, known: KnownSidecar, first: SyncMessage, expire_ns: int, *, snapshot: bool, budget_snapshot: bool
    ) -> SyncSession:
        member = self._fleet.members.setdefault(known.name, Member(known, self._clock.now()))
        member.known = known
        member.session += 1
        if member.connected:
            self._fleet.superseded += 1
        member.connected = True
        member.key_uses = None
        member.elsewhere = False
        older = self._open.get(known.name)
        session = SyncSession(
            self._fleet,
            self._escrow,
            self._log,
            self._reports,
            self._clock,
            member,
            first,
            expire_ns,
            self._budgets,
            snapshot=snapshot,
            budget_snapshot=budget_snapshot,
        )
        self._open[known.name] = session
        if older is not None:
            older.end()
        self._escrow.joined(known.name, "" if first.hello is None else first.hello.life)
        try:
            await session.heard(first)
        except BaseException:  # also when the connection is gone: nobody else closes what nobody was handed
            session.close()
            raise
        self._fleet.changed(known.name)
        return session
