"""Proof of possession over the real door: what is let in, and for everything else the exact reason in the audit log."""

import time

import pytest
from tests.fakes.issuer import ec_key, jwk, rsa_key
from tests.proof.shown import AUDIENCE, JKT, Dpop, Metadata, Wpt, with_hmac

from leasehold import IdentityRejected, LeaseholdClient
from leasehold.proof import DpopProof, WitProof

pytestmark = [pytest.mark.timeout(120)]
OTHER = "leasehold.v1.LeaseService/GetLease"
PROOF, REPLAY, CLAIM = "PROOF_REJECTED", "REPLAY_DETECTED", "CLAIM_REJECTED"
NOW = int(time.time())


def acquire(sidecar, token, proof):
    """A lease, released at once; its name."""
    with LeaseholdClient(sidecar.target, token, proof=proof, timeout_seconds=60) as client:
        lease = client.acquire(provider="openai", renew=False)
        lease.release()
        return lease.name


def refused(sidecar, token, proof):
    """Reason and detail of the refusal, as audited; the caller is told neither."""
    with pytest.raises(IdentityRejected) as caught:
        acquire(sidecar, token, proof)
    assert caught.value.reason == "IDENTITY_REJECTED"
    return sidecar.refused(caught.value)


def test_the_clients_own_dpop_proof_is_taken(stage, plain):
    """A token that names the key, and a proof of each call: acquire and release both pass."""
    assert acquire(plain, stage.token("dpop", cnf={"jkt": JKT}), DpopProof(stage.key_file())).startswith("leases/")


def test_the_clients_own_workload_proof_is_taken(stage, plain):
    """A WIT-SVID and a workload proof token of each call: acquire and release both pass."""
    assert acquire(plain, stage.token("wit"), WitProof(stage.key_file(), AUDIENCE)).startswith("leases/")


@pytest.mark.parametrize(
    ("proof", "detail"),
    [
        (None, "presented as bearer"),
        (Metadata(authorization="DPoP {token}", dpop="x.y"), "the proof: not three base64url segments"),
        (Dpop({"htm": "GET"}), "'htm' of the proof"),
        (Dpop({"htm": None}), "'htm' of the proof"),
        (Dpop({"htu": f"leasehold:///{OTHER}"}), "'htu' of the proof"),
        (Dpop({"htu": "https://broker.test/leasehold.v1.LeaseService/AcquireLease"}), "'htu' of the proof"),
        (Dpop({"ath": "AAAA"}), "'ath' of the proof"),
        (Dpop({"ath": None}), "'ath' of the proof"),
        (Dpop({"iat": None}), "'iat' of the proof is missing"),
        (Dpop({"iat": NOW - 1000}), "the proof is 1"),
        (Dpop({"iat": NOW + 1000}), "the proof was made"),
        (Dpop({"jti": None}), "'jti' of the proof"),
        (Dpop({"jti": "x" * 257}), "'jti' of the proof"),
        (Dpop(header={"typ": "JWT"}), "'typ' of the proof"),
        (Dpop(header={"typ": None}), "'typ' of the proof"),
        (Dpop(header={"kid": "k1"}), "the proof: header member 'kid' is not allowed"),
        (Dpop(header={"jwk": None}), "the proof carries no key"),
        (Dpop(header={"jwk": "x"}), "the proof: header member 'jwk' is not an object"),
        (Dpop(header={"jwk": jwk(ec_key("agent"), d="AAAA")}), "'jwk' of the proof: it carries private parts"),
        (Dpop(header={"jwk": jwk(ec_key("agent"), use="enc")}), "'jwk' of the proof: its 'use'"),
        (Dpop(header={"jwk": jwk(ec_key("thief"))}, key=ec_key("thief")), "the key of the proof is not the one"),
        (Dpop(header={"jwk": jwk(rsa_key("thief"))}, key=rsa_key("thief"), alg="RS256"), "the key of the proof is not"),
        (Dpop(key=ec_key("thief")), "the signature of the proof"),
        (with_hmac, "'alg' of the proof is not allowed"),
    ],
)
def test_a_dpop_proof_that_does_not_hold_is_refused(stage, plain, proof, detail):
    """The token is good: what is wrong with the proof is in the audit log, and nowhere else."""
    reason, audited = refused(plain, stage.token("dpop", cnf={"jkt": JKT}), proof)
    assert reason == PROOF
    assert audited.startswith(detail)


@pytest.mark.parametrize(
    ("cnf", "reason", "detail"),
    [
        (None, PROOF, "the token names no key ('cnf.jkt')"),
        ({"jwk": jwk(ec_key("agent"))}, PROOF, "the token names no key ('cnf.jkt')"),
        ({"jkt": JKT, "x5t#S256": "A"}, CLAIM, "'cnf' does not name exactly one key"),
        ("text", CLAIM, "'cnf' does not name exactly one key"),
    ],
)
def test_a_dpop_token_must_name_its_key(stage, plain, cnf, reason, detail):
    """A good proof with a token that is bound to nothing, or to several things, proves nothing."""
    assert refused(plain, stage.token("dpop", cnf=cnf), Dpop()) == (reason, detail)


