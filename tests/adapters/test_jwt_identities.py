"""The verifier as a whole: good tokens, and everything that must be refused whatever its kind (RFC 8725)."""

import base64
import hmac
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import der_to_raw_signature, raw_to_der_signature
from tests.fakes.issuer import b64, ec_key, ed_key, jwk, rsa_key, sign, sign_raw
from tests.fakes.jwt_rules import AUDIENCE, OIDC, PEER, claims, identities, refused
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.issuer import Replay
from leasehold_broker.domain.lease import make_token
from leasehold_broker.domain.reasons import Reason, Refusal


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(rsa_key(), "RS256", "k1"), (rsa_key(), "PS256", "k1"), (ec_key(), "ES256", "e1"), (ed_key(), "EdDSA", "d1")],
)
async def test_oidc_token(clock, key, algorithm, kid):
    """A generic OIDC token gives issuer, subject, labels, token id and end, whatever asymmetric algorithm signs."""
    token = sign(claims(clock, jti="t1"), key, algorithm, kid=kid)
    identity = await identities(clock).verify(token, PEER, clock.now())
    assert (OIDC.issuer, "agent-7") == (identity.subject.issuer, identity.subject.subject)
    assert identity.subject.labels == {"environment": "production", "team": "search"}
    assert ("t1", clock.wall_ms + 600_000) == (identity.token_id, identity.expires_wall_ms)


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (Reason.JWT_EXPIRED, {"exp": -31}),
        (Reason.JWT_EXPIRED, {"exp": -30, "iat": -100}),
        (Reason.JWT_NOT_YET_VALID, {"nbf": 31}),
        (Reason.JWT_NOT_YET_VALID, {"iat": 31}),
        (Reason.JWT_LIFETIME_TOO_LONG, {"exp": 3601}),
        (Reason.JWT_LIFETIME_TOO_LONG, {"exp": 3700, "iat": ...}),
        (Reason.JWT_LIFETIME_TOO_LONG, {"exp": 600, "iat": -3600}),
    ],
)
async def test_times(clock, expected, changes):
    """Expired, early and long-lived tokens are refused, with the exact reason."""
    now = clock.wall_ms // 1000
    moved = {name: value if value is ... else now + value for name, value in changes.items()}
    assert expected == await refused(clock, sign(claims(clock, **moved), rsa_key()))


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (Reason.CLAIM_REJECTED, {"exp": ...}),
        (Reason.CLAIM_REJECTED, {"exp": "9999999999"}),
        (Reason.CLAIM_REJECTED, {"exp": 10**30}),
        (Reason.CLAIM_REJECTED, {"exp": True}),
        (Reason.CLAIM_REJECTED, {"exp": 1.8e9}),
        (Reason.CLAIM_REJECTED, {"exp": None}),
        (Reason.CLAIM_REJECTED, {"exp": -1}),
        (Reason.CLAIM_REJECTED, {"nbf": "0"}),
        (Reason.CLAIM_REJECTED, {"iat": [0]}),
        (Reason.AUDIENCE_MISMATCH, {"aud": ...}),
        (Reason.AUDIENCE_MISMATCH, {"aud": "other"}),
        (Reason.AUDIENCE_MISMATCH, {"aud": [AUDIENCE, "other"]}),
        (Reason.AUDIENCE_MISMATCH, {"aud": [AUDIENCE, AUDIENCE]}),
        (Reason.AUDIENCE_MISMATCH, {"aud": []}),
        (Reason.AUDIENCE_MISMATCH, {"aud": {AUDIENCE: 1}}),
        (Reason.AUDIENCE_MISMATCH, {"aud": AUDIENCE.upper()}),
        (Reason.CLAIM_REJECTED, {"sub": ...}),
        (Reason.CLAIM_REJECTED, {"sub": ""}),
        (Reason.CLAIM_REJECTED, {"sub": 7}),
        (Reason.CLAIM_REJECTED, {"sub": "a\nb"}),
        (Reason.CLAIM_REJECTED, {"sub": "agent\u202e"}),
        (Reason.CLAIM_REJECTED, {"sub": "\u0430gent"}),
        (Reason.CLAIM_REJECTED, {"sub": "agent-*"}),
        (Reason.CLAIM_REJECTED, {"sub": " agent"}),
        (Reason.CLAIM_REJECTED, {"sub": "a" * 513}),
        (Reason.CLAIM_REJECTED, {"jti": 5}),
        (Reason.CLAIM_REJECTED, {"jti": "x" * 257}),
        (Reason.CLAIM_REJECTED, {"team": ["search"]}),
        (Reason.CLAIM_REJECTED, {"team": "x" * 129}),
        (Reason.ISSUER_NOT_TRUSTED, {"iss": "https://evil.example"}),
        (Reason.ISSUER_NOT_TRUSTED, {"iss": OIDC.issuer + "/"}),
        (Reason.ISSUER_NOT_TRUSTED, {"iss": ...}),
        (Reason.ISSUER_NOT_TRUSTED, {"iss": [OIDC.issuer]}),
    ],
)
async def test_claims(clock, expected, changes):
    """Missing, mistyped and unbounded claims are refused, though the signature is right."""
    assert expected == await refused(clock, sign(claims(clock, **changes), rsa_key()))


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        (Reason.TOKEN_TYPE_REJECTED, {"typ": "at+jwt"}),
        (Reason.TOKEN_TYPE_REJECTED, {"typ": "application/at+jwt"}),
        (Reason.TOKEN_TYPE_REJECTED, {"typ": "JOSE"}),
        (Reason.JWT_MALFORMED, {"typ": 1}),
        (Reason.JWT_MALFORMED, {"typ": ""}),
        (Reason.JWT_MALFORMED, {"jku": "https://evil.example/jwks"}),
        (Reason.JWT_MALFORMED, {"jwk": jwk(rsa_key("evil"))}),
        (Reason.JWT_MALFORMED, {"x5u": "https://evil.example/cert"}),
        (Reason.JWT_MALFORMED, {"x5c": ["MIIB"]}),
        (Reason.JWT_MALFORMED, {"crit": ["exp"]}),
        (Reason.JWT_MALFORMED, {"b64": False}),
        (Reason.JWT_MALFORMED, {"zip": "DEF"}),
        (Reason.JWT_MALFORMED, {"kid": 7}),
        (Reason.JWT_MALFORMED, {"kid": ""}),
        (Reason.JWT_MALFORMED, {"kid": "x" * 257}),
        (Reason.JWT_MALFORMED, {"kid": "k1\u0000"}),
        (Reason.JWT_UNKNOWN_KEY, {"kid": "../../etc/passwd"}),
        (Reason.JWT_UNKNOWN_KEY, {"kid": "e1"}),
        (Reason.JWT_UNKNOWN_KEY, {"kid": "enc"}),
        (Reason.JWT_UNKNOWN_KEY, {"kid": "wrap"}),
        (Reason.JWT_UNKNOWN_KEY, {"kid": "pinned"}),
    ],
)
async def test_headers(clock, expected, header):
    """Header members that would choose or replace the key, other types, and unfit keys are refused."""
    keys = {"enc": rsa_key("enc"), "wrap": rsa_key("wrap"), "pinned": rsa_key("pinned")}
    key = keys.get(str(header.get("kid")), rsa_key())
    assert expected == await refused(clock, sign(claims(clock), key, **header))


