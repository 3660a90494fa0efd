"""How the collector is reached. Owns channels and call metadata: everything is read afresh at each connect."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from leasehold_broker.domain.key_use import KeyUse

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
AUTHORITY_SHARE = 1 / 6
"""Of the authority: after silence of two thirds of it there is time for two more attempts."""
PEM_BEGIN = b"-----BEGIN "
_CHANCE = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files, read at each connect, so that rotation needs no restart.

    Args:
        roots: certificates that sign the collector's.
        certificate, key: of this sidecar, for mutual TLS; both or neither.
        server_name: the name in the collector's certificate, where it is not the target's host.
    """

    roots: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a wait is drawn from [0, min(cap, first * 2^attempt)).

    A fleet whose collector was away comes back over a while, and within a part of the time that it may go on without.

    Args:
        first_seconds: ceiling of the first wait.
        cap_seconds: ceiling of every wait; less where `AUTHORITY_SHARE` of the authority is less, but no less than the
            first: whoever grants authority for no time is not asked all the time.
        refused_cap_seconds: the same, after an answer that only an operator can change (fenced, fork, superseded).
        chance: draws from [0, 1).
    """

    first_seconds: float = 0.5
    cap_seconds: float = 10.0
    refused_cap_seconds: float = 60.0
    chance: Callable[[], float] = field(default=_CHANCE.random)

    def seconds(self, attempt: int, *, refused: bool, authority: float = 0.0) -> float:
        """How long to wait before attempt `attempt` (from 0).

        Args:
            attempt: how many have failed since one was healthy.
            refused: with a reason that only an operator can change.
            authority: seconds for which an answer is good; 0: not known yet.
        """
        share = max(self.first_seconds, authority * AUTHORITY_SHARE)
        cap = min(self.cap_seconds, share) if authority else self.cap_seconds
        cap = self.refused_cap_seconds if refused else cap
        return min(cap, self.first_seconds * 2.0 ** min(attempt, 30)) * self.chance()


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Where and as whom.

    Args:
        target: "unix:/run/leasehold/collector.sock" or "collector.internal:7443".
        sidecar: name of this sidecar: also its stream's.
        environment, version: shown to operators.
        token: reads this sidecar's workload JWT afresh; may block (it runs in a thread), may raise OSError. None: its
            certificate says who it is.
        tls: None only for a Unix socket or loopback.
        answer_seconds_max: a batch or an opening that is not answered in this time breaks the connection.
        backoff: between attempts.
        key_uses: called on the loop at most once a second: which versions of stored keys are used here.
    """

    target: str
    sidecar: str
    environment: str
    version: str
    token: Callable[[], str] | None
    tls: TlsFiles | None = None
    answer_seconds_max: float = 20.0
    backoff: Backoff = field(default_factory=Backoff)
    key_uses: Callable[[], tuple[KeyUse, ...]] = tuple

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries; the token is read now.

        Raises:
            OSError: the token cannot be read.
        """
        if self.token is None:
            return (("leasehold", "1"),)
        token = await asyncio.to_thread(self.token)
        return (("leasehold", "1"), ("authorization", f"Bearer {token.strip()}"))

    async def channel(self) -> grpc.aio.Channel:
        """A new channel that shares no connection with an earlier one: a half-open one must not be found again.

        Raises:
            OSError: a certificate file cannot be read, or is no PEM.
        """
        options: list[tuple[str, str | int]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            # Also how long an attempt to connect may take (else 20 s): a closed channel keeps its socket until then.
            ("grpc.min_reconnect_backoff_ms", max(100, int(self.answer_seconds_max * 1000))),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
        ]
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        if self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        credentials = await asyncio.to_thread(_credentials, self.tls)
        return grpc.aio.secure_channel(self.target, credentials, options=options)


class NoPemError(OSError):
    """A file that should be PEM is not, or not yet."""


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.roots),
        private_key=None if tls.key is None else _pem(tls.key),
        certificate_chain=None if tls.certificate is None else _pem(tls.certificate),
    )


def _pem(path: Path) -> bytes:
    """What is in the file. A file that is just being written is empty: gRPC ends the whole process over such a key.

    Raises:
        OSError: it cannot be read, or is no PEM.
    """
    found = path.read_bytes()
    if PEM_BEGIN not in found or b"\0" in found:
        message = f"{path} holds no PEM: write a new file beside it, and move it to its place"
        raise NoPemError(message)
    return found
