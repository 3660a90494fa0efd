"""Rotations of a process: from the tables of the configuration to what drives them, asks for them and shows them."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import structlog

from leasehold_broker.adapters import cron
from leasehold_broker.adapters.http_key_probe import HttpKeyProbe
from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.keys_local_admin import LocalKeyAdmin
from leasehold_broker.adapters.minters.admin_api import Reading
from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.config.minters import VaultRootMinter
from leasehold_broker.config.providers import ProviderAt
from leasehold_broker.config.read import ConfigError
from leasehold_broker.config.rotations import RotationAt
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.cancel_rotation import CancelRotation
from leasehold_broker.flows.disable_key import DisableKey, DisableRevoked
from leasehold_broker.flows.feed_sinks import FeedSink, SinkRule
from leasehold_broker.flows.read_rotations import ReadRotations
from leasehold_broker.flows.request_rotation import RequestRotation
from leasehold_broker.flows.root_steps import RotatedRoot
from leasehold_broker.flows.rotate_disclosed import RotateDisclosed
from leasehold_broker.flows.rotate_keys import Pace, RotateKeys
from leasehold_broker.flows.rotated_key import AnyRotated, RotatedKey, RotatedStore
from leasehold_broker.flows.rotation_steps import RotationSteps
from leasehold_broker.flows.schedule_rotations import ScheduleRotations
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.key_users import KeyUsers
from leasehold_broker.ports.rotation_log import RotationLog
from leasehold_broker.providers import all_providers
from leasehold_broker.wire.event_body import decode_event
from leasehold_broker.wiring.collector_store import OpenStore
from leasehold_broker.wiring.life import new_life
from leasehold_broker.wiring.minters import Minters
from leasehold_broker.wiring.sidecar_keys import SidecarKeys, open_source
from leasehold_broker.wiring.supervision import Supervisor

DISCLOSED = "key.rotation_requested"
REVOKED = "revocation.issued"
log = structlog.get_logger("leasehold.rotation")


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is rotated.

    Args:
        rotations: the tables.
        keys: all keys of the process; None where it has none, and then there are no tables.
        providers: where they are reached.
    """

    rotations: tuple[RotationAt, ...]
    keys: SidecarKeys | None
    providers: Mapping[str, ProviderAt]


@dataclass(frozen=True, slots=True)
class Rotating:
    """What doors need."""

    request: RequestRotation
    cancel: CancelRotation
    disable: DisableKey
    read: ReadRotations
    driver: RotateKeys
    keys: Mapping[str, AnyRotated]

    def samples(self) -> Iterator[Sample]:
        """Metrics."""
        yield Sample("rotated_keys", "Keys that are rotated here.", len(self.keys))
        yield Sample("rotation_leads", "1 while this process takes the steps of rotations.", self.driver.leads)


def check_rotations(rotations: Sequence[RotationAt]) -> None:
    """Check what the configuration alone cannot. Raises ConfigError."""
    for at in rotations:
        if at.schedule.cron and (why := cron.wrong_cron(at.schedule.cron)):
            message = f"[[rotations]] {at.key!r}: cron {at.schedule.cron!r}: {why}"
            raise ConfigError(message)
        if not at.schedule.idle and at.schedule.never_open:
            message = f"[[rotations]] {at.key!r}: closed leaves no minute of the week, so it would never be rotated"
            raise ConfigError(message)


@contextlib.asynccontextmanager
async def rotating(
    plan: RotationPlan,
    opened: OpenStore,
    kept: RotationLog,
    users: KeyUsers,
    clock: Clock,
    entropy: Entropy,
    tasks: Supervisor,
) -> AsyncIterator[Rotating]:
    """Drive rotations while the context lasts.

    Raises:
        ConfigError: says what is wrong and what to change.
        Refusal: STORE_UNAVAILABLE.
    """
    check_rotations(plan.rotations)
    async with contextlib.AsyncExitStack() as stack:
        keys = await _rotated(plan, clock, stack)
        driver = RotateKeys(kept, keys, RotationSteps(users), clock, new_life(), Pace(), _told)
        request = RequestRotation(kept, opened.log, keys, clock, entropy, driver.wake)
        disable = DisableKey(request, keys)
        if keys:
            schedules = {at.key: at.schedule for at in plan.rotations}
            schedule = ScheduleRotations(kept, keys, schedules, request, clock, cron.next_time, lambda: driver.leads)
            rule = SinkRule("rotations", required=False, lag_records_max=0, types=(DISCLOSED,))
            disclosed = FeedSink(rule, RotateDisclosed(request, keys, decode_event), opened.log, opened.log, _told)
            await disclosed.start()
            requests = opened.led_from_cursor("rotation-requests", disclosed)
            rule = SinkRule("switch-offs", required=False, lag_records_max=0, types=(REVOKED,))
            revoked = FeedSink(rule, DisableRevoked(disable, decode_event, _told), opened.log, opened.log, _told)
            await revoked.start()
            switch_offs = opened.led_from_cursor("switch-offs", revoked)
            await stack.enter_async_context(tasks.keeping("rotations", driver.run))
            await stack.enter_async_context(tasks.keeping("rotation schedule", schedule.run))
            await stack.enter_async_context(tasks.keeping("rotation requests", requests))
            await stack.enter_async_context(tasks.keeping("switch-offs", switch_offs))
        read = ReadRotations(kept, driver.changed)
        yield Rotating(request, CancelRotation(kept, read, keys, clock, driver.wake), disable, read, driver, keys)


