"""What plugs into a Vault: its keys, and the master key under its Transit engine.

Apart, because the client that it needs takes a tenth of a second and eight megabytes: only who has a Vault loads it.
"""

from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.adapters.vault_transit import TransitMasterKey
from leasehold_broker.config.keys import Transit, VaultLogin, VaultStore
from leasehold_broker.ports.clock import Clock


def vault_keys(store: VaultStore, clock: Clock) -> VaultKeys:
    """The keys of a store of this kind."""
    at = VaultAt(store.address, _auth(store.login), store.namespace, store.ca_file)
    keys = {key.name: VaultKeyAt(f"{store.path}/{key.secret}", key.field or "value") for key in store.keys}
    return VaultKeys(at, store.mount, keys, clock)


def transit_master_key(transit: Transit, clock: Clock) -> TransitMasterKey:
    """The master key that Transit unwraps.

    Raises:
        MasterKeyError: says what is wrong and what to do.
    """
    server = VaultAt(transit.address, _auth(transit.login), transit.namespace, transit.ca_file)
    return TransitMasterKey(server, transit.mount, transit.key, clock)


def _auth(login: VaultLogin) -> VaultAuth:
    return VaultAuth(
        VaultMethod(login.method.value),
        login.mount,
        login.role,
        login.token_file,
        login.role_id_file,
        login.secret_id_file,
    )
