"""Workload JWTs to identities. Owns the order of the checks; the only maker of `Identity` from a token.

Gate (text), issuer rule (unverified words choose it, nothing else), way of presenting, type and algorithm, key,
signature over the exact bytes, claims, peer, proof of possession, replay. PyJWT is asked one thing only: whether this
signature over these bytes is this key's. What must not be shown twice is claimed last, when all else holds, and is
durable before the identity is given.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from leasehold_broker.adapters.jwks_cache import JwksCache, Source
from leasehold_broker.adapters.jwt_gate import UnverifiedToken, read_token
from leasehold_broker.adapters.jwt_proofs import dpop_claims, wpt_claims
from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.issuer import IssuerRule, IssuerRules, Proof, Replay
from leasehold_broker.domain.proof import (
    Proven,
    Scheme,
    UnverifiedProof,
    check_certificate,
    check_dpop,
    check_no_key,
    check_wpt,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.replay import NOBODY, Showing, Showings
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.workload_claims import identity_from_claims, rejected
from leasehold_broker.ports.clock import Clock

_SCHEMES = {Proof.NONE: Scheme.BEARER, Proof.MTLS: Scheme.BEARER, Proof.DPOP: Scheme.DPOP, Proof.WIT: Scheme.WPT}
BEARER = UnverifiedProof()

Keep = Callable[[Showing], Awaitable[None]]
"""Makes a first showing durable. Raises Refusal when it cannot; then it has not been shown."""


async def keep_nothing(_showing: Showing) -> None:
    """For processes whose rules need no memory beyond their own life."""


class JwtIdentities:
    """The identity verifier for workload JWTs: OIDC, Kubernetes service accounts, JWT-SVIDs, WIT-SVIDs."""

    def __init__(
        self,
        rules: Iterable[IssuerRule],
        clock: Clock,
        sources: Mapping[str, Source] | None = None,
        on_failure: Callable[[str, str], None] = lambda _rule, _why: None,
        keep: Keep = keep_nothing,
        on_bearer: Callable[[Identity, str], None] = lambda _identity, _token: None,
    ) -> None:
        """Prepare a key cache for each rule; nothing is fetched yet.

        Args:
            rules: whom to believe.
            clock: for the key caches.
            sources: by rule name, instead of the key source that the rule names.
            on_failure: told rule name and reason when keys cannot be fetched.
            keep: makes durable what must not be shown again.
            on_bearer: told each verified token that is good without a proof; it must not keep it where it can be read.

        Raises:
            ValueError: a rule is wrong; the message lists everything.
            OSError: a file of certificates cannot be read.
        """
        self._rules = IssuerRules(rules)
        self._keep = keep
        self._on_bearer = on_bearer
        given = sources or {}
        self.caches = {
            rule.name: JwksCache(rule, clock, given.get(rule.name), on_failure) for rule in self._rules.rules
        }
        self._showings = {rule.name: Showings(rule.name) for rule in self._rules.rules}

    async def start(self) -> None:
        """Fetch all key sets at once and keep them fresh. An issuer that is down delays by its time bound at most."""
        await asyncio.gather(*(cache.start() for cache in self.caches.values()))

    def restore(self, showings: Iterable[Showing], now: Instant) -> None:
        """Take what an earlier life has kept. Call before the first `verify`."""
        kept = tuple(showings)
        for table in self._showings.values():
            table.restore(kept, now)

    async def aclose(self) -> None:
        """Stop everything that runs."""
        await asyncio.gather(*(cache.aclose() for cache in self.caches.values()))

    async def verify(
        self, unverified_token: str, peer: Peer, now: Instant, unverified_proof: UnverifiedProof = BEARER
    ) -> Identity:
        """See the port."""
        token, rule = self._read(unverified_token)
        if unverified_proof.scheme is not _SCHEMES[rule.proof]:
            raise rejected(
                Reason.PROOF_REJECTED,
                f"presented as {unverified_proof.scheme}; tokens of {rule.name!r} are presented as "
                f"{_SCHEMES[rule.proof]}",
            )
        await self._check_signature(rule, token)
        identity = identity_from_claims(rule, token.claims, now)
        if rule.peer_uids and peer.uid not in rule.peer_uids:
            raise rejected(Reason.PEER_MISMATCH, f"peer {peer.binding} may not present tokens of {rule.name!r}")
        proven = _check_proof(rule, identity, unverified_token, peer, unverified_proof, now)
        await self._claim(rule, identity, peer, proven, now)
        if rule.proof is Proof.NONE:
            self._on_bearer(identity, unverified_token)
        return identity

    async def explain(self, unverified_token: str, now: Instant) -> Identity:
        """Whom a token speaks of, for explaining a decision to whoever has it in hand; never for granting anything.

        Everything is checked but what ties a token to the one who shows it: peer, proof and replay.

        Raises:
            Refusal: one of IDENTITY_REASONS.
        """
        token, rule = self._read(unverified_token)
        await self._check_signature(rule, token)
        return identity_from_claims(rule, token.claims, now)

    def _read(self, unverified_token: str) -> tuple[UnverifiedToken, IssuerRule]:
        token = read_token(unverified_token)
        rule = self._rules.choose(token.claims.get("iss"), token.claims.get("sub"))
        if rule is None:
            raise rejected(Reason.ISSUER_NOT_TRUSTED, "no issuer rule speaks for this token")
        return token, rule

    async def _check_signature(self, rule: IssuerRule, token: UnverifiedToken) -> None:
        if token.token_type not in rule.types_accepted:
            raise rejected(Reason.TOKEN_TYPE_REJECTED, f"'typ' is not one that {rule.name!r} issues")
        if token.algorithm not in rule.algorithms:
            raise rejected(Reason.JWT_BAD_SIGNATURE, f"'alg' is not allowed for {rule.name!r}")
        if token.key_id is None and rule.proof is Proof.WIT:
            raise rejected(Reason.JWT_MALFORMED, "header member 'kid' is missing; a WIT-SVID has one")
        keys = await self.caches[rule.name].keys_for(token.key_id, token.algorithm)
        if not any(key.verifies(token.algorithm, token.signed, token.signature) for key in keys):
            raise rejected(Reason.JWT_BAD_SIGNATURE, "the signature is not the issuer's")

    async def _claim(
        self, rule: IssuerRule, identity: Identity, peer: Peer, proven: tuple[str, Proven] | None, now: Instant
    ) -> None:
        showings = self._showings[rule.name]
        claimed: list[Showing | None] = []
        try:
            if proven is not None:
                key, proof = proven
                claimed.append(showings.claim(f"proof {key}", proof.proof_id, NOBODY, proof.seconds_left, now))
            if rule.replay is not Replay.OFF:
                holder = peer.binding if rule.replay is Replay.BIND_FIRST_PEER else NOBODY
                seconds_left = identity.expires_wall_ms // 1000 + rule.leeway_seconds - now.wall_ms // 1000
                claimed.append(showings.claim("token", identity.token_id, holder, seconds_left, now))
        finally:
            # A proof stays used when its token is refused: whoever has seen it must not try it with another one.
            fresh = [showing for showing in claimed if showing is not None]
            if fresh:
                await self._make_durable(showings, fresh)

    async def _make_durable(self, showings: Showings, fresh: list[Showing]) -> None:
        try:
            await asyncio.gather(*(self._keep(showing) for showing in fresh))
        except Refusal:
            for showing in fresh:
                showings.forget(showing)
            raise


def _check_proof(
    rule: IssuerRule, identity: Identity, token: str, peer: Peer, shown: UnverifiedProof, now: Instant
) -> tuple[str, Proven] | None:
    """The thumbprint of the key that was proven and the proof, where the proof is a token of its own."""
    match rule.proof:
        case Proof.NONE:
            check_no_key(identity.claims)
            return None
        case Proof.MTLS:
            check_certificate(identity.claims, identity.subject.subject, peer)
            return None
        case Proof.DPOP:
            claims, key = dpop_claims(shown.token, identity.claims)
            return key, check_dpop(claims, token, shown.method, rule.leeway_seconds, now)
        case Proof.WIT:
            claims, key = wpt_claims(shown.token, identity.claims)
            return key, check_wpt(claims, token, rule.audience, shown.method, rule.leeway_seconds, now)
