"""One real sidecar with mutual TLS on TCP and its Unix socket beside it: the socket is plain, each keeps its rules."""

import os
import socket
import ssl

import grpc
import pytest
from tests.proof.shown import Wpt

from leasehold import IdentityRejected, LeaseholdClient, LeaseholdError, TlsFiles
from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc

pytestmark = [pytest.mark.timeout(120)]
ID = "spiffe://mtls.test/agent"
NONE_SHOWN = "no client certificate was shown; this issuer's tokens need one"
HERE = "leasehold.v1.LeaseService/ListLeases"


@pytest.fixture
def local(stage, secure):
    """An agent on the Unix socket of the sidecar that speaks TLS on TCP."""
    with LeaseholdClient(secure.target, lambda: stage.token("none", sub="local")) as client:
        yield client


@pytest.fixture
def far(stage, secure):
    """An agent over TCP, with a certificate."""
    files = stage.authority.issue(ID).files(stage.root, "far")
    tls = TlsFiles(stage.root / "ca.pem", *files, server_name="localhost")
    with LeaseholdClient(f"127.0.0.1:{secure.port}", lambda: stage.token("none", sub="far"), tls=tls) as client:
        yield client


def test_both_doors_serve_at_once_and_bind_leases_to_what_each_knows(secure, local, far):
    """The kernel's uid through the socket, the certificate over TCP, each named in the audit event."""
    near_lease, far_lease = (client.acquire(provider="openai", renew=False) for client in (local, far))
    bindings = [secure.event("lease.acquired", lease=one.name)["details"]["binding"] for one in (near_lease, far_lease)]
    assert bindings[0] == f"uid:{os.geteuid()}"
    assert bindings[1].startswith("cert:")
    for lease in (near_lease, far_lease):
        lease.release()


def test_a_token_that_needs_a_certificate_is_no_good_on_the_socket(stage, secure):
    """Proof = "mtls" asks for a certificate wherever the token is shown; the socket has none to show."""
    for name in ("mtls", "bound"):
        with LeaseholdClient(secure.target, stage.token(name)) as client, pytest.raises(IdentityRejected) as caught:
            client.acquire(provider="openai", renew=False)
        assert secure.refused(caught.value) == ("PEER_MISMATCH", NONE_SHOWN)


def test_a_proof_is_asked_for_on_the_socket_too(stage, secure):
    """The socket weakens no issuer: a WIT-SVID without its proof is refused, with its proof it is taken."""
    token = stage.token("wit")
    with grpc.insecure_channel(secure.target, [("grpc.default_authority", "localhost")]) as channel:
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        request = lease_service_pb2.ListLeasesRequest()
        metadata = [("leasehold", "1"), ("authorization", f"Bearer {token}")]
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListLeases(request, metadata=metadata, timeout=60)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        shown = [("leasehold", "1"), *Wpt()(HERE, token).items()]
        assert not stub.ListLeases(request, metadata=shown, timeout=60).leases


def test_a_lease_of_one_door_is_out_of_reach_through_the_other_without_its_certificate(secure, local, far):
    """A lease that is bound to a certificate is neither seen nor released by the user on the socket."""
    lease = far.acquire(provider="openai", renew=False)
    assert lease.name not in {one.name for one in local.leases()}
    with pytest.raises(LeaseholdError):
        local.release(lease.name)
    lease.release()
    assert secure.event("lease.released", lease=lease.name)


def test_tcp_without_a_certificate_is_refused_though_the_kernel_knows_its_user(stage, secure):
    """Loopback, our own uid, a good token: the handshake fails all the same; in plain text nothing is answered."""
    tls = TlsFiles(stage.root / "ca.pem", server_name="localhost")
    with (
        LeaseholdClient(f"127.0.0.1:{secure.port}", stage.token("none"), tls=tls, timeout_seconds=2) as client,
        pytest.raises(LeaseholdError),
    ):
        client.acquire(provider="openai", renew=False)
    with socket.create_connection(("127.0.0.1", secure.port), 10) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
        assert not raw.recv(4096).startswith(bytes(3))


def test_the_socket_answers_no_handshake(stage, secure):
    """TLS on the Unix socket is bytes like any other that are no HTTP/2: closed."""
    context = ssl.create_default_context(cafile=stage.root / "ca.pem")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(secure.target.removeprefix("unix://"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(raw, server_hostname="localhost")
