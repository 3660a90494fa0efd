"""The collector's `[signals]`: whose security events are taken. Owns TOML shape, defaults and what is refused."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from leasehold_broker.config.doors import Door, Listen, Tls
from leasehold_broker.config.parts import STREAM_NAME, STREAM_NAME_RULE, Issuer, Part
from leasehold_broker.config.read import SECRET, ConfigError
from leasehold_broker.config.sinks import checked_file, wrong_url
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, IssuerRules, Replay
from leasehold_broker.domain.security_events import (
    ACCOUNT_DISABLED,
    ACCOUNT_PURGED,
    CREDENTIAL_CHANGE,
    CREDENTIAL_COMPROMISE,
    SESSION_REVOKED,
    OpaqueMeans,
    SignalRule,
)

TRANSMITTERS_MAX = 16
PER_HOUR_MAX = 10_000
BLOCK_SECONDS_MAX = 30 * 24 * 3600
POLL_SECONDS_MIN = 1.0
POLL_SECONDS_MAX = 3600.0
EVENTS = {
    one.rpartition("/")[2]: one
    for one in (SESSION_REVOKED, CREDENTIAL_CHANGE, ACCOUNT_DISABLED, ACCOUNT_PURGED, CREDENTIAL_COMPROMISE)
}


class _Receive(Part, frozen=True):
    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ("RS256",)
    jwks_url: str = ""
    jwks_file: str = ""
    ca_file: str = ""
    bearer_file: str = ""
    subject_issuers: dict[str, str] = msgspec.field(default_factory=dict)
    email_issuer: str = ""
    opaque: OpaqueMeans = OpaqueMeans.NOTHING
    events: tuple[str, ...] = tuple(EVENTS)
    block: bool = True
    block_seconds: int = 0
    revocations_per_hour_max: int = 100
    poll_url: str = ""
    poll_seconds: float = 30.0
    poll_bearer_file: str = ""


class Signals(Part, frozen=True):
    """The `[signals]` table."""

    address: str = ""
    tls: Tls | None = None
    receive: tuple[_Receive, ...] = ()


@dataclass(frozen=True, slots=True)
class PollAt:
    """Where a transmitter's events are fetched, and how often when there are none."""

    url: str
    ca_file: Path | None
    bearer_file: Path | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ReceiveAt:
    """One transmitter, checked. Paths are absolute; `poll` is None for one that pushes."""

    rule: SignalRule
    keys: IssuerRule
    bearer_file: Path | None
    poll: PollAt | None


@dataclass(frozen=True, slots=True)
class SignalsAt:
    """All of it, checked; `listen` is None where nothing needs the door."""

    listen: Listen | None
    receive: tuple[ReceiveAt, ...]


def signals_at(part: Signals, path: Path) -> SignalsAt:
    """Checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    wrong = [f"[[signals.receive]] {one.name!r}: {what}" for one in part.receive for what in _wrong(one)]
    names = [one.name for one in part.receive]
    wrong += [
        f"[[signals.receive]] {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if len(part.receive) > TRANSMITTERS_MAX:
        wrong.append(f"at most {TRANSMITTERS_MAX} [[signals.receive]], were {len(part.receive)}")
    if any(not one.poll_url for one in part.receive) and not part.address:
        wrong.append("[signals] needs an address: a transmitter without poll_url pushes to it")
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    listen = None
    if part.address:
        door = Door(address=part.address, tls=part.tls)
        listen = door.listen("signals", path, certificates_always=False)
    return SignalsAt(listen, tuple(_at(one, path) for one in part.receive))


def _wrong(one: _Receive) -> list[str]:
    wrong = []
    if not STREAM_NAME.fullmatch(one.name):
        wrong.append(f"its name {STREAM_NAME_RULE}")
    unknown = sorted(set(one.events) - set(EVENTS))
    if unknown or not one.events:
        wrong.append(f"events must be some of {', '.join(EVENTS)}" + (f"; {unknown[0]!r} is none" if unknown else ""))
    if not (one.subject_issuers or one.email_issuer or one.opaque in {OpaqueMeans.LEASE, OpaqueMeans.KEY}):
        wrong.append("it could name nobody: set subject_issuers, email_issuer, or opaque")
    if one.opaque is OpaqueMeans.SUBJECT and len(set(one.subject_issuers.values())) != 1:
        wrong.append('opaque = "subject" needs subject_issuers with exactly one issuer of ours')
    if not 0 <= one.block_seconds <= BLOCK_SECONDS_MAX:
        wrong.append(f"block_seconds must be 0 (until lifted) to {BLOCK_SECONDS_MAX}")
    if not 1 <= one.revocations_per_hour_max <= PER_HOUR_MAX:
        wrong.append(f"revocations_per_hour_max must be 1 to {PER_HOUR_MAX}")
    if one.poll_url:
        wrong += wrong_url(one.poll_url)
    if not POLL_SECONDS_MIN <= one.poll_seconds <= POLL_SECONDS_MAX:
        wrong.append(f"poll_seconds must be {POLL_SECONDS_MIN:g} to {POLL_SECONDS_MAX:g}")
    return wrong


def _at(one: _Receive, path: Path) -> ReceiveAt:
    base = path.parent
    keys = Issuer(
        name=one.name,
        kind=IssuerKind.OIDC,
        issuer=one.issuer,
        audience=one.audience,
        algorithms=one.algorithms,
        replay=Replay.OFF,
        jwks_url=one.jwks_url,
        jwks_file=one.jwks_file,
        ca_file=one.ca_file,
    ).rule(base)
    try:
        IssuerRules((keys,))
    except ValueError as error:
        message = f"{path}: [[signals.receive]] {error}"
        raise ConfigError(message) from None
    rule = SignalRule(
        name=one.name,
        issuer=one.issuer,
        audience=one.audience,
        subject_issuers=one.subject_issuers,
        email_issuer=one.email_issuer,
        opaque=one.opaque,
        types=frozenset(EVENTS[name] for name in one.events),
        block_new=one.block,
        block_seconds=one.block_seconds,
        revocations_per_hour_max=one.revocations_per_hour_max,
    )
    poll = None
    if one.poll_url:
        ca_file = checked_file(one.ca_file, base, 0o022, "certificate")
        poll = PollAt(
            one.poll_url, ca_file, checked_file(one.poll_bearer_file, base, SECRET, "bearer token"), one.poll_seconds
        )
    return ReceiveAt(rule, keys, checked_file(one.bearer_file, base, SECRET, "bearer token"), poll)
