"""Opens the key stores that the configuration names, and joins them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import assert_never

import structlog

from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKey, PassphraseMasterKey
from leasehold_broker.adapters.process_hardening import assert_hardened
from leasehold_broker.adapters.prometheus_metrics import Sample
from leasehold_broker.config.keys import AwsStore, AzureStore, GcpStore, KeysAt, Store, VaultStore
from leasehold_broker.config.read import ConfigError
from leasehold_broker.flows.federated_keys import Minting
from leasehold_broker.flows.key_ring import KeyRing
from leasehold_broker.flows.sourced_keys import KeyBounds, Listed, SourceChange, SourcedKeys
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.key_source import KeySource
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.privileges import Privileged
from leasehold_broker.wiring.dynamic import dynamic_keys
from leasehold_broker.wiring.federation import Federation
from leasehold_broker.wiring.privileges import privileged_stores

log = structlog.get_logger("leasehold.keys")


class SidecarKeys:
    """Every key of a sidecar. The store to ask is `ring`."""

    def __init__(self, at: KeysAt, passphrase: Callable[[], bytes], clock: Clock, entropy: Entropy) -> None:
        """Open the local store, unlocked; ask nobody else yet. Only in a process that is hardened already.

        Args:
            at: where keys are.
            passphrase: asked when neither a master key file nor Transit is configured.
            clock: for ages.
            entropy: for jitter.

        Raises:
            ConfigError, KeyStoreError, MasterKeyError: says what is wrong and what to do.
            RuntimeError: neighbours could read this process's memory.
        """
        assert_hardened()
        self.at = at
        self.master = None if at.path is None else master_key(at, passphrase, clock)
        local = None if self.master is None else LocalKeys(str(at.path), self.master, clock, _failed)
        self._changed: Callable[[SourceChange], None] = lambda _: None
        self._minted: Callable[[Minting], None] = lambda _: None
        sources = [open_source(store, clock) for store in at.stores]
        self._privileged = privileged_stores(at.stores, sources)
        if isinstance(self.master, Privileged):
            self._privileged["transit"] = self.master, ()
        self._sourced = tuple(
            self._open(store, source, clock, entropy) for store, source in zip(at.stores, sources, strict=True)
        )
        self._federation = Federation(at.federated, clock, entropy, self._told_of_minting)
        self.federated = self._federation.keys
        self.agents = self._federation.agents
        self.dynamic, engines = dynamic_keys(at.engines, clock, entropy)
        self._privileged.update(engines)
        named: dict[str, KeyStore] = {
            key.name: sourced for store, sourced in zip(at.stores, self._sourced, strict=True) for key in store.keys
        }
        named.update({key.name: self.federated for key in at.federated})
        named.update({record.name: self.dynamic for record in self.dynamic.records()})
        self.ring = KeyRing(named, local)

    async def start(self, changed: Callable[[SourceChange], None], minted: Callable[[Minting], None]) -> None:
        """Read what is elsewhere once, then behind; `changed` is told of each change, `minted` of each exchange."""
        self._changed, self._minted = changed, minted
        await asyncio.gather(*(sourced.start() for sourced in self._sourced))

    async def aclose(self) -> None:
        """Stop reading and forget."""
        for sourced in self._sourced:
            await sourced.aclose()
        await self._federation.aclose()
        await self.dynamic.aclose()

    def refused(self, name: str) -> None:
        """The provider refused this key: a minted token is minted anew, a store is asked whether it has another."""
        self.federated.forget(name)
        self.dynamic.forget(name)
        for sourced in self._sourced:
            if sourced.find(name) is not None:
                sourced.nudge()

    def privileged(self) -> Mapping[str, tuple[Privileged, Sequence[str]]]:
        """The stores that tell what our logins may do, with the paths there that belong to other environments."""
        return self._privileged

    def samples(self) -> Iterator[Sample]:
        """How the stores stand."""
        counts: dict[str, int] = {}
        for sourced in self._sourced:
            for state in sourced.states().values():
                counts[state.value] = counts.get(state.value, 0) + 1
        for state_name, count in counts.items():
            yield Sample("stored_keys", "Keys in stores elsewhere, by state.", count, label=("state", state_name))
        held, failing = self.dynamic.counts()
        yield Sample("engine_credentials", "Credentials of secret engines that are not revoked yet.", held)
        yield Sample("engine_credentials_failing", "Those whose renewal or revocation fails.", failing)

    def _open(self, store: Store, source: KeySource, clock: Clock, entropy: Entropy) -> SourcedKeys:
        listed = [Listed(key.name, key.provider, store.environment) for key in store.keys]
        bounds = KeyBounds(store.refresh_seconds, store.max_stale_seconds)
        return SourcedKeys(source, listed, bounds, clock, entropy, self._told)

    def _told(self, change: SourceChange) -> None:
        say = log.info if not change.why else log.warning
        say(
            "key read" if not change.why else "key not read",
            key=change.key,
            state=change.state.value,
            version=change.version,
            why=change.why,
        )
        self._changed(change)

    def _told_of_minting(self, minting: Minting) -> None:
        if minting.fault is None:
            log.info("token minted", key=minting.key.name, life_seconds=minting.life_seconds)
        else:
            log.warning("no token", key=minting.key.name, state=minting.fault.state.value, why=str(minting.fault))
        self._minted(minting)


def master_key(at: KeysAt, passphrase: Callable[[], bytes], clock: Clock) -> MasterKey:
    """The master key that the configuration names.

    Raises:
        MasterKeyError: says what is wrong and what to do.
    """
    if at.transit is not None:
        from leasehold_broker.wiring.vault import transit_master_key  # noqa: PLC0415 - its client is large

        return transit_master_key(at.transit, clock)
    if at.master_key_file is not None:
        return FileMasterKey(str(at.master_key_file))
    return PassphraseMasterKey(passphrase())


def open_source(store: Store, clock: Clock) -> KeySource:
    """What reads this store. Raises ConfigError when a package is missing."""
    try:
        match store:
            case VaultStore():
                return _vault(store, clock)
            case AwsStore():
                return _aws(store)
            case GcpStore():
                return _gcp(store)
            case AzureStore():
                return _azure(store)
            case _:
                assert_never(store)
    except ImportError as error:
        kind = type(store).__name__.removesuffix("Store").lower()
        message = f"a store of kind {kind!r} needs: pip install 'leasehold-broker[{kind}]' ({error.name} is missing)"
        raise ConfigError(message) from None


def _vault(store: VaultStore, clock: Clock) -> KeySource:
    from leasehold_broker.wiring.vault import vault_keys  # noqa: PLC0415 - its client is large

    return vault_keys(store, clock)


def _aws(store: AwsStore) -> KeySource:
    from leasehold_broker.adapters.aws_client import AwsAt  # noqa: PLC0415 - an extra
    from leasehold_broker.adapters.keys_aws import AwsKeyAt, AwsKeys  # noqa: PLC0415 - as above

    at = AwsAt(store.region, store.role_arn, store.token_file, store.endpoint, store.sts_endpoint)
    return AwsKeys(at, {key.name: AwsKeyAt(f"{store.path}/{key.secret}", key.field) for key in store.keys})


def _gcp(store: GcpStore) -> KeySource:
    from leasehold_broker.adapters.keys_gcp import GcpAt, GcpKeyAt, GcpKeys  # noqa: PLC0415 - an extra

    at = GcpAt(
        store.project,
        store.token_file,
        store.audience,
        store.service_account,
        store.endpoint,
        sts_endpoint=store.sts_endpoint,
    )
    return GcpKeys(at, {key.name: GcpKeyAt(f"{store.path}-{key.secret}", key.field) for key in store.keys})


def _azure(store: AzureStore) -> KeySource:
    from leasehold_broker.adapters.keys_azure import AzureAt, AzureKeyAt, AzureKeys  # noqa: PLC0415 - an extra

    at = AzureAt(store.vault_url, store.tenant_id, store.client_id, store.token_file, authority=store.authority)
    keys = {key.name: AzureKeyAt(f"{store.path}-{key.secret}", key.field) for key in store.keys}
    return AzureKeys(at, keys, ca_file=store.ca_file)


def _failed(why: str) -> None:
    log.error("the key store cannot be used", why=why)
