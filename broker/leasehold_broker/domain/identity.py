"""Who is calling. Owns the verified identity and the kernel-verified peer; refuses to verify anything itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ENVIRONMENT_LABEL = "environment"


@dataclass(frozen=True, slots=True)
class Subject:
    """Issuer and subject, as verified, with the labels that configuration maps from claims."""

    issuer: str
    subject: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> str:
        """The environment label; empty when the issuer maps none (then no key can be leased)."""
        return self.labels.get(ENVIRONMENT_LABEL, "")

    def same_as(self, other: "Subject") -> bool:
        """Same issuer and subject; labels may have changed between tokens."""
        return self.issuer == other.issuer and self.subject == other.subject


@dataclass(frozen=True, slots=True)
class Identity:
    """A *verified* caller. Only an `IdentityVerifier` makes one from a token.

    Args:
        subject: who.
        claims: the verified claims, JSON values.
        token_id: "jti" or "" when the issuer gives none.
        expires_wall_ms: when the token ends.
    """

    subject: Subject
    claims: Mapping[str, object]
    token_id: str
    expires_wall_ms: int


class Transport(StrEnum):
    """How a connection came: through a Unix socket of this machine, or through TCP, were it from this machine."""

    UNIX = "unix"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, as the kernel or TLS says. At least one of the two is set.

    Args:
        uid: owner of the process at the other end (Unix socket, loopback TCP); None when the network lies between.
        certificate_sha256: hex digest of the verified client certificate (DER); empty without mTLS.
        spiffe_id: of that certificate, when it is an X.509-SVID by the letter; empty otherwise.
        connection: name of the connection, for whoever must ask the kernel more of it; no part of who the peer is.
        transport: how it came. Over TCP, the uid is of whoever holds the socket at the other end, which may be a
            forwarder of somebody else's bytes.
    """

    uid: int | None
    certificate_sha256: str = ""
    spiffe_id: str = ""
    connection: str = field(default="", compare=False)
    transport: Transport = field(default=Transport.TCP, compare=False)

    @property
    def binding(self) -> str:
        """The text a lease is bound to: `cert:<hex>` when the peer has a certificate, else `uid:<n>`."""
        return f"cert:{self.certificate_sha256}" if self.certificate_sha256 else f"uid:{self.uid}"

    @property
    def share(self) -> str:
        """Whose share of what is bounded this peer has: of its certificate, its user, or else its connection alone.

        A user has one share on the Unix socket and another over TCP: a forwarder that works for strangers is then not
        in the way of the user it runs as.
        """
        if self.certificate_sha256 or (self.uid is not None and self.transport is Transport.UNIX):
            return self.binding
        return self.connection if self.uid is None else f"{self.transport} {self.binding}"

    def satisfies(self, binding: str) -> bool:
        """True when this peer is the one that `binding` names."""
        if binding.startswith("uid:"):
            return self.uid is not None and binding == f"uid:{self.uid}"
        return bool(self.certificate_sha256) and binding == f"cert:{self.certificate_sha256}"
