"""Where a process listens: doors, addresses, TLS. Owns their TOML shape and what may be reached from elsewhere."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError, absolute, refuse_open_file


class Tls(Part, frozen=True):
    """Certificate files (PEM); doors follow their changes.

    Args:
        certificate: chain of this process.
        private_key: readable by the owner only.
        client_ca: callers must show a certificate issued by these. "": none is asked for, the token
            alone says who calls.
    """

    certificate: str
    private_key: str
    client_ca: str = ""

    def checked(self, base: Path) -> "Tls":
        """With absolute paths.

        Raises:
            ConfigError: a file is missing or the key is open to others.
        """
        refuse_open_file(absolute(self.private_key, base), SECRET, "private key")
        for path in filter(None, (self.certificate, self.client_ca)):
            refuse_open_file(absolute(path, base), PUBLIC, "certificate")
        return Tls(
            str(absolute(self.certificate, base)),
            str(absolute(self.private_key, base)),
            str(absolute(self.client_ca, base)) if self.client_ca else "",
        )


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a door listens. At least one of socket and address.

    Args:
        socket: Unix socket in a private directory; None for none.
        socket_gid: group that may enter the directory besides the owner; None for the owner alone.
        host, port: TCP; host "" for none.
        tls: certificates; required beyond loopback.
    """

    socket: Path | None
    socket_gid: int | None
    host: str
    port: int
    tls: Tls | None


class Door(Part, frozen=True):
    """A table that says where a door listens; each door has its own defaults."""

    socket: str = ""
    socket_gid: int | None = None
    address: str = ""
    tls: Tls | None = None

    def listen(self, table: str, path: Path, *, tls_always: bool = False, certificates_always: bool = True) -> Listen:
        """Where to listen, checked.

        Args:
            table: its name, for messages.
            path: of the configuration file.
            tls_always: an address needs TLS even on loopback.
            certificates_always: with TLS, callers must show a certificate.

        Raises:
            ConfigError: nowhere to listen, reachable from elsewhere without TLS, or certificates that cannot be used.
        """
        base = path.parent
        if not self.socket and not self.address:
            message = f"{path}: [{table}] needs a socket or an address"
            raise ConfigError(message)
        host, port = host_and_port(self.address, f"[{table}] address", path) if self.address else ("", 0)
        if host and not is_loopback(host) and self.tls is None:
            instead = "a socket" if tls_always else "127.0.0.1"
            message = (
                f"{path}: [{table}] address {self.address!r} listens beyond this machine without TLS; "
                f"add [{table}.tls] or use {instead}"
            )
            raise ConfigError(message)
        if host and tls_always and self.tls is None:
            message = f"{path}: [{table}] address needs [{table}.tls]: over TCP this door speaks TLS only"
            raise ConfigError(message)
        if self.tls is not None and not host:
            message = f"{path}: [{table}.tls] is for an address, and there is none; the socket speaks no TLS"
            raise ConfigError(message)
        if self.tls is not None and certificates_always and not self.tls.client_ca:
            message = (
                f"{path}: [{table}.tls] needs client_ca: what is handed out here is bound to the caller's certificate"
            )
            raise ConfigError(message)
        return Listen(
            socket=absolute(self.socket, base) if self.socket else None,
            socket_gid=self.socket_gid,
            host=host,
            port=port,
            tls=self.tls.checked(base) if self.tls else None,
        )


def loopback_address(value: str, setting: str, path: Path) -> tuple[str, int]:
    """Host and port of "127.0.0.1:8788" or "[::1]:8788"; loopback only.

    Raises:
        ConfigError: not an address, or reachable from elsewhere.
    """
    host, port = host_and_port(value, setting, path)
    if not is_loopback(host):
        message = (
            f"{path}: {setting} {value!r} listens beyond this machine without TLS; use a loopback address "
            "such as 127.0.0.1, or configure TLS where this setting has it"
        )
        raise ConfigError(message)
    return host, port


def host_and_port(value: str, setting: str, path: Path) -> tuple[str, int]:
    """Host and port, the host a literal IP address.

    Raises:
        ConfigError: it is something else.
    """
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(bare)
        number = int(port)
    except ValueError:
        message = f"{path}: {setting} {value!r} is not ADDRESS:PORT with a literal IP address"
        raise ConfigError(message) from None
    if not 0 <= number <= 65535:
        message = f"{path}: {setting} {value!r}: the port must be 0 to 65535"
        raise ConfigError(message)
    return bare, number


def is_loopback(host: str) -> bool:
    """True for an address of this machine only."""
    return ipaddress.ip_address(host).is_loopback
