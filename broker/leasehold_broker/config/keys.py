"""The [keys] section: where provider keys come from, per environment. Owns its TOML shape and what is refused.

The hard wall: a key has no environment of its own here, it has that of the table it stands in; and no two environments
may share a place, so that no path of one can name a key of the other.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from leasehold_broker.config.engines import Engines, engines_at, shared_engines, wrong_engines
from leasehold_broker.config.federation import Federated, federated_at, wrong_address, wrong_federated
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import PRIVATE, SECRET, ConfigError, absolute, refuse_open_file
from leasehold_broker.config.vault import VaultLogin, login_at, wrong_login
from leasehold_broker.domain.scope import PROVIDER_RULE, is_provider

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
PATH = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*", re.ASCII)
RESERVED_FIELDS = frozenset({"pending", "previous", "rotation", "disabled"})
"""Of an entry in Vault: a rotation writes them."""
STORES_MAX = 64
KEYS_MAX = 1_000
P = TypeVar("P", bound=Part)


class Transit(Part, frozen=True):
    """Vault's Transit engine as master key of the local store."""

    address: str
    key: str
    login: VaultLogin
    mount: str = "transit"
    namespace: str = ""
    ca_file: str = ""


class StoredKey(Part, frozen=True):
    """One key in a store elsewhere: its name here, whose it is, and where below the store's path."""

    name: str
    provider: str
    secret: str
    field: str = ""


class VaultStore(Part, frozen=True, tag_field="kind", tag="vault"):
    """KV version 2 of Vault or OpenBao."""

    environment: str
    path: str
    keys: tuple[StoredKey, ...]
    address: str
    login: VaultLogin
    mount: str = "secret"
    namespace: str = ""
    ca_file: str = ""
    refresh_seconds: float = 30.0
    max_stale_seconds: float = 900.0

    @property
    def place(self) -> tuple[str, ...]:
        """Where its paths begin."""
        return ("vault", _plain(self.address), self.namespace.strip("/"), self.mount.strip("/"))


class AwsStore(Part, frozen=True, tag_field="kind", tag="aws"):
    """AWS Secrets Manager."""

    environment: str
    path: str
    keys: tuple[StoredKey, ...]
    region: str
    role_arn: str = ""
    token_file: str = ""
    endpoint: str = ""
    sts_endpoint: str = ""
    refresh_seconds: float = 30.0
    max_stale_seconds: float = 900.0

    @property
    def place(self) -> tuple[str, ...]:
        """Where its paths begin; the account follows from the role, which may be the same for two tables."""
        return ("aws", self.region, _plain(self.endpoint))


class GcpStore(Part, frozen=True, tag_field="kind", tag="gcp"):
    """Google Secret Manager."""

    environment: str
    path: str
    keys: tuple[StoredKey, ...]
    project: str
    token_file: str = ""
    audience: str = ""
    service_account: str = ""
    endpoint: str = ""
    sts_endpoint: str = ""
    refresh_seconds: float = 30.0
    max_stale_seconds: float = 900.0

    @property
    def place(self) -> tuple[str, ...]:
        """Where its paths begin."""
        return ("gcp", self.project, _plain(self.endpoint))


class AzureStore(Part, frozen=True, tag_field="kind", tag="azure"):
    """Azure Key Vault."""

    environment: str
    path: str
    keys: tuple[StoredKey, ...]
    vault_url: str
    tenant_id: str = ""
    client_id: str = ""
    token_file: str = ""
    authority: str = ""
    ca_file: str = ""
    refresh_seconds: float = 30.0
    max_stale_seconds: float = 900.0

    @property
    def place(self) -> tuple[str, ...]:
        """Where its paths begin."""
        return ("azure", _plain(self.vault_url))


Store = VaultStore | AwsStore | GcpStore | AzureStore


class Keys(Part, frozen=True):
    """The table."""

    file: str = ""
    master_key_file: str = ""
    transit: Transit | None = None
    stores: tuple[Store, ...] = ()
    federated: tuple[Federated, ...] = ()
    engines: tuple[Engines, ...] = ()


