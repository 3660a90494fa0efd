"""Negative cases of RFC 8725 and of the JWT-SVID standard, by section, through the whole verifier.

A table of our own; what `test_jwt_identities.py` holds in another form is not repeated here.
"""

import json
from dataclasses import replace

import pytest
from tests.fakes.issuer import b64, ec_key, ed_key, jwk, jwks, rsa_key, sign, sign_raw
from tests.fakes.jwt_rules import MESH
from tests.fakes.key_source import MemoryKeySource
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.adapters.jwk_set import ALGORITHMS
from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.issuer import IssuerKind, IssuerRule, KeySource
from leasehold_broker.domain.reasons import Reason, Refusal

AUDIENCE = "leasehold"
OIDC = IssuerRule(
    name="oidc",
    issuer="https://issuer.example",
    kind=IssuerKind.OIDC,
    audience=AUDIENCE,
    algorithms=frozenset({"RS256", "ES256"}),
    keys=KeySource(url="https://issuer.example/jwks"),
)
KEYS = {
    "oidc": jwks(
        jwk(rsa_key(), kid="k1", use="sig"), jwk(ec_key(), kid="e1"), jwk(ec_key("p384", "P-384"), kid="e384")
    ),
    "mesh": jwks(
        jwk(ec_key("mesh"), kid="m1", use="jwt-svid"),
        jwk(ec_key("unused"), kid="m2"),
        jwk(ec_key("signing"), kid="m3", use="sig"),
        jwk(ec_key("wit"), kid="m4", use="wit-svid"),
        jwk(ed_key("mesh"), kid="m5", use="jwt-svid"),
    ),
}


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


def claims(clock, **changes):
    """Good claims of the OIDC issuer, changed; `...` leaves one out."""
    now = clock.wall_ms // 1000
    members = {"iss": OIDC.issuer, "sub": "agent-7", "aud": AUDIENCE, "iat": now, "exp": now + 600, **changes}
    return {name: value for name, value in members.items() if value is not ...}


def svid(clock, **changes):
    """Good claims of a JWT-SVID, changed."""
    return claims(clock, **{"iss": ..., "sub": "spiffe://example.org/agent", "aud": [AUDIENCE], **changes})


async def reason(clock, token, *rules):
    """Why a token is refused; None when it is taken."""
    chosen = rules or (OIDC, MESH)
    verifier = JwtIdentities(chosen, clock, {rule.name: MemoryKeySource(KEYS[rule.name]) for rule in chosen})
    try:
        await verifier.verify(token, Peer(1000), clock.now())
    except Refusal as refusal:
        return refusal.reason
    return None


async def test_the_unchanged_ones_are_taken(clock):
    """What every row below changes is good as it is."""
    assert None is await reason(clock, sign(claims(clock), rsa_key()))
    assert None is await reason(clock, sign(svid(clock), ec_key("mesh"), "ES256", kid="m1"))
    assert None is await reason(clock, sign(svid(clock), ec_key("mesh"), "ES256", kid="m1", typ="JOSE"))


HEADERS_8725 = {
    "2.1 none, no key": {"alg": "none"},
    "2.1 none with spaces": {"alg": " none"},
    "3.1 two algorithms": {"alg": ["RS256", "none"]},
    "3.1 no algorithm": {"alg": None},
    "3.1 algorithm as number": {"alg": 256},
    "2.9 kid as SQL": {"kid": "x' UNION SELECT 'k1"},
    "2.9 kid as path": {"kid": "../../../../dev/null"},
    "2.9 kid as command": {"kid": "|/bin/true"},
    "2.9 kid as URL": {"kid": "https://evil.example/key"},
    "2.9 kid as object": {"kid": {"$ne": ""}},
    "2.9 kid null": {"kid": "\0"},
    "3.10 jku": {"jku": "https://issuer.example.evil.example/jwks"},
    "3.10 x5u to loopback": {"x5u": "http://127.0.0.1:9/"},
    "3.10 embedded symmetric key": {"jwk": {"kty": "oct", "k": "AA"}},
    "2.4 nested token": {"cty": "JWT"},
    "3.6 compressed": {"zip": "DEF"},
    "critical, unknown": {"crit": ["x"], "x": 1},
    "critical, empty": {"crit": []},
    "unencoded payload (RFC 7797)": {"b64": False, "crit": ["b64"]},
    "3.11 typed for another use": {"typ": "secevent+jwt"},
    "3.11 access token": {"typ": "at+jwt"},
    "3.11 DPoP proof": {"typ": "dpop+jwt"},
    "3.11 logout token": {"typ": "logout+jwt"},
    "claims in the header": {"iss": "https://issuer.example"},
    "encrypted": {"enc": "A128GCM"},
    "issued by another key of the set": {"kid": "e1"},
}