@pytest.mark.parametrize(
    ("proof", "detail"),
    [
        (None, "presented as bearer"),
        (Wpt({"aud": f"{AUDIENCE}/{OTHER}"}), "'aud' of the proof"),
        (Wpt({"aud": AUDIENCE}), "'aud' of the proof"),
        (Wpt({"aud": f"https://other.test/{OTHER}"}), "'aud' of the proof"),
        (Wpt({"wth": "AAAA"}), "'wth' of the proof"),
        (Wpt({"wth": None}), "'wth' of the proof"),
        (Wpt({"exp": NOW - 100}), "the proof expired"),
        (Wpt({"exp": NOW + 3600}), "the proof runs"),
        (Wpt({"exp": None}), "'exp' of the proof is missing"),
        (Wpt({"nbf": NOW + 1000}), "'nbf' of the proof"),
        (Wpt({"jti": None}), "'jti' of the proof"),
        (Wpt({"ath": "AAAA"}), "'ath' of the proof binds something"),
        (Wpt({"oth": {}}), "'oth' of the proof binds something"),
        (Wpt(header={"typ": "dpop+jwt"}), "'typ' of the proof"),
        (Wpt(header={"jwk": jwk(ec_key("agent"))}), "the proof carries a key"),
        (Wpt(key=ec_key("thief")), "the signature of the proof"),
        (Wpt(key=rsa_key("thief"), alg="RS256"), "the signature of the proof"),
    ],
)
def test_a_workload_proof_that_does_not_hold_is_refused(stage, plain, proof, detail):
    """The identity token is good: what is wrong with the proof is in the audit log, and nowhere else."""
    reason, audited = refused(plain, stage.token("wit"), proof)
    assert reason == PROOF
    assert audited.startswith(detail)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"cnf": None}, PROOF, "the token names no key ('cnf.jwk')"),
        ({"cnf": {"jwk": jwk(ec_key("agent"))}}, PROOF, "'cnf.jwk' of the token does not say its 'alg'"),
        ({"cnf": {"jwk": jwk(ec_key("agent"), alg="ES384")}}, PROOF, "'cnf.jwk' of the token: its 'alg'"),
        ({"cnf": {"jwk": {"kty": "oct", "k": "AAAA"}}}, PROOF, "'cnf.jwk' of the token: not an asymmetric key"),
        ({"aud": "https://other.test"}, "AUDIENCE_MISMATCH", "'aud' (str)"),
        ({"sub": "spiffe://wit.test/a//b"}, CLAIM, "'sub': segments"),
    ],
)
def test_a_workload_identity_token_must_be_one(stage, plain, changes, reason, detail):
    """A good proof does not mend the token it comes with."""
    found, audited = refused(plain, stage.token("wit", **changes), Wpt())
    assert found == reason
    assert audited.startswith(detail)


@pytest.mark.parametrize(
    ("name", "changes", "proof"),
    [("dpop", {"cnf": {"jkt": JKT}}, Dpop({"jti": "once-dpop"})), ("wit", {}, Wpt({"jti": "once-wpt"}))],
)
def test_a_proof_is_good_for_one_call(stage, plain, name, changes, proof):
    """The second call with the same proof id is refused, with the same token or a fresh one."""
    with LeaseholdClient(plain.target, lambda: stage.token(name, **changes), proof=proof) as client:
        lease = client.acquire(provider="openai", renew=False)
        with pytest.raises(IdentityRejected) as caught:
            lease.refresh()
        lease.abandon()
    assert plain.refused(caught.value) == (REPLAY, "proof shown before")


def test_a_token_that_names_a_key_is_no_bearer_token(stage, plain):
    """Where no proof is configured, a token that somebody bound to a key is refused rather than taken unproven."""
    assert refused(plain, stage.token("none", cnf={"jkt": JKT}), None)[0] == PROOF
    assert acquire(plain, stage.token("none"), None).startswith("leases/")


@pytest.mark.parametrize(
    "metadata",
    [
        {"authorization": "Basic {token}"},
        {"authorization": "Bearer {token}", "dpop": "a.b.c"},
        {"authorization": "Bearer {token}", "workload_identity_token": "{token}"},
        {"authorization": "DPoP {token}"},
        {"authorization": "WPT {token}"},
        {"authorization": "WPT {token}", "workload_identity_token": "{token}", "dpop": "a.b.c"},
        {"authorization": "Bearer"},
    ],
)
def test_a_token_is_presented_in_one_way_or_not_at_all(stage, plain, metadata):
    """Half a pair, or two ways at once, is no presentation: nothing is chosen for the caller."""
    assert refused(plain, stage.token("none"), Metadata(**metadata))[0] == "JWT_MALFORMED"
