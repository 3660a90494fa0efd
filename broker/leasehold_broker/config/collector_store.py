"""The collector's `[store]`: where its log is kept. Owns the TOML shape and what is refused."""

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from leasehold_broker.config.collector_nats import Nats, NatsBus, nats_bus
from leasehold_broker.config.parts import STREAM_NAME, STREAM_NAME_RULE, Part
from leasehold_broker.config.read import SECRET, ConfigError, absolute, refuse_open_file

CONNECTIONS_MAX = 100
DISK_RESERVE_MIB = 32
DISK_RESERVE_MIB_MIN = 8
DISK_RESERVE_MIB_MAX = 65536
SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_HERE = ("127.0.0.1", "::1", "localhost")


class Engine(StrEnum):
    """What keeps the log."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Store(Part, frozen=True):
    """The `[store]` table."""

    engine: Engine = Engine.SQLITE
    url: str = ""
    schema: str = "leasehold"
    password_file: str = ""
    connections_max: int = 8
    replica_from_host: bool = False
    disk_reserve_mib: int = DISK_RESERVE_MIB
    nats: Nats | None = None


@dataclass(frozen=True, slots=True)
class PostgresStore:
    """A log in PostgreSQL, shared by replicas.

    Args:
        url: without a password.
        schema: everything is in this schema.
        password_file: read for each connection; None for none.
        connections_max: for questions to the log.
        nats: before it; None: records go straight to it.
    """

    url: str
    schema: str
    password_file: Path | None
    connections_max: int
    nats: NatsBus | None = None


def postgres_store(store: Store, path: Path) -> PostgresStore | None:
    """The store, checked; None for the embedded one.

    Raises:
        ConfigError: says which setting is wrong and what to change.
    """
    if store.engine is Engine.SQLITE:
        if store != Store(disk_reserve_mib=store.disk_reserve_mib):
            message = f'{path}: [store] has settings of engine = "postgres"; set the engine, or remove them'
            raise ConfigError(message)
        return None
    wrong = _wrong_url(store.url)
    if store.disk_reserve_mib != DISK_RESERVE_MIB:
        wrong.append(
            '[store] disk_reserve_mib belongs to engine = "sqlite": the disk of PostgreSQL is not seen from here'
        )
    if not 1 <= store.connections_max <= CONNECTIONS_MAX:
        wrong.append(f"[store] connections_max must be 1 to {CONNECTIONS_MAX}")
    if not SCHEMA_NAME.fullmatch(store.schema):
        wrong.append("[store] schema must be lower-case letters, digits and _, a letter first, at most 48 of them")
    bus = None
    if store.nats is not None:
        bus, wrong_bus = nats_bus(store.nats, path)
        wrong += wrong_bus
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    password_file = absolute(store.password_file, path.parent) if store.password_file else None
    if password_file is not None:
        refuse_open_file(password_file, SECRET, "[store] password")
    return PostgresStore(store.url, store.schema, password_file, store.connections_max, bus)


def disk_reserve_bytes(store: Store, path: Path) -> int:
    """What is kept of the embedded store's disk.

    Raises:
        ConfigError: out of bounds.
    """
    mib = store.disk_reserve_mib
    if mib and not DISK_RESERVE_MIB_MIN <= mib <= DISK_RESERVE_MIB_MAX:
        message = f"{path}: [store] disk_reserve_mib must be 0, or {DISK_RESERVE_MIB_MIN} to {DISK_RESERVE_MIB_MAX}"
        raise ConfigError(message)
    return mib << 20


def replica_name(name: str, store: Store, path: Path) -> str:
    """Name of this replica's own stream.

    Raises:
        ConfigError: the host's name cannot be a part of it.
    """
    if not store.replica_from_host:
        return name
    whole = f"{name}.{socket.gethostname().lower()}"
    if not STREAM_NAME.fullmatch(whole):
        message = f"{path}: [store] replica_from_host makes the name {whole!r}, which {STREAM_NAME_RULE}"
        raise ConfigError(message)
    return whole


def _wrong_url(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        asked = parse_qs(parts.query)
        host = parts.hostname or ""
    except ValueError:
        return ["[store] url is not an address"]
    wrong = []
    if parts.scheme not in {"postgresql", "postgres"} or not (host or "host" in asked):
        wrong.append('[store] url must be like "postgresql://leasehold@db.example:5432/leasehold?sslmode=verify-full"')
    if parts.password or "password" in asked:
        wrong.append("[store] url holds a password; put it into a file and name that as password_file")
    local = host in {"", *_HERE} and all(one.startswith("/") for one in asked.get("host", []))
    if not local and asked.get("sslmode") != ["verify-full"]:
        wrong.append("[store] url leaves this machine: it needs sslmode=verify-full, and sslrootcert where needed")
    return wrong
