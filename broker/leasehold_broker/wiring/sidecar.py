"""The sidecar process: what plugs into what, what starts before what, and what stops in which order.

Start: store, recovery, issuers, link to the centre, egress, gRPC door. Nothing listens before recovery is durable.
Stop: nothing new, the egress drains and cuts, all is settled, the last event, doors close, the outbox is shipped, the
store is closed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import structlog

from leasehold_broker import __version__
from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.adapters.key_marks_file import write_marks
from leasehold_broker.adapters.peer_processes import PidfdProcesses
from leasehold_broker.adapters.policy_files import PolicyFiles
from leasehold_broker.adapters.process_hardening import assert_hardened
from leasehold_broker.adapters.prometheus_metrics import PrometheusMetrics, Sample
from leasehold_broker.adapters.service_manager import ServiceManager
from leasehold_broker.adapters.sqlite_state import SqliteStateStore, StoreLimits
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.config import SidecarConfig
from leasehold_broker.domain.events import EventType
from leasehold_broker.domain.keys import KeyMark
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.replay import Showing
from leasehold_broker.egress.server import EgressServer
from leasehold_broker.flows.acquire import AcquireLease
from leasehold_broker.flows.apply_budget_changes import ApplyBudgetChanges
from leasehold_broker.flows.apply_revocations import ApplyRevocations
from leasehold_broker.flows.books import Books
from leasehold_broker.flows.call import Calls
from leasehold_broker.flows.delegate import DelegateLease
from leasehold_broker.flows.end_with_process import EndWithProcess
from leasehold_broker.flows.handing_out import HandingOut
from leasehold_broker.flows.issuing import World
from leasehold_broker.flows.journal import Batch, Journal
from leasehold_broker.flows.key_events import KeyEvents
from leasehold_broker.flows.key_health import KeyHealth
from leasehold_broker.flows.read import ReadLeases
from leasehold_broker.flows.record_traps import RecordTraps
from leasehold_broker.flows.recover import Recover
from leasehold_broker.flows.release import ReleaseLease
from leasehold_broker.flows.renew import RenewLease
from leasehold_broker.flows.stop import Stop
from leasehold_broker.flows.sweep import Sweep
from leasehold_broker.flows.version_changes import VersionChanges
from leasehold_broker.ports.state_store import PutShowing
from leasehold_broker.providers.prices.borrowed import BorrowedPrices
from leasehold_broker.rpc.access import Access
from leasehold_broker.rpc.caller import workload
from leasehold_broker.sidecar import lease_service
from leasehold_broker.sidecar.lease_service import LeaseDoor
from leasehold_broker.wiring.failure import ProcessFailedError
from leasehold_broker.wiring.grpc_door import GrpcDoor
from leasehold_broker.wiring.issuer_samples import issuer_samples
from leasehold_broker.wiring.laid_traps import LaidTraps
from leasehold_broker.wiring.sidecar_centre import Linked, linked_centre
from leasehold_broker.wiring.sidecar_egress import SidecarEgress
from leasehold_broker.wiring.sidecar_files import FileNews
from leasehold_broker.wiring.sidecar_keys import SidecarKeys
from leasehold_broker.wiring.sidecar_metrics import samples
from leasehold_broker.wiring.sidecar_parts import SidecarParts
from leasehold_broker.wiring.sidecar_prices import CurrentPrices
from leasehold_broker.wiring.supervision import Supervisor

SWEEP_SECONDS = 0.2
PRUNE_EVERY_SWEEPS = 150
log = structlog.get_logger("leasehold.sidecar")


async def run_sidecar(
    config: SidecarConfig, passphrase: Callable[[], bytes], stop: asyncio.Event, reload: asyncio.Event
) -> None:
    """Run a sidecar until `stop` is set.

    Args:
        config: checked settings.
        passphrase: asked for the key store's, when the configuration names no master key file.
        stop: set by SIGTERM and SIGINT.
        reload: set by SIGHUP; looked at once a sweep.

    Raises:
        ProcessFailedError: it could not go on.
        Refusal, OSError, RuntimeError, ValueError: it could not start; the message says why.
    """
    sidecar = Sidecar(config, passphrase, reload)
    async with sidecar.serving(), ServiceManager().told(lambda: sidecar.ticks):
        await sidecar.tick_until(stop)
    if sidecar.failed:
        raise ProcessFailedError(sidecar.failed)
    log.info("stopped")


class Sidecar:
    """Everything of one sidecar."""

    def __init__(self, config: SidecarConfig, passphrase: Callable[[], bytes], reload: asyncio.Event) -> None:
        """Open the store, the keys and the policy; nothing listens yet."""
        self.config = config
        self._reload = reload
        self.failed = ""
        self.ticks = 0
        """Rounds of what time brings, so far."""
        self._copied_marks: tuple[KeyMark, ...] = ()
        self._clock = SystemClock()
        self._entropy = SystemEntropy()
        self._peers = KernelPeers()
        self._keys = SidecarKeys(config.keys, passphrase, self._clock, self._entropy)
        self.store = SqliteStateStore(
            config.state_dir, config.name, self._clock, StoreLimits(spool_bytes_max=config.spool_bytes_max)
        )
        self.books = Books(config.name)
        self._journal = Journal(self.store)
        self._tasks = Supervisor(self._clock, lambda event: self._journal.ending(Batch([event])))
        self._news = {
            "policy": self._news_of("policy", EventType.POLICY_LOADED, EventType.POLICY_REJECTED),
            "prices": self._news_of("prices", EventType.PRICES_LOADED, EventType.PRICES_REJECTED),
        }
        self.prices = CurrentPrices(
            config.prices,
            lambda: self._clock.now().wall_ms,
            self._news["prices"].loaded,
            self._news["prices"].rejected,
        )
        cedar = "" if config.policy.cedar_dir is None else str(config.policy.cedar_dir)
        self.policies = PolicyFiles(
            str(config.policy.path),
            cedar,
            self._clock,
            lambda policy: self._news["policy"].loaded(policy.version),
            self._news["policy"].rejected,
        )
        self._identities = JwtIdentities(
            config.issuers, self._clock, None, _issuer_failed, self._keep_showing, self._keys.agents.saw
        )
        self._recorder = RecordTraps(self.books, self.store, self._journal, self._clock)
        self._traps = LaidTraps(config.honeytokens)
        self.door = GrpcDoor(
            config.grpc,
            self._peers,
            {Access.WORKLOAD: workload(self._identities)},
            self._recorder,
            self._clock,
            self._entropy,
            self._connection_refused,
            sprung_by=self._traps.sprung_by,
            caller_of=None if config.envoy is None else config.envoy.proxy.caller,
        )
        self._tasks.show(self.door.show_degraded)
        self._processes = PidfdProcesses(self.door.descriptor_of)
        self._end_with_process = EndWithProcess(self.books, self._journal, self._clock, self._processes)
        self._egress = SidecarEgress(config, self._peers, self._entropy)
        self._health = KeyHealth(
            self._keys.ring,
            self.books,
            self._journal,
            self._clock,
            self._egress.key_probe(),
            self._keys.refused,
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Start in order; stop in order at the end."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._peers.close)
            stack.push_async_callback(self.store.close)
            stored = await Recover(self.books, self.store).run(self._clock.now(), __version__)
            self._identities.restore(stored.showings, self._clock.now())
            stack.callback(self._processes.close)
            await self._end_with_process.resume()
            self._news["policy"].loaded(self.policies.current().version)
            self._news["prices"].loaded(self.prices.version)
            told = KeyEvents(self._journal, self._clock)
            await self._keys.start(told.source_changed, told.minting)
            stack.push_async_callback(self._keys.aclose)
            self._keys.dynamic.start(self.books, self._journal, stored.engine_leases)
            await self._identities.start()
            stack.push_async_callback(self._identities.aclose)
            linked = await stack.enter_async_context(linked_centre(self._parts()))
            world = World(self._clock, self._entropy, self.policies, linked.centre, self.store.pepper)
            await stack.enter_async_context(self._tasks.keeping("policy watch", self.policies.watch))
            await stack.enter_async_context(self._tasks.keeping("price watch", self.prices.watch))
            await stack.enter_async_context(self._tasks.keeping("certificates", self.door.follow_certificates))
            if self._traps.laid:
                await stack.enter_async_context(self._tasks.keeping("honeytoken watch", self._traps.watch))
            await stack.enter_async_context(
                self._tasks.keeping("egress certificates", self._egress.follow_certificates)
            )
            egress = await self._open_egress(world, stack)
            await self._open_door(world)
            metrics_port = 0
            if self.config.metrics is not None:
                metrics = PrometheusMetrics(*self.config.metrics, self._samples_of(egress, linked))
                await metrics.start()
                metrics_port = metrics.port
                stack.push_async_callback(metrics.close)
            # The last to be pushed is the first to stop: no call is taken after the word "stopping".
            stack.push_async_callback(self._drain, egress)
            self._log_serving(linked, metrics_port)
            yield
            log.info("stopping", open_calls=len(self.books.calls))
            self._copy_marks()

    def _samples_of(self, egress: EgressServer, linked: Linked) -> Callable[[], Iterable[Sample]]:
        return lambda: [
            *samples(self.books, self.store, egress, self._news.values()),
            *self._keys.samples(),
            Sample("keys_out", "Keys taken out: their provider refuses them.", self._health.out_count()),
            Sample("spool_bytes_max", "With so many waiting, work is refused.", self.config.spool_bytes_max),
            *issuer_samples(self._identities),
            *linked.samples(self._clock.now()),
            *self._tasks.samples(),
        ]

    def _news_of(self, what: str, loaded: EventType, rejected: EventType) -> FileNews:
        return FileNews(what, VersionChanges(what, loaded, rejected, self._journal, self._clock), self.books)

    async def tick_until(self, over: asyncio.Event) -> None:
        """Do what time brings, until told or until it cannot go on."""
        while not over.is_set() and not self.failed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await over.wait()
            await self._tick()

    async def _tick(self) -> None:
        """Expiry, retries, pruning, a policy to look at; notices a failed disk."""
        self.ticks += 1
        if self._reload.is_set():
            self._reload.clear()
            self.policies.reload()
            self.prices.reload()
        now = self._clock.now()
        sweep = Sweep(self.books, self._journal)
        await sweep.run(now)
        self._end_with_process.tidy()
        self._health.look()
        self._keys.dynamic.look()
        if self.ticks % PRUNE_EVERY_SWEEPS == 0:
            await sweep.prune(now)
            self._still_hardened()
            self._copy_marks()
        if self.store.broken:
            self.fail("the state directory's disk has failed")

    def _copy_marks(self) -> None:
        marks = tuple(self.books.key_marks.values())
        if marks != self._copied_marks:
            try:
                write_marks(self.config.state_dir, marks)
                self._copied_marks = marks
            except OSError as error:
                log.warning("the copy of the keys' past cannot be written", why=error.strerror)

    def _still_hardened(self) -> None:
        try:
            assert_hardened()
        except RuntimeError as fault:
            self.fail(str(fault))

    async def _keep_showing(self, showing: Showing) -> None:
        await self.store.commit([], [PutShowing(showing, self._clock.now().wall_ms)])

    def fail(self, why: str) -> None:
        """Give up: stop serving and leave with an error."""
        log.error("failed", why=why)
        self.failed = self.failed or why

    def _parts(self) -> SidecarParts:
        apply = ApplyRevocations(self.books, self._journal, self._clock)
        return SidecarParts(
            self.config,
            self._clock,
            self._entropy,
            self._peers,
            self.books,
            self._journal,
            self.store,
            apply,
            ApplyBudgetChanges(self.books, self._journal, self._clock),
            self.policies,
            self._recorder,
            self._tasks,
            self._keys,
            self.fail,
        )

    async def _open_egress(self, world: World, stack: contextlib.AsyncExitStack) -> EgressServer:
        prices = BorrowedPrices(self.prices, {name: at.prices_of for name, at in self.config.providers.items()})
        calls = Calls(self.books, self._journal, world, self._health, prices)
        stack.push_async_callback(self._egress.upstream.close)
        stack.push_async_callback(self._health.aclose)
        egress = self._egress.server(calls, self._recorder, self._traps.sprung_by)
        await self._egress.listen(egress, lambda: self.fail("the egress socket was taken over by another process"))
        return egress

    async def _open_door(self, world: World) -> None:
        handing_out = HandingOut(self.books, self._health, self._keys.federated, self._keys.dynamic)
        leases = LeaseDoor(
            AcquireLease(self.books, self._journal, world, self._health, self._end_with_process, handing_out),
            DelegateLease(self.books, self._journal, world),
            RenewLease(self.books, self._journal, world),
            ReleaseLease(self.books, self._journal, self._clock),
            ReadLeases(self.books, self.policies, self._clock),
            self._clock,
            self._entropy,
            self._egress.endpoints(),
            self._egress.direct_endpoints(),
            self._egress.local_endpoints(),
            self._egress.proxied_endpoints(),
        )
        self.door.server.serve(lease_service.SERVICE, leases.handlers())
        await self.door.start(lambda: self.fail("the gRPC socket was taken over by another process"))

    async def _drain(self, egress: EgressServer) -> None:
        self.books.draining = True
        self.door.announce_stop()
        drained = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            # Leases go on ending in time: a drain may take minutes.
            group.create_task(self.tick_until(drained), name="ticks while draining")
            await egress.drain()
            drained.set()
        await self._keys.dynamic.drain()
        # What the door still refuses comes before the last event: behind it, only the next process would tell of it.
        await self.door.stop()
        await Stop(self.books, self._journal, self._clock).run(0)

    def _connection_refused(self, refusal: Refusal) -> None:
        async def record() -> None:
            with contextlib.suppress(Refusal):  # counted all the same; the connection is closed in any case
                await self._recorder.rpc_refused("connect", refusal, None, None, "")

        self._journal.in_background(record())

    def _log_serving(self, linked: Linked, metrics_port: int) -> None:
        log.info(
            "serving",
            name=self.config.name,
            version=__version__,
            egress_port=self._egress.port,
            metrics_port=metrics_port,
            grpc_socket=str(self.config.grpc.socket or ""),
            grpc_port=self.door.port,
            policy=self.policies.current().version,
            prices=self.prices.version,
            centre=linked.kind,
        )


def _issuer_failed(rule: str, why: str) -> None:
    log.warning("keys of an issuer cannot be fetched", issuer=rule, why=why)
