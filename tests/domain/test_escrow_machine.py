"""Any interleaving of grants, calls, returns, losses, copies and write-offs: E1 to E7 and E9 after every step."""

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.escrow import Escrow, SliceState
from leasehold_broker.domain.slice import OwnSlice

CAP = 1000
TTL_NS = 100
NAMES = ("a", "b", "c")
PICK = st.integers(0, 2**16)
AMOUNT = st.integers(1, 400)


@dataclass
class Life:
    """A process of a sidecar, or of a copy of one: what it holds, and what it really spent of each slice."""

    name: str
    life: str
    slices: dict[int, OwnSlice] = field(default_factory=dict)
    spent: dict[int, int] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    """What its disk says of slices of earlier lives: perhaps less than was spent, when the disk was copied."""


class EscrowMachine(RuleBasedStateMachine):
    """One escrow, three sidecars with any number of lives, messages that arrive late, twice, in any order or never."""

    def __init__(self) -> None:
        """Start with nothing granted."""
        super().__init__()
        self.ghosts: list[Life] = []
        self.escrow = Escrow(CAP)
        self.now = 0
        self.fence = 0
        self.lives = [Life(name, f"{name}-0") for name in NAMES]
        self.told: list[tuple[Life, int, int, int]] = []
        self.reports: list[tuple[int, str, int, int, int]] = []
        self.granted_total = 0
        self.freed_total = 0
        self.until: dict[int, int] = {}
        self.highest: dict[int, int] = {}

    def _life(self, pick: int) -> Life:
        return self.lives[pick % len(self.lives)]

    @rule(pick=PICK, amount=AMOUNT, fresh=st.integers(0, 2 * TTL_NS))
    def grant(self, pick: int, amount: int, fresh: int) -> None:
        """The life speaks; the centre grants, and tells it, good from a heartbeat that was sent up to two TTLs ago."""
        life = self._life(pick)
        self.escrow.take_over(life.name, life.life)
        found = self.escrow.slice_of(life.name)
        if found is None:
            self.fence += 1
            found = self.escrow.open(life.name, life.life, self.fence)
        more = min(amount, self.escrow.free)
        if more > 0:
            self.escrow.grant(found.fence, more)
            self.granted_total += more
        # Sent by the sidecar `fresh` ago, heard by the centre now or before.
        self.told.append((life, found.fence, found.granted, self.now - fresh + TTL_NS))
        self.until[found.fence] = max(self.until.get(found.fence, 0), self.now + TTL_NS)

    @precondition(lambda self: self.told)
    @rule(pick=PICK, again=st.booleans())
    def told_now(self, pick: int, again: bool) -> None:
        """A word of the centre arrives, perhaps not for the last time."""
        index = pick % len(self.told)
        life, fence, granted, until_ns = self.told[index] if again else self.told.pop(index)
        if life in self.lives:
            known = life.slices.setdefault(fence, OwnSlice("fleet:everything|day", Metric.COST_MICRO_USD, fence))
            known.take(granted, until_ns)

    @rule(pick=PICK, amount=AMOUNT)
    def call(self, pick: int, amount: int) -> None:
        """A call holds its worst case, if it fits."""
        life = self._life(pick)
        for fence, one in life.slices.items():
            spent, held = life.spent.get(fence, 0), life.held.get(fence, 0)
            if spent + held + amount <= one.cap(self.now):
                life.held[fence] = held + amount
                return

    @rule(pick=PICK, part=st.integers(0, 100))
    def settle(self, pick: int, part: int) -> None:
        """All calls end, each with a part of its hold charged."""
        life = self._life(pick)
        for fence, held in life.held.items():
            life.spent[fence] = life.spent.get(fence, 0) + held * part // 100
            life.held[fence] = 0

    @rule(pick=PICK, keep=st.integers(0, 300), sent=st.booleans())
    def give_back(self, pick: int, keep: int, sent: bool) -> None:
        """A sidecar returns what it need not keep; its report is sent, or lost at once."""
        life = self._life(pick)
        for fence, one in life.slices.items():
            spent, held = life.spent.get(fence, 0), life.held.get(fence, 0)
            one.give_back(keep, spent, held)
            if sent:
                self.reports.append((fence, life.life, one.returned, spent, held))
        if sent:
            self.reports += [(fence, life.life, 0, spent, 0) for fence, spent in life.stored.items()]

    @precondition(lambda self: self.reports)
    @rule(pick=PICK, again=st.booleans())
    def report(self, pick: int, again: bool) -> None:
        """A report arrives, perhaps not for the last time."""
        index = pick % len(self.reports)
        fence, life, returned, spent, held = self.reports[index] if again else self.reports.pop(index)
        free = self.escrow.free
        state = self.escrow.slices[fence].state
        freed = self.escrow.report(fence, life, returned, spent, held)
        self.freed_total += freed
        assert self.escrow.free == free + freed
        assert freed == 0 or state is SliceState.OPEN, "E6, E7: only an open slice gives back"

    @rule(pick=PICK)
    def restart(self, pick: int) -> None:
        """The process is killed and started again: what it held is charged; its slices died with it."""
        index = pick % len(self.lives)
        life = self.lives[index]
        for fence, held in life.held.items():
            life.spent[fence] = life.spent.get(fence, 0) + held
        self.lives[index] = Life(life.name, f"{life.name}-{self.now}-{pick}", stored={**life.stored, **life.spent})
        self.ghosts.append(life)

    @precondition(lambda self: len(self.lives) < 6)
    @rule(pick=PICK)
    def clone(self, pick: int) -> None:
        """A copy of the disk is started elsewhere, while the original goes on."""
        life = self._life(pick)
        self.lives.append(Life(life.name, f"{life.name}-copy-{self.now}-{pick}", stored=copy.copy(life.spent)))

    @rule(by=st.integers(1, TTL_NS))
    def time_passes(self, by: int) -> None:
        """Slices come nearer to their end."""
        self.now += by

    @precondition(lambda self: self.escrow.slices)
    @rule(pick=PICK)
    def write_off(self, pick: int) -> None:
        """Only once its holder cannot spend it any more, by whatever clock (E6, E9)."""
        fence = list(self.escrow.slices)[pick % len(self.escrow.slices)]
        if self.now >= self.until.get(fence, 0):
            free = self.escrow.free
            self.escrow.write_off(fence)
            assert self.escrow.free == free, "E6: nothing becomes free"

    @invariant()
    def e1_conservation(self) -> None:
        """What was granted, less what came back, and what is free make the cap; the sums are those of the slices."""
        escrow = self.escrow
        assert escrow.free == CAP - self.granted_total + self.freed_total
        rights = [one.granted - one.returned for one in escrow.slices.values()]
        assert escrow.rights == sum(rights)
        gone = [min(one.reported, right) for one, right in zip(escrow.slices.values(), rights, strict=True)]
        assert escrow.gone == sum(gone) + sum(one.written_off for one in escrow.slices.values())
        assert escrow.free >= 0
        ended = [one.granted - one.returned - one.spent for one in escrow.slices.values() if one.state == "ended"]
        assert escrow.pool == CAP - escrow.gone - sum(ended)
        assert all(one.outstanding >= 0 for one in escrow.slices.values())

    @invariant()
    def e2_safety(self) -> None:
        """What was really spent and held by all processes, copies and dead ones included, is within the cap."""
        drawn = [life.spent.get(fence, 0) + life.held.get(fence, 0) for life in [*self.lives] for fence in life.slices]
        drawn += [spent for life in self.ghosts for spent in life.spent.values()]
        assert sum(drawn) <= CAP

    @invariant()
    def e3_local(self) -> None:
        """No process has drawn more than it was granted and kept."""
        for life in self.lives:
            for fence, one in life.slices.items():
                assert life.spent.get(fence, 0) + life.held.get(fence, 0) <= one.right

    @invariant()
    def e4_reports(self) -> None:
        """What the centre believes to be spent never falls and is no more than the truth."""
        truth: dict[int, int] = {}
        for life in [*self.lives, *self.ghosts]:
            for fence, spent in life.spent.items():
                truth[fence] = truth.get(fence, 0) + spent
        for fence, one in self.escrow.slices.items():
            assert self.highest.get(fence, 0) <= one.reported <= truth.get(fence, 0)
            self.highest[fence] = one.reported

    @invariant()
    def e7_fence(self) -> None:
        """At most one slice of a sidecar is open, and that is the one that may be granted to."""
        for name in NAMES:
            open_ = [
                one.fence for one in self.escrow.slices.values() if one.sidecar == name and one.state is SliceState.OPEN
            ]
            assert open_ == [self.escrow.open_of[name]] if name in self.escrow.open_of else not open_


EscrowMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestEscrow = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")(
    EscrowMachine.TestCase
)
