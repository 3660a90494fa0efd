"""A fleet of which one connection goes on towards the sidecar, and no longer towards the centre."""

from collections import Counter
from dataclasses import replace

import pytest
from tests.simulation.fleet.network import Lane
from tests.simulation.fleet.run import run_seed
from tests.simulation.fleet.settings import Settings
from tests.simulation.fleet.world import World

CALM = Settings(sidecars=2, cap=4_000_000, fault_seconds=0.0, authority_seconds=60.0, calls_per_second=0.5, agents=1)
CONNECTED_SECONDS = 5.0


def test_r3_a_healthy_agent_is_not_refused_because_one_connection_no_longer_carries_both_ways() -> None:
    """The sidecar connects anew while it still speaks for the centre; nobody is refused, and the fleet converges."""
    deafened: list[Lane] = []
    failures: Counter[str] = Counter()
    refused: list[int] = []

    def look(world: World) -> None:
        if not deafened and world.loop.time() > 20.0:
            for stream in world.streams:
                if stream.name == "sidecar-0" and stream.method.name == "SyncState":
                    world.network.cut(stream.up)
                    deafened.append(stream.up)
        if world.loop.time() < CONNECTED_SECONDS:
            return
        refused.append(world.seen["refused CENTRE_UNREACHABLE"])
        for one in world.sidecars:
            assert one.link.authority_lapsed_seconds(one.clock.now()) is None
            failures.update(dict.fromkeys(one.link.counters.failures, 1))

    seen = run_seed(3, CALM, seconds=90.0, progress=look).seen
    assert len(deafened) == 1
    assert set(failures) == {"HEARTBEATS_UNANSWERED"}
    assert refused[0] == refused[-1]
    assert seen["admitted"] > 20
    assert seen["converged"] == 1


def test_r1_to_r6_hold_while_connections_go_deaf() -> None:
    """Among all the other faults, met often."""
    settings = replace(CALM, fault_seconds=0.4, authority_seconds=10.0, deafens=True)
    seen = run_seed(1, settings, seconds=25.0).seen
    assert seen["connection deafened"] > 2
    assert seen["converged"] == 1


def test_a_check_that_fails_under_the_link_fails_the_run() -> None:
    """The link goes on from whatever nobody foresaw; what this world finds there must be told all the same."""

    def breaks(world: World) -> None:
        for one in world.sidecars:
            if one.alive:
                one.link._reports.due = None

    with pytest.raises(TypeError, match="not callable"):
        run_seed(3, CALM, seconds=30.0, progress=breaks)
