"""How to reach a broker. Owns targets, TLS files and channel options; refuses plaintext TCP.

The workload token would cross plaintext TCP readable, so TCP is always TLS; a Unix socket is never.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from leasehold.errors import InvalidRequest

SOCKET_VARIABLE = "LEASEHOLD_SOCKET"
ADDRESS_VARIABLE = "LEASEHOLD_ADDRESS"
DEFAULT_TARGET = "unix:///run/leasehold/agent.sock"
TIMEOUT_SECONDS = 10.0
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.enable_retries", 0),  # ours alone: two layers would multiply
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel would be given the old, half-open connection
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files for TLS; read when a channel is made, so a new channel sees rotated files.

    Args:
        ca_file: roots that the broker's certificate must chain to; None: the system's.
        certificate_file, key_file: this client's own, for mTLS; both or none.
        server_name: name in the broker's certificate where it is not the host of the target.
    """

    ca_file: str | os.PathLike[str] | None = None
    certificate_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For one new channel.

        Raises:
            InvalidRequest: a file cannot be read or is no PEM, or only one of certificate and key is given.
        """
        if (self.certificate_file is None) != (self.key_file is None):
            raise InvalidRequest.of_field("tls", "has only one of certificate_file and key_file; give both or none")
        return grpc.ssl_channel_credentials(*map(_read, (self.ca_file, self.key_file, self.certificate_file)))


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        found = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest.of_field("tls", f"file {os.fspath(path)} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in found or b"\0" in found:
        # As one that is just being written: gRPC would end the whole process over an empty key.
        raise InvalidRequest.of_field(
            "tls", f"file {os.fspath(path)} holds no PEM; write a new file beside it and move it to its place"
        )
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """How to reach one broker.

    Args:
        target: gRPC target.
        tls: None exactly for Unix sockets.
        timeout_seconds: deadline of a call with all its attempts.
    """

    target: str
    tls: TlsFiles | None
    timeout_seconds: float

    @classmethod
    def of(
        cls, target: str | None, tls: TlsFiles | None, timeout_seconds: float, environ: Mapping[str, str] = os.environ
    ) -> "Settings":
        """Settings for a target as people give it: "unix:///path", "/path", "host:port"; None: the environment's.

        Raises:
            InvalidRequest: a target that is neither, TLS files for a Unix socket, or a timeout that is not positive.
        """
        chosen = target or environ.get(SOCKET_VARIABLE) or environ.get(ADDRESS_VARIABLE) or DEFAULT_TARGET
        if chosen.startswith("/"):
            chosen = f"unix://{chosen}"
        if not timeout_seconds > 0:
            raise InvalidRequest.of_field("timeout_seconds", f"is {timeout_seconds}; give more than 0")
        if chosen.startswith("unix:"):
            if tls is not None:
                raise InvalidRequest.of_field("tls", f"is given for the Unix socket {chosen}; leave it out")
            return cls(chosen, None, timeout_seconds)
        host, colon, port = chosen.removeprefix("dns:///").rpartition(":")
        if not (host and colon and port.isdigit()) or "/" in host:
            raise InvalidRequest.of_field("target", f'is {chosen!r}; give "unix:///path", "/path" or "host:port"')
        return cls(chosen, tls or TlsFiles(), timeout_seconds)

    def options(self) -> list[tuple[str, int | str]]:
        """For grpcio."""
        if self.tls is None:
            return list(_OPTIONS)
        options = [option for option in _OPTIONS if option[0] != "grpc.default_authority"]
        if self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options
