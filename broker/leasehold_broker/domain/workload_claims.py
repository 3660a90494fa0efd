"""From the claims of a token whose signature is right to an identity. Owns every rule about claims; told the time.

Nothing optional is assumed present, nothing present is assumed well formed. The one public sentence is the same for
every failure, so that the answer is no oracle; reason and detail are exact, for the audit event.
"""

import re
from collections.abc import Mapping
from typing import TypeGuard

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, Proof, claim_at
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.spiffe import spiffe_id_wrong, trust_domain_of
from leasehold_broker.domain.time import Instant

EPOCH_SECONDS_MAX = 2**40
"""Some 35,000 years: anything above is no time."""
SUBJECT_CHARACTERS_MAX = 512
LABEL_CHARACTERS_MAX = 128
TOKEN_ID_CHARACTERS_MAX = 256

_SERVICE_ACCOUNT = re.compile(
    r"system:serviceaccount:(?P<namespace>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?):[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?",
    re.ASCII,
)


def rejected(reason: Reason, detail: str) -> Refusal:
    """The refusal of a workload token: one public sentence for all reasons, the exact one for the audit event."""
    return Refusal(
        reason,
        "the workload token was not accepted; fetch a new one once, and if that fails too ask the platform team",
        detail=detail,
    )


def identity_from_claims(rule: IssuerRule, claims: Mapping[str, object], now: Instant) -> Identity:
    """The identity that these claims give under `rule`.

    Raises:
        Refusal: JWT_EXPIRED, JWT_NOT_YET_VALID, JWT_LIFETIME_TOO_LONG, AUDIENCE_MISMATCH, CLAIM_REJECTED.
    """
    expires = _check_times(rule, claims, now)
    _check_audience(rule, claims)
    subject = _subject(rule, claims)
    return Identity(Subject(rule.issuer, subject, _labels(rule, claims)), claims, _token_id(claims), expires * 1000)


def seconds_claim(claims: Mapping[str, object], name: str) -> int | None:
    """A time among claims, in whole Unix seconds; None when it is not there.

    Raises:
        Refusal: CLAIM_REJECTED when it is anything else.
    """
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if type(value) is not int or not 0 <= value <= EPOCH_SECONDS_MAX:
        raise rejected(Reason.CLAIM_REJECTED, f"claim {name!r} is not an integer time in seconds")
    return value


def _check_times(rule: IssuerRule, claims: Mapping[str, object], now: Instant) -> int:
    now_seconds = now.wall_ms // 1000
    expires, not_before, issued = (seconds_claim(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise rejected(Reason.CLAIM_REJECTED, "claim 'exp' is missing")
    if now_seconds >= expires + rule.leeway_seconds:
        raise rejected(Reason.JWT_EXPIRED, f"expired {now_seconds - expires} s ago")
    if not_before is not None and not_before > now_seconds + rule.leeway_seconds:
        raise rejected(Reason.JWT_NOT_YET_VALID, f"'nbf' is {not_before - now_seconds} s ahead")
    if issued is not None and issued > now_seconds + rule.leeway_seconds:
        raise rejected(Reason.JWT_NOT_YET_VALID, f"'iat' is {issued - now_seconds} s ahead")
    lifetime = expires - (now_seconds if issued is None else issued)
    if lifetime > rule.lifetime_seconds_max:
        raise rejected(
            Reason.JWT_LIFETIME_TOO_LONG, f"life of {lifetime} s is above this issuer's {rule.lifetime_seconds_max} s"
        )
    return expires


def _check_audience(rule: IssuerRule, claims: Mapping[str, object]) -> None:
    audience = claims.get("aud")
    if rule.proof is Proof.WIT and "aud" not in claims:
        return  # a workload identity token is for nobody in particular: its proof says for whom
    if audience not in (rule.audience, [rule.audience]):
        shape = f"a list of {len(audience)}" if isinstance(audience, list) else type(audience).__name__
        raise rejected(Reason.AUDIENCE_MISMATCH, f"'aud' ({shape}) is not this broker's audience alone")


def _subject(rule: IssuerRule, claims: Mapping[str, object]) -> str:
    subject = claim_at(claims, rule.subject_path)
    if not _is_name(subject, SUBJECT_CHARACTERS_MAX if rule.kind is not IssuerKind.SPIFFE else 2048):
        path = ".".join(rule.subject_path)
        raise rejected(Reason.CLAIM_REJECTED, f"subject claim {path!r} is missing or not a printable ASCII name")
    if rule.kind is IssuerKind.SPIFFE:
        wrong = spiffe_id_wrong(subject)
        if wrong is not None:
            raise rejected(Reason.CLAIM_REJECTED, f"'sub': {wrong}")
        if trust_domain_of(subject) != rule.trust_domain:
            raise rejected(Reason.CLAIM_REJECTED, "'sub' is of another trust domain")
    elif rule.kind is IssuerKind.KUBERNETES:
        _check_service_account(subject, claims)
    return subject


def _check_service_account(subject: str, claims: Mapping[str, object]) -> None:
    match = _SERVICE_ACCOUNT.fullmatch(subject)
    if match is None:
        raise rejected(Reason.CLAIM_REJECTED, "'sub' is not system:serviceaccount:<namespace>:<name>")
    namespace = claim_at(claims, ("kubernetes.io", "namespace"))
    if namespace is not None and namespace != match["namespace"]:
        raise rejected(Reason.CLAIM_REJECTED, "'kubernetes.io'.namespace and 'sub' name different namespaces")


def _labels(rule: IssuerRule, claims: Mapping[str, object]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for label in rule.labels:
        value = label.fixed or claim_at(claims, label.path)
        if value is None:
            continue
        if not _is_name(value, LABEL_CHARACTERS_MAX):
            raise rejected(Reason.CLAIM_REJECTED, f"the claim for label {label.name!r} is not a printable ASCII name")
        labels[label.name] = value
    return labels


def _token_id(claims: Mapping[str, object]) -> str:
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str) or len(token_id) > TOKEN_ID_CHARACTERS_MAX:
        raise rejected(Reason.CLAIM_REJECTED, f"'jti' is not text of at most {TOKEN_ID_CHARACTERS_MAX} characters")
    return token_id


def _is_name(value: object, characters_max: int) -> TypeGuard[str]:
    """A name that can be logged, matched and compared: printable ASCII, no outer spaces, and no pattern sign."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= characters_max
        and value.isascii()
        and value.isprintable()
        and value == value.strip()
        and "*" not in value
    )
