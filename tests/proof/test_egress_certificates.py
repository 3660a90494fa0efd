"""The egress of a real sidecar with TLS: certificates change under open connections, its socket is plain."""

import http.client
import os
import select
import socket
import ssl
import time

import pytest
from tests.fakes.certificates import Authority
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.proof.conftest import folder_of, issuers

from leasehold import LeaseholdClient

pytestmark = [pytest.mark.timeout(120)]


class Rotating:
    """The certificate files of an egress."""

    def __init__(self, folder) -> None:
        """Write the first."""
        self.folder = folder
        self.renew(Authority())

    def renew(self, authority: Authority) -> None:
        """Write certificate, key and authority anew, one after the other, as an issuer does."""
        self.authority = authority
        authority.issue().files(self.folder, "egress")
        (self.folder / "egress-ca.pem").write_bytes(authority.pem)

    def agent(self, authority: Authority | None = None) -> ssl.SSLContext:
        """An agent that believes in the newest authority, with a certificate of it, or of another."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(*(authority or self.authority).issue().files(self.folder, "caller"))
        return context


@pytest.fixture(scope="module")
def house(stage):
    """A sidecar with TLS at its egress, running, and its certificates."""
    folder = folder_of(stage.root, "egress")
    files = Rotating(folder)
    tls = f"""socket = "{folder}/out/egress.sock"
[egress.tls]
certificate = "{folder}/egress.pem"
private_key = "{folder}/egress.key"
client_ca = "{folder}/egress-ca.pem"
"""
    grants = GRANT.format(name="none", issuer="https://none.test", extra="")
    plain = issuers(stage.root).split("\n\n[[issuers]]")
    own = OwnSidecar(folder, "[[issuers]]" + plain[-1].removeprefix("[[issuers]]"), grants, egress=tls)
    with own.running() as sidecar:
        yield sidecar, files


def ask(connection: http.client.HTTPConnection) -> int:
    """The status of a call without a lease."""
    connection.request("GET", "/openai/v1/models")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def connected(sidecar: OwnSidecar, context: ssl.SSLContext) -> http.client.HTTPSConnection:
    """An agent's connection that stays open."""
    connection = http.client.HTTPSConnection("localhost", sidecar.egress_port, timeout=20, context=context)
    connection.connect()
    return connection


def test_certificates_are_followed_while_connections_are_open(stage, house):
    """An open call goes on; new connections see the new certificate, and the old authority's callers are strangers."""
    sidecar, files = house
    old = files.authority
    with LeaseholdClient(sidecar.target, stage.token("none", sub="kept")) as client:
        lease = client.acquire(provider="openai", renew=False)
        head = f"POST /openai/v1/responses HTTP/1.1\r\nhost: localhost:{sidecar.egress_port}\r\ncontent-length: 8\r\n"
        token = lease.token.reveal()
        kept = connected(sidecar, files.agent()).sock
        kept.sendall(f"{head}content-type: application/json\r\nauthorization: Bearer {token}\r\n\r\nhalf".encode())
        files.renew(Authority())
        for _ in range(300):
            try:
                fresh = connected(sidecar, files.agent())
                break
            except ssl.SSLCertVerificationError:
                time.sleep(0.1)
        else:
            pytest.fail("the new certificate is never shown")
        assert ask(fresh) in {401, 403}
        fresh.close()
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask(connected(sidecar, files.agent(old)))
        kept.sendall(b"body")
        assert kept.recv(12) == b"HTTP/1.1 400"  # it is no JSON: read to its end, on the connection it began on
        kept.close()
        lease.release()
    assert sidecar.logged("certificates read again")


def test_half_of_a_pair_is_not_taken(house):
    """A certificate whose key is not written yet changes nothing: handshakes go on with the earlier pair."""
    sidecar, files = house
    good = (files.folder / "egress.pem").read_bytes()
    (files.folder / "egress.pem").write_bytes(files.authority.issue().pem)
    sidecar.logged("certificates not taken: the earlier ones stay")
    connection = connected(sidecar, files.agent())
    assert ask(connection) in {401, 403}
    connection.close()
    (files.folder / "egress.pem").write_bytes(good)


def test_a_local_lease_is_told_the_way_through_the_socket(stage, house):
    """Bound to a uid, it has no certificate to show at the address: its endpoint is the socket, in plain HTTP."""
    sidecar, _ = house
    with LeaseholdClient(sidecar.target, stage.token("none", sub="local")) as client:
        lease = client.acquire(provider="openai", renew=False)
        endpoint = lease.endpoint("openai")
        assert endpoint.base_url == "http://localhost/openai/v1"
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(20)
            raw.connect(endpoint.unix_socket)
            raw.sendall(b"GET /openai/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert raw.recv(12).startswith(b"HTTP/1.1 40")
        lease.release()
    assert sidecar.event("lease.acquired", lease=lease.name)["details"]["binding"] == f"uid:{os.geteuid()}"


def test_handshakes_of_one_caller_are_bounded(house):
    """Connections that never shake hands are few at a time; after a while they give way to who does shake hands."""
    sidecar, files = house
    silent = [socket.create_connection(("127.0.0.1", sidecar.egress_port), 20) for _ in range(64)]
    closed, deadline = set(), time.monotonic() + 20
    while len(closed) < 32 and time.monotonic() < deadline:
        readable, _, _ = select.select([one for one in silent if one not in closed], [], [], 1)
        closed.update(one for one in readable if one.recv(1) == b"")
    assert len(closed) == 32
    time.sleep(1.1)  # those that are kept have had their while
    connection = connected(sidecar, files.agent())
    assert ask(connection) in {401, 403}
    connection.close()
    for one in silent:
        one.close()
