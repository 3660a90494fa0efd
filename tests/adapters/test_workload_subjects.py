"""Whom a token of a mesh (JWT-SVID) or of a cluster names: SPIFFE IDs by the letter, and service accounts."""

from dataclasses import replace

import pytest
from tests.fakes.issuer import ec_key, rsa_key, sign
from tests.fakes.jwt_rules import AUDIENCE, CLUSTER, MESH, PEER, claims, identities, refused
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.reasons import Reason


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


async def test_kubernetes_token(clock):
    """A projected service-account token, in its real shape, verifies; labels come from nested claims."""
    now = clock.wall_ms // 1000
    token = sign(
        {
            "aud": [AUDIENCE],
            "exp": now + 3600,
            "iat": now,
            "iss": CLUSTER.issuer,
            "jti": "9f1d2a10-1111-4222-8333-444455556666",
            "kubernetes.io": {
                "namespace": "agents",
                "node": {"name": "node-1", "uid": "0a1b"},
                "pod": {"name": "agent-0", "uid": "1b2c"},
                "serviceaccount": {"name": "research", "uid": "2c3d"},
            },
            "nbf": now,
            "sub": "system:serviceaccount:agents:research",
        },
        rsa_key("cluster"),
        typ=None,
    )
    identity = await identities(clock).verify(token, PEER, clock.now())
    assert identity.subject.subject == "system:serviceaccount:agents:research"
    assert identity.subject.environment == "agents"


async def test_svid_without_issuer_issue_time_type_and_key_id(clock):
    """A JWT-SVID with nothing optional verifies by the trust domain of its subject."""
    token = sign(
        {"sub": "spiffe://example.org/agent/7", "aud": [AUDIENCE], "exp": clock.wall_ms // 1000 + 300},
        ec_key("mesh"),
        "ES256",
        kid=None,
        typ=None,
    )
    identity = await identities(clock).verify(token, PEER, clock.now())
    assert (
        identity.subject.issuer,
        identity.subject.subject,
    ) == ("spiffe://example.org", "spiffe://example.org/agent/7")


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/./a",
        "spiffe://example.org/a%2fb",
        "spiffe://example.org/a?x=1",
        "spiffe://example.org/a#x",
        "spiffe://example.org/é",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
async def test_svid_subject_grammar(clock, subject):
    """A subject that is not a SPIFFE ID by the letter is refused."""
    token = sign(claims(clock, iss=..., sub=subject), ec_key("mesh"), "ES256", kid="m1")
    assert await refused(clock, token) == Reason.CLAIM_REJECTED


@pytest.mark.parametrize(
    "subject",
    [
        "spiffe://other.org/a",
        "SPIFFE://example.org/a",
        "spiffe://Example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://user@example.org/a",
        "https://example.org/a",
    ],
)
async def test_svid_of_another_trust_domain(clock, subject):
    """A subject outside the trust domain finds no rule."""
    token = sign(claims(clock, iss=..., sub=subject), ec_key("mesh"), "ES256", kid="m1")
    assert await refused(clock, token) == Reason.ISSUER_NOT_TRUSTED


async def test_svid_signed_by_an_x509_key_of_the_bundle(clock):
    """A bundle's key for certificates does not verify JWT-SVIDs."""
    token = sign(claims(clock, iss=..., sub="spiffe://example.org/a"), ec_key("x509"), "ES256", kid="x1")
    assert await refused(clock, token) == Reason.JWT_UNKNOWN_KEY


async def test_svid_with_an_issuer_that_is_not_configured(clock):
    """A JWT-SVID's `iss`, where present, must be the configured one."""
    token = sign(
        claims(clock, iss="https://spire.example", sub="spiffe://example.org/a"), ec_key("mesh"), "ES256", kid="m1"
    )
    assert await refused(clock, token) == Reason.ISSUER_NOT_TRUSTED
    rule = replace(MESH, jwt_issuer="https://spire.example")
    identity = await identities(clock, rule).verify(token, PEER, clock.now())
    assert identity.subject.issuer == "spiffe://example.org"


@pytest.mark.parametrize(
    "subject", ["system:serviceaccount:a", "agent-7", "system:serviceaccount:A:b", "system:node:n"]
)
async def test_kubernetes_subject(clock, subject):
    """Only service accounts come from a cluster's issuer."""
    token = sign(claims(clock, iss=CLUSTER.issuer, sub=subject), rsa_key("cluster"))
    assert await refused(clock, token) == Reason.CLAIM_REJECTED


async def test_kubernetes_namespaces_disagree(clock):
    """A token whose subject and claim object name different namespaces is refused."""
    token = sign(
        claims(clock, iss=CLUSTER.issuer, sub="system:serviceaccount:a:b", **{"kubernetes.io": {"namespace": "c"}}),
        rsa_key("cluster"),
    )
    assert await refused(clock, token) == Reason.CLAIM_REJECTED
