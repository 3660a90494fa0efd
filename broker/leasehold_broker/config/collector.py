"""The collector's configuration file. Owns shape, defaults and what is refused; deploy/config explains each line."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import msgspec

from leasehold_broker.config.alerts import AlertEndpointPart, AlertsAt, alerts_at
from leasehold_broker.config.anomalies import Anomalies, AnomaliesAt, anomalies_at
from leasehold_broker.config.collector_store import (
    PostgresStore,
    Store,
    disk_reserve_bytes,
    postgres_store,
    replica_name,
)
from leasehold_broker.config.console import Console, ConsoleAt, console_at, issuers_of_people
from leasehold_broker.config.doors import Door, Listen, Tls, loopback_address
from leasehold_broker.config.fleet_budgets import FleetBudgetPart, fleet_budgets_at
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
from leasehold_broker.config.pipelines import Pipeline, wrong_pipelines
from leasehold_broker.config.providers import Provider, ProviderAt, providers_at
from leasehold_broker.config.read import ConfigError, absolute, read_config
from leasehold_broker.config.rotations import RotationAt, RotationTable, rotations_at
from leasehold_broker.config.signals import Signals, SignalsAt, signals_at
from leasehold_broker.config.sinks import Sink, SinkAt, sinks_at
from leasehold_broker.domain.collector_rules import X509_ISSUER, PipelineRule, Role, RoleRule, SidecarRule
from leasehold_broker.domain.fleet_budget import FleetBudget
from leasehold_broker.domain.issuer import IssuerRule, Proof, Replay
from leasehold_broker.domain.spiffe import spiffe_id_wrong

AUTHORITY_SECONDS_MIN = 1
AUTHORITY_SECONDS_MAX = 3600
CHECKPOINT_SECONDS_MIN = 0.1
CHECKPOINT_SECONDS_MAX = 3600.0
RETENTION_DAYS_MAX = 36_500
CONNECTIONS_MAX = 5000
"""Each takes three descriptors of the 16,384 that the process asks for."""
ORIGIN = re.compile(r"[!-*,-~]{1,128}")
"""Of a log: a signed note gives "+" and space a meaning of their own."""


class _Collector(Part, frozen=True):
    name: str
    state_dir: str
    authority_seconds: int = 60


class _Audit(Part, frozen=True):
    origin: str = ""
    key_file: str = ""
    checkpoint_seconds: float = 1.0
    checkpoint_copy: str = ""
    retention_days: int = 0
    accept_gaps: bool = False


class _Grpc(Door, frozen=True):
    socket: str = "/run/leasehold-collector/collector.sock"
    connections_max: int = 2048
    connections_per_peer_max: int = 128


class _Sidecar(Part, frozen=True):
    name: str
    issuer: str = ""
    subject: str = ""
    spiffe_id: str = ""
    uids: tuple[int, ...] = ()


class _Operator(Part, frozen=True):
    role: Role
    uids: tuple[int, ...] = ()
    issuer: str = ""
    claim: str = ""
    values: tuple[str, ...] = ()


class _File(Part, frozen=True):
    collector: _Collector
    issuers: tuple[Issuer, ...]
    sidecars: tuple[_Sidecar, ...]
    operators: tuple[_Operator, ...]
    store: Store = Store()
    audit: _Audit = _Audit()
    grpc: _Grpc = _Grpc()
    keys: Keys | None = None
    providers: dict[str, Provider] = msgspec.field(default_factory=dict)
    rotations: tuple[RotationTable, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()
    sinks: tuple[Sink, ...] = ()
    alerts: tuple[AlertEndpointPart, ...] = ()
    fleet_budgets: tuple[FleetBudgetPart, ...] = ()
    anomalies: Anomalies = Anomalies()
    signals: Signals = Signals()
    honeytokens: Honeytokens = Honeytokens()
    console: Console | None = None
    metrics: Metrics = Metrics()
    logging: Logging = Logging()


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """How the log is signed and kept.

    Args:
        origin: name of the log, in every checkpoint.
        key_file: the signing key; made at the first start when it is missing.
        checkpoint_seconds: at most one checkpoint in this time.
        checkpoint_copy: the newest checkpoint is copied here, and the log must continue it at the next start.
        retention_days: content older than this is dropped; 0: kept for good.
        accept_gaps: streams may go on behind records that this log has lost, and sidecars behind lost revocations.
    """

    origin: str
    key_file: Path
    checkpoint_seconds: float
    checkpoint_copy: Path | None
    retention_days: int
    accept_gaps: bool


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many may be connected at the gRPC door: in all, and of one local user or remote address."""

    connections_max: int
    connections_per_peer_max: int


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """Everything a collector is told, checked. Paths are absolute.

    Args:
        name: of this collector's, or this replica's, own stream.
        crowd: bounds of connections at the gRPC door.
        postgres: where the log is, when replicas share it; None: in a file in state_dir.
        disk_reserve_bytes: of the disk below that file, kept for revocations.
        sidecars: who writes which stream.
        roles: of operators with verified tokens.
        roles_of_uid: of operators on this machine, known over the Unix socket by the kernel's word.
        keys: where the keys are that it rotates; None: it rotates none.
        providers: where their providers are reached, to probe them.
        rotations: which, and how.
        pipelines: who else may have them rotated.
    """

    path: Path
    name: str
    state_dir: Path
    authority_seconds: int
    postgres: PostgresStore | None
    disk_reserve_bytes: int
    audit: AuditConfig
    grpc: Listen
    crowd: Crowd
    keys: KeysAt | None
    providers: dict[str, ProviderAt]
    rotations: tuple[RotationAt, ...]
    pipelines: tuple[PipelineRule, ...]
    issuers: tuple[IssuerRule, ...]
    sidecars: tuple[SidecarRule, ...]
    roles: tuple[RoleRule, ...]
    roles_of_uid: dict[int, frozenset[Role]]
    sinks: tuple[SinkAt, ...]
    alerts: tuple[AlertsAt, ...]
    fleet_budgets: tuple[FleetBudget, ...]
    anomalies: AnomaliesAt
    signals: SignalsAt
    honeytokens: Path | None
    console: ConsoleAt | None
    metrics: tuple[str, int] | None
    log_level: str


