"""Opens the key store that the configuration names."""

from collections.abc import Callable

import structlog

from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKey, PassphraseMasterKey
from leasehold_broker.adapters.process_hardening import assert_hardened
from leasehold_broker.config.sidecar import KeysAt
from leasehold_broker.ports.clock import Clock

log = structlog.get_logger("leasehold.keys")


def open_keys(at: KeysAt, passphrase: Callable[[], bytes], clock: Clock) -> LocalKeys:
    """The key store, unlocked; only in a process that is hardened already.

    Args:
        at: where it is.
        passphrase: asked when no master key file is configured.
        clock: for noticing changes of the file.

    Raises:
        KeyStoreError, MasterKeyError: says what is wrong and what to do.
        RuntimeError: neighbours could read this process's memory.
    """
    assert_hardened()
    return LocalKeys(str(at.path), _master_key(at, passphrase), clock, _failed)


def _master_key(at: KeysAt, passphrase: Callable[[], bytes]) -> MasterKey:
    if at.master_key_file is not None:
        return FileMasterKey(str(at.master_key_file))
    return PassphraseMasterKey(passphrase())


def _failed(why: str) -> None:
    log.error("the key store cannot be used", why=why)
