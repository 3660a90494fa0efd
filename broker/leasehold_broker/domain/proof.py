"""Proof of possession: what must come with a token that names a key. Owns every rule about the claims of proofs.

Pure: signatures are checked elsewhere, and only what is verified comes here. Each issuer has one kind of proof, or
none; a token that names a key (`cnf`, RFC 7800) is never a bearer token, so an issuer without a proof refuses it.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.workload_claims import TOKEN_ID_CHARACTERS_MAX, rejected, seconds_claim

DPOP_SECONDS_MAX = 60
"""A DPoP proof is taken for this long after its `iat`, leeway aside (RFC 9449, section 11.1: short)."""
WPT_SECONDS_MAX = 300
"""A workload proof token may not run longer than this (draft-ietf-wimse-wpt-02: minutes or seconds)."""
METHOD_SCHEME = "leasehold:///"
"""`htu` of a DPoP proof is this and the method's full name: a gRPC call has no other address that both ends know."""


class Scheme(StrEnum):
    """How a token was presented: the scheme of the authorization metadata, lower case."""

    BEARER = "bearer"
    DPOP = "dpop"
    WPT = "wpt"


@dataclass(frozen=True, slots=True)
class UnverifiedProof:
    """How a token was presented and what came with it; none of it is proven.

    Args:
        scheme: how the token was presented.
        method: the RPC that is called, as the server knows it: "leasehold.v1.LeaseService/AcquireLease".
        token: the proof, a JWT of its own; "" when none came.
    """

    scheme: Scheme = Scheme.BEARER
    method: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Proven:
    """A proof that holds: its id, and for how long it could be shown again."""

    proof_id: str
    seconds_left: int


