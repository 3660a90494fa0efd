"""Rules for issuers of three kinds with their keys, a verifier over them, and the claims of a good token."""

import pytest
from tests.fakes.issuer import ec_key, ed_key, jwk, jwks, rsa_key
from tests.fakes.key_source import MemoryKeySource

from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, KeySource, LabelRule
from leasehold_broker.domain.reasons import IDENTITY_REASONS, Refusal

AUDIENCE = "leasehold"
PEER = Peer(1000)
OIDC = IssuerRule(
    name="oidc",
    issuer="https://issuer.example",
    kind=IssuerKind.OIDC,
    audience=AUDIENCE,
    algorithms=frozenset({"RS256", "ES256", "EdDSA", "PS256"}),
    keys=KeySource(url="https://issuer.example/jwks"),
    labels=(LabelRule("environment", fixed="production"), LabelRule("team", path=("team",))),
)
CLUSTER = IssuerRule(
    name="cluster",
    issuer="https://kubernetes.default.svc.cluster.local",
    kind=IssuerKind.KUBERNETES,
    audience=AUDIENCE,
    algorithms=frozenset({"RS256"}),
    keys=KeySource(url="https://kubernetes.default.svc/openid/v1/jwks"),
    labels=(LabelRule("environment", path=("kubernetes.io", "namespace")),),
)
MESH = IssuerRule(
    name="mesh",
    issuer="spiffe://example.org",
    kind=IssuerKind.SPIFFE,
    audience=AUDIENCE,
    algorithms=frozenset({"ES256", "RS256"}),
    keys=KeySource(url="https://spire.example/bundle"),
    token_types=frozenset({"jwt", "jose", ""}),
    labels=(LabelRule("environment", fixed="production"),),
)
SETS = {
    "oidc": jwks(
        jwk(rsa_key(), kid="k1", use="sig"),
        jwk(ec_key(), kid="e1", use="sig"),
        jwk(ed_key(), kid="d1"),
        jwk(rsa_key("enc"), kid="enc", use="enc"),
        jwk(rsa_key("wrap"), kid="wrap", key_ops=["encrypt"]),
        jwk(rsa_key("pinned"), kid="pinned", alg="PS256"),
    ),
    "cluster": jwks(jwk(rsa_key("cluster"), kid="k1", use="sig", alg="RS256")),
    "mesh": jwks(
        jwk(ec_key("mesh"), kid="m1", use="jwt-svid"), jwk(ec_key("x509"), kid="x1", use="x509-svid"), spiffe_sequence=7
    ),
}


def identities(clock, *rules):
    """A verifier over these rules, with their keys in memory."""
    chosen = rules or (OIDC, CLUSTER, MESH)
    return JwtIdentities(chosen, clock, {rule.name: MemoryKeySource(SETS[rule.name]) for rule in chosen})


def claims(clock, **changes):
    """Good claims of the OIDC issuer, changed; `...` leaves one out."""
    now = clock.wall_ms // 1000
    members = {"iss": OIDC.issuer, "sub": "agent-7", "aud": AUDIENCE, "iat": now, "exp": now + 600, "team": "search"}
    members.update(changes)
    return {name: value for name, value in members.items() if value is not ...}


async def refused(clock, token, verifier=None, peer=PEER):
    """The reason for which the token is refused; the refusal never repeats the token."""
    with pytest.raises(Refusal) as caught:
        await (verifier or identities(clock)).verify(token, peer, clock.now())
    assert caught.value.reason in IDENTITY_REASONS
    assert len(token) < 20 or token not in repr(caught.value)
    return caught.value.reason