@pytest.mark.parametrize("algorithm", ["none", "None", "nOnE", "HS256", "HS512", "RS1", "ES256K", "RS384", "", "rs256"])
async def test_algorithm_not_allowed(clock, algorithm):
    """No algorithm outside the issuer's list is accepted, whatever the signature is."""
    token = sign(claims(clock), rsa_key())
    header = json.dumps({"alg": algorithm, "kid": "k1"}).encode()
    forged = ".".join([b64(header), *token.split(".")[1:]])
    assert await refused(clock, forged) == Reason.JWT_BAD_SIGNATURE


async def test_public_key_as_hmac_secret(clock):
    """HS256 with the issuer's public key as the secret (algorithm confusion) is refused."""
    public = rsa_key().public_key()
    header = json.dumps({"alg": "HS256", "kid": "k1"}).encode()
    payload = json.dumps(claims(clock)).encode()
    for encoding, form in ((Encoding.DER, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.PKCS1)):
        secret = public.public_bytes(encoding, form)
        signed = f"{b64(header)}.{b64(payload)}".encode()
        token = f"{signed.decode()}.{b64(hmac.digest(secret, signed, 'sha256'))}"
        assert await refused(clock, token) == Reason.JWT_BAD_SIGNATURE


async def test_same_key_id_at_two_issuers(clock):
    """A key id that two issuers share does not let one sign for the other."""
    stolen = sign(claims(clock), rsa_key("cluster"))
    assert await refused(clock, stolen) == Reason.JWT_BAD_SIGNATURE


async def test_issuer_cannot_answer_for_a_trust_domain(clock):
    """An OIDC issuer that names a SPIFFE ID speaks in its own name; without its name its key is unknown."""
    named = sign(claims(clock, sub="spiffe://example.org/agent/7"), rsa_key())
    assert OIDC.issuer == (await identities(clock).verify(named, PEER, clock.now())).subject.issuer
    unnamed = sign(claims(clock, sub="spiffe://example.org/agent/7", iss=...), rsa_key())
    assert await refused(clock, unnamed) == Reason.JWT_UNKNOWN_KEY


