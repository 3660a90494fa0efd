"""The rules of who is who at a collector: sidecars by subject, operators by claim. Values only; access applies them."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an operator may do. A responder may also do what an auditor may, and lower budgets.

    A treasurer may raise and lower budgets: who may stop spending is not, for that, who may allow more of it.
    """

    RESPONDER = "responder"
    AUDITOR = "auditor"
    TREASURER = "treasurer"


X509_ISSUER = "x509"
"""Issuer of identities known by certificate alone. No token issuer is called so: those are URLs or trust domains."""


@dataclass(frozen=True, slots=True)
class SidecarRule:
    """The identity with this issuer and subject, both exact, is this sidecar; it writes the stream of that name.

    With issuer `X509_ISSUER` the subject is the SPIFFE ID of its certificate.
    """

    issuer: str
    subject: str
    sidecar: str


@dataclass(frozen=True, slots=True)
class RoleRule:
    """Tokens of this issuer whose claim is this text, or a list that holds it, have this role."""

    issuer: str
    claim: str
    value: str
    role: Role
