"""The flows as a state machine that shrinks: the simulator's actions, chosen and drawn by hypothesis.

The simulator runs for volume; here a failure becomes a short story. Each rule is one action, its chances are drawn, so
that a failing run is cut down to the fewest and smallest.
"""

import asyncio
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.fakes.simulator import Simulator

chances = st.randoms(use_true_random=False, note_method_calls=False)


class SidecarMachine(RuleBasedStateMachine):
    """One sidecar on a disk of its own."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.world: Simulator | None = None

    def act(self, name: str, drawn: random.Random) -> None:
        """One action, and all that follows from it."""
        self.world.rng = drawn
        self.runner.run(self._act(name))

    async def _act(self, name: str) -> None:
        await getattr(self.world, name)()
        await self.world.settle_down()

    @initialize(seed=st.integers(0, 7))
    def start(self, seed: int) -> None:
        """A sidecar that has one lease."""
        self.world = Simulator(seed)
        self.runner.run(self.world.start())
        self.act("acquire", random.Random(seed))
        self.act("flush_all", random.Random(seed))

    @rule(drawn=chances)
    def acquire(self, drawn: random.Random) -> None:
        """A root lease."""
        self.act("acquire", drawn)

    @rule(drawn=chances)
    def b14_delegate(self, drawn: random.Random) -> None:
        """A child of any lease."""
        self.act("delegate", drawn)

    @rule(drawn=chances)
    def b1_b10_admit(self, drawn: random.Random) -> None:
        """A call, granted when and only when it fits."""
        self.act("admit", drawn)

    @rule(drawn=chances)
    def b3_b4_b5_settle(self, drawn: random.Random) -> None:
        """An end of a call, sometimes told twice."""
        self.act("settle", drawn)

    @rule(drawn=chances)
    def b6_flush(self, drawn: random.Random) -> None:
        """Some of what waits becomes durable, and with it what waited for that."""
        self.act("flush", drawn)

    @rule(drawn=chances)
    def end_a_lease(self, drawn: random.Random) -> None:
        """Released, revoked, or out of time."""
        self.act(drawn.choice(("release", "revoke", "time")), drawn)

    @rule(drawn=chances)
    def change_caps_or_clock(self, drawn: random.Random) -> None:
        """Caps are raised or lowered while calls are open; the wall clock is set."""
        self.act(drawn.choice(("reload", "jump")), drawn)

    @rule(drawn=chances)
    def b7_crash(self, drawn: random.Random) -> None:
        """Killed at any commit, started again."""
        self.act("crash", drawn)

    @rule(drawn=chances)
    def b9_a7_quiesce(self, drawn: random.Random) -> None:
        """All ends: nothing is held, and the log says what the books say."""
        self.act("quiesce", drawn)

    @invariant()
    def b1_b2_b4_b8_b13_b14(self) -> None:
        """Everything that must hold after every step."""
        if self.world is not None:
            self.world.check()

    def teardown(self) -> None:
        """B9 at the end of every story."""
        if self.world is not None:
            self.act("quiesce", random.Random(0))
        self.runner.close()


TestSidecarMachine = SidecarMachine.TestCase
TestSidecarMachine.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
