"""The sidecar's configuration file. Owns shape, defaults and what is refused; deploy/config explains each line."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from leasehold_broker.config.doors import Door, Listen, loopback_address
from leasehold_broker.config.envoy import Envoy, EnvoyAt, envoy_at
from leasehold_broker.config.keys import Keys, KeysAt, keys_at
from leasehold_broker.config.parts import (
    STREAM_NAME,
    STREAM_NAME_RULE,
    Honeytokens,
    Issuer,
    Logging,
    Metrics,
    Part,
    check_logging,
    issuer_rules,
)
from leasehold_broker.config.providers import Provider, ProviderAt, providers_at
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError, absolute, read_config, refuse_open_file
from leasehold_broker.config.rotations import RotationAt, RotationTable, rotations_at
from leasehold_broker.domain.issuer import IssuerRule, Proof


class _Sidecar(Part, frozen=True):
    name: str
    state_dir: str
    drain_seconds: float = 20.0


class _Grpc(Door, frozen=True):
    socket: str = "/run/leasehold/agent.sock"


class _Egress(Door, frozen=True):
    address: str = "127.0.0.1:8788"
    hosts: tuple[str, ...] = ()
    body_bytes_max: int = 8 * 1024 * 1024


class _Policy(Part, frozen=True):
    file: str
    cedar_dir: str = ""


class _Prices(Part, frozen=True):
    table_file: str = ""
    override_file: str = ""


class _Spool(Part, frozen=True):
    bytes_max: int = 256 * 1024 * 1024


class _Collector(Part, frozen=True):
    target: str
    token_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    private_key_file: str = ""


class _Alone(Part, frozen=True):
    admin_socket: str
    operator_uids: tuple[int, ...]


class _File(Part, frozen=True):
    sidecar: _Sidecar
    policy: _Policy
    keys: Keys
    issuers: tuple[Issuer, ...]
    grpc: _Grpc = _Grpc()
    egress: _Egress = _Egress()
    envoy: Envoy | None = None
    providers: dict[str, Provider] = msgspec.field(default_factory=dict)
    prices: _Prices = _Prices()
    honeytokens: Honeytokens = Honeytokens()
    spool: _Spool = _Spool()
    collector: _Collector | None = None
    alone: _Alone | None = None
    rotations: tuple[RotationTable, ...] = ()
    metrics: Metrics = Metrics()
    logging: Logging = Logging()


@dataclass(frozen=True, slots=True)
class PolicyFilesAt:
    """The policy file and the folder of Cedar files, if any."""

    path: Path
    cedar_dir: Path | None


@dataclass(frozen=True, slots=True)
class PricesAt:
    """The price table (None: the one that comes with the broker) and the operator's prices on top, if any."""

    table: Path | None = None
    override: Path | None = None


@dataclass(frozen=True, slots=True)
class CollectorAt:
    """How the collector is reached. `target` is a gRPC address; TLS unless it is a Unix socket."""

    target: str
    token_file: Path | None
    ca_file: Path | None
    certificate_file: Path | None
    private_key_file: Path | None


@dataclass(frozen=True, slots=True)
class Alone:
    """A sidecar without a collector: local revocation by these uids on this socket."""

    admin_socket: Path
    operator_uids: frozenset[int]


@dataclass(frozen=True, slots=True)
class SidecarConfig:
    """Everything a sidecar is told, checked. Paths are absolute; exactly one of `collector` and `alone` is set."""

    path: Path
    name: str
    state_dir: Path
    drain_seconds: float
    grpc: Listen
    egress: Listen
    egress_hosts: tuple[str, ...]
    envoy: EnvoyAt | None
    body_bytes_max: int
    policy: PolicyFilesAt
    keys: KeysAt
    issuers: tuple[IssuerRule, ...]
    providers: dict[str, ProviderAt]
    prices: PricesAt
    honeytokens: Path | None
    spool_bytes_max: int
    collector: CollectorAt | None
    alone: Alone | None
    rotations: tuple[RotationAt, ...]
    metrics: tuple[str, int] | None
    log_level: str


