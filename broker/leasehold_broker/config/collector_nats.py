"""The collector's `[store.nats]`: NATS JetStream before the log. Owns the TOML shape and what is refused."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import SECRET, absolute, refuse_open_file

PREFIX = re.compile(r"[a-z][a-z0-9-]{0,47}")
REPLICAS = (1, 3, 5)
STREAM_GIB_MAX = 16 * 1024
SERVERS_MAX = 16
_HERE = ("127.0.0.1", "::1", "localhost")


class Nats(Part, frozen=True):
    """The `[store.nats]` table."""

    servers: list[str]
    prefix: str = "leasehold"
    creds_file: str = ""
    nkey_file: str = ""
    ca_file: str = ""
    stream_gib_max: int = 16
    stream_replicas: int = 1


@dataclass(frozen=True, slots=True)
class NatsBus:
    """A NATS that replicas share.

    Args:
        servers: addresses.
        prefix: of all names there.
        creds_file, nkey_file, ca_file: None for none.
        stream_bytes_max: of what waits for the log.
        stream_replicas: servers that keep each message.
    """

    servers: tuple[str, ...]
    prefix: str
    creds_file: Path | None
    nkey_file: Path | None
    ca_file: Path | None
    stream_bytes_max: int
    stream_replicas: int


def nats_bus(table: Nats, path: Path) -> tuple[NatsBus, list[str]]:
    """The settings, and what is wrong with them.

    Raises:
        ConfigError: a file that holds a secret is open to others.
    """
    wrong: list[str] = []
    if not 1 <= len(table.servers) <= SERVERS_MAX:
        wrong.append(f"[store.nats] servers must be 1 to {SERVERS_MAX} addresses")
    for server in table.servers:
        wrong += _wrong_server(server)
    if not PREFIX.fullmatch(table.prefix):
        wrong.append("[store.nats] prefix must be lower-case letters, digits and -, a letter first, at most 48 of them")
    if table.creds_file and table.nkey_file:
        wrong.append("[store.nats] creds_file and nkey_file are two ways to say who this is; take one out")
    if not 1 <= table.stream_gib_max <= STREAM_GIB_MAX:
        wrong.append(f"[store.nats] stream_gib_max must be 1 to {STREAM_GIB_MAX}")
    if table.stream_replicas not in REPLICAS:
        wrong.append("[store.nats] stream_replicas must be 1, 3 or 5")
    creds, nkey, ca = (
        absolute(name, path.parent) if name else None for name in (table.creds_file, table.nkey_file, table.ca_file)
    )
    for file, what in ((creds, "credentials"), (nkey, "seed")):
        if file is not None:
            refuse_open_file(file, SECRET, f"[store.nats] {what}")
    bus = NatsBus(
        tuple(table.servers), table.prefix, creds, nkey, ca, table.stream_gib_max << 30, table.stream_replicas
    )
    return bus, wrong


def _wrong_server(server: str) -> list[str]:
    try:
        parts = urlsplit(server)
        host, secret = parts.hostname or "", parts.username or parts.password
    except ValueError:
        return [f"[store.nats] {server!r} is not an address"]
    if parts.scheme not in {"nats", "tls"} or not host:
        return [f'[store.nats] {server!r} must be like "tls://nats.example:4222"']
    if secret:
        return ["[store.nats] servers hold a user or a password; put credentials into creds_file or nkey_file"]
    if parts.scheme == "nats" and host not in _HERE:
        return [f"[store.nats] {server!r} leaves this machine: it needs tls://"]
    return []