def load_collector(path: Path) -> CollectorConfig:
    """Read and check a collector's configuration.

    Raises:
        ConfigError: says which setting is wrong and what to change.
    """
    path = path.absolute()
    file = read_config(path, _File)
    _check(file, path)
    keys = None if file.keys is None else keys_at(file.keys, path)
    return CollectorConfig(
        path=path,
        name=replica_name(file.collector.name, file.store, path),
        state_dir=absolute(file.collector.state_dir, path.parent),
        authority_seconds=file.collector.authority_seconds,
        postgres=postgres_store(file.store, path),
        disk_reserve_bytes=disk_reserve_bytes(file.store, path),
        audit=_audit(file, path),
        grpc=file.grpc.listen("grpc", path, tls_always=True, certificates_always=False),
        crowd=Crowd(file.grpc.connections_max, file.grpc.connections_per_peer_max),
        keys=keys,
        providers=providers_at(file.providers, path),
        rotations=rotations_at(file.rotations, keys, path),
        pipelines=tuple(
            PipelineRule(one.name, one.issuer, tuple(sorted(one.claims.items())), frozenset(one.keys))
            for one in file.pipelines
        ),
        issuers=issuer_rules(file.issuers, path),
        sidecars=tuple(map(_sidecar_rule, file.sidecars)),
        roles=tuple(RoleRule(one.issuer, one.claim, value, one.role) for one in file.operators for value in one.values),
        roles_of_uid=_roles_of_uid(file.operators),
        sinks=sinks_at(file.sinks, path),
        alerts=alerts_at(file.alerts, path),
        fleet_budgets=fleet_budgets_at(file.fleet_budgets, path),
        anomalies=anomalies_at(file.anomalies, path),
        signals=signals_at(file.signals, path, absolute(file.collector.state_dir, path.parent)),
        honeytokens=file.honeytokens.at(path.parent),
        console=None if file.console is None else console_at(file.console, path),
        metrics=loopback_address(file.metrics.address, "[metrics] address", path) if file.metrics.address else None,
        log_level=file.logging.level,
    )


def _audit(file: _File, path: Path) -> AuditConfig:
    audit, state_dir = file.audit, absolute(file.collector.state_dir, path.parent)
    origin = audit.origin or f"leasehold/{file.collector.name}"
    if not ORIGIN.fullmatch(origin):
        message = f"{path}: [audit] origin {origin!r} must be 1 to 128 visible ASCII characters without '+'"
        raise ConfigError(message)
    if not CHECKPOINT_SECONDS_MIN <= audit.checkpoint_seconds <= CHECKPOINT_SECONDS_MAX:
        message = f"{path}: [audit] checkpoint_seconds must be {CHECKPOINT_SECONDS_MIN} to {CHECKPOINT_SECONDS_MAX}"
        raise ConfigError(message)
    if not 0 <= audit.retention_days <= RETENTION_DAYS_MAX:
        message = f"{path}: [audit] retention_days must be 0 (kept for good) to {RETENTION_DAYS_MAX}"
        raise ConfigError(message)
    return AuditConfig(
        origin=origin,
        key_file=absolute(audit.key_file, path.parent) if audit.key_file else state_dir / "checkpoint.key",
        checkpoint_seconds=audit.checkpoint_seconds,
        checkpoint_copy=absolute(audit.checkpoint_copy, path.parent) if audit.checkpoint_copy else None,
        retention_days=audit.retention_days,
        accept_gaps=audit.accept_gaps,
    )


