"""From a signed SAML assertion to an identity. Owns every rule about what it says; told the time.

Nothing here reads XML or a signature: what comes in are the texts of one assertion and its response, both proven to be
the identity provider's. SAML 2.0 Core, 2.3 to 2.5, and Profiles, 4.1.4 (Web Browser SSO).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant

SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
LIFETIME_SECONDS_MAX = 3600
LEEWAY_SECONDS = 30
NAME_CHARACTERS_MAX = 512
EPOCH_SECONDS_MAX = 2**40


@dataclass(frozen=True, slots=True)
class SamlRule:
    """Whom we believe, and who we are.

    Args:
        idp: entity id of the identity provider; the issuer of its people.
        entity_id: ours; the audience.
        acs_url: where responses come: destination and recipient.
        age_seconds: longest life of an identity, where the provider gives none.
    """

    idp: str
    entity_id: str
    acs_url: str
    age_seconds: int


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One way in which the subject is confirmed. Times are Unix seconds; None where there is none."""

    method: str
    recipient: str
    in_response_to: str
    not_before: int | None
    not_on_or_after: int | None


@dataclass(frozen=True, slots=True)
class SignedAssertion:
    """What a response and its one assertion say. "" and None where something is not there.

    Args:
        status: of the response.
        destination, in_response_to: of the response.
        issuers: of the response, where it has one, and of the assertion.
        assertion_id: of the assertion.
        name_id, name_id_format: the subject.
        confirmations: of the subject.
        not_before, not_on_or_after: of the conditions, Unix seconds.
        audiences: each restriction's; all of them must be met.
        sessions_end: SessionNotOnOrAfter of each statement of authentication; None where it has none.
        attributes: values by name.
    """

    status: str
    destination: str
    in_response_to: str
    issuers: tuple[str, ...]
    assertion_id: str
    name_id: str
    name_id_format: str
    confirmations: tuple[Confirmation, ...]
    not_before: int | None
    not_on_or_after: int | None
    audiences: tuple[tuple[str, ...], ...]
    sessions_end: tuple[int | None, ...]
    attributes: Mapping[str, tuple[str, ...]]


def saml_rejected(detail: str, reason: Reason = Reason.IDENTITY_REJECTED) -> Refusal:
    """The refusal of a response: one public sentence for all reasons, the exact one for the audit event."""
    return Refusal(
        reason,
        "signing in did not work; try again, and if that fails too ask the platform team",
        detail=f"SAML: {detail}",
    )


def identity_of(rule: SamlRule, said: SignedAssertion, request_id: str, now: Instant) -> tuple[Identity, int]:
    """Who signed in, and for how many seconds the assertion must not be shown again.

    Args:
        rule: whom we believe.
        said: proven to be signed.
        request_id: of the question that this browser has put.
        now: present.

    Raises:
        Refusal: IDENTITY_REJECTED, ISSUER_NOT_TRUSTED, AUDIENCE_MISMATCH, CLAIM_REJECTED.
    """
    seconds = now.wall_ms // 1000
    if said.status != SUCCESS:
        raise saml_rejected("the identity provider signed nobody in")
    if set(said.issuers) != {rule.idp}:
        raise saml_rejected("another issuer", Reason.ISSUER_NOT_TRUSTED)
    if said.destination != rule.acs_url:
        raise saml_rejected("the response is for another address")
    if said.in_response_to != request_id:
        raise saml_rejected("the response is to another question, or to none")
    _check_conditions(rule, said, seconds)
    left = _confirmed(rule, said, request_id, seconds)
    ends = [end for end in said.sessions_end if end is not None]
    if not said.sessions_end:
        raise saml_rejected("no statement of authentication", Reason.CLAIM_REJECTED)
    if any(end <= seconds for end in ends):
        raise saml_rejected("the provider's session is over", Reason.CLAIM_REJECTED)
    until = min([seconds + rule.age_seconds, *ends])
    claims = {name: list(values) for name, values in said.attributes.items()}
    return Identity(Subject(rule.idp, _name(said)), claims, said.assertion_id, until * 1000), left


def _check_conditions(rule: SamlRule, said: SignedAssertion, seconds: int) -> None:
    if not said.audiences or any(rule.entity_id not in each for each in said.audiences):
        raise saml_rejected("the assertion is for another audience", Reason.AUDIENCE_MISMATCH)
    if said.not_before is not None and said.not_before > seconds + LEEWAY_SECONDS:
        raise saml_rejected("the assertion is not valid yet", Reason.CLAIM_REJECTED)
    if said.not_on_or_after is not None and said.not_on_or_after + LEEWAY_SECONDS <= seconds:
        raise saml_rejected("the assertion is over", Reason.CLAIM_REJECTED)


def _confirmed(rule: SamlRule, said: SignedAssertion, request_id: str, seconds: int) -> int:
    """Seconds for which the one bearer confirmation goes on, leeway included (Profiles, 4.1.4.2)."""
    bearers = [each for each in said.confirmations if each.method == BEARER]
    if len(bearers) != 1:
        raise saml_rejected("the subject is not confirmed in exactly one way", Reason.CLAIM_REJECTED)
    (bearer,) = bearers
    if bearer.recipient != rule.acs_url:
        raise saml_rejected("the subject is confirmed to another address")
    if bearer.in_response_to != request_id:
        raise saml_rejected("the subject is confirmed to another question, or to none")
    if bearer.not_before is not None or bearer.not_on_or_after is None:
        raise saml_rejected("the confirmation has a beginning, or no end", Reason.CLAIM_REJECTED)
    left = bearer.not_on_or_after + LEEWAY_SECONDS - seconds
    if left <= 0:
        raise saml_rejected("the confirmation is over", Reason.CLAIM_REJECTED)
    if left > LIFETIME_SECONDS_MAX + LEEWAY_SECONDS:
        raise saml_rejected("the confirmation lives for more than an hour", Reason.CLAIM_REJECTED)
    return left


def _name(said: SignedAssertion) -> str:
    name = said.name_id
    shown = name.isascii() and name.isprintable() and name == name.strip() and "*" not in name
    if not shown or not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise saml_rejected("the subject is missing, or not a printable ASCII name", Reason.CLAIM_REJECTED)
    if said.name_id_format == TRANSIENT:
        raise saml_rejected("the subject's name is another one each time (transient)", Reason.CLAIM_REJECTED)
    return name