@pytest.mark.parametrize("name", HEADERS_8725)
async def test_rfc_8725_headers(clock, name):
    """Each header that picks, replaces or reinterprets what is verified is refused under a right signature."""
    header = {"alg": "RS256", "kid": "k1", "typ": "JWT", **HEADERS_8725[name]}
    text = json.dumps({member: value for member, value in header.items() if value is not None}).encode()
    token = sign_raw(text, json.dumps(claims(clock)).encode(), rsa_key())
    assert await reason(clock, token) in {
        *(Reason.JWT_MALFORMED, Reason.JWT_BAD_SIGNATURE, Reason.JWT_UNKNOWN_KEY, Reason.TOKEN_TYPE_REJECTED)
    }


@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - {"RS256", "ES256"}))
async def test_rfc_8725_3_1_only_the_issuers_algorithms(clock, algorithm):
    """An algorithm that the library knows, but the issuer's rule does not name, is refused with a right signature."""
    keys = {"R": rsa_key(), "P": rsa_key(), "E": ec_key(), "d": ed_key()}
    key = ed_key() if algorithm.startswith("Ed") else keys[algorithm[0]]
    curves = {"ES384": "P-384", "ES512": "P-521"}
    if algorithm in curves:
        key = ec_key(curves[algorithm].lower(), curves[algorithm])
    token = sign(claims(clock), key, algorithm)
    assert await reason(clock, token) == Reason.JWT_BAD_SIGNATURE


@pytest.mark.parametrize(
    ("why", "changes"),
    [
        ("3.8 issuer in another case", {"iss": "HTTPS://issuer.example"}),
        ("3.8 issuer with a path", {"iss": "https://issuer.example/other"}),
        ("3.8 issuer with a port", {"iss": "https://issuer.example:443"}),
        ("3.8 issuer that begins alike", {"iss": "https://issuer.example.evil.example"}),
        ("3.8 issuer with a space", {"iss": " https://issuer.example"}),
        ("3.8 no issuer", {"iss": ...}),
        ("3.8 issuer null", {"iss": None}),
        ("3.8 another issuer's subject", {"sub": "spiffe://example.org/agent", "iss": ...}),
        ("3.9 no audience", {"aud": ...}),
        ("3.9 audience null", {"aud": None}),
        ("3.9 audience that begins alike", {"aud": "leasehold-admin"}),
        ("3.9 audience as a pattern", {"aud": "*"}),
        ("3.9 audience inside a list in a list", {"aud": [["leasehold"]]}),
        ("3.9 one audience in a text", {"aud": "leasehold other"}),
        ("3.12 no end", {"exp": ...}),
        ("3.12 end as text", {"exp": "2999-01-01"}),
        ("3.12 end as a fraction", {"exp": 1e12}),
        ("3.12 end beyond time", {"exp": 2**63}),
        ("3.12 begins later", {"nbf": 2**40}),
    ],
)
async def test_rfc_8725_claims(clock, why, changes):
    """Each claim that leaves room for whom or when is refused under a right signature."""
    assert await reason(clock, sign(claims(clock, **changes), rsa_key())) is not None, why