def _check(file: _File, path: Path) -> None:
    wrong: list[str] = []
    names = [file.collector.name, *(sidecar.name for sidecar in file.sidecars)]
    wrong += [f"name {name!r} {STREAM_NAME_RULE}" for name in names if not STREAM_NAME.fullmatch(name)]
    wrong += [f"name {name!r} is used twice: each stream has one writer" for name in sorted(_repeated(names))]
    rules = [_sidecar_rule(sidecar) for sidecar in file.sidecars]
    wrong += [
        f"subject {subject!r} of {issuer!r} is named as two sidecars: an identity writes one stream; keep one"
        for (issuer, subject), count in Counter((rule.issuer, rule.subject) for rule in rules).items()
        if subject and count > 1
    ]
    if not AUTHORITY_SECONDS_MIN <= file.collector.authority_seconds <= AUTHORITY_SECONDS_MAX:
        wrong.append(f"[collector] authority_seconds must be {AUTHORITY_SECONDS_MIN} to {AUTHORITY_SECONDS_MAX}")
    if not 1 <= file.grpc.connections_per_peer_max <= file.grpc.connections_max <= CONNECTIONS_MAX:
        wrong.append(
            f"[grpc] connections_max must be 1 to {CONNECTIONS_MAX}, and connections_per_peer_max 1 to connections_max"
        )
    issuers = {issuer.issuer for issuer in file.issuers}
    of_people = issuers | (set() if file.console is None else issuers_of_people(file.console))
    wrong += [
        f"{what} names issuer {issuer!r}, which no [[issuers]] has"
        for what, issuer in (
            *((f"sidecar {one.name!r}", one.issuer) for one in file.sidecars if one.issuer),
            *((f"pipeline {one.name!r}", one.issuer) for one in file.pipelines),
        )
        if issuer not in issuers
    ]
    wrong += [
        f"an operator rule names issuer {one.issuer!r}, which neither an [[issuers]] nor [console] has"
        for one in file.operators
        if one.issuer and one.issuer not in of_people
    ]
    wrong += [
        f'issuer {one.name!r}: the collector keeps no list of what was shown; use replay "off" or '
        '"bind-first-peer", and proof "none" or "mtls"'
        for one in file.issuers
        if one.replay is Replay.SINGLE_USE or one.proof in {Proof.DPOP, Proof.WIT}
    ]
    wrong += [
        f'issuer {one.name!r}: proof = "mtls" needs client_ca in [grpc.tls]: no certificate is asked for without it'
        for one in file.issuers
        if one.proof is Proof.MTLS and not _asks_for_certificates(file.grpc.tls)
    ]
    wrong += [
        f'issuer {one.name!r}: replay = "bind-first-peer" needs client_ca in [grpc.tls]: without a certificate all '
        "peers over TCP are alike"
        for one in file.issuers
        if one.replay is Replay.BIND_FIRST_PEER and file.grpc.tls is not None and not file.grpc.tls.client_ca
    ]
    wrong += [complaint for one in file.sidecars if (complaint := _sidecar_wrong(one, file.grpc.tls))]
    for operator in file.operators:
        if bool(operator.uids) == bool(operator.issuer):
            wrong.append("each of [[operators]] needs either uids or issuer with claim and values")
        elif operator.issuer and not (operator.claim and operator.values):
            wrong.append(f"the operator rule for {operator.issuer!r} needs claim and values")
    if not any(operator.role is Role.RESPONDER for operator in file.operators):
        wrong.append("no [[operators]] has the role responder: nobody could revoke")
    wrong += wrong_pipelines(file.pipelines, {each.key for each in file.rotations})
    wrong += _wrong_keys(file)
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    check_logging(file.logging, path)


def _sidecar_rule(one: _Sidecar) -> SidecarRule:
    return (
        SidecarRule(X509_ISSUER, one.spiffe_id, one.name)
        if one.spiffe_id
        else SidecarRule(one.issuer, one.subject, one.name, frozenset(one.uids))
    )


def _sidecar_wrong(one: _Sidecar, tls: Tls | None) -> str | None:
    if any(uid < 0 for uid in one.uids):
        return f"sidecar {one.name!r}: uids must be 0 or more"
    if one.spiffe_id:
        if one.uids:
            return (
                f"sidecar {one.name!r} has both spiffe_id and uids: no certificate is shown on the Unix socket; give "
                "it issuer and subject of a token, or let it use the address"
            )
        if one.issuer or one.subject:
            return f"sidecar {one.name!r} has both spiffe_id and issuer or subject; keep the one that it shows"
        if (why := spiffe_id_wrong(one.spiffe_id)) is not None:
            return f"sidecar {one.name!r}: spiffe_id {why}"
        if not _asks_for_certificates(tls):
            return (
                f"sidecar {one.name!r}: spiffe_id needs client_ca in [grpc.tls]: no certificate is asked for without it"
            )
    elif not (one.issuer and one.subject):
        return f"sidecar {one.name!r} needs issuer and subject of its token, or the spiffe_id of its certificate"
    return None


def _asks_for_certificates(tls: Tls | None) -> bool:
    return tls is not None and bool(tls.client_ca)


def _wrong_keys(file: _File) -> list[str]:
    if file.keys is not None and file.keys.file and not file.keys.master_key_file and file.keys.transit is None:
        return ["[keys] a collector asks for no passphrase: give master_key_file or [keys.transit]"]
    return []


def _roles_of_uid(operators: tuple[_Operator, ...]) -> dict[int, frozenset[Role]]:
    roles: dict[int, frozenset[Role]] = {}
    for operator in operators:
        roles |= {uid: roles.get(uid, frozenset()) | {operator.role} for uid in operator.uids}
    return roles


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}