async def test_text_forms(clock):
    """Only the canonical compact form is read: no padding, no twins, no JSON serialisation, no fourth segment."""
    good = sign(claims(clock), rsa_key())
    head, body, tail = good.split(".")
    twin = tail[:-1] + chr(ord(tail[-1]) + 1)
    bad = [
        "",
        ".",
        "..",
        good + ".",
        "." + good,
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{tail}",
        f"{good}.{tail}",
        good + "=",
        f" {good}",
        good + "\n",
        f"{head}\n.{body}.{tail}",
        f"{head}.{body}.{twin}",
        f"{head}.{body}.{tail[:-1]}",
        good.replace("-", "+").replace("_", "/") + "+",
        good + "a" * 8192,
        "\u0435" + good[1:],
        json.dumps({"payload": body, "protected": head, "signature": tail}),
        "Bearer " + good,
    ]
    verifier = identities(clock)
    await verifier.verify(good, PEER, clock.now())
    for text in bad:
        assert await refused(clock, text, verifier) == Reason.JWT_MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"a","sub":"b"}',
        b'{"iss":"https://issuer.example","x":{"a":1,"a":2}}',
        b'{"x":NaN}',
        b'{"x":1e999}',
        b'{"x":Infinity}',
        b'{"x":"\\ud800"}',
        b'{"\\udc00":1}',
        b"\xef\xbb\xbf{}",
        b'{"x":"\xff"}',
        '{"sub":"a"}'.encode("utf-16"),
        b"[]",
        b"null",
        b'"text"',
        b"{} {}",
        b"{}\x00",
        b" {}",
        b"{",
        b'{"x":' + b"[" * 9 + b"]" * 9 + b"}",
        b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"x":' + b"9" * 5000 + b"}",
    ],
)
async def test_payload_that_two_readers_would_read_differently(clock, payload):
    """Duplicate members, other encodings, non-finite numbers, depth and trailing data are malformed."""
    token = sign_raw(b'{"alg":"RS256","kid":"k1"}', payload, rsa_key())
    assert await refused(clock, token) == Reason.JWT_MALFORMED
    in_header = sign_raw(payload, b"{}", rsa_key())
    assert await refused(clock, in_header) == Reason.JWT_MALFORMED


async def test_altered_payload(clock):
    """A payload under another payload's signature is refused."""
    head, _, tail = sign(claims(clock), rsa_key()).split(".")
    forged = f"{head}.{b64(json.dumps(claims(clock, sub='root')).encode())}.{tail}"
    assert await refused(clock, forged) == Reason.JWT_BAD_SIGNATURE


async def test_lease_token_is_no_workload_token(clock):
    """A lease token presented as a workload token is refused by its type."""
    assert await refused(clock, make_token(bytes(32)).reveal().decode()) == Reason.TOKEN_TYPE_REJECTED


async def test_replay_binds_to_the_first_peer(clock):
    """A token is useless to a second peer, its first keeps using it, and its id is forgotten after its end."""
    verifier = identities(clock, replace(OIDC, replay=Replay.BIND_FIRST_PEER))
    token = sign(claims(clock, jti="t1"), rsa_key())
    for _ in range(2):
        await verifier.verify(token, PEER, clock.now())
    assert await refused(clock, token, verifier, Peer(1001)) == Reason.REPLAY_DETECTED
    clock.advance(700)
    later = sign(claims(clock, jti="t2"), rsa_key())
    await verifier.verify(later, PEER, clock.now())
    assert len(verifier._showings["oidc"]) == 1


async def test_replay_sees_through_the_high_s_twin(clock):
    """The other valid form of an ECDSA signature is the same token to the replay table."""
    verifier = identities(clock, replace(OIDC, replay=Replay.BIND_FIRST_PEER))
    token = sign(claims(clock, jti="t1"), ec_key(), "ES256", kid="e1")
    await verifier.verify(token, PEER, clock.now())
    head, body, tail = token.split(".")
    curve = ec_key().curve
    r, s = decode_dss_signature(raw_to_der_signature(base64.urlsafe_b64decode(tail + "=="), curve))
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = f"{head}.{body}.{b64(der_to_raw_signature(encode_dss_signature(r, order - s), curve))}"
    assert twin != token
    await verifier.verify(twin, PEER, clock.now())
    assert await refused(clock, twin, verifier, Peer(1001)) == Reason.REPLAY_DETECTED


async def test_replay_needs_a_token_id(clock):
    """Under a replay policy a token without an id is refused."""
    verifier = identities(clock, replace(OIDC, replay=Replay.BIND_FIRST_PEER))
    assert await refused(clock, sign(claims(clock), rsa_key()), verifier) == Reason.CLAIM_REJECTED


async def test_peer_uid_demanded(clock):
    """An issuer's tokens can be tied to uids."""
    verifier = identities(clock, replace(OIDC, peer_uids=frozenset({1000})))
    token = sign(claims(clock), rsa_key())
    await verifier.verify(token, PEER, clock.now())
    assert await refused(clock, token, verifier, Peer(0)) == Reason.PEER_MISMATCH
    assert await refused(clock, token, verifier, Peer(None, "ab")) == Reason.PEER_MISMATCH


async def test_one_public_sentence(clock):
    """The caller cannot tell one failure from another; the audit detail can."""
    seen = {}
    for token in (sign(claims(clock, aud="x"), rsa_key()), sign(claims(clock), rsa_key("evil")), "x", "a.b.c"):
        with pytest.raises(Refusal) as caught:
            await identities(clock).verify(token, PEER, clock.now())
        seen[caught.value.detail] = caught.value.message
    assert len(set(seen.values())) == 1
    assert len(seen) >= 3
