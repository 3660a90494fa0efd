"""What kind of fleet a seed is: sizes, limits, and how hard it is treated. Drawn per seed, or stated."""

from dataclasses import dataclass, replace
from random import Random

from tests.fakes.core import GRANT, POLICY
from tests.fakes.memory_escrow_log import fleet_budget

from leasehold_broker.adapters.sqlite_state.store import StoreLimits
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.windows import Period, Rolling
from leasehold_broker.flows.fleet_escrow import GATHER_SECONDS

EAGER: Policy = replace(POLICY, grants=(replace(GRANT, lower_output=False),))
"""Calls ask for what they ask, so that a budget is met exactly."""


@dataclass(frozen=True)
class Settings:
    """One fleet.

    Args:
        sidecars: how many.
        cap: of the fleet budget, micro-USD in a window.
        period: of the budget.
        requests_cap: of a second budget that comes and goes with the centre's file; 0: there is none.
        authority_seconds: as the centre grants.
        fault_seconds: mean time between faults; 0: there are none.
        calls_per_second: of the busiest sidecar; others follow by `skew`.
        worst_max: the largest worst case of a usual call.
        spool_bytes_max: of a sidecar's spool.
        agents: subjects per sidecar.
        stream_seconds: mean length of a call.
        delay_seconds: mean one-way delay.
        lose, repeat, swap: share of single messages that a middlebox loses, repeats, swaps.
        prove_seconds: between the expensive checks.
        complete_every: turns between looks at everything; what a turn has touched is looked at after it.
        sidecar_percent_max: of the fleet budget, for one sidecar.
        gather_seconds: between two rounds of sharing. A round takes no time here; at a real centre it takes some, for
            each sidecar, and the next waits four times as long.
        forgets: the centre loses its newest revocations now and then, as one that is restored from an older copy.
        deafens: connections go on towards sidecars, and no longer towards the centre.
    """

    sidecars: int = 5
    cap: int = 60_000
    period: Period | Rolling = Period.HOUR
    requests_cap: int = 0
    authority_seconds: float = 20.0
    fault_seconds: float = 1.5
    calls_per_second: float = 4.0
    skew: float = 1.5
    worst_max: int = 1200
    spool_bytes_max: int = 400_000
    agents: int = 3
    stream_seconds: float = 1.5
    delay_seconds: float = 0.03
    lose: float = 0.0
    repeat: float = 0.0
    swap: float = 0.0
    prove_seconds: float = 30.0
    complete_every: int = 1000
    forgets: bool = False
    deafens: bool = False
    sidecar_percent_max: int = 100
    gather_seconds: float = GATHER_SECONDS

    @property
    def main_budget(self) -> FleetBudget:
        """That is always there."""
        return replace(
            fleet_budget(period=self.period, cost_micro_usd=self.cap), sidecar_percent_max=self.sidecar_percent_max
        )

    @property
    def second_budget(self) -> FleetBudget:
        """That operators add and take away."""
        return fleet_budget(period=Period.DAY, requests=self.requests_cap)

    @property
    def limits(self) -> StoreLimits:
        """Of a sidecar's store."""
        return StoreLimits(spool_bytes_max=self.spool_bytes_max)


def of_seed(seed: int) -> Settings:
    """The kind of fleet that this seed is: fault rates are drawn per seed, so that each is met alone and together."""
    chance = Random(f"settings {seed}")
    meddled = chance.random() < 0.5
    return Settings(
        sidecars=chance.choice([2, 3, 4, 6]),
        cap=chance.choice([4_000, 20_000, 60_000, 400_000]),
        period=chance.choice([Period.HOUR, Period.HOUR, Period.TOTAL, Rolling(600), Rolling(3600)]),
        forgets=chance.random() < 0.25,
        requests_cap=chance.choice([0, 60, 2000]),
        authority_seconds=chance.choice([10.0, 20.0, 20.0, 60.0]),
        fault_seconds=chance.choice([0.0, 0.5, 1.5, 1.5, 4.0]),
        calls_per_second=chance.choice([2.0, 5.0]),
        skew=chance.choice([0.0, 1.0, 2.0]),
        worst_max=chance.choice([60, 400, 1200]),
        spool_bytes_max=chance.choice([12_000, 40_000, 400_000]),
        stream_seconds=chance.choice([0.5, 1.5, 6.0]),
        delay_seconds=chance.choice([0.003, 0.03, 0.1]),
        lose=chance.choice([0.005, 0.03, 0.3]) if meddled else 0.0,
        repeat=chance.choice([0.005, 0.05, 0.5]) if meddled else 0.0,
        swap=chance.choice([0.005, 0.05]) if meddled else 0.0,
        sidecar_percent_max=chance.choice([100, 100, 100, 50]),
        deafens=chance.random() < 0.25,
    )