async def test_rfc_8725_2_7_a_token_for_another_recipient_or_of_another_kind(clock):
    """A token of one issuer and audience is no token of another rule, though the keys are the same."""
    twin = replace(OIDC, name="mesh", issuer="https://other.example")
    elsewhere = replace(OIDC, audience="other")
    token = sign(claims(clock), rsa_key())
    assert await reason(clock, token, twin) == Reason.ISSUER_NOT_TRUSTED
    assert await reason(clock, token, elsewhere) == Reason.AUDIENCE_MISMATCH


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
async def test_rfc_8725_3_2_a_key_of_another_curve_does_not_verify(clock, curve):
    """ES256 needs P-256: a key of another curve, or another key, verifies nothing."""
    key = ec_key("stranger", curve)
    signed = f"{b64(json.dumps({'alg': 'ES256', 'kid': 'e384', 'typ': 'JWT'}).encode())}.{b64(b'{}')}"
    payload = json.dumps(claims(clock)).encode()
    signed = f"{signed.split('.', maxsplit=1)[0]}.{b64(payload)}"
    signature = ALGORITHMS["ES256" if curve == "P-256" else "ES384"].sign(signed.encode(), key)
    assert await reason(clock, f"{signed}.{b64(signature)}") == Reason.JWT_UNKNOWN_KEY


@pytest.mark.parametrize(
    ("why", "key", "header"),
    [
        ("2.1 EdDSA is not on the standard's list", ed_key("mesh"), {"alg": "EdDSA", "kid": "m5"}),
        ("2.1 HMAC", b"secret", {"alg": "HS256", "kid": "m1"}),
        ("2.1 none", b"", {"alg": "none", "kid": "m1"}),
        ("2.3 another type", ec_key("mesh"), {"alg": "ES256", "kid": "m1", "typ": "wit+jwt"}),
        ("2.3 type with a parameter", ec_key("mesh"), {"alg": "ES256", "kid": "m1", "typ": "JWT; v=1"}),
        ("2 further header", ec_key("mesh"), {"alg": "ES256", "kid": "m1", "spiffe": 1}),
        ("bundle 4.2.2 key without use", ec_key("unused"), {"alg": "ES256", "kid": "m2"}),
        ("bundle 4.2.2 key for something else", ec_key("signing"), {"alg": "ES256", "kid": "m3"}),
        ("bundle 4.2.2 key for other tokens", ec_key("wit"), {"alg": "ES256", "kid": "m4"}),
        ("2.2 key id of another key", ec_key("wit"), {"alg": "ES256", "kid": "m1"}),
    ],
)
async def test_jwt_svid_headers_and_keys(clock, why, key, header):
    """JWT-SVID: other algorithms, types and keys than the standard and the bundle name are refused."""
    text, payload = json.dumps(header).encode(), json.dumps(svid(clock)).encode()
    algorithm = header["alg"] if header["alg"] in ALGORITHMS else "ES256"
    assert await reason(clock, sign_raw(text, payload, key, algorithm)) is not None, why


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ...},
        {"sub": "spiffe://example.org/a:b"},
        {"sub": "spiffe://example.org/a b"},
        {"sub": "spiffe://example.org/a~b"},
        {"sub": "spiffe://example.org/a\\b"},
        {"sub": "spiffe://example.org/.."},
        {"sub": "spiffe://example.org/a/."},
        {"sub": "spiffe://example.org/\u0430"},
        {"sub": "spiffe://example.org./a"},
        {"sub": "spiffe://example%2eorg/a"},
        {"sub": "spiffe:///a"},
        {"sub": "spiffe:example.org/a"},
        {"sub": "spiffe://evil.org/spiffe://example.org/a"},
        {"sub": "spiffe://example.org@evil.org/a"},
        {"sub": ["spiffe://example.org/a"]},
        {"aud": ...},
        {"aud": []},
        {"aud": [AUDIENCE, "other"]},
        {"exp": ...},
        {"exp": 0},
        {"iss": "spiffe://example.org"},
    ],
    ids=str,
)
async def test_jwt_svid_claims(clock, changes):
    """JWT-SVID: `sub`, `aud` and `exp` must be there and be what the standard says, to the letter."""
    token = sign(svid(clock, **changes), ec_key("mesh"), "ES256", kid="m1")
    assert await reason(clock, token) is not None
