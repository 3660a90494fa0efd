"""Wycheproof's JWS, JWK and JWE cases: no invalid signature is accepted; each deviation from a verdict has a reason."""

import json
from pathlib import Path

import pytest
from tests.fakes.bad_padding import bad_signatures
from tests.fakes.issuer import b64, ec_key, jwk, jwks, rsa_key, sign

from leasehold_broker.adapters import jwt_gate
from leasehold_broker.adapters.jwk_set import ALGORITHMS, KeySetRefusedError, read_key_set
from leasehold_broker.adapters.jwt_gate import read_token
from leasehold_broker.domain.reasons import Reason, Refusal

FOLDER = Path(__file__).parent.parent / "vectors" / "wycheproof"
JWS = [
    (f"{group['comment']}:{number}:{test['comment']}", group["keys"], test["jws"], test["result"])
    for group in json.loads((FOLDER / "json_web_signature.json").read_text("utf-8"))["groups"]
    for number, test in enumerate(group["tests"])
]
JWK = [
    (f"{test['id']}:{test['comment']}", test["keys"], test["jws"], test["result"])
    for test in json.loads((FOLDER / "json_web_key.json").read_text("utf-8"))["tests"]
]
SYMMETRIC = "an HMAC key is no public key: whoever verifies could sign, so none is taken from a key set"
NOT_BASE64 = "and its text is not base64url, which Wycheproof's verdict lets pass"
DEVIATIONS = {
    "hs256:0:acceptsValid": SYMMETRIC,
    "base64:0:ValidMac": SYMMETRIC,
    "base64:1:ValidEdgeCaseMac": SYMMETRIC,
    "base64:2:ValidEdgeCaseMac": SYMMETRIC,
    "base64:15:InvalidCharacterInsertedInHeader": f"{SYMMETRIC}; {NOT_BASE64}",
    "base64:16:InvalidCharacterInsertedInPayload": f"{SYMMETRIC}; {NOT_BASE64}",
    "base64:19:ValidSpacesInJsonHeader": SYMMETRIC,
    "base64:20:ValidWhiteSpaceInJsonHeader": SYMMETRIC,
    "2:acceptsValid": SYMMETRIC,
    "13:long_key": SYMMETRIC,
    "14:long_key": SYMMETRIC,
    "15:long_key": SYMMETRIC,
}
"""Valid by Wycheproof, refused by us. The other direction, invalid and accepted, must stay empty."""


def verified(keys, text):
    """Whether the text's signature is right for a key of the set, by our own reading of text, header and keys.

    The token gate itself refuses every case, because a payload of `foo` holds no claims; so the payload alone is left
    out of the reading here.
    """
    try:
        match = jwt_gate._COMPACT.fullmatch(text)
        if match is None:
            return False
        header = jwt_gate._object(match[1], "header")
        if header.keys() - jwt_gate._HEADER_MEMBERS:
            return False
        jwt_gate._decode(match[2], "payload")
        signature, signed = jwt_gate._decode(match[3], "signature"), text[: match.end(2)].encode()
        candidates = read_key_set(jwks(*keys), frozenset({"sig"})).candidates(header.get("kid"), header["alg"])
    except (Refusal, KeySetRefusedError):
        return False
    return any(key.verifies(header["alg"], signed, signature) for key in candidates)


@pytest.mark.parametrize(("cases", "size", "invalid"), [(JWS, 96, 85), (JWK, 26, 21)], ids=["JWS", "JWK"])
def test_verdicts(cases, size, invalid):
    """Signature path: 0 invalid ones are accepted, and the valid ones that are refused are exactly the listed."""
    assert (size, invalid) == (len(cases), sum(result == "invalid" for *_, result in cases))
    accepted = {name for name, keys, text, _ in cases if verified(keys, text)}
    assert {name for name, *_, result in cases if result == "invalid"} & accepted == set()
    refused = {name for name, *_, result in cases if result == "valid"} - accepted
    assert refused == {name for name, *_ in cases} & DEVIATIONS.keys()