@dataclass(frozen=True, slots=True)
class KeysAt:
    """Where provider keys come from, checked, with absolute paths.

    Args:
        path: the encrypted local store, or None.
        master_key_file: its master key; None with `transit` None: a passphrase is asked for on standard input.
        transit: Vault's Transit engine as its master key.
        stores: those elsewhere.
        federated: keys without a secret.
        engines: keys that secret engines make.
    """

    path: Path | None
    master_key_file: Path | None
    transit: Transit | None = None
    stores: tuple[Store, ...] = ()
    federated: tuple[Federated, ...] = ()
    engines: tuple[Engines, ...] = ()


def keys_at(keys: Keys, path: Path) -> KeysAt:
    """The settings of the table.

    Args:
        keys: as read.
        path: of the configuration file.

    Raises:
        ConfigError: says what is wrong and what to change.
    """
    base = path.parent
    wrong = _wrong(keys)
    if wrong:
        message = f"{path}: [keys] " + "; ".join(wrong)
        raise ConfigError(message)
    local = absolute(keys.file, base) if keys.file else None
    if local is not None:
        refuse_open_file(local, SECRET, "key store")
    master = absolute(keys.master_key_file, base) if keys.master_key_file else None
    if master is not None:
        refuse_open_file(master, SECRET, "master key")
    transit = None if keys.transit is None else _rooted(keys.transit, base, "ca_file", login=keys.transit.login)
    return KeysAt(
        local,
        master,
        transit,
        tuple(_store_at(store, base) for store in keys.stores),
        tuple(federated_at(key, base) for key in keys.federated),
        tuple(engines_at(engines, base) for engines in keys.engines),
    )


def transit_of(path: Path) -> Transit:
    """The [keys.transit] table alone of a sidecar's configuration, whose store may not exist yet.

    Raises:
        ConfigError: no such table, or it is wrong.
    """
    refuse_open_file(path, PRIVATE, "configuration")
    try:
        table = tomllib.loads(path.read_text())["keys"]["transit"]
        transit = msgspec.convert(table, Transit, strict=True)
    except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError):
        message = f"{path}: has no usable [keys.transit]; deploy/config/sidecar.toml explains it"
        raise ConfigError(message) from None
    wrong = [*wrong_address(transit.address), *wrong_login(transit.login)]
    if wrong:
        message = f"{path}: [keys.transit] " + "; ".join(wrong)
        raise ConfigError(message)
    return _rooted(transit, path.absolute().parent, "ca_file", login=transit.login)


def _store_at(store: Store, base: Path) -> Store:
    match store:
        case VaultStore():
            return _rooted(store, base, "ca_file", login=store.login)
        case AwsStore() | GcpStore():
            return _rooted(store, base, "token_file")
        case AzureStore():
            return _rooted(store, base, "token_file", "ca_file")


def _rooted(part: P, base: Path, *files: str, login: VaultLogin | None = None) -> P:
    """The table with absolute paths."""
    changed: dict[str, object] = {
        name: str(absolute(getattr(part, name), base)) for name in files if getattr(part, name)
    }
    if login is not None:
        changed["login"] = login_at(login, base)
    return msgspec.structs.replace(part, **changed)