def token_hash(token: str) -> str:
    """`ath` of RFC 9449 and `wth` of the WPT: base64url of the SHA-256 over the token's ASCII."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode("ascii")).digest()).rstrip(b"=").decode()


def confirmation(claims: Mapping[str, object]) -> Mapping[str, object]:
    """The token's `cnf`; empty when it has none.

    Raises:
        Refusal: CLAIM_REJECTED when it is no object, or names anything but exactly one key.
    """
    if "cnf" not in claims:
        return {}
    value = claims["cnf"]
    if not isinstance(value, Mapping) or len(value) != 1:
        raise rejected(Reason.CLAIM_REJECTED, "'cnf' does not name exactly one key")
    return value


def check_no_key(claims: Mapping[str, object]) -> None:
    """A token of an issuer without a proof must not name a key: somebody meant it to need one.

    Raises:
        Refusal: PROOF_REJECTED.
    """
    if "cnf" in claims:
        raise rejected(
            Reason.PROOF_REJECTED, "the token names a key ('cnf'), but no proof is configured for its issuer"
        )


def check_certificate(claims: Mapping[str, object], subject: str, peer: Peer) -> None:
    """The client certificate is the proof: the token names it (RFC 8705, section 3.1), or it is of the same SPIFFE ID.

    A token that names a certificate is held to that one. A token that names none must be of the workload whose
    X.509-SVID was shown; that the identifiers are SPIFFE IDs by the letter was checked on both sides.

    Raises:
        Refusal: PEER_MISMATCH, CLAIM_REJECTED.
    """
    if not peer.certificate_sha256:
        raise rejected(Reason.PEER_MISMATCH, "no client certificate was shown; this issuer's tokens need one")
    named = confirmation(claims)
    if named:
        digest = base64.urlsafe_b64encode(bytes.fromhex(peer.certificate_sha256)).rstrip(b"=").decode()
        if named.get("x5t#S256") != digest:
            raise rejected(Reason.PEER_MISMATCH, "the client certificate is not the one that 'cnf' names")
    elif not peer.spiffe_id:
        raise rejected(Reason.PEER_MISMATCH, "the client certificate is no X.509-SVID, and the token names none")
    elif peer.spiffe_id != subject:
        raise rejected(Reason.PEER_MISMATCH, f"the client certificate is of {peer.spiffe_id}")


def check_dpop(proof: Mapping[str, object], token: str, method: str, leeway_seconds: int, now: Instant) -> Proven:
    """The claims of a DPoP proof (RFC 9449, section 4.3) whose signature holds.

    Args:
        proof: its claims.
        token: the access token that came with it.
        method: the RPC that is called.
        leeway_seconds: for clocks that differ.
        now: the current instant.

    Raises:
        Refusal: PROOF_REJECTED, CLAIM_REJECTED.
    """
    if proof.get("htm") != "POST":
        raise rejected(Reason.PROOF_REJECTED, "'htm' of the proof is not POST")
    if proof.get("htu") != METHOD_SCHEME + method:
        raise rejected(Reason.PROOF_REJECTED, "'htu' of the proof is not the method that is called")
    if proof.get("ath") != token_hash(token):
        raise rejected(Reason.PROOF_REJECTED, "'ath' of the proof is not the hash of the token")
    issued = seconds_claim(proof, "iat")
    if issued is None:
        raise rejected(Reason.PROOF_REJECTED, "'iat' of the proof is missing")
    now_seconds = now.wall_ms // 1000
    if issued > now_seconds + leeway_seconds:
        raise rejected(Reason.PROOF_REJECTED, f"the proof was made {issued - now_seconds} s ahead")
    left = issued + DPOP_SECONDS_MAX + leeway_seconds - now_seconds
    if left <= 0:
        raise rejected(Reason.PROOF_REJECTED, f"the proof is {now_seconds - issued} s old")
    return Proven(_proof_id(proof), left)


def check_wpt(
    proof: Mapping[str, object], token: str, audience: str, method: str, leeway_seconds: int, now: Instant
) -> Proven:
    """The claims of a workload proof token (draft-ietf-wimse-wpt-02) whose signature holds.

    Args:
        proof: its claims.
        token: the workload identity token that came with it.
        audience: the issuer rule's; `aud` is this, a slash and the method.
        method: the RPC that is called.
        leeway_seconds: for clocks that differ.
        now: the current instant.

    Raises:
        Refusal: PROOF_REJECTED, CLAIM_REJECTED.
    """
    if proof.get("aud") != f"{audience}/{method}":
        raise rejected(Reason.PROOF_REJECTED, "'aud' of the proof is not this broker's audience and the method called")
    if proof.get("wth") != token_hash(token):
        raise rejected(Reason.PROOF_REJECTED, "'wth' of the proof is not the hash of the token")
    bound = sorted({"ath", "tth", "oth"} & proof.keys())
    if bound:
        raise rejected(Reason.PROOF_REJECTED, f"{bound[0]!r} of the proof binds something that is not looked at here")
    now_seconds = now.wall_ms // 1000
    expires, not_before = seconds_claim(proof, "exp"), seconds_claim(proof, "nbf")
    if expires is None:
        raise rejected(Reason.PROOF_REJECTED, "'exp' of the proof is missing")
    if now_seconds >= expires + leeway_seconds:
        raise rejected(Reason.PROOF_REJECTED, f"the proof expired {now_seconds - expires} s ago")
    if expires > now_seconds + WPT_SECONDS_MAX + leeway_seconds:
        raise rejected(Reason.PROOF_REJECTED, f"the proof runs {expires - now_seconds} s, above {WPT_SECONDS_MAX} s")
    if not_before is not None and not_before > now_seconds + leeway_seconds:
        raise rejected(Reason.PROOF_REJECTED, f"'nbf' of the proof is {not_before - now_seconds} s ahead")
    return Proven(_proof_id(proof), expires + leeway_seconds - now_seconds)


def _proof_id(proof: Mapping[str, object]) -> str:
    proof_id = proof.get("jti")
    if not isinstance(proof_id, str) or not 0 < len(proof_id) <= TOKEN_ID_CHARACTERS_MAX:
        raise rejected(
            Reason.PROOF_REJECTED, f"'jti' of the proof is not text of 1 to {TOKEN_ID_CHARACTERS_MAX} characters"
        )
    return proof_id
