"""Security events from other systems, as leasehold takes them. Owns strict reading, and what each one means here.

SETs are RFC 8417, subject identifiers RFC 9493, the rules of the Shared Signals Framework 1.0: one event a token, a
subject in `sub_id`, never in `sub`. Events are those of CAEP 1.0 and RISC 1.0 that say that a session or a credential
must not be used any more; all others are taken and change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from leasehold_broker.domain.lease import LEASE_PREFIX
from leasehold_broker.domain.revocation import ByKey, ByLease, BySubject, Selector
from leasehold_broker.domain.scope import ANYTHING
from leasehold_broker.domain.time import Instant

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED: Final = CAEP + "session-revoked"
CREDENTIAL_CHANGE: Final = CAEP + "credential-change"
ACCOUNT_DISABLED: Final = RISC + "account-disabled"
ACCOUNT_PURGED: Final = RISC + "account-purged"
CREDENTIAL_COMPROMISE: Final = RISC + "credential-compromise"
VERIFICATION: Final = SSF + "verification"
REVOKING: Final = frozenset(
    {SESSION_REVOKED, CREDENTIAL_CHANGE, ACCOUNT_DISABLED, ACCOUNT_PURGED, CREDENTIAL_COMPROMISE}
)
CHANGES_THAT_REVOKE: Final = frozenset({"revoke", "delete"})
OLD_SECONDS_MAX: Final = 7 * 24 * 3600
"""An older token is refused: a transmitter tries again for days, a thief for ever."""
TEXT_CHARACTERS_MAX: Final = 256
EARLY_SECONDS_MAX: Final = 60


class SetError(StrEnum):
    """Why a token is not taken: the codes of RFC 8935, section 2.4."""

    INVALID_REQUEST = "invalid_request"
    INVALID_KEY = "invalid_key"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"


class SetRefusedError(Exception):
    """A token is not taken.

    Args:
        error: the code that the transmitter is told.
        description: one sentence for it, without anything of the token's own text.
    """

    def __init__(self, error: SetError, description: str) -> None:
        """Say so."""
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


class OpaqueMeans(StrEnum):
    """What an identifier without a format of its own names here."""

    NOTHING = "nothing"
    SUBJECT = "subject"
    LEASE = "lease"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class SignalRule:
    """How one transmitter's events are taken.

    Args:
        name: of the rule; part of the address that it posts to.
        issuer: exact `iss` of its tokens.
        audience: must be among `aud`.
        subject_issuers: whose subjects it may name: from `iss` in a subject identifier to our issuer.
        email_issuer: an e-mail address is a subject of this issuer; "" for not taken.
        opaque: what an opaque identifier names.
        types: events that revoke; others change nothing.
        block_new: what is revoked also gets no new leases.
        block_seconds: for how long; 0: until lifted.
        revocations_per_hour_max: beyond it, the transmitter is asked to come back later.
    """

    name: str
    issuer: str
    audience: str
    subject_issuers: Mapping[str, str] = field(default_factory=dict)
    email_issuer: str = ""
    opaque: OpaqueMeans = OpaqueMeans.NOTHING
    types: frozenset[str] = REVOKING
    block_new: bool = True
    block_seconds: int = 0
    revocations_per_hour_max: int = 100


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One verified event.

    Args:
        token_id: `jti`, unique for the issuer.
        type: URI.
        subject: its subject identifier (RFC 9493), unread.
        payload: of the event.
    """

    token_id: str
    issuer: str
    type: str
    subject: Mapping[str, object]
    payload: Mapping[str, object]


def read_security_event(claims: Mapping[str, object], rule: SignalRule, now: Instant) -> SecurityEvent:
    """The event of a token whose signature was checked.

    Raises:
        SetRefusedError: says which claim is wrong.
    """
    if claims.get("iss") != rule.issuer:
        raise SetRefusedError(SetError.INVALID_ISSUER, "'iss' is not the issuer that this address is for")
    audience = claims.get("aud")
    if rule.audience not in (audience if isinstance(audience, list) else [audience]):
        raise SetRefusedError(SetError.INVALID_AUDIENCE, "'aud' does not name this receiver")
    token_id = _text(claims.get("jti"), "'jti'")
    _check_times(claims, now)
    if "sub" in claims:
        raise _wrong("'sub' must not be there; the subject is in 'sub_id'")
    events = claims.get("events")
    if not isinstance(events, dict) or len(events) != 1:
        raise _wrong("'events' must be an object with exactly one event")
    [(kind, payload)] = events.items()
    if not isinstance(payload, dict):
        raise _wrong("the event must be an object")
    subject = claims.get("sub_id", {})
    if not isinstance(subject, dict):
        raise _wrong("'sub_id' must be an object")
    return SecurityEvent(token_id, rule.issuer, str(kind)[: 2 * TEXT_CHARACTERS_MAX], subject, payload)


