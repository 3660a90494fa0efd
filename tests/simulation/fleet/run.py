"""One seed, from its first event to its healed end."""

import asyncio
import gc
import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from unittest.mock import patch

import structlog
from tests.simulation.fleet.disks import told_chance
from tests.simulation.fleet.heal import heal
from tests.simulation.fleet.loop import VirtualLoop, run_virtually
from tests.simulation.fleet.settings import Settings, of_seed
from tests.simulation.fleet.world import World

from leasehold_broker.flows import fleet_escrow

SECONDS = 150.0
"""Of virtual time under faults, when nobody says otherwise."""
MEMORY = Path("/dev/shm")


class Outcome:
    """What a run was: its digest, its steps, what was met."""

    def __init__(self, world: World) -> None:
        """Of this world, at its end."""
        self.digest = world.digest()
        self.steps = world.steps
        self.seconds = world.loop.time()
        self.seen: Counter[str] = +world.seen


def run_seed(
    seed: int,
    settings: Settings | None = None,
    *,
    seconds: float = SECONDS,
    steps: int = 0,
    progress: Callable[[World], None] | None = None,
) -> Outcome:
    """One seed.

    Args:
        seed: decides everything.
        settings: the kind of fleet; None: the seed's own.
        seconds: of virtual time under faults.
        steps: 0, or how many steps at least; then `seconds` is no bound.
        progress: told now and then.

    Raises:
        AssertionError: names the invariant that does not hold; the note says how to see it again.
    """
    outcomes: list[Outcome] = []
    worlds: list[World] = []
    disks = MEMORY if MEMORY.is_dir() else None
    chosen = settings or of_seed(seed)

    async def work(loop: VirtualLoop) -> None:
        with tempfile.TemporaryDirectory(prefix="fleet-", dir=disks) as folder:
            world = World(seed, chosen, loop, Path(folder))
            if progress is not None:
                world.told = progress
            worlds.append(world)
            try:
                with (
                    told_chance(Random(f"names {seed}")),
                    world.escrow.centre.watching(),
                    patch.object(fleet_escrow, "GATHER_SECONDS", chosen.gather_seconds),
                ):
                    await world.begin()
                    while world.steps < steps if steps else loop.time() < seconds:  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(1.0)
                    await heal(world)
                    world.look_at_all()
                outcomes.append(Outcome(world))
            finally:
                loop.after_each_turn(lambda _: None)
                world.close()

    structlog_before = structlog.get_config()
    collects = gc.isenabled()
    gc.disable()  # the world collects at times of its own: else what dies when would depend on what ran before
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        run_virtually(work)
    except Exception as failure:
        for world in worlds:
            failure.add_note(f"after step {world.steps}, {world.loop.time():.3f} s of its time")
        failure.add_note(f"reproduce: make simulate-fleet SEED={seed}" + (f" STEPS={steps}" if steps else ""))
        raise
    finally:
        if collects:
            gc.enable()
        gc.collect()
        with suppress(Exception):
            structlog.configure(**structlog_before)
    return outcomes[0]