def _wrong(keys: Keys) -> list[str]:
    wrong: list[str] = []
    if not (keys.file or keys.stores or keys.federated or keys.engines):
        wrong.append("names no key: give file (the encrypted local store), [[keys.stores]], .federated or .engines")
    if not keys.file and (keys.master_key_file or keys.transit is not None):
        wrong.append("master_key_file and [keys.transit] belong to file, the encrypted local store")
    if keys.master_key_file and keys.transit is not None:
        wrong.append("has two master keys: give master_key_file or [keys.transit]")
    if keys.transit is not None:
        access = [*wrong_address(keys.transit.address), *wrong_login(keys.transit.login)]
        wrong += [f"transit: {what}" for what in access]
    places = (*keys.stores, *keys.engines)
    names = [key.name for place in places for key in place.keys] + [key.name for key in keys.federated]
    if len(places) > STORES_MAX or len(names) > KEYS_MAX:
        wrong.append(f"has more than {STORES_MAX} stores or {KEYS_MAX} keys in them")
    for number, store in enumerate(keys.stores):
        wrong += _wrong_store(f"stores[{number}]", store)
    for key in keys.federated:
        what = [*_wrong_names(key.name, key.provider, key.environment), *wrong_federated(key)]
        wrong += [f"federated key {key.name!r}: {each}" for each in what]
    for number, engines in enumerate(keys.engines):
        named = (_wrong_names(key.name, key.provider, engines.environment) for key in engines.keys)
        what = [*wrong_engines(engines), *(each for found in named for each in found)]
        wrong += [f"engines[{number}] {each}" for each in what]
    wrong += shared_engines(keys.engines)
    wrong += [f"names {name!r} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    return wrong + _shared_places(keys.stores)


def _wrong_store(where: str, store: Store) -> list[str]:
    wrong: list[str] = []
    if not PATH.fullmatch(store.path):
        wrong.append(f"{where} path {store.path!r}: give the part of the store that belongs to this environment alone")
    if not 5 <= store.refresh_seconds <= 3600:
        wrong.append(f"{where} refresh_seconds must be 5 to 3600, was {store.refresh_seconds:g}")
    if not store.refresh_seconds <= store.max_stale_seconds <= 24 * 3600:
        wrong.append(f"{where} max_stale_seconds must be refresh_seconds to 86400, was {store.max_stale_seconds:g}")
    for key in store.keys:
        names = _wrong_names(key.name, key.provider, store.environment)
        wrong += [f"{where} key {key.name!r}: {what}" for what in names]
        if isinstance(store, VaultStore) and key.field in RESERVED_FIELDS:
            wrong.append(f"{where} key {key.name!r}: field {key.field!r} is where a rotation keeps what it needs")
        if not PATH.fullmatch(key.secret):
            wrong.append(f"{where} key {key.name!r}: secret {key.secret!r} is no plain path below the store's")
    return wrong + [f"{where} {what}" for what in _wrong_access(store)]


def _wrong_names(name: str, provider: str, environment: str) -> list[str]:
    wrong = []
    if not NAME.fullmatch(name):
        wrong.append("a name is 1 to 64 of a-z, 0-9, '.', '_', '-'")
    if not NAME.fullmatch(environment):
        wrong.append(f"environment {environment!r} is not 1 to 64 of a-z, 0-9, '.', '_', '-'")
    if not is_provider(provider):
        wrong.append(f"provider {provider!r} is not known; {PROVIDER_RULE}")
    return wrong


def _wrong_access(store: Store) -> list[str]:
    """What is wrong with where the store is and who we are there."""
    match store:
        case VaultStore():
            return [*wrong_address(store.address), *wrong_login(store.login)]
        case AwsStore():
            urls = [*filter(None, (store.endpoint, store.sts_endpoint))]
            together = {"role_arn": store.role_arn, "token_file": store.token_file}
        case GcpStore():
            urls = [*filter(None, (store.endpoint, store.sts_endpoint))]
            together = {"token_file": store.token_file, "audience": store.audience}
        case AzureStore():
            urls = [store.vault_url, *filter(None, (store.authority,))]
            together = {"tenant_id": store.tenant_id, "client_id": store.client_id, "token_file": store.token_file}
    wrong = [what for url in urls for what in wrong_address(url)]
    if len({bool(value) for value in together.values()}) > 1:
        wrong.append(f"{', '.join(together)} belong together: give all or none")
    return wrong


def _plain(address: str) -> str:
    """As it is compared: two ways to write one place are one place."""
    return address.rstrip("/").lower()


def _shared_places(stores: tuple[Store, ...]) -> list[str]:
    """Pairs of environments of which one's path lies within the other's."""
    wrong = []
    for number, one in enumerate(stores):
        for other in stores[number + 1 :]:
            if one.environment == other.environment or one.place != other.place:
                continue
            # What stands between a path and the secret below it, there: "prod" has "prod-eu-openai" as "prod-eu" has.
            end = "-" if isinstance(one, GcpStore | AzureStore) else "/"
            short, long = sorted((f"{one.path}{end}", f"{other.path}{end}"), key=len)
            # Azure does not tell capital letters from small ones.
            if long.lower().startswith(short.lower()):
                wrong.append(
                    f"environments {one.environment!r} and {other.environment!r} share a place ({one.path}, "
                    f"{other.path}): each needs a path of its own"
                )
    return wrong
