"""Envoy in front of a sidecar's doors. Owns the shape of [envoy]; deploy/envoy has Envoy's own side."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.http_url import origin_wrong
from leasehold_broker.domain.spiffe import spiffe_id_wrong
from leasehold_broker.domain.trusted_proxy import TrustedProxy

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Envoy(Part, frozen=True):
    """The table."""

    uid: int
    url: str
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvoyAt:
    """Envoy, checked.

    Args:
        proxy: whose word on the caller is taken.
        url: where agents reach the egress through it, without a path.
        hosts: what they then put into the Host header.
    """

    proxy: TrustedProxy
    url: str
    hosts: frozenset[str]


def envoy_at(envoy: Envoy, path: Path, *, sockets: bool, tls: bool) -> EnvoyAt:
    """Read the table.

    Args:
        envoy: the table.
        path: of the configuration file.
        sockets: both doors listen on a Unix socket.
        tls: a door asks callers for certificates itself.

    Raises:
        ConfigError: says which setting is wrong and what to change.
    """
    at = _place(envoy.url)
    wrong = [f"[envoy] caller {one!r}: {why}" for one in envoy.callers if (why := spiffe_id_wrong(one)) is not None]
    if not 0 <= envoy.uid < 2**32 - 1:
        wrong.append(f"[envoy] uid {envoy.uid} is no user; give the one that Envoy runs as, which no agent may be")
    if not sockets:
        wrong.append("[envoy] needs a socket in [grpc] and in [egress]: only there the kernel says that it is Envoy")
    if tls and envoy.callers:
        wrong.append(
            "[envoy] callers and a [grpc.tls] or [egress.tls]: leases of certificates that Envoy has seen do not work "
            "where we see them; keep one of the two"
        )
    if at is None:
        wrong.append(f'[envoy] url {envoy.url!r} must be like "https://leasehold.internal:8443", without a path')
    elif at.scheme == "http" and at.hostname not in _LOOPBACK:
        wrong.append(
            f"[envoy] url {envoy.url!r} would carry lease tokens in the clear; use https, or a loopback address"
        )
    if wrong or at is None:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    netloc = at.netloc.lower()
    bare = {netloc.removesuffix(f":{_PORTS[at.scheme]}")}
    return EnvoyAt(TrustedProxy(envoy.uid, frozenset(envoy.callers)), envoy.url, frozenset({netloc, *bare}))


def _place(url: str) -> SplitResult | None:
    """The parts of an address that is a scheme, a host, and a port or none; None for any other."""
    return None if origin_wrong(url) is not None else urlsplit(url)
