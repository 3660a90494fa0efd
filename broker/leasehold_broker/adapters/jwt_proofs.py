"""Proofs of possession that are JWTs: DPoP and the workload proof token. Owns their signatures and whose key it is.

A proof passes the same gate as a token. Its key is public, asymmetric and strong enough, or there is no proof. PyJWT is
asked one thing only, as for tokens: whether this signature over these bytes is this key's.
"""

import base64
import hashlib
import json
from collections.abc import Mapping

from leasehold_broker.adapters.jwk_set import KeySetRefusedError, VerificationKey, read_key
from leasehold_broker.adapters.jwt_gate import UnverifiedToken, read_proof
from leasehold_broker.domain.issuer import ASYMMETRIC_ALGORITHMS
from leasehold_broker.domain.proof import confirmation
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.workload_claims import rejected

DPOP_TYPE = "dpop+jwt"
WPT_TYPE = "wpt+jwt"
_USES = frozenset({"sig", ""})
_THUMBPRINT_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
}


def key_thumbprint(jwk: Mapping[str, object]) -> str:
    """RFC 7638: base64url of the SHA-256 over the key's required members, in order, without white space.

    Args:
        jwk: a key that `read_key` has taken.
    """
    members = {name: jwk[name] for name in _THUMBPRINT_MEMBERS[str(jwk["kty"])]}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def dpop_claims(unverified_proof: str, token_claims: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
    """The claims of a DPoP proof that is signed by the key which the token names in `cnf.jkt`, and its thumbprint.

    Raises:
        Refusal: PROOF_REJECTED, CLAIM_REJECTED.
    """
    named = confirmation(token_claims).get("jkt")
    if not isinstance(named, str):
        raise rejected(Reason.PROOF_REJECTED, "the token names no key ('cnf.jkt')")
    proof = _read(unverified_proof, DPOP_TYPE)
    if proof.key is None:
        raise rejected(Reason.PROOF_REJECTED, "the proof carries no key ('jwk')")
    key = _key(proof.key, "'jwk' of the proof")
    if key_thumbprint(proof.key) != named:
        raise rejected(Reason.PROOF_REJECTED, "the key of the proof is not the one that 'cnf.jkt' names")
    _check_signature(proof, key)
    return proof.claims, named


def wpt_claims(unverified_proof: str, token_claims: Mapping[str, object]) -> tuple[Mapping[str, object], str]:
    """The claims of a workload proof token that is signed by the token's `cnf.jwk`, and that key's thumbprint.

    Raises:
        Refusal: PROOF_REJECTED, CLAIM_REJECTED.
    """
    jwk = confirmation(token_claims).get("jwk")
    if not isinstance(jwk, Mapping):
        raise rejected(Reason.PROOF_REJECTED, "the token names no key ('cnf.jwk')")
    key = _key(jwk, "'cnf.jwk' of the token")
    if "alg" not in jwk:
        raise rejected(Reason.PROOF_REJECTED, "'cnf.jwk' of the token does not say its 'alg'")
    proof = _read(unverified_proof, WPT_TYPE)
    if proof.key is not None:
        raise rejected(Reason.PROOF_REJECTED, "the proof carries a key; the token names it")
    _check_signature(proof, key)
    return proof.claims, key_thumbprint(jwk)


def _read(unverified_proof: str, token_type: str) -> UnverifiedToken:
    if not unverified_proof:
        raise rejected(Reason.PROOF_REJECTED, "no proof of possession was shown; this issuer's tokens need one")
    try:
        proof = read_proof(unverified_proof)
    except Refusal as refusal:
        why = f"the proof: {refusal.detail}"
        raise rejected(Reason.PROOF_REJECTED, why) from None
    if proof.token_type != token_type:
        raise rejected(Reason.PROOF_REJECTED, f"'typ' of the proof is not {token_type}")
    if proof.algorithm not in ASYMMETRIC_ALGORITHMS:
        raise rejected(Reason.PROOF_REJECTED, "'alg' of the proof is not allowed")
    return proof


def _key(jwk: Mapping[str, object], what: str) -> VerificationKey:
    try:
        return read_key(jwk, _USES)
    except KeySetRefusedError as error:
        why = f"{what}: {error}"
        raise rejected(Reason.PROOF_REJECTED, why) from None


def _check_signature(proof: UnverifiedToken, key: VerificationKey) -> None:
    if not key.verifies(proof.algorithm, proof.signed, proof.signature):
        raise rejected(Reason.PROOF_REJECTED, "the signature of the proof is not that key's")
