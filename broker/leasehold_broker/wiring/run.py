"""From a configuration file to a running process: the one list of faults that mean "refused to start"."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from leasehold_broker.adapters.checkpoint_key import open_checkpoint_key
from leasehold_broker.adapters.json_logs import set_up_logging
from leasehold_broker.adapters.keys_document import KeyStoreError
from leasehold_broker.adapters.master_keys import MasterKeyError
from leasehold_broker.adapters.policy_files import load_policy
from leasehold_broker.adapters.private_files import NotPrivateError, make_folder
from leasehold_broker.adapters.process_hardening import harden_process
from leasehold_broker.adapters.public_socket import ListenError
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.system_entropy import SystemEntropy
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.config import ConfigError, load_collector, load_sidecar
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.wiring.failure import ProcessFailedError
from leasehold_broker.wiring.laid_traps import LaidTraps
from leasehold_broker.wiring.rotations import check_rotations
from leasehold_broker.wiring.sidecar_keys import SidecarKeys
from leasehold_broker.wiring.sidecar_prices import load_prices

Serve = Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]
Passphrase = Callable[[], bytes]
log = structlog.get_logger("leasehold.start")

REFUSALS_TO_START = (
    ConfigError,
    FilesRefusedError,
    KeyStoreError,
    ListenError,
    MasterKeyError,
    NotPrivateError,
    OSError,
    Refusal,
    RuntimeError,
    ValueError,
    sqlite3.Error,
)
"""Faults of configuration, files and addresses; each carries a sentence for the operator."""


def check_sidecar(path: Path, passphrase: Passphrase) -> None:
    """Load everything a sidecar would, and start nothing.

    Raises:
        REFUSALS_TO_START
    """
    config = load_sidecar(path)
    harden_process(lock_memory=False)
    check_rotations(config.rotations)
    SidecarKeys(config.keys, passphrase, SystemClock(), SystemEntropy())
    load_policy(str(config.policy.path), "" if config.policy.cedar_dir is None else str(config.policy.cedar_dir))
    load_prices(config.prices, None)
    LaidTraps(config.honeytokens)


def check_collector(path: Path) -> None:
    """Load everything a collector would, and start nothing.

    Raises:
        REFUSALS_TO_START
    """
    config = load_collector(path)
    check_rotations(config.rotations)
    LaidTraps(config.honeytokens)


def make_checkpoint_key(path: Path) -> str:
    """Make the key that signs the log, when it is missing. Gives where it is and its public half, in words.

    Raises:
        REFUSALS_TO_START
    """
    audit = load_collector(path).audit
    make_folder(audit.key_file.parent)
    there = audit.key_file.exists()
    signer = open_checkpoint_key(audit.key_file, audit.origin)
    return f"{audit.key_file} {'was there already' if there else 'is made'}: {signer.verifier_key}"


def prepare_sidecar(path: Path, passphrase: Passphrase) -> Serve:
    """Load the configuration, harden the process and set up its logs; the coroutine function to run.

    Raises:
        REFUSALS_TO_START
    """
    from leasehold_broker.wiring.sidecar import run_sidecar  # noqa: PLC0415 - a wrong file is told before gRPC loads

    config = load_sidecar(path)
    set_up_logging(config.log_level, f"sidecar {config.name}")
    hardening = harden_process(lock_memory=True)
    log.info(
        "hardened",
        dumpable=hardening.dumpable,
        core_bytes_max=0,
        memory_locked=hardening.memory_locked,
        descriptors_max=hardening.descriptors_max,
    )
    return lambda stop, reload: run_sidecar(config, passphrase, stop, reload)


def prepare_collector(path: Path) -> Serve:
    """The same for a collector.

    Raises:
        REFUSALS_TO_START
    """
    from leasehold_broker.wiring.collector import run_collector  # noqa: PLC0415 - as above

    config = load_collector(path)
    set_up_logging(config.log_level, f"collector {config.name}")
    harden_process(lock_memory=False)
    return lambda stop, _reload: run_collector(config, stop)


__all__ = [
    "REFUSALS_TO_START",
    "ProcessFailedError",
    "check_collector",
    "check_sidecar",
    "prepare_collector",
    "prepare_sidecar",
]