def load_sidecar(path: Path) -> SidecarConfig:
    """Read and check a sidecar's configuration.

    Raises:
        ConfigError: says which setting is wrong and what to change.
    """
    path = path.absolute()
    file = read_config(path, _File)
    base = path.parent
    _check(file, path)
    keys = keys_at(file.keys, path)
    envoy = _envoy(file, path)
    return SidecarConfig(
        path=path,
        name=file.sidecar.name,
        state_dir=absolute(file.sidecar.state_dir, base),
        drain_seconds=file.sidecar.drain_seconds,
        grpc=file.grpc.listen("grpc", path, tls_always=True),
        egress=file.egress.listen("egress", path),
        egress_hosts=(*file.egress.hosts, *(() if envoy is None else envoy.hosts)),
        envoy=envoy,
        body_bytes_max=file.egress.body_bytes_max,
        policy=_policy(file.policy, base),
        keys=keys,
        issuers=issuer_rules(file.issuers, path),
        providers=providers_at(file.providers, path),
        prices=_prices(file.prices, base),
        honeytokens=file.honeytokens.at(base),
        spool_bytes_max=file.spool.bytes_max,
        collector=_collector(file.collector, path) if file.collector else None,
        alone=_alone(file.alone, base) if file.alone else None,
        rotations=rotations_at(file.rotations, keys, path),
        metrics=loopback_address(file.metrics.address, "[metrics] address", path) if file.metrics.address else None,
        log_level=file.logging.level,
    )


def _check(file: _File, path: Path) -> None:
    wrong: list[str] = []
    if not STREAM_NAME.fullmatch(file.sidecar.name):
        wrong.append(f"[sidecar] name {file.sidecar.name!r} {STREAM_NAME_RULE}")
    if not 0 <= file.sidecar.drain_seconds <= 600:
        wrong.append(f"[sidecar] drain_seconds must be 0 to 600, was {file.sidecar.drain_seconds}")
    if not file.issuers:
        wrong.append("no [[issuers]]: nobody could acquire a lease; add the issuer of your workload tokens")
    if (file.collector is None) == (file.alone is None):
        wrong.append(
            "exactly one of [collector] and [alone] must be there: a sidecar reports to a collector, or says "
            "explicitly that it runs alone"
        )
    if file.rotations and file.collector is not None:
        wrong.append("[[rotations]] belong to the collector's configuration: it rotates for all its sidecars")
    if not 1024 <= file.egress.body_bytes_max <= 256 * 1024 * 1024:
        wrong.append("[egress] body_bytes_max must be 1 KiB to 256 MiB")
    if file.spool.bytes_max < 64 * 1024:
        wrong.append("[spool] bytes_max must be at least 65536")
    wrong += [
        f'issuer {issuer.name!r}: proof = "mtls" needs [grpc] with [grpc.tls]: no certificate is asked for without it '
        "(or [envoy] with callers)"
        for issuer in file.issuers
        if issuer.proof is Proof.MTLS and file.grpc.tls is None and not (file.envoy and file.envoy.callers)
    ]
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    check_logging(file.logging, path)


def _envoy(file: _File, path: Path) -> EnvoyAt | None:
    if file.envoy is None:
        return None
    sockets = bool(file.grpc.socket and file.egress.socket)
    tls = file.grpc.tls is not None or file.egress.tls is not None
    return envoy_at(file.envoy, path, sockets=sockets, tls=tls)


def _policy(policy: _Policy, base: Path) -> PolicyFilesAt:
    path = absolute(policy.file, base)
    refuse_open_file(path, PUBLIC, "policy")
    return PolicyFilesAt(path, absolute(policy.cedar_dir, base) if policy.cedar_dir else None)


def _prices(prices: _Prices, base: Path) -> PricesAt:
    table = absolute(prices.table_file, base) if prices.table_file else None
    override = absolute(prices.override_file, base) if prices.override_file else None
    for path, what in ((table, "price table"), (override, "price override")):
        if path is not None:
            refuse_open_file(path, PUBLIC, what)
    return PricesAt(table, override)


def _collector(collector: _Collector, path: Path) -> CollectorAt:
    base = path.parent
    token_file = absolute(collector.token_file, base) if collector.token_file else None
    if token_file is None and not collector.certificate_file:
        message = f"{path}: [collector] needs token_file, or certificate_file and private_key_file of an X.509-SVID"
        raise ConfigError(message)
    ca_file = absolute(collector.ca_file, base) if collector.ca_file else None
    if not collector.target.startswith("unix:") and ca_file is None:
        message = f"{path}: [collector] target {collector.target!r} is not a Unix socket and needs ca_file (TLS)"
        raise ConfigError(message)
    if bool(collector.certificate_file) != bool(collector.private_key_file):
        message = f"{path}: [collector] certificate_file and private_key_file belong together"
        raise ConfigError(message)
    key_file = absolute(collector.private_key_file, base) if collector.private_key_file else None
    if key_file is not None:
        refuse_open_file(key_file, SECRET, "private key")
    return CollectorAt(
        collector.target,
        token_file,
        ca_file,
        absolute(collector.certificate_file, base) if collector.certificate_file else None,
        key_file,
    )


def _alone(alone: _Alone, base: Path) -> Alone:
    uids = frozenset(alone.operator_uids) or frozenset({os.geteuid()})
    return Alone(absolute(alone.admin_socket, base), uids)