def test_every_deviation_is_one():
    """The list holds nothing that is not in the collections."""
    assert {name for name, *_ in (*JWS, *JWK)} >= DEVIATIONS.keys()


@pytest.mark.parametrize("case", [*JWS, *JWK], ids=lambda case: case[0])
def test_the_token_gate_takes_none(case):
    """None of the texts is a workload token: what is well formed has no claims as its payload."""
    with pytest.raises(Refusal) as refused:
        read_token(case[2])
    assert refused.value.reason == Reason.JWT_MALFORMED


@pytest.mark.parametrize(("algorithm", "digest"), [("RS256", "sha256"), ("RS384", "sha384"), ("RS512", "sha512")])
def test_modified_padding(algorithm, digest):
    """No signature with a wrong PKCS #1 padding is accepted, though the private key made it."""
    key = read_key_set(jwks(jwk(rsa_key(), alg=algorithm)), frozenset({""})).keys[0]
    message = b"header.payload"
    assert key.verifies(algorithm, message, ALGORITHMS[algorithm].sign(message, rsa_key()))
    cases = list(bad_signatures(rsa_key(), digest, message))
    assert len(cases) >= 190
    assert [name for name, signature in cases if key.verifies(algorithm, message, signature)] == []


def test_pss_and_pkcs1_do_not_answer_for_each_other():
    """A signature in one padding is none in the other, nor over another digest, under the same key."""
    key = read_key_set(jwks(jwk(rsa_key())), frozenset({""})).keys[0]
    for name in key.algorithms:
        signature = ALGORITHMS[name].sign(b"x", rsa_key())
        assert {name} == {other for other in key.algorithms if key.verifies(other, b"x", signature)}


JWE_ALGORITHMS = (
    *("RSA1_5", "RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW"),
    *("A128KW", "A192KW", "A256KW", "A128GCMKW", "A256GCMKW", "dir", "PBES2-HS256+A128KW"),
)


@pytest.mark.parametrize("algorithm", JWE_ALGORITHMS)
@pytest.mark.parametrize("encryption", ["A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512", "A128GCM", "A256GCM"])
def test_no_encrypted_token_is_taken(algorithm, encryption):
    """Encrypted tokens are refused by their five parts, by `enc`, and by their algorithm in three parts."""
    header = b64(json.dumps({"alg": algorithm, "enc": encryption, "kid": "k1"}).encode())
    alone = b64(json.dumps({"alg": algorithm, "kid": "k1"}).encode())
    for text in (
        f"{header}.{b64(b'key')}.{b64(b'iv')}.{b64(b'text')}.{b64(b'tag')}",
        f"{header}..{b64(b'iv')}.{b64(b'text')}.{b64(b'tag')}",
        f"{header}.e30.{b64(b'tag')}",
        json.dumps({"protected": header, "encrypted_key": "AA", "iv": "AA", "ciphertext": "AA", "tag": "AA"}),
    ):
        with pytest.raises(Refusal) as refused:
            read_token(text)
        assert refused.value.reason == Reason.JWT_MALFORMED
    assert not verified([jwk(rsa_key(), kid="k1", use="sig")], f"{alone}.e30.{b64(b'tag')}")


@pytest.mark.parametrize("members", [{"use": "enc"}, {"key_ops": ["decrypt", "unwrapKey"]}, {"alg": "RSA-OAEP"}])
def test_no_encryption_key_verifies(members):
    """A key that says that it is for encryption is left out of the set, whatever its type."""
    for key in (rsa_key(), ec_key()):
        with pytest.raises(KeySetRefusedError, match="no usable key"):
            read_key_set(jwks(jwk(key, kid="k1", **members)), frozenset({"", "sig"}))


def test_a_nested_token_is_not_opened():
    """A token in a token (`cty: JWT`) is refused by its header."""
    token = sign({"iss": "x"}, rsa_key(), cty="JWT")
    with pytest.raises(Refusal, match="not accepted"):
        read_token(token)
