"""Lives of a sidecar on one disk, with the secret engine outside that passes the contract suite of the real one."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from tests.fakes.core import GRANT, PEER, POLICY, Core, fresh_id, identity, request
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_engine import MemoryEngine
from tests.fakes.memory_state_store import MemoryDisk, MemoryStateStore

from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.policy import Policy
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.scope import Scope
from leasehold_broker.flows.engine_leases import DynamicKey
from leasehold_broker.ports.key_source import SourceFault, SourceState

DB, API = "orders-db", "own-api"
DOWN = SourceFault(SourceState.SEALED, "the store is sealed; unseal it")
HANDED = replace(
    GRANT,
    name="handed",
    keys=(DB, API),
    scopes=(Scope("own-db"), Scope("own-api")),
    modes=frozenset({Mode.MINTED, Mode.BROKERED}),
    minted_seconds_max=900,
    delegation_depth_max=0,
)


class House:
    """Lives of a sidecar's heart on one disk, and the engine outside."""

    def __init__(self, **engine) -> None:
        """Nothing runs."""
        self.clock = ManualClock()
        self.disk = MemoryDisk()
        self.engine = MemoryEngine(self.clock, **{"life_seconds": 300, "longest_seconds": 3600} | engine)
        self.names = (DB, API)
        self._seeds = itertools.count()

    async def life(self) -> Core:
        """The next life."""
        keys = [
            DynamicKey(DB, "own-db", "prod", 1, self.engine, 300, brokered=False),
            DynamicKey(API, "own-api", "prod", 1, self.engine, 300, brokered=True),
        ]
        self.store = MemoryStateStore(self.disk, self.clock)
        self.core = Core(
            self.store,
            self.clock,
            Policy("p", (*POLICY.grants, HANDED)),
            CountingEntropy(f"life {next(self._seeds)}"),
            [key for key in keys if key.name in self.names],
        )
        for record in self.core.dynamic.records():
            self.core.keys.by_name[record.name] = record
        return await self.core.recover()

    async def look(self, times=1) -> None:
        """Some sweeps, and whatever they start."""
        for _ in range(times):
            await self.core.sweep.run(self.clock.now())
            self.core.dynamic.look()
            await settle()

    async def acquire(self, provider="own-db", mode=Mode.MINTED, **more):
        """A lease in this mode."""
        asked = request(mode=mode, scopes=(Scope(provider),), **more)
        issued = await self.core.acquire.run(identity(), PEER, asked, fresh_id(), validate_only=False)
        await settle()
        return issued

    def events(self, kind):
        """Durable events of a type."""
        return [event for _, _, event in self.disk.events if event.type == kind]


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(40):
        await asyncio.sleep(0)


async def refused(work) -> Refusal:
    """Why not."""
    with pytest.raises(Refusal) as caught:
        await work
    await settle()
    return caught.value
