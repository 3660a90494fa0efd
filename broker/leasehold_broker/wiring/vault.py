"""What plugs into a Vault: its keys, its secret engines, and the master key under its Transit engine.

Apart, because the client that it needs takes a tenth of a second and eight megabytes: only who has a Vault loads it.
"""

from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.minters.vault import VaultStaticRole
from leasehold_broker.adapters.vault_engines import EngineKeyAt, VaultEngines
from leasehold_broker.adapters.vault_root import VaultRoot
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.adapters.vault_transit import TransitMasterKey
from leasehold_broker.config.engines import EngineKey, Engines
from leasehold_broker.config.keys import Transit, VaultStore
from leasehold_broker.config.minters import VaultRoleMinter, VaultRootMinter
from leasehold_broker.config.vault import VaultLogin
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.secret_engine import Form
from leasehold_broker.providers.engine_answers import bedrock_key, one_member, whole


def vault_keys(store: VaultStore, clock: Clock) -> VaultKeys:
    """The keys of a store of this kind."""
    at = VaultAt(store.address, _auth(store.login), store.namespace, store.ca_file)
    keys = {key.name: VaultKeyAt(f"{store.path}/{key.secret}", key.field or "value") for key in store.keys}
    return VaultKeys(at, store.mount, keys, clock)


def vault_engines(engines: Engines, clock: Clock) -> VaultEngines:
    """The secret engines of a table."""
    at = VaultAt(engines.address, _auth(engines.login), engines.namespace, engines.ca_file)
    keys = {key.name: EngineKeyAt(key.path, _form(key)) for key in engines.keys}
    return VaultEngines(at, engines.token_role, keys, clock)


def _form(key: EngineKey) -> Form:
    if key.bedrock_region:
        return bedrock_key(key.bedrock_region)
    return one_member(key.field) if key.field else whole


def transit_master_key(transit: Transit, clock: Clock) -> TransitMasterKey:
    """The master key that Transit unwraps.

    Raises:
        MasterKeyError: says what is wrong and what to do.
    """
    server = VaultAt(transit.address, _auth(transit.login), transit.namespace, transit.ca_file)
    return TransitMasterKey(server, transit.mount, transit.key, clock)


def vault_static_role(table: VaultRoleMinter, clock: Clock) -> VaultStaticRole:
    """What makes the password of a static role anew."""
    at = VaultAt(table.address, _auth(table.login), table.namespace, table.ca_file)
    return VaultStaticRole(at, table.mount, table.role, clock)


def vault_root(table: VaultRootMinter, engines: Engines, key: str, clock: Clock) -> VaultRoot:
    """What rotates the credential that this engine stands on, and tries it by this key."""
    at = VaultAt(engines.address, _auth(table.login), engines.namespace, engines.ca_file)
    return VaultRoot(at, table.path, vault_engines(engines, clock), key, clock)


def _auth(login: VaultLogin) -> VaultAuth:
    return VaultAuth(
        VaultMethod(login.method.value),
        login.mount,
        login.role,
        login.token_file,
        login.role_id_file,
        login.secret_id_file,
    )
