"""Proofs from the client's side: what the hook is asked, and what never reaches the wire."""

import pytest
from tests.clients.conftest import JWT

from leasehold import IdentityRejected, LeaseholdClient, aio
from leasehold._identity import Identity
from leasehold.proof import DpopProof, WitProof

PATH = "/leasehold.v1.LeaseService/AcquireLease"


def test_without_a_proof_the_token_is_a_bearer_token():
    """As before: marker and bearer token; operators without a token send the marker alone."""
    identity = Identity(JWT)
    assert identity.metadata(JWT, PATH) == (("leasehold", "1"), ("authorization", f"Bearer {JWT}"))
    assert identity.metadata(None, PATH) == (("leasehold", "1"),)


def test_the_hook_is_asked_for_each_call_with_method_and_token(running, token_file):
    """Each call asks anew, so that each has a proof of its own."""
    asked = []

    def proof(method: str, token: str) -> dict[str, str]:
        asked.append((method, token))
        return {"authorization": f"DPoP {token}", "dpop": "a.b.c"}

    with LeaseholdClient(running.target, token_file, proof=proof) as client:
        client.acquire(provider="openai", renew=False).release()
    service = "leasehold.v1.LeaseService/"
    assert asked == [(service + "AcquireLease", JWT), (service + "ReleaseLease", JWT)]


async def test_the_async_client_asks_it_too(running, token_file):
    """The same hook serves both clients."""
    asked = []

    def proof(method: str, token: str) -> dict[str, str]:
        asked.append(method)
        return {"authorization": f"Bearer {token}"}

    async with aio.LeaseholdClient(running.target, token_file, proof=proof) as client:
        await (await client.acquire(provider="openai", renew=False)).release()
    assert [method.rpartition("/")[2] for method in asked] == ["AcquireLease", "ReleaseLease"]


@pytest.mark.parametrize(
    "shown",
    [
        {"authorization": "DPoP x\ny"},
        {"authorization": "DPoP ü"},
        {"authorization": "DPoP x", "dpop": ""},
        {"authorization": "DPoP x", "DPoP": "y"},
        {"authorization": "DPoP x", "dpop-bin": "y"},
        {"authorization": b"DPoP x"},
        {"dpop": "y"},
    ],
)
def test_metadata_that_cannot_be_sent_is_refused_here(shown):
    """Nothing malformed reaches grpcio, whose errors would show it; the sentence names the key only."""
    with pytest.raises(IdentityRejected) as caught:
        Identity(JWT, proof=lambda _method, _token: shown).metadata(JWT, PATH)
    assert caught.value.reason == "PROOF_REJECTED"
    assert "ü" not in str(caught.value)


def test_a_key_that_cannot_be_used_is_told_by_its_file(tmp_path):
    """A missing file, a file without a key, a token that names no algorithm: each has its sentence."""
    (tmp_path / "no.key").write_text("nothing")
    for proof, said in (
        (DpopProof(tmp_path / "missing"), "cannot be read"),
        (DpopProof(tmp_path / "no.key"), "holds no private key (PEM) for ES256"),
        (WitProof(tmp_path / "no.key", "a"), "names no key with an algorithm"),
    ):
        with pytest.raises(IdentityRejected, match=said.replace("(", r"\(").replace(")", r"\)")):
            proof("m", JWT)
    with pytest.raises(ValueError, match="HS256"):
        DpopProof(tmp_path / "no.key", "HS256")
