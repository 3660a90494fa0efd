"""The rules of who is who at a collector: sidecars by subject, operators by claim. Values only; access applies them."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an operator may do. A responder may also do what an auditor may, and lower budgets.

    A custodian may rotate keys and supply them; a responder may rotate them too.
    A treasurer may raise and lower budgets: who may stop spending is not, for that, who may allow more of it.
    """

    RESPONDER = "responder"
    AUDITOR = "auditor"
    TREASURER = "treasurer"
    CUSTODIAN = "custodian"


X509_ISSUER = "x509"
"""Issuer of identities known by certificate alone. No token issuer is called so: those are URLs or trust domains."""


@dataclass(frozen=True, slots=True)
class SidecarRule:
    """The identity with this issuer and subject, both exact, is this sidecar; it writes the stream of that name.

    With issuer `X509_ISSUER` the subject is the SPIFFE ID of its certificate, which is shown over TCP only.

    Args:
        issuer, subject: of its token, or its certificate.
        sidecar: its name.
        uids: on the Unix socket it is one of these users; empty: any.
    """

    issuer: str
    subject: str
    sidecar: str
    uids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RoleRule:
    """Tokens of this issuer whose claim is this text, or a list that holds it, have this role."""

    issuer: str
    claim: str
    value: str
    role: Role


@dataclass(frozen=True, slots=True)
class PipelineRule:
    """A pipeline that may have keys rotated: tokens of this issuer that have all these claims, each exactly.

    Args:
        name: in messages.
        issuer: of its tokens.
        claims: name and value; at least one, so that no rule takes every token of a public issuer.
        keys: names of the keys that it may have rotated.
    """

    name: str
    issuer: str
    claims: tuple[tuple[str, str], ...]
    keys: frozenset[str]
