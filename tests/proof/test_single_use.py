"""Single use, over the real door: one call for each token, also across a killed sidecar."""

import pytest
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.proof.conftest import folder_of, issuers
from tests.proof.shown import JKT, Dpop
from tests.proof.test_proofs import acquire, refused

from leasehold import LeaseholdClient

pytestmark = [pytest.mark.timeout(120)]


def test_a_token_is_good_for_one_call(stage, plain):
    """The next call needs the next token; one without an id is refused at once."""
    with LeaseholdClient(plain.target, lambda: stage.token("once")) as client:
        lease = client.acquire(provider="openai", renew=False)
        assert lease.release().state == "released"
    token = stage.token("once")
    with pytest.raises(Exception, match="IDENTITY_REJECTED"):
        acquire(plain, token, None)
    assert refused(plain, token, None) == ("REPLAY_DETECTED", "token shown before")
    assert refused(plain, stage.token("once", jti=None), None)[0] == "CLAIM_REJECTED"


def test_what_was_shown_is_not_forgotten_by_a_killed_sidecar(stage):
    """Token and proof were each used once before the sidecar was killed; the next life refuses both."""
    grants = GRANT.format(name="once", issuer="https://once.test", extra="")
    grants += GRANT.format(name="dpop", issuer="https://dpop.test", extra="")
    plain = [text for text in issuers(stage.root).split("\n\n[[issuers]]") if 'proof = "mtls"' not in text]
    sidecar = OwnSidecar(folder_of(stage.root, "killed"), "\n[[issuers]]".join(plain), grants)
    token, bound, proof = stage.token("once"), stage.token("dpop", cnf={"jkt": JKT}), Dpop({"jti": "before"})
    with sidecar.running():
        for shown, with_proof in ((token, None), (bound, proof)):
            with LeaseholdClient(sidecar.target, shown, proof=with_proof) as client:
                client.acquire(provider="openai", renew=False).abandon()
        sidecar.kill()
    with sidecar.running():
        assert refused(sidecar, token, None) == ("REPLAY_DETECTED", "token shown before")
        assert refused(sidecar, bound, proof) == ("REPLAY_DETECTED", "proof shown before")
        assert acquire(sidecar, bound, Dpop()).startswith("leases/")
