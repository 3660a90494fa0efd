"""The collector process: what plugs into what, what starts before what, and what stops in which order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog
from google.protobuf.descriptor import ServiceDescriptor

from leasehold_broker import __version__
from leasehold_broker.adapters.accept_shim import ShimLimits
from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.private_files import make_folder
from leasehold_broker.adapters.prometheus_metrics import PrometheusMetrics, Sample
from leasehold_broker.adapters.service_manager import ServiceManager
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.collector import audit_door, budget_door, fleet_door, key_door, revocation_door, sidecar_door
from leasehold_broker.collector.access import Operators, Sidecars
from leasehold_broker.collector.audit_door import AuditDoor
from leasehold_broker.collector.budget_door import BudgetDoor
from leasehold_broker.collector.fleet_door import FleetDoor
from leasehold_broker.collector.key_door import KeyDoor
from leasehold_broker.collector.revocation_door import RevocationDoor
from leasehold_broker.collector.rotators import Rotators
from leasehold_broker.collector.sidecar_door import MESSAGE_BYTES_MAX, SidecarDoor
from leasehold_broker.config import CollectorConfig
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.flows.change_budget import ChangeBudget
from leasehold_broker.flows.collector_records import CollectorRecords
from leasehold_broker.flows.collector_traps import CollectorTraps
from leasehold_broker.flows.enrolment import Enrolment
from leasehold_broker.flows.feed_sinks import RequiredSinks
from leasehold_broker.flows.fleet import Fleet
from leasehold_broker.flows.fleet_budget_changes import FleetBudgetChanges
from leasehold_broker.flows.fleet_escrow import FleetEscrow
from leasehold_broker.flows.fleet_revocations import FleetRevocations
from leasehold_broker.flows.follow_evictions import FollowEvictions
from leasehold_broker.flows.ingest_events import IngestEvents
from leasehold_broker.flows.issue_revocation import IssueRevocation
from leasehold_broker.flows.key_uses import FleetKeyUsers
from leasehold_broker.flows.lift_revocation import LiftRevocation
from leasehold_broker.flows.prove import Prove
from leasehold_broker.flows.read_audit import ReadAudit
from leasehold_broker.flows.read_revocations import ReadRevocations
from leasehold_broker.flows.share_fleet import ShareFleet
from leasehold_broker.flows.sync_sidecar import SyncSidecar
from leasehold_broker.flows.watch_collector import WatchCollector, Watched
from leasehold_broker.rpc.access import Access
from leasehold_broker.rpc.desk import Desk
from leasehold_broker.rpc.server import Handlers, ServerLimits
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.checkpoints import CheckpointPlan, checkpoints
from leasehold_broker.wiring.collector_alerts import alert_samples, last_words, sent_alerts, watched
from leasehold_broker.wiring.collector_chores import chores
from leasehold_broker.wiring.collector_disk import disk_samples
from leasehold_broker.wiring.collector_findings import finding_samples, found_anomalies
from leasehold_broker.wiring.collector_samples import collector_samples
from leasehold_broker.wiring.collector_signals import signals
from leasehold_broker.wiring.collector_sinks import fed_sinks
from leasehold_broker.wiring.collector_store import CollectorLog, OpenStore, file_store, shared_store, taking
from leasehold_broker.wiring.console import ConsoleParts, any_role, console_door
from leasehold_broker.wiring.failure import ProcessFailedError
from leasehold_broker.wiring.grpc_door import GrpcDoor
from leasehold_broker.wiring.issuer_samples import issuer_samples
from leasehold_broker.wiring.laid_traps import LaidTraps
from leasehold_broker.wiring.rotations import Rotating, RotationPlan, rotating
from leasehold_broker.wiring.sidecar_keys import SidecarKeys
from leasehold_broker.wiring.signals_door import DoorEyes
from leasehold_broker.wiring.supervision import Supervisor

SESSION_SECONDS_MAX = 3600.0
UNIX_CONNECTIONS_MAX = 256
log = structlog.get_logger("leasehold.collector")


async def run_collector(config: CollectorConfig, stop: asyncio.Event) -> None:
    """Run a collector until `stop` is set.

    Raises:
        ProcessFailedError: it could not go on.
        Refusal, OSError, RuntimeError, ValueError, sqlite3.Error: it could not start; the message says why.
    """
    collector = Collector(config)
    # Counting beats by themselves: what it does is done when it is asked, on the same loop.
    async with collector.serving(), ServiceManager().told(itertools.count().__next__):
        waits = [asyncio.create_task(event.wait()) for event in (stop, collector.gave_up)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    if collector.gave_up.is_set():
        raise ProcessFailedError(collector.failed)
    log.info("stopped")


class Collector:
    """Everything of one collector."""

    def __init__(self, config: CollectorConfig) -> None:
        """Take the settings; nothing is open yet."""
        self._config = config
        self._clock = SystemClock()
        self._entropy = SystemEntropy()
        self._peers = KernelPeers()
        self._identities = JwtIdentities(config.issuers, self._clock, on_failure=_issuer_failed)
        self._traps = LaidTraps(config.honeytokens)
        self._fleet = Fleet(config.authority_seconds)
        self.failed = ""
        self.gave_up = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Start in order; stop in order at the end."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._peers.close)
            opened = await stack.enter_async_context(self._open_store())
            store = opened.log
            self._fleet.restore(await store.sidecars(), self._clock.now())
            await self._identities.start()
            stack.push_async_callback(self._identities.aclose)
            prove, publish = await stack.enter_async_context(
                checkpoints(self._plan(), opened, self._clock, self._give_up)
            )
            records = CollectorTraps(store, self._clock)
            await records.lifecycle(EventType.COLLECTOR_STARTED, __version__)
            stack.push_async_callback(_stopped, records)
            if not opened.shared:
                await publish.step()
            tasks = Supervisor(self._clock, store.record)
            feeds = await stack.enter_async_context(fed_sinks(self._config.sinks, opened, self._config.name, tasks))
            ingest = IngestEvents(
                await stack.enter_async_context(taking(opened, tasks)), store, self._clock, RequiredSinks(feeds).check
            )
            escrow = FleetEscrow(
                self._config.fleet_budgets,
                self._config.authority_seconds,
                opened.escrow,
                store,
                self._clock,
                shared=opened.shared,
            )
            await escrow.restore()
            if opened.board is not None:
                share = ShareFleet(self._fleet, escrow.holders, opened.board, self._clock)
                await stack.enter_async_context(tasks.keeping("fleet", share.run))
            issuer = FleetRevocations(self._fleet, store, self._clock)
            await stack.enter_async_context(
                chores(
                    self._config.audit.retention_days, opened, publish, feeds, issuer, self._traps, self._clock, tasks
                )
            )
            alerts = await stack.enter_async_context(
                sent_alerts(self._config.alerts, opened, f"leasehold collector {self._config.name}", tasks)
            )
            finder = await stack.enter_async_context(
                found_anomalies(self._config.anomalies, opened, issuer, self._clock, tasks)
            )
            eyes = DoorEyes(self._peers, self._traps.sprung_by, records)
            heard = await stack.enter_async_context(
                signals(self._config.signals, opened, issuer, self._clock, tasks, eyes)
            )
            stuck = [*watched(feeds, alerts), *heard.watched, Watched("checkpoint copy", lambda: publish.copy_failing)]
            await stack.enter_async_context(
                tasks.keeping("watch", WatchCollector(stuck, issuer, store, self._clock).run)
            )
            await stack.enter_async_context(tasks.keeping("fleet-budgets", escrow.run))
            rotations = await self._rotations(opened, tasks, stack)
            sync = SyncSidecar(
                self._fleet, escrow, store, store, self._clock, accept_gaps=self._config.audit.accept_gaps
            )
            enrolment = Enrolment(self._fleet, store.register, issuer, sync, escrow, self._clock)
            await stack.enter_async_context(self._following(enrolment, opened, tasks))
            door, desk = self._door(store, issuer, prove, records, ingest, escrow, sync, enrolment, rotations)
            console_port = await stack.enter_async_context(self._open(door, desk, store, eyes, tasks))
            await self._measured(
                lambda: [
                    *collector_samples(self._fleet, records, ingest, publish, feeds, store, issuer, escrow),
                    *issuer_samples(self._identities),
                    *tasks.samples(),
                    *disk_samples(opened.disk),
                    *(() if opened.bus is None else opened.bus.samples()),
                    *alert_samples(alerts),
                    *finding_samples(finder),
                    *(() if rotations is None else rotations.samples()),
                ],
                stack,
            )
            log.info(
                "serving",
                name=self._config.name,
                version=__version__,
                grpc_socket=str(self._config.grpc.socket or ""),
                grpc_port=door.port,
                signals_port=heard.port,
                console_port=console_port,
            )
            yield
            await last_words(self.failed, store, self._clock, alerts)
            log.info("stopping")

    @contextlib.asynccontextmanager
    async def _open(
        self, door: GrpcDoor, desk: Desk, store: CollectorLog, eyes: DoorEyes, tasks: Supervisor
    ) -> AsyncIterator[int]:
        """Serve at the doors of operators; gives the console's port."""
        tasks.show(door.show_degraded)
        await door.start(self._socket_lost)
        parts = ConsoleParts(self._config.roles, desk, eyes, store, self._clock, self._entropy)
        try:
            async with (
                tasks.keeping("certificates", door.follow_certificates),
                console_door(self._config.console, parts, tasks) as port,
            ):
                yield port
        finally:
            await door.stop()

    async def _measured(self, samples: Callable[[], list[Sample]], stack: contextlib.AsyncExitStack) -> None:
        if self._config.metrics is not None:
            metrics = PrometheusMetrics(*self._config.metrics, samples)
            await metrics.start()
            stack.push_async_callback(metrics.close)

    @contextlib.asynccontextmanager
    async def _following(self, enrolment: Enrolment, opened: OpenStore, tasks: Supervisor) -> AsyncIterator[None]:
        """What other replicas ban, readmit and evict."""
        await enrolment.restore()
        if not opened.shared:
            yield
            return
        evictions = FollowEvictions(self._fleet, opened.log.register, opened.log, self._clock, decode_event)
        async with tasks.keeping("bans", enrolment.follow), tasks.keeping("evictions", evictions.run):
            yield

    async def _rotations(
        self, opened: OpenStore, tasks: Supervisor, stack: contextlib.AsyncExitStack
    ) -> Rotating | None:
        """What rotates keys, with the keys that it is done with; None where the log keeps no rotations."""
        if opened.rotations is None:
            return None
        keys = None
        if self._config.keys is not None:
            keys = SidecarKeys(self._config.keys, _no_passphrase, self._clock, self._entropy)
            await keys.start(lambda _: None, lambda _: None)
            stack.push_async_callback(keys.aclose)
        plan = RotationPlan(self._config.rotations, keys, self._config.providers)
        users = FleetKeyUsers(self._fleet, self._clock)
        return await stack.enter_async_context(
            rotating(plan, opened, opened.rotations, users, self._clock, self._entropy, tasks)
        )

    def _open_store(self) -> contextlib.AbstractAsyncContextManager[OpenStore]:
        make_folder(self._config.state_dir)
        name, accept_gaps = self._config.name, self._config.audit.accept_gaps
        if self._config.postgres is None:
            return file_store(
                self._config.state_dir / "collector.db",
                name,
                accept_gaps=accept_gaps,
                reserve_bytes=self._config.disk_reserve_bytes,
            )
        return shared_store(
            self._config.postgres,
            name,
            self._clock,
            accept_gaps=accept_gaps,
            issued=self._fleet.issued,
            fail=self._give_up,
        )

    def _door(
        self,
        store: CollectorLog,
        issuer: FleetRevocations,
        prove: Prove,
        records: CollectorRecords,
        ingest: IngestEvents,
        escrow: FleetEscrow,
        sync: SyncSidecar,
        enrolment: Enrolment,
        rotations: Rotating | None,
    ) -> tuple[GrpcDoor, Desk]:
        sidecars = Sidecars(
            self._identities,
            self._config.sidecars,
            certificates=self._config.grpc.tls is not None and bool(self._config.grpc.tls.client_ca),
        )
        operators = Operators(self._identities, self._config.roles, self._config.roles_of_uid)
        rotators = Rotators(operators, self._identities, self._config.pipelines)
        door = GrpcDoor(
            self._config.grpc,
            self._peers,
            {
                Access.SIDECAR: sidecars.authenticate,
                Access.OPERATOR: operators.authenticate,
                Access.ROTATOR: rotators.authenticate,
            },
            records,
            self._clock,
            self._entropy,
            _connection_refused,
            records,
            ServerLimits(request_bytes_max=MESSAGE_BYTES_MAX, answer_bytes_max=MESSAGE_BYTES_MAX),
            _crowd(self._config),
            sprung_by=self._traps.sprung_by,
        )
        revocation = RevocationDoor(
            IssueRevocation(issuer, store, self._clock),
            LiftRevocation(issuer, self._clock),
            ReadRevocations(issuer),
            operators,
            None if rotations is None else rotations.request,
            None if rotations is None else rotations.disable,
        )
        sidecar = SidecarDoor(sync, ingest, sidecars, SESSION_SECONDS_MAX, enrolment.check)
        budgets = BudgetDoor(ChangeBudget(FleetBudgetChanges(self._fleet, escrow, store), self._clock), operators)
        desk = Desk(partial(any_role, operators), records, records, self._clock, self._entropy)
        served: dict[ServiceDescriptor, Handlers] = {
            budget_door.SERVICE: budgets.handlers(),
            fleet_door.SERVICE: FleetDoor(enrolment, operators).handlers(),
            revocation_door.SERVICE: revocation.handlers(),
            audit_door.SERVICE: AuditDoor(ReadAudit(store), prove, operators).handlers(),
        }
        if rotations is not None:
            keys = KeyDoor(rotations.request, rotations.cancel, rotations.read, rotators, operators)
            served[key_door.SERVICE] = keys.handlers()
        for service, handlers in served.items():
            door.server.serve(service, handlers)
            desk.serve(service, handlers)
        door.server.serve(sidecar_door.SYNC_SERVICE, sidecar.sync_handlers())
        door.server.serve(sidecar_door.INGEST_SERVICE, sidecar.ingest_handlers())
        return door, desk

    def _plan(self) -> CheckpointPlan:
        audit = self._config.audit
        verifier_key = self._config.state_dir / "checkpoint.pub"
        return CheckpointPlan(
            audit.origin, audit.key_file, verifier_key, audit.checkpoint_copy, audit.checkpoint_seconds
        )

    def _socket_lost(self) -> None:
        self._give_up("the gRPC socket was taken over by another process")

    def _give_up(self, why: str) -> None:
        self.failed = self.failed or why
        self.gave_up.set()


def _crowd(config: CollectorConfig) -> ShimLimits:
    each = config.crowd.connections_per_peer_max
    return ShimLimits(max(UNIX_CONNECTIONS_MAX, each), config.crowd.connections_max, each)


def _no_passphrase() -> bytes:
    raise ValueError("a collector asks for no passphrase")


async def _stopped(records: CollectorRecords) -> None:
    with contextlib.suppress(Refusal):  # a disk that failed has been told already
        await records.lifecycle(EventType.COLLECTOR_STOPPED, __version__)


def _connection_refused(refusal: Refusal) -> None:
    log.warning("connection refused", reason=refusal.reason, detail=refusal.detail)


def _issuer_failed(rule: str, why: str) -> None:
    log.warning("keys of an issuer cannot be fetched", issuer=rule, why=why)
