"""Connections: TLS both ways over TCP, a new channel after a fork, and when to try again."""

import datetime as dt
from concurrent import futures
from ipaddress import ip_address

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.clients.conftest import JWT
from tests.fakes.certificates import identified

from leasehold import InvalidRequest, LeaseholdClient, TlsFiles, Unavailable
from leasehold._retry import Attempts, StreamAttempts
from leasehold._settings import Settings
from leasehold.v1 import lease_service_pb2_grpc as rpc


@pytest.fixture
def pem(tmp_path):
    """A self-signed certificate for loopback, and its key, for both sides."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leasehold test")])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    )
    certificate = identified(builder, key, key, authority=True).sign(key, hashes.SHA256())
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return tmp_path / "cert.pem", tmp_path / "key.pem"


@pytest.fixture
def secure(leases, pem):
    """The fake sidecar on TCP, asking for a client certificate; its address."""
    certificate, key = (path.read_bytes() for path in pem)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    rpc.add_LeaseServiceServicer_to_server(leases, server)
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)], certificate, require_client_auth=True)
    )
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_mutual_tls(secure, pem):
    """With roots and a client certificate a TCP sidecar answers."""
    with LeaseholdClient(secure, JWT, tls=TlsFiles(pem[0], *pem), timeout_seconds=60) as client:
        assert list(client.leases()) == []


def test_without_trust_nothing_is_sent(secure, leases):
    """Without the right roots the token does not leave."""
    with LeaseholdClient(secure, JWT, timeout_seconds=1) as client, pytest.raises(Unavailable):
        list(client.leases())

    assert leases.calls == []


@pytest.mark.parametrize("target", ["broker", "http://broker:1", ":1", "broker:x"])
def test_a_target_that_is_none_is_refused(target):
    """A target is a Unix socket or host:port."""
    with pytest.raises(InvalidRequest, match="target"):
        LeaseholdClient(target, JWT)


def test_half_a_client_certificate_is_refused(pem):
    """A certificate without its key is a mistake."""
    with pytest.raises(InvalidRequest, match="both or none"):
        TlsFiles(certificate_file=pem[0]).credentials()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        TlsFiles(ca_file="/nowhere/ca.pem").credentials()
    with pytest.raises(InvalidRequest, match="Unix socket"):
        Settings.of("/x.sock", TlsFiles(), 1, {})


@pytest.mark.parametrize("content", [b"", b"\n", b"\0", b"no PEM"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_file_that_is_being_written_is_refused(pem, tmp_path, which, content):
    """Over an empty key gRPC would abort the agent's process; with empty roots it must not trust the system's."""
    half = tmp_path / "half.pem"
    half.write_bytes(content)
    files = [pem[0], *pem]
    files[which] = half
    with pytest.raises(InvalidRequest, match="no PEM"):
        TlsFiles(*files).credentials()


def test_a_forked_child_makes_its_own_channel(client):
    """The parent's channel is neither used nor closed in a child."""
    list(client.leases())
    parents = client.link._channel
    client.link._health._pid = -1
    list(client.leases())

    assert client.link._channel is not parents
    assert client.link._parents_channels == [parents]
    parents.close()


def test_retries_are_bounded_and_within_the_deadline():
    """Pauses double up to a bound; after five tries, or past the deadline, the error is the caller's."""
    attempts, error = Attempts(100, lambda: 0.0, lambda: 1.0), Unavailable("away")
    pauses = [attempts.pause_after(error, token_changed=False) for _ in range(4)]

    assert pauses == [0.1, 0.2, 0.4, 0.8]
    with pytest.raises(Unavailable):
        attempts.pause_after(error, token_changed=False)


def test_a_stream_is_not_opened_for_ever():
    """A stream that cannot be opened for two minutes is given up; its own longest age is no trouble."""
    now = [0.0]
    attempts = StreamAttempts(lambda: now[0], lambda: 1.0)

    assert attempts.pause_after(Unavailable("old", reason="DEADLINE_EXCEEDED")) == 0.0
    assert attempts.pause_after(Unavailable("away")) == 0.1
    now[0] = 121.0
    with pytest.raises(Unavailable):
        attempts.pause_after(Unavailable("away"))
