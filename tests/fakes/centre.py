"""A whole collector for tests: real gRPC server, real SQLite; only token verification is in memory."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import grpc
from tests.fakes.rpc import SystemClock, SystemEntropy
from tests.fakes.streams import Emitter

from leasehold.v1 import (
    audit_service_pb2_grpc,
    budget_service_pb2_grpc,
    fleet_service_pb2_grpc,
    revocation_service_pb2_grpc,
)
from leasehold_broker.adapters.accept_shim import GRPC_ABSTRACT, AcceptShim, private_name
from leasehold_broker.adapters.collector_link import Backoff, BudgetTie, CollectorLink, LinkSettings
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.collector import audit_door, budget_door, fleet_door, revocation_door, sidecar_door
from leasehold_broker.collector.access import Operators, Sidecars
from leasehold_broker.domain.budget_changes import BudgetChange, BudgetChangeHistory, BudgetRows
from leasehold_broker.domain.collector_rules import Role, RoleRule, SidecarRule
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.domain.identity import Identity, Peer, Subject, Transport
from leasehold_broker.domain.ledger import Ledger
from leasehold_broker.domain.proof import UnverifiedProof
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import RevocationHistory
from leasehold_broker.domain.revocation_progress import AppliedRevocation, LiveLease
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.enrolment import Enrolment
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_budget_changes import FleetBudgetChanges
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.issue_revocation import IssueRevocation
from leasehold_broker.flows.lift_revocation import LiftRevocation
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.read_audit import ReadAudit
from leasehold_broker.flows.read_revocations import ReadRevocations
from leasehold_broker.flows.slices import Slices
from leasehold_broker.flows.sync_sidecar import SyncSidecar
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.outbox import PendingRecord
from leasehold_broker.rpc.access import Access
from leasehold_broker.rpc.occupancy import Occupancy
from leasehold_broker.rpc.server import RpcServer, ServerLimits
from leasehold_broker.rpc.surround import Surroundings
from leasehold_broker.wiring.checkpoints import CheckpointPlan, checkpoints
from leasehold_broker.wiring.collector_store import OpenStore

ISSUER = "https://issuer.test"
ORIGIN = "log.test/centre"
CHECKPOINT_SECONDS = 0.02


class SpeakingTokens:
    """Verifies tokens that say who they are: "sidecar-1", or "alice/responder"; "bad" is refused."""

    def __init__(self, seconds: float = 600.0) -> None:
        """Tokens live this long from when they are shown."""
        self.seconds = seconds

    async def verify(
        self,
        unverified_token: str,
        peer: Peer,  # noqa: ARG002 - the port's
        now: Instant,
        unverified_proof: UnverifiedProof | None = None,  # noqa: ARG002 - the port's
    ) -> Identity:
        """Who the token says."""
        if unverified_token == "bad":
            raise Refusal(Reason.JWT_BAD_SIGNATURE, "no", detail="signature")
        name, _, role = unverified_token.partition("/")
        claims = {"groups": [role]} if role else {}
        return Identity(Subject(ISSUER, name), claims, "", now.wall_ms + int(self.seconds * 1000))


class Centre:
    """One life of a collector over one file and one Unix socket."""

    def __init__(
        self,
        folder: Path,
        epoch: str = "c1",
        *,
        sidecars: int = 3,
        authority_seconds: float = 3.0,
        clock: Clock | None = None,
        token_seconds: float = 600.0,
        uids: dict[int, frozenset[Role]] | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        may_take: Callable[[], None] = lambda: None,
        accept_gaps: bool = False,
        opened: OpenStore | None = None,
        fleet: Fleet | None = None,
        fleet_budgets: Sequence[FleetBudget] = (),
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        """Build it; the context serves. `opened`: a store of somebody else's, else one file."""
        self.plan = CheckpointPlan(
            ORIGIN, folder / "checkpoint.key", folder / "checkpoint.pub", folder / "checkpoint", checkpoint_seconds
        )
        self.failures: list[str] = []
        self.port = 0
        self._tls = tls
        self._stack = contextlib.AsyncExitStack()
        self.target = f"unix:{folder / 'collector.sock'}"
        self.clock = clock or SystemClock()
        if opened is None:
            store = CollectorStore(folder / "collector.db", "collector", epoch, accept_gaps=accept_gaps)
            self._stack.push_async_callback(store.close)
            opened = OpenStore(store, escrow=store)
        self.opened = opened
        self.store = opened.log
        self.fleet = fleet or Fleet(authority_seconds)
        self.records = CollectorRecords(self.store, self.clock)
        self.escrow = FleetEscrow(
            fleet_budgets, authority_seconds, opened.escrow, self.store, self.clock, shared=opened.shared
        )
        self.sync = SyncSidecar(self.fleet, self.escrow, self.store, self.store, self.clock, accept_gaps=accept_gaps)
        self.ingest = IngestEvents(opened.taker, self.store, self.clock, may_take)
        self.issuer = FleetRevocations(self.fleet, self.store, self.clock)
        self.enrolment = Enrolment(self.fleet, self.store.register, self.issuer, self.sync, self.escrow, self.clock)
        verifier = SpeakingTokens(token_seconds)
        self.sidecars = Sidecars(
            verifier, [SidecarRule(ISSUER, f"sidecar-{n}", f"sidecar-{n}") for n in range(1, sidecars + 1)]
        )
        self.operators = Operators(
            verifier, [RoleRule(ISSUER, "groups", role.value, role) for role in Role], uids or {}
        )

    def _server(self, prove: Prove) -> RpcServer:
        surroundings = Surroundings(
            lambda _transport: Peer(os.getuid(), transport=Transport.UNIX),
            {Access.SIDECAR: self.sidecars.authenticate, Access.OPERATOR: self.operators.authenticate},
            self.records,
            self.clock,
            SystemEntropy(),
            Occupancy("calls", 4096),
            Occupancy("streams", 4096),
            read_recorder=self.records,
        )
        server = RpcServer(surroundings, ServerLimits(request_bytes_max=sidecar_door.MESSAGE_BYTES_MAX, calls_max=4096))
        door = sidecar_door.SidecarDoor(self.sync, self.ingest, self.sidecars, 3600.0, self.enrolment.check)
        server.serve(sidecar_door.SYNC_SERVICE, door.sync_handlers())
        server.serve(sidecar_door.INGEST_SERVICE, door.ingest_handlers())
        revocations = revocation_door.RevocationDoor(
            IssueRevocation(self.issuer, self.store, self.clock),
            LiftRevocation(self.issuer, self.clock),
            ReadRevocations(self.issuer),
            self.operators,
        )
        budgets = budget_door.BudgetDoor(
            ChangeBudget(FleetBudgetChanges(self.fleet, self.escrow, self.store), self.clock), self.operators
        )
        server.serve(budget_door.SERVICE, budgets.handlers())
        server.serve(fleet_door.SERVICE, fleet_door.FleetDoor(self.enrolment, self.operators).handlers())
        server.serve(revocation_door.SERVICE, revocations.handlers())
        server.serve(audit_door.SERVICE, audit_door.AuditDoor(ReadAudit(self.store), prove, self.operators).handlers())
        server.listen(self.target)
        return server

    async def _listen_tls(self, tls: Callable[[], ssl.SSLContext]) -> None:
        """Over TCP as well, behind the real shim."""
        name, peers = private_name(), KernelPeers()
        self._stack.callback(peers.close)
        shim = AcceptShim(peers, name, lambda _refusal: None, http2=True, tls=tls)
        self._stack.push_async_callback(shim.close)
        self.server.listen(GRPC_ABSTRACT + name)
        self.port = await shim.listen_tcp("127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        """Serve."""
        self.fleet.restore(await self.store.sidecars(), self.clock.now())
        await self.escrow.restore()
        sharing = asyncio.create_task(self.escrow.run())
        self._stack.push_async_callback(ended, sharing)
        signing = checkpoints(self.plan, self.opened, self.clock, self.failures.append)
        await self.enrolment.restore()
        self.prove, self.publish = await self._stack.enter_async_context(signing)
        self.server = self._server(self.prove)
        if self._tls is not None:
            await self._listen_tls(self._tls)
        self._stack.push_async_callback(self.server.stop, 0)
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop at once, as a crash would, but close the file."""
        await self._stack.aclose()


async def ended(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Operator:
    """An operator's channel with both stubs."""

    def __init__(self, target: str, token: str) -> None:
        """Connect with this token."""
        self.channel = grpc.aio.insecure_channel(target)
        self.revocations = revocation_service_pb2_grpc.RevocationServiceStub(self.channel)
        self.budgets = budget_service_pb2_grpc.BudgetServiceStub(self.channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(self.channel)
        self.fleet = fleet_service_pb2_grpc.FleetServiceStub(self.channel)
        self.how = {"metadata": (("leasehold", "1"), ("authorization", f"Bearer {token}")), "timeout": 20.0}

    async def __aenter__(self) -> Self:
        """Connected on first use."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self.channel.close()


class MemoryOutbox:
    """Implements the outbox port in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self.kept: list[PendingRecord] = []
        self.position = 0
        self.trimmed = 0
        self._grown = asyncio.Event()
        self._trimmed = asyncio.Event()

    def put(self, *records) -> None:
        """Commit records."""
        for record in records:
            self.position += 1
            self.kept.append(PendingRecord(self.position, record))
        self._grown.set()

    async def pending_after(self, position: int, limit: int) -> Sequence[PendingRecord]:
        """As the port says."""
        return [one for one in self.kept if one.position > position][:limit]

    async def acknowledge(self, position: int) -> None:
        """As the port says."""
        self.kept = [one for one in self.kept if one.position > position]
        self.trimmed = max(self.trimmed, position)
        self._trimmed.set()

    async def wait_for_more(self, position: int) -> None:
        """As the port says."""
        while self.position <= max(position, self.trimmed):
            self._grown.clear()
            await self._grown.wait()

    async def empty(self) -> None:
        """Return once everything is acknowledged."""
        while self.kept:
            self._trimmed.clear()
            await self._trimmed.wait()


class MemorySink:
    """Implements the revocation sink port in memory; remembers what it was given."""

    def __init__(self) -> None:
        """Nothing applied."""
        self.applied: list[Revocation] = []
        self.kept_aside: list[Revocation] = []
        self.changed = asyncio.Event()

    def applied_epoch(self) -> int:
        """As the port says."""
        return self.applied[-1].epoch if self.applied else 0

    async def apply(self, revocations: Sequence[Revocation]) -> Sequence[AppliedRevocation]:
        """As the port says; each entry ends two leases and cuts a call."""
        self.applied.extend(revocations)
        self.changed.set()
        return [AppliedRevocation(entry.epoch, 2, 1) for entry in revocations]

    def history_digest(self) -> bytes:
        """As the port says."""
        return RevocationHistory(self.applied).digest_at(len(self.applied))

    def numbered(self, epoch: int) -> Revocation | None:
        """As the port says."""
        return self.applied[epoch - 1] if 0 < epoch <= len(self.applied) else None

    async def set_aside(self, above_epoch: int) -> None:
        """As the port says."""
        self.kept_aside += self.applied[above_epoch:]
        del self.applied[above_epoch:]

    async def reached(self, epoch: int) -> None:
        """Return once this epoch is applied."""
        while self.applied_epoch() < epoch:
            self.changed.clear()
            await self.changed.wait()


class MemoryBudgetSink:
    """Implements the budget change sink port in memory; remembers what it was given."""

    def __init__(self) -> None:
        """Nothing applied."""
        self.applied: list[BudgetChange] = []
        self.kept_aside: list[BudgetChange] = []

    def applied_budget_change(self) -> int:
        """As the port says."""
        return self.applied[-1].number if self.applied else 0

    def budget_history_digest(self) -> bytes:
        """As the port says."""
        return BudgetChangeHistory(self.applied).digest_at(len(self.applied))

    def has_budget_change(self, change: BudgetChange) -> bool:
        """As the port says."""
        return change in self.applied

    async def set_aside_budget_changes(self, above: int) -> None:
        """As the port says."""
        self.kept_aside += self.applied[above:]
        del self.applied[above:]

    async def apply_budget_changes(self, changes: Sequence[BudgetChange]) -> None:
        """As the port says."""
        self.applied.extend(changes)


class Sidecar:
    """A sidecar's side of the link: real link, outbox and sink in memory."""

    def __init__(self, target: str, name: str = "sidecar-1", *, clock: Clock | None = None, epoch: str = "e1") -> None:
        """Build it; the context runs the link."""
        self.name = name
        self.clock = clock or SystemClock()
        self.outbox = MemoryOutbox()
        self.sink = MemorySink()
        self.emitter = Emitter(name, epoch)
        self.leases: list[LiveLease] = []
        self.budget_sink = MemoryBudgetSink()
        self.budgets = BudgetRows((), 0)
        self.slices = Slices(Ledger())
        self.budget_tie = BudgetTie(self.budget_sink, lambda: self.budgets, self.slices)
        self.tokens_read = 0
        self.settings = LinkSettings(
            target,
            name,
            "test",
            "0.0",
            self._token,
            backoff=Backoff(first_seconds=0.02, cap_seconds=0.1, refused_cap_seconds=0.2),
        )
        self.link = CollectorLink(
            self.settings, self.outbox, self.sink, lambda: self.leases, self.budget_tie, self.clock
        )
        self._task: asyncio.Task[None] | None = None

    def _token(self) -> str:
        self.tokens_read += 1
        return self.name

    def emit(self, count: int) -> None:
        """Commit events to the outbox."""
        self.outbox.put(*self.emitter.calls(count))

    async def __aenter__(self) -> Self:
        """Run the link."""
        self._task = asyncio.create_task(self.link.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the link."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def eventually(condition, seconds: float = 240.0) -> None:
    """Return once `condition()` is true; for facts that announce themselves to nobody."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
