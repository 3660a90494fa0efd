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
from typing import Protocol

from leasehold_broker.domain.events import Event, EventType, Outcome
from leasehold_broker.domain.reasons import Reason, Refusal, field_invalid
from leasehold_broker.domain.revocation_history import NOTHING
from leasehold_broker.domain.sync import HEARTBEATS_PER_AUTHORITY, Push, SyncMessage, report_spread
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.keep_reports import KeepReports
from leasehold_broker.ports.budget_changes import BudgetChangeLog
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.event_log import EventLog
from leasehold_broker.ports.revocation_log import KnownSidecar, RevocationLog

PUSH_ENTRIES_MAX = 200
CURRENT_SECONDS_MAX = 5.0
"""How long a replica may take to read what another has committed, before a sidecar that knows more is told to wait."""


class SyncLog(RevocationLog, BudgetChangeLog, Protocol):
    """What sidecars are kept in step with."""


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
        *,
        snapshot: bool,
    ) -> None:
        """Made by `SyncSidecar.open`; `snapshot`: what the sidecar has applied is not how the log begins."""
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
        self._sent_change = first.applied_budget_change
        self._heartbeat = 0
        self._answerable = 0
        self._expire_ns = expire_ns
        self._wake = asyncio.Event()
        self._ended: Refusal | None = None
        self._expelled: Refusal | None = None
        self._finished = False

    async def heard(self, message: SyncMessage) -> None:
        """Take what the sidecar says; its acknowledgements are durable on return.

        Raises:
            Refusal: FIELD_INVALID, CENTRE_BEHIND, STORE_UNAVAILABLE, OVERLOADED.
        """
        member = self._member
        if self._superseded():
            return
        if self._snapshot and not agrees(message, self._log):
            # It speaks of entries that are unknown here.
            message = replace(message, applied_epoch=0, applied=(), history=NOTHING)
        check_history(message, self._log)
        if self._life and message.heartbeat:  # what asks for no answer says nothing of slices
            self._escrow.heard(member.known.name, self._life, message.slices)
        now = self._clock.now()
        member.heard = now
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
        if message.heartbeat > self._heartbeat:
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
        newest = self._log.budget_change_number()
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
        self.superseded = 0
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
        if not snapshot:
            check_history(first, self._log)
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
                },
            )
        )
        return await self._install(known, first, now.after(seconds_max), snapshot=snapshot)

    async def _lacks(self, first: SyncMessage) -> bool:
        """True when this log lacks what the sidecar has applied, and that is accepted.

        Raises:
            Refusal: CENTRE_BEHIND.
        """
        if agrees(first, self._log):
            return False
        current = asyncio.Event()
        self._log.when_current(current, current.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CURRENT_SECONDS_MAX):
                await current.wait()
        if agrees(first, self._log):
            return False
        if not current.is_set() or not self._accept_gaps:
            raise behind(first.applied_epoch, self._log.epoch())
        return True

    def expel(self, name: str, refusal: Refusal) -> None:
        """End the open session of this sidecar, once it was sent what is revoked by now."""
        session = self._open.get(name)
        if session is not None:
            session.expel(refusal)

    async def _install(self, known: KnownSidecar, first: SyncMessage, expire_ns: int, *, snapshot: bool) -> SyncSession:
        member = self._fleet.members.setdefault(known.name, Member(known, self._clock.now()))
        member.known = known
        member.session += 1
        if member.connected:
            self.superseded += 1
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
            snapshot=snapshot,
        )
        self._open[known.name] = session
        if older is not None:
            older.end()
        self._escrow.joined(known.name, "" if first.hello is None else first.hello.life)
        try:
            await session.heard(first)
        except Refusal:
            session.close()
            raise
        self._fleet.changed(known.name)
        return session


def check_history(message: SyncMessage, log: SyncLog) -> None:
    """A sidecar never knows more than the centre, and nothing else.

    Raises:
        Refusal: CENTRE_BEHIND, FIELD_INVALID.
    """
    if not agrees(message, log):
        raise behind(message.applied_epoch, log.epoch())
    if any(entry.epoch > message.applied_epoch for entry in message.applied):
        raise field_invalid("applied", "names an epoch above applied_epoch")
    if message.applied_budget_change > log.budget_change_number():
        raise behind_in_budgets(message.applied_budget_change, log.budget_change_number())


def agrees(message: SyncMessage, log: SyncLog) -> bool:
    """True when what the sidecar has applied is how this log begins; of a build that tells no digest, its number."""
    if message.history is None:
        return message.applied_epoch <= log.epoch()
    return log.history().begins_with(message.applied_epoch, message.history)


def behind(applied: int, epoch: int) -> Refusal:
    """The collector has lost history: nothing may go on before an operator looked."""
    return Refusal(
        Reason.CENTRE_BEHIND,
        f"the sidecar has applied revocations up to {applied}, this collector knows {epoch}, and not the same: its "
        "store was replaced or restored; put the newest copy back, or see deploy/runbooks/audit.md",
    )


def behind_in_budgets(applied: int, known: int) -> Refusal:
    """The collector has lost changes of caps."""
    return Refusal(
        Reason.CENTRE_BEHIND,
        f"the sidecar has applied {applied} changes of budgets, this collector knows {known}: its store was replaced "
        "or restored; restore the newest copy",
    )