async def _rotated(plan: RotationPlan, clock: Clock, stack: contextlib.AsyncExitStack) -> dict[str, AnyRotated]:
    if plan.keys is None or not plan.rotations:
        return {}
    return {**_rotated_keys(plan, plan.keys, clock, stack), **_rotated_roots(plan, plan.keys, clock, stack)}


def _rotated_roots(
    plan: RotationPlan, keys: SidecarKeys, clock: Clock, stack: contextlib.AsyncExitStack
) -> dict[str, RotatedRoot]:
    found: dict[str, RotatedRoot] = {}
    for at in plan.rotations:
        if isinstance(at.at, VaultRootMinter):
            from leasehold_broker.wiring.vault import vault_root  # noqa: PLC0415 - its client is large

            # The configuration lets only keys of engines have such a table.
            table = next(table for table in keys.at.engines for key in table.keys if key.name == at.key)
            provider, environment = _whose(keys, at.key)
            root = vault_root(at.at, table, at.key, clock)
            stack.push_async_callback(root.aclose)
            found[at.key] = RotatedRoot(at.key, provider, environment, root, at.limits)
    return found


def _rotated_keys(
    plan: RotationPlan, keys: SidecarKeys, clock: Clock, stack: contextlib.AsyncExitStack
) -> dict[str, RotatedKey]:
    tables = {at.key: at.at for at in plan.rotations if not isinstance(at.at, VaultRootMinter)}
    minters = Minters(tables, keys.ring, clock)
    stack.push_async_callback(minters.aclose)
    probe, upstream = _probe(plan.providers)
    stack.push_async_callback(upstream.close)
    stores = _stores(keys, set(tables), clock)
    for opened in {id(store): store for store in stores.values()}.values():
        stack.push_async_callback(opened.aclose)
    found = {}
    limits = {at.key: at.limits for at in plan.rotations}
    for key in tables:
        provider, environment = _whose(keys, key)
        if limits[key].probed and not probe.asks(provider):
            message = (
                f"[[rotations]] {key!r}: no harmless call at {provider!r} is known by which a new key could be tried, "
                "so each rotation would be given up; set probe = false (then nothing is proven), or add "
                f"[providers.{provider}]"
            )
            raise ConfigError(message)
        at_provider = minters.build(key, _reading(stores[key], key))
        found[key] = RotatedKey(key, provider, environment, stores[key], at_provider, probe, limits[key])
    return found


def _reading(store: RotatedStore, key: str) -> Reading:
    async def read() -> Secret:
        return (await store.read(key)).value

    return read


def _stores(keys: SidecarKeys, wanted: set[str], clock: Clock) -> dict[str, RotatedStore]:
    """The store of each key, for writing; one connection for each table."""
    found: dict[str, RotatedStore] = {}
    for table in keys.at.stores:
        names = wanted & {key.name for key in table.keys}
        if names:
            # The configuration lets only such stores be named that implement both ports.
            found |= dict.fromkeys(names, cast("RotatedStore", open_source(table, clock)))
    master = keys.master
    if wanted - found.keys() and master is not None:
        local = LocalKeyAdmin(lambda: LocalKeys(str(keys.at.path), master, clock), clock)
        found |= dict.fromkeys(wanted - found.keys(), local)
    return found


def _whose(keys: SidecarKeys, name: str) -> tuple[str, str]:
    for table in keys.at.stores:
        for key in table.keys:
            if key.name == name:
                return key.provider, table.environment
    record = keys.ring.find(name)
    if record is None:
        message = f"[[rotations]] {name!r}: no key of this name is in the store; add it with leasehold-broker keys add"
        raise ConfigError(message)
    return record.provider, record.environment


def _probe(tables: Mapping[str, ProviderAt]) -> tuple[HttpKeyProbe, HttpUpstream]:
    providers = all_providers({name: at.settings for name, at in tables.items() if at.settings})
    origins = {
        name: tables[name].origin if name in tables and tables[name].origin else provider.default_origin
        for name, provider in providers.items()
    }
    upstream = HttpUpstream(
        UpstreamOrigin(origin, name in tables and tables[name].allow_private) for name, origin in origins.items()
    )
    return HttpKeyProbe(upstream, {name: (providers[name], origin) for name, origin in origins.items()}), upstream


def _told(what: str, why: str) -> None:
    if why:
        log.warning("a rotation has to wait", what=what, why=why)
