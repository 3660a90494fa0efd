"""Drive every rotation to its end. Owns the loop: who leads, one rotation a key at a time, pauses, and what is told.

A step is taken, its outcome judged by the domain, the new state made durable with its event, and only then the next one
begun. Whoever lost the lead learns it from the store when it wants to go on, and stops there. Since a provider knows no
fence, a leader that could not keep its lead in time also cuts off what it is doing, before another may have begun: one
that was frozen does so before it sends anything more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.rotation import Purpose, Rotation, RotationState
from leasehold_broker.domain.rotation_time import StateTime
from leasehold_broker.domain.rotation_transitions import Faulted, after
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.rotated_key import AnyRotated
from leasehold_broker.flows.rotation_events import stepped
from leasehold_broker.flows.rotation_steps import RotationSteps
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.rotation_log import Lead, RotationLog

EARLIER_MAX = 10
"""Switch-offs may lie between two rotations of a key."""
LEAD_SHARE = 0.8
"""Of the time that others wait, a leader trusts its lead for this much; the rest is for drift and what is under way."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are looked at, in seconds.

    Args:
        look: for new rotations, and to keep the lead.
        lead: for so long another process has to see no look of the leader, to take the lead.
        retry, retry_max: before a step is tried again; doubled each time, or as a provider or store asks.
        poll: while a drain, a person or the old key's death is waited for.
        tell: a changed reason for waiting is written down no more often.
        note: so often the time of a state that lasts is written down: a process that dies costs at most that.
    """

    look: float = 1.0
    lead: float = 15.0
    retry: float = 1.0
    retry_max: float = 60.0
    poll: float = 2.0
    tell: float = 10.0
    note: float = 2.0


_POLLED = frozenset(
    {RotationState.AWAITING_KEY, RotationState.PROBING, RotationState.DRAINING, RotationState.VERIFYING}
)


class RotateKeys:
    """Runs the rotations of these keys."""

    def __init__(
        self,
        log: RotationLog,
        keys: Mapping[str, AnyRotated],
        steps: RotationSteps,
        clock: Clock,
        holder: str,
        pace: Pace = Pace(),
        told: Callable[[str, str], None] = lambda _what, _why: None,
    ) -> None:
        """Nothing runs yet.

        Args:
            log: where rotations are kept.
            keys: by name; a rotation of any other key waits until it is configured again.
            steps: what is done.
            clock: for how long a state lasts.
            holder: our name as leader; never that of another life of this or any process.
            pace: how often.
            told: what failed unexpectedly, and why.
        """
        self._log = log
        self._keys = keys
        self._steps = steps
        self._clock = clock
        self._holder = holder
        self._pace = pace
        self._told = told
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: dict[tuple[str, Purpose], asyncio.Task[None]] = {}
        self._lead: Lead | None = None
        self._leads_until_ns = 0
        self._lapse: asyncio.TimerHandle | None = None

    @property
    def leads(self) -> bool:
        """True while nobody else can have the lead."""
        return self._lead is not None and self._clock.now().boot_ns < self._leads_until_ns

    def wake(self) -> None:
        """Look now: there is a new rotation, or a person has done something."""
        self._wake.set()
        self._tell_watchers()

    async def changed(self, seconds_max: float) -> None:
        """Return when some rotation may have changed, or after so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._changed.wait()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._look()
                except Refusal as refusal:
                    self._told("rotations cannot be read", refusal.detail or refusal.message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pace.look):
                        await self._wake.wait()
        finally:
            if self._lapse is not None:
                self._lapse.cancel()
            self._cut()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> None:
        asked = self._clock.now()
        lead = await self._log.take_lead(self._holder, self._pace.lead, asked)
        self._hold(lead, asked)
        if lead is None:
            return
        first: dict[tuple[str, Purpose], Rotation] = {}
        for rotation in await self._log.open_rotations():
            # A switch-off waits for no rotation: that may take days.
            first.setdefault((rotation.key, rotation.purpose), rotation)
        for what, rotation in first.items():
            name, running = rotation.key, self._tasks.get(what)
            if name in self._keys and (running is None or running.done()):
                self._tasks[what] = asyncio.create_task(self._drive(rotation, lead), name=f"rotation of {name}")

    def _hold(self, lead: Lead | None, asked: Instant) -> None:
        """Trust this lead from when it was asked for, and no longer."""
        if self._lapse is not None:
            self._lapse.cancel()
        if lead != self._lead:
            # Another one had it: what was under way is its business, and what was minted here it has found and ended.
            self._cut()
            self._steps.forget_all()
        self._lead = lead
        if lead is not None:
            self._leads_until_ns = asked.after(self._pace.lead * LEAD_SHARE)
            seconds = max(0.0, self._clock.now().seconds_until(self._leads_until_ns))
            self._lapse = asyncio.get_running_loop().call_later(seconds, self._cut)

    def _cut(self) -> None:
        """End what is under way, wherever it is."""
        for task in self._tasks.values():
            task.cancel()

    async def _drive(self, rotation: Rotation, lead: Lead) -> None:
        key, earlier = self._keys[rotation.key], await self._earlier(rotation)
        since, told_ns, tries = self._clock.now(), 0, 0
        spent = StateTime(rotation.waited_ms, since)
        while not rotation.over and self.leads:
            next_, wait = await self._step(rotation, key, since, spent, earlier)
            waits = next_ == rotation or next_ == replace(rotation, why=next_.why)
            silent = waits and (next_ == rotation or self._clock.now().boot_ns < told_ns)
            if silent:
                await self._pause(rotation.state, tries, wait)
                tries, next_ = tries + 1, rotation
            if next_.state is rotation.state:
                next_ = replace(next_, waited_ms=spent.waited_ms(self._clock.now()))
            if silent and next_.waited_ms - rotation.waited_ms < self._pace.note * 1000:
                continue
            if not await self._kept(lead, rotation, next_, key, told=not silent):
                return
            if next_.state is not rotation.state:
                since, told_ns, tries = self._clock.now(), 0, 0
                spent = StateTime(0, since)
            elif next_.confirmations != rotation.confirmations:
                await self._pause(rotation.state, 0, wait)  # steady is what lasts, not what is asked thrice at once
            if waits and not silent:
                told_ns = self._clock.now().after(self._pace.tell)
                await asyncio.sleep(wait)
            rotation = next_
        self._steps.forget(rotation)
        self._wake.set()

    async def _kept(self, lead: Lead, before: Rotation, next_: Rotation, key: AnyRotated, *, told: bool) -> bool:
        """Make the step durable, with its event when it is to be told.

        False: it could not be, and what is true has to be read anew.
        """
        event = stepped(before, next_, self._clock.now().wall_ms) if told else None
        try:
            await self._log.advance(lead, before, next_, event)
        except Refusal as refusal:
            if refusal.reason is Reason.CONCURRENT_UPDATE:
                await self._refused(before, key)
            else:
                self._told(before.name, refusal.detail or refusal.message)
                await asyncio.sleep(self._pace.retry)
            return False
        if told:
            self._tell_watchers()
        return True

    async def _refused(self, before: Rotation, key: AnyRotated) -> None:
        with contextlib.suppress(Refusal):  # nothing is ended then: the mark lets the next attempt find it
            found = await self._log.find_rotation(before.id)
            if found is not None:
                await self._steps.lost(found, key)

    async def _step(
        self, rotation: Rotation, key: AnyRotated, since: Instant, spent: StateTime, earlier: Rotation | None
    ) -> tuple[Rotation, float]:
        """What follows, and for how many seconds nothing more is to be asked."""
        try:
            outcome = await self._steps.take(rotation, key, since, earlier)
        except Exception as fault:  # noqa: BLE001 - a library's surprise: its text may hold anything, and is not told
            self._told(rotation.name, type(fault).__name__)
            return rotation, 0.0
        now = self._clock.now()
        # A longer one is waited for in pieces: a rotation that is given up meanwhile must be undone.
        wait = min(outcome.wait_seconds, self._pace.retry_max) if isinstance(outcome, Faulted) else 0.0
        return after(rotation, outcome, spent.seconds(now), key.limits, now.wall_ms), wait

    async def _earlier(self, rotation: Rotation) -> Rotation | None:
        found = await self._log.last_rotations(rotation.key, EARLIER_MAX, rotation.id)
        replaced = [each for each in found if each.purpose is Purpose.REPLACE]
        return replaced[0] if replaced and replaced[0].over else None

    async def _pause(self, state: RotationState, failures: int, wait: float) -> None:
        pause = max(wait, min(self._pace.retry_max, self._pace.retry * 2.0 ** min(failures, 30)))
        if state is RotationState.AWAITING_KEY:
            await self.changed(self._pace.poll)
        else:
            await asyncio.sleep(max(wait, self._pace.poll) if state in _POLLED else pause)

    def _tell_watchers(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