def selector_of(event: SecurityEvent, rule: SignalRule) -> Selector | None:
    """What the event revokes here; None for nothing.

    Raises:
        SetRefusedError: the event revokes, but whom it names is not known by this rule.
    """
    if event.type not in rule.types:
        return None
    if event.type == CREDENTIAL_CHANGE:
        change = event.payload.get("change_type")
        if not isinstance(change, str) or not isinstance(event.payload.get("credential_type"), str):
            raise _wrong("a credential change needs 'credential_type' and 'change_type'")
        if change not in CHANGES_THAT_REVOKE:
            return None
    return _named(event.subject, rule, nested=False)


def _named(subject: Mapping[str, object], rule: SignalRule, *, nested: bool) -> Selector:
    match subject.get("format"):
        case "iss_sub":
            issuer = rule.subject_issuers.get(_text(subject.get("iss"), "'iss' of the subject"))
            if issuer is None:
                raise SetRefusedError(SetError.ACCESS_DENIED, "this transmitter may not name subjects of that issuer")
            return _subject(issuer, _text(subject.get("sub"), "'sub' of the subject"))
        case "email":
            if not rule.email_issuer:
                raise SetRefusedError(
                    SetError.ACCESS_DENIED, "this transmitter may not name subjects by e-mail address"
                )
            return _subject(rule.email_issuer, _text(subject.get("email"), "'email' of the subject"))
        case "opaque":
            return _opaque(_text(subject.get("id"), "'id' of the subject"), rule)
        case "complex" if not nested:
            return _complex(subject, rule)
        case _:
            raise _wrong("the subject's 'format' must be iss_sub, email, opaque, or a complex of those")


def _complex(subject: Mapping[str, object], rule: SignalRule) -> Selector:
    """The session where it is a lease of ours, else the user: a device, tenant or group alone names nobody here."""
    session, user = subject.get("session"), subject.get("user")
    if isinstance(session, dict) and rule.opaque is OpaqueMeans.LEASE and session.get("format") == "opaque":
        return _named(session, rule, nested=True)
    if isinstance(user, dict):
        return _named(user, rule, nested=True)
    raise _wrong("a complex subject needs a 'user', or a 'session' that is a lease")


def _opaque(name: str, rule: SignalRule) -> Selector:
    match rule.opaque:
        case OpaqueMeans.SUBJECT if len(set(rule.subject_issuers.values())) == 1:
            return _subject(next(iter(rule.subject_issuers.values())), name)
        case OpaqueMeans.LEASE if name.startswith(LEASE_PREFIX) and name != LEASE_PREFIX:
            return ByLease(name)
        case OpaqueMeans.KEY:
            return ByKey(name)
        case _:
            raise SetRefusedError(SetError.ACCESS_DENIED, "this transmitter may not name that by an opaque identifier")


def _subject(issuer: str, name: str) -> Selector:
    if ANYTHING in name:
        raise _wrong("the subject must be one, not a pattern")
    return BySubject(issuer, name)


def _check_times(claims: Mapping[str, object], now: Instant) -> None:
    issued, seconds = claims.get("iat"), now.wall_ms / 1000
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        raise _wrong("'iat' must be a number")
    if issued > seconds + EARLY_SECONDS_MAX:
        raise _wrong("'iat' lies in the future; look at both clocks")
    if issued < seconds - OLD_SECONDS_MAX:
        raise _wrong("'iat' is too long ago, more than seven days")
    if "exp" in claims:
        raise _wrong("'exp' must not be there: an event does not end")


def _text(found: object, what: str) -> str:
    if not isinstance(found, str) or not 0 < len(found) <= TEXT_CHARACTERS_MAX:
        raise _wrong(what + " must be text of 1 to 256 characters")
    if not found.isprintable() or found != found.strip():
        raise _wrong(what + " must be printable, without space around it")
    return found


def _wrong(description: str) -> SetRefusedError:
    return SetRefusedError(SetError.INVALID_REQUEST, description)
