"""The machines of the simulated fleet: clocks that drift, a centre's disk, a sidecar with its real flows, a connection.

The sidecar's link is written anew here, over messages that can be lost, late or repeated, from the same parts as the
real one: `Authority`, `next_entries`, `Slices`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tests.fakes.core import GRANT, POLICY, Core
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import START_WALL_MS
from tests.fakes.memory_escrow_log import MemoryEscrowLog
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.adapters.collector_link.authority import Authority
from leasehold_broker.domain.events import Event
from leasehold_broker.domain.fleet_budget import SliceReport
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.revocation import Everything, Revocation
from leasehold_broker.domain.revocation_progress import AppliedRevocation
from leasehold_broker.domain.sync import HEARTBEATS_PER_AUTHORITY, Hello, Push, SyncMessage, next_entries
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.slices import is_slice
from leasehold_broker.ports.revocation_log import KnownSidecar

AUTHORITY_SECONDS = 20.0
TICK_SECONDS = 1.0
EAGER: Policy = replace(POLICY, grants=(replace(GRANT, lower_output=False),))


class Universe:
    """True time, which no machine can read."""

    def __init__(self) -> None:
        """Begin."""
        self.ns = 0


class DriftingClock:
    """A machine's clocks: the boot clock runs at a rate of its own, the wall clock is off by some."""

    def __init__(self, universe: Universe, rate_ppm: int, boot_ns: int, wall_off_ms: int) -> None:
        """Of this machine."""
        self._universe = universe
        self._rate_ppm = rate_ppm
        self._boot_ns = boot_ns
        self.wall_off_ms = wall_off_ms

    def now(self) -> Instant:
        """As the port says."""
        true = self._universe.ns
        return Instant(
            START_WALL_MS + true // 1_000_000 + self.wall_off_ms, self._boot_ns + true + true * self._rate_ppm // 10**6
        )


class CentreDisk(MemoryEscrowLog):
    """What a collector keeps, and outlives it: slices, changes, revocations. `down` refuses commits."""

    def __init__(self) -> None:
        """Empty."""
        super().__init__()
        self.revocations: list[Revocation] = []

    def epoch(self) -> int:
        """As the port says."""
        return len(self.revocations)

    def revoke(self) -> Revocation:
        """Everything that was issued until now."""
        entry = Revocation(self.epoch() + 1, Everything(), "", "alice", 0)
        self.revocations.append(entry)
        return entry

    async def after(self, epoch: int, limit: int) -> Sequence[Revocation]:
        """As the port says."""
        return self.revocations[epoch : epoch + limit]

    async def heard(self, sidecar: KnownSidecar, applied: Sequence[AppliedRevocation]) -> None:
        """As the port says."""

    async def record(self, event: Event) -> None:
        """As the port says; only those of slices are kept."""


@dataclass(eq=False)
class Connection:
    """One stream between a sidecar and the centre. Each direction keeps its order; a break loses what is under way."""

    sidecar: "SimSidecar"
    open: bool = True
    stalled_until_ns: int = 0
    up_at_ns: int = 0
    down_at_ns: int = 0
    session: object = None
    answered: int = 0
    number: int = 0


@dataclass
class OpenCall:
    """A call that was admitted, as nobody but the world knows it."""

    id: str
    fence: int
    held: int
    until_ns: int


@dataclass
class SimSidecar:
    """One process of a sidecar: real flows of leases and calls, real slices, over a disk that can be copied."""

    name: str
    core: Core
    clock: DriftingClock
    authority: Authority
    connection: Connection | None = None
    alive: bool = True
    lease: object = None
    calls: dict[str, OpenCall] = field(default_factory=dict)
    told: dict[int, tuple[SliceReport, ...]] = field(default_factory=dict)
    applied: list[AppliedRevocation] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    beat_ns: int = 0
    pressed: bool = False
    weight: float = 1.0
    worst: int = 100
    rogue: bool = False
    """A copy of another sidecar's disk."""

    @property
    def life(self) -> str:
        """Of its slices."""
        return self.core.books.slices.life

    def message(self, *, hello: bool) -> SyncMessage | None:
        """What the link would send now; None: nothing is due."""
        now, slices = self.clock.now(), self.core.books.slices
        pause = (self.authority.authority_seconds or TICK_SECONDS * (HEARTBEATS_PER_AUTHORITY + 1)) / (
            HEARTBEATS_PER_AUTHORITY + 1
        )
        if not hello and not self.applied and slices.due_seconds(now) != 0 and now.boot_ns < self.beat_ns:
            return None
        if hello:
            self.authority.new_session()
            self.told.clear()
        number = self.authority.heartbeat(now)
        self.beat_ns = now.after(pause)
        applied, self.applied = tuple(self.applied), []
        self.told[number] = slices.reports(now)
        return SyncMessage(
            Hello(self.name, "prod", "1", self.life) if hello else None,
            self.core.revocations.applied_epoch(),
            applied,
            heartbeat=number,
            applied_budget_change=self.core.apply_budgets.applied_budget_change(),
            slices=self.told[number],
        )

    async def take(self, push: Push) -> None:
        """What the link does with an answer.

        Raises:
            ValueError: a gap (R5).
        """
        slices = self.core.books.slices
        slices.take(push.slices or (), self.authority.sent_at(push.answers), self.clock.now())
        for number in [number for number in self.told if number <= push.answers]:
            slices.answered(self.told.pop(number))
        entries = next_entries(self.core.revocations.applied_epoch(), push)
        if entries:
            self.applied += await self.core.revocations.apply(entries)
        if push.budget_changes:
            fresh = [one for one in push.budget_changes if one.number > self.core.apply_budgets.applied_budget_change()]
            await self.core.apply_budgets.apply_budget_changes(fresh)
        self.authority.answered(push, self.core.revocations.applied_epoch())
        self.pushes = [*self.pushes[-3:], push]

    def fence_of(self, call_id: str) -> tuple[int, int]:
        """The slice that an open call draws on, and what it holds of it; (0, 0) without one."""
        hold = self.core.books.ledger.hold(call_id)
        for leg in hold.legs:
            if is_slice(leg.account):
                return int(leg.account.removeprefix("slice:").partition("|")[0]), hold.amounts[0]
        return 0, 0

    def cap_of(self, fence: int) -> int:
        """What this process would let new calls draw on that slice."""
        for known in self.core.books.slices._known.values():
            if known.own is not None and known.own.fence == fence:
                return known.own.cap(self.clock.now().boot_ns)
        return 0


async def boot(name: str, disk: MemoryDisk, clock: DriftingClock, life: str) -> SimSidecar:
    """Start a process over this disk, as the sidecar does: recover, then know its life."""
    store = MemoryStateStore(disk, clock, name)
    core = await Core(store, clock, EAGER, CountingEntropy(f"{name}/{life}")).recover()
    core.books.slices.life = life
    found = SimSidecar(name, core, clock, Authority(clock.now()))
    core.centre.authority_lapsed_seconds = found.authority.lapsed_seconds

    def press() -> None:
        found.pressed = True

    core.books.slices.press = press
    return found


def copied(disk: MemoryDisk) -> MemoryDisk:
    """A disk as it is now, without the audit events, which nobody looks at here."""
    events, outbox, disk.events, disk.outbox = disk.events, disk.outbox, [], []
    try:
        return copy.deepcopy(disk)
    finally:
        disk.events, disk.outbox = events, outbox


def trimmed(disk: MemoryDisk) -> None:
    """Forget audit events: a run of hours would fill the memory with them."""
    disk.events.clear()
    disk.outbox.clear()
