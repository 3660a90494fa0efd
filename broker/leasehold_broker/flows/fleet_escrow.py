"""Fleet budgets at the centre: who holds which slice, and how the cap is shared among those who need it.

Owns the order: a grant is durable, with its event, before any sidecar is told of it; what comes back is durable in the
same commit as what is granted of it. Sidecars are not asked and do not ask: they say how they stand with every message,
and the next push tells them what they have (see domain/escrow.py for why nobody can overspend).

Replicas that share a log decide each for the sidecars that are connected to them, knowing what all of them ask for.
Each round begins with what the others have granted since; when one of them commits first, the round is made anew.

A slice whose life is not heard any more is written off once its holder must have stopped: the holder stops at
`sent + authority`, we count from when we received, widened by the drift of two clocks, and by the longest call.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress

from leasehold_broker.domain.escrow import Escrow, SliceState
from leasehold_broker.domain.escrow_shares import Demand, shares
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.fleet_budget import (
    KEEP_ALL,
    NO_FENCE,
    Applies,
    FleetBudget,
    SliceReport,
    SliceTold,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.sync import silence_seconds
from leasehold_broker.domain.time import NANOS, Instant
from leasehold_broker.flows.escrow_holders import Ask, EscrowHolders, Holder
from leasehold_broker.flows.escrow_reports import EscrowReports
from leasehold_broker.flows.escrow_windows import Draft, EscrowWindows, Key, Running
from leasehold_broker.ports.budget_changes import BudgetChangeLog, FleetStanding
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.escrow_log import EscrowBooks, EscrowLog, StoredSlice

CALL_SECONDS_MAX = 900.0
"""A call that began before its slice ended may report what it spent for so long."""
LOOK_SECONDS = 1.0
"""How often slices are looked at that may have to be written off or forgotten."""
GATHER_SECONDS = 0.01
"""Reports that come together share one commit."""
STEP_SHARE = 4
"""After a round the next one waits so many times as long as it took: other work of the collector comes first."""
TRIES_MAX = 4
"""A round that other replicas came before is made anew so many times; the next one comes within a second."""


class FleetEscrow:
    """Every fleet budget of a collector. One owner: the event loop's thread."""

    def __init__(
        self,
        budgets: Sequence[FleetBudget],
        authority_seconds: float,
        log: EscrowLog | None,
        changes: BudgetChangeLog,
        clock: Clock,
        call_seconds_max: float = CALL_SECONDS_MAX,
        *,
        shared: bool = False,
    ) -> None:
        """Share these budgets; call `restore` before anything else.

        Args:
            budgets: of the configuration.
            authority_seconds: how long a sidecar may go on without hearing the centre.
            log: what must survive; None only without budgets.
            changes: operators' raises and lowers of the caps.
            clock: whose boot reading silence is counted on.
            call_seconds_max: how long a call that began in time may go on.
            shared: other replicas grant from the same log.

        Raises:
            ValueError: budgets without a log.
        """
        if log is None and budgets:
            message = "fleet budgets need a store that keeps their slices"
            raise ValueError(message)
        self.windows = EscrowWindows(budgets, changes, clock)
        self._authority_seconds = authority_seconds
        self._log = log
        self._clock = clock
        self._call_seconds_max = call_seconds_max
        self._shared = shared
        self.holders = EscrowHolders(silence_seconds(authority_seconds))
        self._reports = EscrowReports(self.windows, shared=shared)
        self._joined: set[str] = set()
        self._draft = Draft()
        self._dirty: set[Key] = set()
        self._expelled: set[str] = set()
        self._lost = True
        self._look_ns = 0
        self._stir = asyncio.Event()
        self.failures = 0
        self.conflicts = 0
        self.steps = 0

    def __repr__(self) -> str:
        """Counts only."""
        return f"FleetEscrow({self.windows!r}, holders={len(self.holders)})"

    async def restore(self) -> None:
        """Take over what is durable. Every life counts as heard just now.

        Raises:
            Refusal: STORE_UNAVAILABLE.
        """
        if self._log is None:
            return
        books = await self._log.slices()
        self._draft = Draft()
        self.windows.restore(books, self._clock.now().wall_ms)
        self._took(books)
        self._lost = False
        await self.windows.read_changes()

    async def _refresh(self, log: EscrowLog) -> None:
        """Know what other replicas have put since."""
        books = await log.slices(self.windows.version)
        self.windows.take(books, self._clock.now().wall_ms)
        self._took(books)

    def _took(self, books: EscrowBooks) -> None:
        now = self._clock.now()
        for one in books.slices:
            self.holders.granted(one.sidecar, one.life, now)
            if one.sidecar in self.holders:
                self._joined.add(one.sidecar)

    def joined(self, name: str, life: str) -> None:
        """A session of this life of the sidecar was opened; what another life of it held is over (E7)."""
        if self.holders.joined(name, life, self._clock.now()):
            self._joined.add(name)
            self._stir.set()

    def left(self, name: str, life: str) -> None:
        """The session of this life is gone: it asks for nothing until it is back; what it has stays its own."""
        self.holders.left(name, life)
        self._reports.left(name, life)

    def expelled(self, name: str) -> None:
        """It is banned or evicted: nothing is granted to it, and its slices are written off with the next round.

        That is before E6 allows it for a sidecar that is silent, and as safe: what is written off counts as spent, the
        most that it could spend, and nothing of it becomes free. What it says of them after it was readmitted tells
        where the money went.
        """
        self.holders.expelled(name)
        self._expelled.add(name)
        self._stir.set()

    def cap_changed(self) -> None:
        """An operator has changed a cap: the next round, which is due now, puts it in force."""
        self._look_ns = 0
        self._stir.set()

    def heard(self, name: str, life: str, reports: Sequence[SliceReport]) -> None:
        """Take what this life of the sidecar says of its slices.

        Raises:
            Refusal: FIELD_INVALID (another's slice), CENTRE_BEHIND (it was granted what is not known here).
        """
        holder = self.holders.of(name, life)
        if holder is None and self.holders.was_taken_over(name, life):
            self.joined(name, life)  # is the other one silent by now?
            holder = self.holders.of(name, life)
        if holder is None:
            return
        now = self._clock.now()
        self.holders.heard(name, life, now)
        of_slices = [report for report in reports if report.fence != NO_FENCE]
        held = {(report.budget, report.metric): report.held for report in sorted(of_slices, key=lambda one: one.fence)}
        before, holder.asks = holder.asks, {}
        for report in reports:
            key = (report.budget, report.metric)
            if report.fence == NO_FENCE and key in self.windows.keys:
                holder.ask(key, report.want, report.need, held.get(key, 0), before.get(key), now)
                if not holder.asks[key].same(before.get(key)):  # most heartbeats of an idle fleet say nothing new
                    self._dirty.add(key)
        self._stir.set()
        self._reports.heard(name, life, of_slices, lost=self._lost)

    def told(self, name: str, life: str, now: Instant) -> tuple[SliceTold, ...] | None:
        """What this life of the sidecar may be told now: nothing that is not durable. None: there are no budgets.

        A life that another one has taken over from is told that it has no slice, not that there are no budgets.
        """
        if not self.windows.budgets:
            return None
        holder = self.holders.of(name, life)
        if holder is None:
            holder = Holder(life)
        return tuple(
            self._told(name, holder, running, now) for running in self.windows.all_running(now.wall_ms).values()
        )

    def waking(self, name: str, life: str, wake: asyncio.Event) -> AbstractContextManager[None]:
        """Set this event when there is something new to tell the sidecar, while the context lasts."""
        return self.holders.waking(name, life, wake)

    def standing(self) -> Sequence[FleetStanding]:
        """How every budget stands, for operators."""
        wall_ms = self._clock.now().wall_ms
        return [
            FleetStanding(
                running.budget,
                running.metric,
                self.windows.whole(running),
                0 if running.rolling is not None else running.window.end_ms,
                self.windows.changed(running.budget.name, running.metric, wall_ms),
            )
            for running in self.windows.all_running(wall_ms).values()
        ]

    async def run(self) -> None:
        """Share and look after slices, for as long as the process lives."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._stir.wait()
            self._stir.clear()
            began = loop.time()
            await self.step()
            await asyncio.sleep(max(GATHER_SECONDS, STEP_SHARE * (loop.time() - began)))

    async def step(self) -> None:
        """One round: write off what is over, share what is free, make it durable, then tell."""
        if self._log is None or not self.windows.budgets:
            return
        for _ in range(TRIES_MAX):
            try:
                if self._lost:
                    await self.restore()
                elif self._shared:
                    await self._refresh(self._log)
                await self.windows.read_changes()
                await self._round(self._log)
            except Refusal as refusal:
                # What memory says was granted is not durable, and was told to nobody: begin again from the disk.
                self._lost = True
                self._look_ns = 0
                if refusal.reason is not Reason.CONCURRENT_UPDATE:
                    self.failures += 1
                    return
                self.conflicts += 1
            else:
                return

    async def _round(self, log: EscrowLog) -> None:
        now = self._clock.now()
        self.steps += 1
        said = self._reports.book(self._draft, now)
        self._dirty.update(said.budgets)
        self._take_over()
        look = now.boot_ns >= self._look_ns
        if look:
            self._look_ns = now.after(LOOK_SECONDS)
        dirty, self._dirty = self._dirty, set()
        for key, running in self.windows.all_running(now.wall_ms).items():
            if look or key in dirty or not running.escrow.slices:  # of a new window nobody has anything
                self.windows.refresh_cap(running, now.wall_ms)
                self._share(key, running, now)
        expelled = frozenset(self._expelled)
        if look or expelled:
            self._write_off(now, expelled)
        draft, self._draft = self._draft, Draft()
        if draft.changed or draft.events:
            books, rows = self.windows, [running.stored(fence) for fence, running in draft.changed.items()]
            books.version = await log.put_slices(books.version, books.fence, rows, draft.events)
            for row, running in zip(rows, draft.changed.values(), strict=True):
                self._tell(row, running)
        self._expelled -= expelled
        self._reports.done(said)
        if look:
            await self._forget(log, now)

    # Who gets what.

    def _take_over(self) -> None:
        """What other lives hold of sidecars that have joined is over (E7): after what those said was booked."""
        joined, self._joined = self._joined, set()
        for name in joined:
            life = self.holders.life_of(name)
            for running in self.windows if life else ():
                ended = running.escrow.take_over(name, life)
                if ended is not None:
                    self._draft.changed[ended.fence] = running

    def _share(self, key: Key, running: Running, now: Instant) -> None:
        escrow = running.escrow
        asks = self.holders.asking(key, now)
        have = {name: _available(escrow, name, ask) for name, ask in asks.items()}
        for name, amount in self.windows.refresh_shares(running, now.wall_ms):
            if name in self.holders:  # else its own replica tells
                self._draft.events.append(running.outlying_event(name, amount, now))
        demands = [
            Demand(name, ask.want, ask.need, ask.since_ns, have[name] + running.left_for(name))
            for name, ask in asks.items()
        ]
        found = shares(escrow.free, demands, have)
        urgent = found.hungry or escrow.free < 0  # a cap was lowered below what is out
        for name, amount in found.grants.items():
            # To a sidecar elsewhere its own replica grants it.
            if name in self.holders and not self._reports.doubted(name, self.holders.life_of(name)):
                self._grant(running, name, amount, now)
        for name in asks:
            if name in self.holders:
                self._recall(key, name, found.aims[name], have[name], urgent=urgent)

    def _grant(self, running: Running, name: str, amount: int, now: Instant) -> None:
        found = running.escrow.slice_of(name)
        if found is None:
            self.windows.fence += 1
            found = running.escrow.open(name, self.holders[name].life, self.windows.fence)
            self.windows.opened(running, found.fence)
        running.escrow.grant(found.fence, amount)
        running.granted(name, amount)
        self._draft.changed[found.fence] = running
        self._draft.events.append(running.event(EventType.BUDGET_SLICE_GRANTED, found, amount, now))

    def _recall(self, key: Key, name: str, aim: int, have: int, *, urgent: bool) -> None:
        """Ask back what is much too much; where a call waits, or too much is out, all above the aim, at once."""
        holder = self.holders[name]
        keep = aim if have > 2 * aim or (urgent and have > aim) else KEEP_ALL
        if keep != holder.keep.get(key, KEEP_ALL):
            holder.keep[key] = keep
            if urgent and keep != KEEP_ALL:
                self.holders.wake(name, holder.life)

    def _tell(self, row: StoredSlice, running: Running) -> None:
        """It is durable: its holder may know."""
        news = row.granted > running.durable.get(row.fence, 0)
        running.durable[row.fence] = row.granted
        if news:
            self.holders.wake(row.sidecar, row.life)

    def _told(self, name: str, holder: Holder, running: Running, now: Instant) -> SliceTold:
        window, budget = running.window, running.budget.budget
        found = running.escrow.slice_of(name)
        fence, granted, keep = NO_FENCE, 0, KEEP_ALL
        if found is not None and found.life == holder.life and found.fence in running.durable:
            fence, granted = found.fence, running.durable[found.fence]
            keep = holder.keep.get(running.key, KEEP_ALL)
        seconds = self._authority_seconds
        left_ms = self.windows.left_ms(running, now.wall_ms)
        if window.end_ms:
            seconds = min(seconds, max(0, left_ms) / 1000)
        return SliceTold(
            running.budget.name,
            running.metric,
            Applies(budget.limit.level.value, budget.limit.label, budget.value),
            fence,
            granted,
            keep,
            min(running.escrow.pool, (0 if found is None else found.available) + running.left_for(name)),
            seconds,
            now.wall_ms + left_ms if window.end_ms else 0,
        )

    # What time ends.

    def _write_off(self, now: Instant, expelled: Collection[str]) -> None:
        after = int((silence_seconds(self._authority_seconds) + self._call_seconds_max) * NANOS)
        for running in self.windows:
            # The wall clock says that a window is over; for how long, only the boot clock does.
            if not running.window.end_ms or self.windows.left_ms(running, now.wall_ms) > 0:
                running.over_ns = 0
            elif not running.over_ns:
                running.over_ns = now.boot_ns
            over = running.over_ns and now.boot_ns >= running.over_ns + after
            for one in tuple(running.escrow.slices.values()):
                if one.state is SliceState.WRITTEN_OFF:
                    continue
                silent = self.holders.silent(one.sidecar, one.life, self._call_seconds_max, now)
                if over or silent or one.sidecar in expelled:
                    amount = running.escrow.write_off(one.fence)
                    self._draft.changed[one.fence] = running
                    if amount:
                        self._draft.events.append(running.event(EventType.BUDGET_SLICE_WRITTEN_OFF, one, amount, now))

    async def _forget(self, log: EscrowLog, now: Instant) -> None:
        """Windows that were over long ago, and lives that hold nothing."""
        fences, gone = self.windows.forgettable(now.wall_ms)
        if fences:
            await log.forget_slices(fences)
            self.holders.know_only(
                (one.sidecar, one.life) for running in self.windows for one in running.escrow.slices.values()
            )
        self.windows.forget(gone)


def _available(escrow: Escrow, name: str, ask: Ask) -> int:
    """What a new call there may hold; what its calls hold is known from the ask, also of a sidecar elsewhere."""
    found = escrow.slice_of(name)
    return 0 if found is None else max(0, found.right - found.reported - ask.held)
