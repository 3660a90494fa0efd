"""The collector's `[signals]`: whose security events are taken. Owns TOML shape, defaults and what is refused."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from leasehold_broker.config.doors import Door, Listen, Tls
from leasehold_broker.config.parts import STREAM_NAME, STREAM_NAME_RULE, Issuer, Part
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError, absolute
from leasehold_broker.config.sinks import checked_file, wrong_url
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, IssuerRules, Replay
from leasehold_broker.domain.outgoing_signals import SignalStream
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


SENT = {one.rpartition("/")[2]: one for one in (SESSION_REVOKED, CREDENTIAL_CHANGE)}


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


class _Send(Part, frozen=True):
    name: str
    audience: str
    events: tuple[str, ...] = tuple(SENT)
    push_url: str = ""
    push_bearer_file: str = ""
    ca_file: str = ""
    bearer_file: str = ""


class Signals(Part, frozen=True):
    """The `[signals]` table."""

    address: str = ""
    tls: Tls | None = None
    issuer: str = ""
    key_file: str = ""
    receive: tuple[_Receive, ...] = ()
    send: tuple[_Send, ...] = ()


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
class SendAt:
    """One receiver, checked. Paths are absolute; `push_url` is "" for one that polls."""

    stream: SignalStream
    push_url: str
    push_bearer_file: Path | None
    ca_file: Path | None
    bearer_file: Path | None


@dataclass(frozen=True, slots=True)
class SignalsAt:
    """All of it, checked; `listen` is None where nothing needs the door."""

    listen: Listen | None
    issuer: str
    key_file: Path
    receive: tuple[ReceiveAt, ...]
    send: tuple[SendAt, ...]


def signals_at(part: Signals, path: Path, state_dir: Path) -> SignalsAt:
    """Checked; our key is in `state_dir` where no file is named.

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
    wrong += [f"[[signals.send]] {one.name!r}: {what}" for one in part.send for what in _wrong_send(one)]
    sent = [one.name for one in part.send]
    wrong += [f"[[signals.send]] {name!r} is there twice" for name in sorted({n for n in sent if sent.count(n) > 1})]
    if len(part.send) > TRANSMITTERS_MAX:
        wrong.append(f"at most {TRANSMITTERS_MAX} [[signals.send]], were {len(part.send)}")
    if part.send and not (part.issuer.startswith("https://") and part.issuer.isprintable()):
        wrong.append("[signals] issuer must be the https address at which receivers find us")
    if part.send and not part.address:
        wrong.append("[signals] needs an address: receivers fetch our key there")
    if any(not one.poll_url for one in part.receive) and not part.address:
        wrong.append("[signals] needs an address: a transmitter without poll_url pushes to it")
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    listen = None
    if part.address:
        door = Door(address=part.address, tls=part.tls)
        listen = door.listen("signals", path, certificates_always=False)
    key_file = absolute(part.key_file, path.parent) if part.key_file else state_dir / "signals.key"
    receive = tuple(_at(one, path) for one in part.receive)
    return SignalsAt(listen, part.issuer, key_file, receive, tuple(_sent(one, part.issuer, path) for one in part.send))


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


def _wrong_send(one: _Send) -> list[str]:
    wrong = []
    if not STREAM_NAME.fullmatch(one.name):
        wrong.append(f"its name {STREAM_NAME_RULE}")
    if not one.audience:
        wrong.append("audience must say who it is for")
    unknown = sorted(set(one.events) - set(SENT))
    if unknown or not one.events:
        wrong.append(f"events must be some of {', '.join(SENT)}" + (f"; {unknown[0]!r} is none" if unknown else ""))
    if one.push_url:
        wrong += wrong_url(one.push_url)
    elif not one.bearer_file:
        wrong.append("a receiver that polls needs bearer_file: what it sends as bearer token")
    return wrong


def _sent(one: _Send, issuer: str, path: Path) -> SendAt:
    base = path.parent
    return SendAt(
        SignalStream(one.name, issuer, one.audience, frozenset(SENT[name] for name in one.events)),
        one.push_url,
        checked_file(one.push_bearer_file, base, SECRET, "bearer token"),
        checked_file(one.ca_file, base, PUBLIC, "certificate"),
        checked_file(one.bearer_file, base, SECRET, "bearer token"),
    )


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
        ca_file = checked_file(one.ca_file, base, PUBLIC, "certificate")
        poll = PollAt(
            one.poll_url, ca_file, checked_file(one.poll_bearer_file, base, SECRET, "bearer token"), one.poll_seconds
        )
    return ReceiveAt(rule, keys, checked_file(one.bearer_file, base, SECRET, "bearer token"), poll)
