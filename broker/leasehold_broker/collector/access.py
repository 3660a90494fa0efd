"""Who is who at the collector: sidecars by configured subject, operators by claim or local uid, and their roles.

Deny by default: an identity that no rule names is refused. Refuses to verify tokens itself.
"""

from collections.abc import Mapping, Sequence

from leasehold_broker.domain.collector_rules import X509_ISSUER, Role, RoleRule, SidecarRule
from leasehold_broker.domain.identity import Identity, Peer, Subject, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.ports.identity_verifier import IdentityVerifier
from leasehold_broker.rpc.caller import Shown

LOCAL_ISSUER = "local"
"""Issuer shown for operators known by their uid. No token issuer has this name: those are URLs or trust domains."""
LOCAL_SECONDS = 3600
CERTIFICATE_SECONDS = 3600
"""A session opened with a certificate alone ends by then; the next handshake looks at the certificate again."""


class Sidecars:
    """Authenticates sidecars."""

    def __init__(self, verifier: IdentityVerifier, rules: Sequence[SidecarRule], *, certificates: bool = False) -> None:
        """Know these.

        Args:
            verifier: of their tokens.
            rules: who is which sidecar.
            certificates: over TCP a certificate is asked for. Then a token alone is not enough on the Unix socket
                either, where there is none: the uid must be one that the rule names.

        Raises:
            ValueError: one identity is given two names.
        """
        self._verifier = verifier
        self._certificates = certificates
        self._rules: dict[tuple[str, str], SidecarRule] = {}
        for rule in rules:
            if self._rules.setdefault((rule.issuer, rule.subject), rule) != rule:
                message = f"subject {rule.subject!r} of {rule.issuer!r} is named as two sidecars; keep one"
                raise ValueError(message)

    async def authenticate(self, shown: Shown, now: Instant) -> Identity:
        """The verified identity of a configured sidecar: by its token, or by its certificate where it shows no token.

        Raises:
            Refusal: an identity reason, SIDECAR_BANNED, or PEER_MISMATCH for the wrong user on the Unix socket.
        """
        if shown.unverified_token is not None:
            identity = await self._verifier.verify(shown.unverified_token, shown.peer, now, shown.unverified_proof)
            if identity.subject.issuer == X509_ISSUER:
                raise Refusal(Reason.ISSUER_NOT_TRUSTED, "this issuer is not trusted", detail="reserved issuer name")
        elif shown.peer.spiffe_id:
            subject = Subject(X509_ISSUER, shown.peer.spiffe_id)
            identity = Identity(subject, {}, "", now.wall_ms + CERTIFICATE_SECONDS * 1000)
        else:
            raise Refusal(
                Reason.JWT_MALFORMED,
                "neither a workload token nor a certificate with a SPIFFE ID was shown",
                detail="no authorization metadata",
            )
        self._check_user(self._rule_of(identity), shown.peer)
        return identity

    def _check_user(self, rule: SidecarRule, peer: Peer) -> None:
        if peer.transport is not Transport.UNIX or peer.uid in rule.uids:
            return
        if rule.uids or self._certificates:
            raise Refusal(
                Reason.PEER_MISMATCH,
                "this user is not known as that sidecar here; connect over TLS, or add its uid to uids in [[sidecars]]",
                detail=f"uid {peer.uid} on the Unix socket as sidecar {rule.sidecar!r}",
            )

    def name_of(self, identity: Identity) -> str:
        """The sidecar that this identity is; it owns the stream of that name.

        Raises:
            Refusal: SIDECAR_BANNED when no rule names it.
        """
        return self._rule_of(identity).sidecar

    def _rule_of(self, identity: Identity) -> SidecarRule:
        rule = self._rules.get((identity.subject.issuer, identity.subject.subject))
        if rule is None:
            raise Refusal(
                Reason.SIDECAR_BANNED,
                "this identity is no sidecar of this collector; add its issuer and subject to the collector's "
                "configuration",
                detail=f"subject {identity.subject.subject!r} of {identity.subject.issuer!r}",
            )
        return rule


class Operators:
    """Authenticates operators and knows their roles."""

    def __init__(
        self, verifier: IdentityVerifier | None, rules: Sequence[RoleRule], uids: Mapping[int, frozenset[Role]]
    ) -> None:
        """Know these.

        Args:
            verifier: of operators' tokens; None where only local uids are operators.
            rules: roles from claims.
            uids: roles of local users, by the uid that the kernel states on the Unix socket. Over TCP nobody is known
                so, were it from this machine: a forwarder that runs as root would make everybody root.
        """
        self._verifier = verifier
        self._rules = tuple(rules)
        self._uids = dict(uids)

    async def authenticate(self, shown: Shown, now: Instant) -> Identity:
        """An operator with at least one role: by token when one is shown, else by uid.

        Raises:
            Refusal: an identity reason, or OPERATOR_NOT_ALLOWED.
        """
        if shown.unverified_token is None:
            identity = _local(shown, now)
        elif self._verifier is None:
            raise Refusal(
                Reason.ISSUER_NOT_TRUSTED, "no token is accepted here", detail="operators are known by uid only"
            )
        else:
            identity = await self._verifier.verify(shown.unverified_token, shown.peer, now, shown.unverified_proof)
            if identity.subject.issuer == LOCAL_ISSUER:
                raise Refusal(Reason.ISSUER_NOT_TRUSTED, "this issuer is not trusted", detail="reserved issuer name")
        if not self.roles_of(identity):
            raise _not_allowed("has no role here", identity)
        return identity

    def roles_of(self, identity: Identity) -> frozenset[Role]:
        """The roles of an identity that this object authenticated."""
        if identity.subject.issuer == LOCAL_ISSUER:
            return self._uids.get(int(identity.subject.subject.removeprefix("uid:")), frozenset())
        return frozenset(rule.role for rule in self._rules if _holds(rule, identity))

    def require(self, identity: Identity, *allowed: Role) -> None:
        """Go on when the identity has one of these roles.

        Raises:
            Refusal: OPERATOR_NOT_ALLOWED.
        """
        if not self.roles_of(identity) & set(allowed):
            needed = " or ".join(role.value for role in allowed)
            why = f"needs the role {needed}"
            raise _not_allowed(why, identity)


def _local(shown: Shown, now: Instant) -> Identity:
    if shown.peer.uid is None or shown.peer.transport is not Transport.UNIX:
        raise Refusal(
            Reason.JWT_MALFORMED, "no token was sent", detail="no authorization metadata, and over TCP no uid counts"
        )
    subject = Subject(LOCAL_ISSUER, f"uid:{shown.peer.uid}")
    return Identity(subject, {}, "", now.wall_ms + LOCAL_SECONDS * 1000)


def _holds(rule: RoleRule, identity: Identity) -> bool:
    if rule.issuer != identity.subject.issuer:
        return False
    claim = identity.claims.get(rule.claim)
    return claim == rule.value or (isinstance(claim, list) and rule.value in claim)


def _not_allowed(why: str, identity: Identity) -> Refusal:
    return Refusal(
        Reason.OPERATOR_NOT_ALLOWED,
        f"this operator {why}; ask whoever runs the collector to grant it in the configuration",
        detail=f"{identity.subject.subject!r} of {identity.subject.issuer!r}",
    )
