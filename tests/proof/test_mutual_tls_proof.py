"""Mutual TLS as the proof, over the real TCP door: only the certificate that the token stands for is let in."""

import base64

import pytest

from leasehold import IdentityRejected, LeaseholdClient, TlsFiles

pytestmark = [pytest.mark.timeout(120)]
ID = "spiffe://mtls.test/agent"
MISMATCH = "PEER_MISMATCH"


def client(stage, sidecar, certificate, token):
    """A client that shows a certificate and a token."""
    files = certificate.files(stage.root, "client")
    tls = TlsFiles(stage.root / "ca.pem", *files, server_name="localhost")
    return LeaseholdClient(f"127.0.0.1:{sidecar.port}", token, tls=tls)


def refused(stage, sidecar, certificate, token):
    """Reason and detail of the refusal, as audited."""
    with client(stage, sidecar, certificate, token) as agent, pytest.raises(IdentityRejected) as caught:
        agent.acquire(provider="openai", renew=False)
    return sidecar.refused(caught.value)


def test_the_svid_of_the_tokens_subject_is_taken(stage, secure):
    """X.509-SVID and JWT-SVID of one workload: let in, and the lease is bound to the certificate."""
    certificate = stage.authority.issue(ID)
    with client(stage, secure, certificate, stage.token("mtls")) as agent:
        lease = agent.acquire(provider="openai", renew=False)
        lease.release()
    event = secure.event("lease.acquired", lease=lease.name)
    assert event["details"]["binding"] == f"cert:{certificate.digest.hex()}"


@pytest.mark.parametrize(
    ("uris", "more", "detail"),
    [
        (("spiffe://mtls.test/other",), {}, "the client certificate is of spiffe://mtls.test/other"),
        ((), {"common_name": ID}, "the client certificate is no X.509-SVID"),
        ((ID, "spiffe://mtls.test/other"), {}, "the client certificate is no X.509-SVID"),
        ((ID, "https://mtls.test/agent"), {}, "the client certificate is no X.509-SVID"),
        (("spiffe://MTLS.test/agent",), {}, "the client certificate is no X.509-SVID"),
        (("spiffe://mtls.test",), {}, "the client certificate is no X.509-SVID"),
        ((ID,), {"authority": True}, "the client certificate is no X.509-SVID"),
    ],
)
def test_any_other_certificate_is_refused(stage, secure, uris, more, detail):
    """Issued by the right authority, but not this workload's, or no X.509-SVID: a stolen token is useless with it."""
    reason, audited = refused(stage, secure, stage.authority.issue(*uris, **more), stage.token("mtls"))
    assert reason == MISMATCH
    assert audited.startswith(detail)


@pytest.mark.parametrize("name", ["bound", "mtls"])
def test_a_token_may_name_the_certificate_itself(stage, secure, name):
    """`cnf.x5t#S256` binds a token of any kind to one certificate, and then that one counts alone."""
    own, other = stage.authority.issue(ID), stage.authority.issue(ID)
    named = base64.urlsafe_b64encode(own.digest).rstrip(b"=").decode()
    token = stage.token(name, cnf={"x5t#S256": named})
    with client(stage, secure, own, token) as agent:
        agent.acquire(provider="openai", renew=False).release()
    expected = (MISMATCH, "the client certificate is not the one that 'cnf' names")
    assert refused(stage, secure, other, token) == expected
    assert refused(stage, secure, own, stage.token(name, cnf={"jkt": named})) == expected


def test_without_a_name_a_token_of_another_kind_proves_nothing(stage, secure):
    """An OIDC subject is no SPIFFE ID: without `cnf` no certificate can be its proof."""
    token = stage.token("bound")
    assert refused(stage, secure, stage.authority.issue(ID), token) == (MISMATCH, f"the client certificate is of {ID}")
