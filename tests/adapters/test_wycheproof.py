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


def as_sent(test):
    """The case's token as a caller would send it: compact, or the text of its JSON form."""
    token = test.get("jws", test.get("jwe"))
    return token if isinstance(token, str) else json.dumps(token)


def cases_of(collection):
    """Number, public keys, text and verdict of each case of one of the collection's files."""
    groups = json.loads((FOLDER / f"json_web_{collection}_test.json").read_text("utf-8"))["testGroups"]
    return [
        (test["tcId"], keys.get("keys", [keys]), as_sent(test), test["result"])
        for group in groups
        for keys in [group.get("public", group["private"])]
        for test in group["tests"]
    ]


CASES = {name: cases_of(name) for name in ("signature", "key", "encryption", "crypto")}
SIGNING = frozenset({"", "sig"})
"""The uses of keys that an OIDC issuer's set may say."""
SYMMETRIC = "an HMAC key is no public key: whoever verifies could sign, so none is taken from a key set"
NOT_BASE64 = "and its text is not base64url, which Wycheproof's verdict lets pass"
NO_CLAIMS = "an empty payload is no JSON object, so no claims"
OTHER_ALGORITHM = "the token says PS384 and the key says PS256: a key is bound to the algorithm that it states"
NO_SUCH_ALGORITHM = "the key says ES521, which no registry knows: it is left out of the set"
ENCRYPTED = "no encrypted token is taken"
DEVIATIONS = {
    "signature": {
        **dict.fromkeys((1, 348, 352, 357, 358, 359, 376, 377), SYMMETRIC),
        **dict.fromkeys((372, 373), f"{SYMMETRIC}; {NOT_BASE64}"),
        **dict.fromkeys((259, 264, 268, 272, 320, 325), NO_CLAIMS),
        **dict.fromkeys((346, 350), OTHER_ALGORITHM),
        **dict.fromkeys((347, 351), NO_SUCH_ALGORITHM),
    },
    "key": dict.fromkeys((2, 13, 14, 15), SYMMETRIC),
    "encryption": {number: ENCRYPTED for number, *_, verdict in CASES["encryption"] if verdict == "valid"},
    "crypto": {**dict.fromkeys((1, 48), SYMMETRIC), **dict.fromkeys((50, 67), ENCRYPTED)},
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
        candidates = read_key_set(jwks(*keys), SIGNING).candidates(header.get("kid"), header["alg"])
    except (Refusal, KeySetRefusedError):
        return False
    return any(key.verifies(header["alg"], signed, signature) for key in candidates)


@pytest.mark.parametrize(
    ("collection", "size", "invalid"),
    [("signature", 401, 355), ("key", 26, 21), ("encryption", 139, 74), ("crypto", 83, 77)],
)
def test_verdicts(collection, size, invalid):
    """Signature path: 0 invalid ones are accepted, and the valid ones that are refused are exactly the listed."""
    cases = CASES[collection]
    assert (size, invalid) == (len(cases), sum(verdict == "invalid" for *_, verdict in cases))
    accepted = {number for number, keys, text, _ in cases if verified(keys, text)}
    assert {number for number, *_, verdict in cases if verdict == "invalid"} & accepted == set()
    assert {number for number, *_, verdict in cases if verdict == "valid"} - accepted == DEVIATIONS[collection].keys()


@pytest.mark.parametrize("collection", CASES)
def test_the_token_gate_takes_none(collection):
    """None of the texts is a workload token: what is well formed has no claims as its payload."""
    for number, _, text, _ in CASES[collection]:
        with pytest.raises(Refusal) as refused:
            read_token(text)
        assert refused.value.reason == Reason.JWT_MALFORMED, number


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
