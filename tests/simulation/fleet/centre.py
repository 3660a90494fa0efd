"""The centre's host and its process: the real flows and doors, wired as the collector wires them, over the real store.

Owns the host's directory with its copies, and what an operator does with them. A process dies between any two steps.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulation.fleet.clocks import HostClock
from tests.simulation.fleet.disks import Disk, copy_directory, cut_off_collector, open_collector_store
from tests.simulation.fleet.loop import Process
from tests.simulation.fleet.streams import refused

from leasehold_broker.adapters.checkpoint_key import CheckpointKey
from leasehold_broker.collector.access import Sidecars
from leasehold_broker.collector.sidecar_door import SidecarDoor
from leasehold_broker.domain.checkpoint import TreeHead, head_of
from leasehold_broker.domain.collector_rules import SidecarRule
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.identity import Identity, Peer, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.enrolment import Enrolment
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_budget_changes import FleetBudgetChanges
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.issue_revocation import IssueRevocation
from leasehold_broker.flows.lift_revocation import EndBlocks, LiftRevocation
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.publish_checkpoint import LogDamagedError, PublishCheckpoint
from leasehold_broker.flows.sync_sidecar import SyncSidecar
from leasehold_broker.rpc.caller import CallContext

ORIGIN = "simulated/centre"
SIDECAR_ISSUER = "https://idp.example/sidecars"
CHECKPOINT_SECONDS = 1.0
SESSION_SECONDS_MAX = 300.0
RETRY_SECONDS = 1.0


def subject_of(sidecar: str) -> Subject:
    """The verified subject of a sidecar."""
    return Subject(SIDECAR_ISSUER, sidecar)


class Centre:
    """The host: clock, disk, key, copies; and its process while one runs."""

    def __init__(self, world: Any, directory: Path, clock: HostClock, chance: Random) -> None:
        """Nothing runs yet."""
        self._world = world
        self.directory = directory
        directory.mkdir(mode=0o700)
        self.clock = clock
        self.disk = Disk(chance, kill=self.kill)
        self.key = CheckpointKey(ORIGIN, Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)))
        self.kept: bytes | None = None
        """The copy of the newest checkpoint, kept on another disk."""
        self.copy: Path | None = None
        self.process: Process | None = None
        self._lives = 0
        self._serving = False
        self.refusal = ""
        """Why the last start failed."""

    def __repr__(self) -> str:
        """Whether it serves, and why not."""
        return f"Centre({self.process}, serving={self._serving}, {self.refusal})"

    @property
    def up(self) -> bool:
        """True while it serves."""
        return self.process is not None and not self.process.dead and self._serving

    async def start(self) -> bool:
        """Start a process; False when it refused to, or died on the way."""
        self._lives += 1
        self._serving = False
        process = self.process = Process(f"centre/{self._lives}", self._world.failures)
        try:
            await process.spawn(self._begin(process), "centre starts", awaited=True)
        except (Refusal, asyncio.CancelledError) as why:
            self.refusal = repr(why)
            self.kill()
            return False
        except LogDamagedError:
            self.kill()
            raise
        return not process.dead

    async def _begin(self, process: Process) -> None:
        world, clock = self._world, self.clock
        life = f"{self._lives:020d}-{world.chance.randbytes(4).hex()}"
        self.store = store = open_collector_store(
            self.directory / "collector.db", life, world.loop, process, self.disk, world.collector_committed
        )
        world.audit.collector_opened(store)
        self.fleet = fleet = Fleet(world.settings.authority_seconds)
        fleet.restore(await store.sidecars(), clock.now())
        self.publish = PublishCheckpoint(store, store, self.key, clock, self._copied)
        await self.publish.start(self._kept_head())
        self.prove = Prove(store, store, self.publish, self.key.verifier_key)
        self.records = CollectorRecords(store, clock)
        await self.records.lifecycle(EventType.COLLECTOR_STARTED, "test")
        await self.publish.step()
        self.ingest = IngestEvents(store, store, clock, lambda: None)
        self.issuer = issuer = FleetRevocations(fleet, store, clock)
        self.escrow = escrow = FleetEscrow(world.budgets(), world.settings.authority_seconds, store, store, clock)
        await escrow.restore()
        sync = SyncSidecar(fleet, escrow, store, store, clock, accept_gaps=world.settings.forgets)
        self.enrolment = Enrolment(fleet, store.register, issuer, sync, escrow, clock)
        await self.enrolment.restore()
        self.revoke = IssueRevocation(issuer, store, clock)
        self.lift = LiftRevocation(issuer, clock)
        self.budgets = ChangeBudget(FleetBudgetChanges(fleet, escrow, store), clock)
        rules = [SidecarRule(SIDECAR_ISSUER, name, name) for name in world.names]
        door = SidecarDoor(sync, self.ingest, Sidecars(world, rules), SESSION_SECONDS_MAX, self.enrolment.check)
        self._doors = {"SyncState": door.sync_state, "AppendEvents": door.append_events}
        for name, work in (
            ("checkpoints", lambda: self.publish.run(CHECKPOINT_SECONDS)),
            ("end of blocks", EndBlocks(issuer, clock).run),
            ("fleet budgets", escrow.run),
        ):
            process.spawn(self._kept_up(work), name)
        self._serving = True

    async def _kept_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """As the supervisor does: what a disk has refused is begun anew."""
        while True:
            try:
                await work()
            except Refusal:
                await asyncio.sleep(RETRY_SECONDS)

    async def _copied(self, note: bytes) -> str:
        self.kept = note
        self._world.audit.published(note)
        return ""

    def _kept_head(self) -> TreeHead | None:
        return None if self.kept is None else head_of(self.kept, ORIGIN)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is None or self.process.dead:
            return
        self._world.seen["centre died"] += 1
        self.process.kill()
        self._world.centre_gone()
        self._world.loop.call_soon(cut_off_collector, self.store)

    def take_copy(self) -> None:
        """A backup as a file copy while nothing is being written."""
        self.copy = self.directory.with_name("centre-copy")
        copy_directory(self.directory, self.copy)

    # What the network calls.

    def handle(self, method: str, name: str, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The answers of a handler."""
        now = self.clock.now()
        identity = Identity(subject_of(name), {}, "", now.wall_ms + 3_600_000)
        call = CallContext(method, self._world.request_id(), Peer(uid=0), identity, now)
        return self._doors[method](requests, call)

    async def refused(self, method: str, name: str, refusal: Refusal) -> Any:
        """What the server does with a refusal: its event first, then the word."""
        request_id = self._world.request_id()
        identity = Identity(subject_of(name), {}, "", 0)
        try:
            await self.records.rpc_refused(f"leasehold.v1.X/{method}", refusal, identity, Peer(uid=0), request_id)
        except Refusal:
            refusal = Refusal(Reason.STORE_UNAVAILABLE, "the refusal could not be recorded")
        return refused(refusal, request_id)
