"""A sidecar's host and its process: the real flows over the real store, the real link over the simulated network.

Owns the host's directory with its copies. A process dies between any two steps, and starts from what was durable.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.fakes.core import Core
from tests.fakes.counting_entropy import CountingEntropy
from tests.simulation.fleet.clocks import HostClock
from tests.simulation.fleet.disks import Disk, SimStateStore
from tests.simulation.fleet.loop import Process
from tests.simulation.fleet.streams import Method, SimLinkSettings, Stream

from leasehold.v1 import audit_service_pb2, sidecar_service_pb2
from leasehold_broker.adapters.collector_link import Backoff, BudgetTie, CollectorLink
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.flows.budget_report import budget_rows
from leasehold_broker.flows.live_leases import ReportLeases

METHODS = {
    "/leasehold.v1.SidecarService/SyncState": Method("SyncState", sidecar_service_pb2.SyncStateRequest, "sync"),
    "/leasehold.v1.AuditIngestService/AppendEvents": Method(
        "AppendEvents", audit_service_pb2.AppendEventsRequest, "audit"
    ),
}
SWEEP_SECONDS = 1.0
PRUNE_SWEEPS = 20
STOP_SECONDS = 2.0


class WatchedStore(SimStateStore):
    """Looks at what a trim forgets."""

    world: Any

    async def trim(self) -> None:
        """As the store does."""
        before = self._waiting_records()
        await super().trim()
        left = self._waiting_records()
        self.world.audit.trimmed(self._stream, before - left)

    def _waiting_records(self) -> set[tuple[str, int]]:
        return set(self._connection.execute("SELECT epoch, sequence FROM outbox").fetchall())


class WatchedLink(CollectorLink):
    """What is counted as a bug and gone on from fails the run: it may be a check of the world, made under the link."""

    world: Any

    def _failed(self, name: str, why: str, detail: str = "") -> None:
        fault = sys.exception()
        if why == "FAULT" and fault is not None:
            self.world.failures.append(fault)
        super()._failed(name, why, detail)


class Sidecar:
    """One process, named by its host. `rogue`: it runs over a copy of another's directory."""

    def __init__(
        self, world: Any, name: str, directory: Path, clock: HostClock, chance: Random, *, rogue: bool
    ) -> None:
        """Nothing runs yet; recovery comes with `start`."""
        self.world = world
        self.name = name
        self.directory = directory
        self.clock = clock
        self.chance = chance
        self.rogue = rogue
        self.disk = Disk(chance, kill=self.kill)
        self.process = Process(name, world.failures)
        self.ready = False
        self.calls: dict[str, Any] = {}
        self.weight = 1.0
        self.worst = 100
        self.stopping = False

    def __repr__(self) -> str:
        """Its name and life."""
        return f"Sidecar({self.name!r}, rogue={self.rogue}, dead={self.process.dead})"

    @property
    def alive(self) -> bool:
        """True while it serves."""
        return self.ready and not self.process.dead

    @property
    def life(self) -> str:
        """Of its slices and its stream."""
        return self.store.epoch

    def begin(self) -> None:
        """Start the process."""
        self.process.spawn(self._run(), f"{self.name} runs")

    async def _run(self) -> None:
        world = self.world
        self.store = store = WatchedStore(
            self.directory, self.name, self.clock, world.limits, self.process, self.disk, self._durable
        )
        store.world = world
        entropy = CountingEntropy(f"{world.seed}/{store.epoch}")
        self.core = core = Core(store, self.clock, world.policy, entropy, sidecar=self.name)
        self.link = link = WatchedLink(
            self._settings(), store, core.revocations, ReportLeases(core.books), self._tie(core), self.clock
        )
        link.world = world
        core.centre.authority_lapsed_seconds = link.authority_lapsed_seconds
        core.books.slices.life = store.epoch
        world.revocations.watch(self)
        try:
            await core.recover()
        except Refusal:  # its disk refused: as the process does, it exits and is started again
            self.kill()
            return
        self.ready = True
        world.sidecar_ready(self)
        self.process.spawn(link.run(), f"{self.name} link")
        self.process.spawn(self._sweep(), f"{self.name} sweep")
        world.agents.begin(self)

    def _settings(self) -> SimLinkSettings:
        def opens(path: str, decode: Any) -> Stream:
            return Stream(self.world, self.host, self.name, self.process, METHODS[path], decode)

        backoff = Backoff(chance=self.chance.random)
        return SimLinkSettings("simulated", self.name, "prod", "test", None, backoff=backoff, opens=opens)

    @property
    def host(self) -> str:
        """Name of its place in the network: a copy has its own."""
        return f"{self.name} copy" if self.rogue else self.name

    def _tie(self, core: Core) -> BudgetTie:
        def rows() -> Any:
            return budget_rows(core.books, core.policies.current(), self.clock.now())

        return BudgetTie(core.apply_budgets, rows, core.books.slices)

    async def _sweep(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweeps += 1
            try:
                await self.core.sweep.run(self.clock.now())
                if sweeps % PRUNE_SWEEPS == 0:
                    await self.core.sweep.prune(self.clock.now())
            except Refusal:
                continue
            if self.store.broken:  # as the process does: only a fresh start can tell what is on the disk
                self.kill()

    def _durable(self, records: Sequence[Any]) -> None:
        self.world.touched(self)
        if records:
            self.world.audit.emit(self.name, records)

    async def stop(self) -> None:
        """In order: calls are drained or cut, everything is settled, given back and shipped, as far as it goes."""
        self.stopping = True
        await self.core.stop.run(STOP_SECONDS)
        with suppress(TimeoutError, Refusal):  # what is left is shipped at the next start
            await asyncio.wait_for(self._shipped(), STOP_SECONDS)
        self.kill()

    async def _shipped(self) -> None:
        while await self.store.pending_after(0, 1) or self.core.books.slices.holding:  # noqa: ASYNC110 - as the process
            await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        if self.process.dead:
            return
        self.ready = False
        self.process.kill()
        self.calls.clear()
        self.world.sidecar_gone(self)
        if hasattr(self, "store"):
            self.world.loop.call_soon(self.store.cut_off)

    def applied(self) -> Sequence[Revocation]:
        """What is in force here."""
        return self.core.books.revocations
