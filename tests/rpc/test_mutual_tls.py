"""Mutual TLS through the shim: the certificate is the peer, verified in the shim's handshake."""

import datetime as dt
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.fakes.certificates import identified
from tests.fakes.lease_flows import MemoryLeases
from tests.fakes.rpc import METADATA, Door, SystemClock, SystemEntropy, open_door

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc, types_pb2
from leasehold_broker.adapters.server_tls import ServerTls, ServerTlsFiles
from leasehold_broker.domain.identity import Peer
from leasehold_broker.sidecar.lease_service import SERVICE

UUID = "0b3f2a9e-7c55-4e52-9d0f-3a8f0f3c1a11"


@dataclass
class Certificate:
    """A certificate with its key, and the digest that binds leases."""

    key: bytes
    pem: bytes
    digest: str


class Authority:
    """A certificate authority for one test."""

    def __init__(self) -> None:
        """Make its own certificate."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.pem = self._signed(self._name, self._key, authority=True).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> Certificate:
        """A certificate for localhost."""
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, authority=False)
        return Certificate(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            signed.public_bytes(serialization.Encoding.PEM),
            hashlib.sha256(signed.public_bytes(serialization.Encoding.DER)).hexdigest(),
        )

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        )
        return identified(builder, key, self._key, authority=authority).sign(self._key, hashes.SHA256())


def server_tls(folder: Path, authority: Authority) -> ServerTls:
    """The certificates of a door that asks for those of its callers."""
    own = authority.issue("server")
    files = ServerTlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    for path, content in (
        (files.certificate, own.pem),
        (files.private_key, own.key),
        (folder / "ca.pem", authority.pem),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
    return ServerTls(files)


@pytest.fixture
def authority() -> Authority:
    """The authority that the server trusts."""
    return Authority()


@pytest.fixture
async def door(tmp_path: Path, authority: Authority) -> AsyncIterator[Door]:
    """A door that asks for client certificates."""
    tls = server_tls(tmp_path, authority)
    flows = MemoryLeases(SystemClock())
    async with open_door(
        tmp_path, lambda server: server.serve(SERVICE, flows.door(SystemEntropy()).handlers()), tls=tls.context
    ) as opened:
        yield opened


async def acquire(door: Door, authority: Authority, own: Certificate | None) -> Any:
    """What a client with this certificate gets."""
    credentials = grpc.ssl_channel_credentials(authority.pem, own and own.key, own and own.pem)
    address = f"localhost:{door.tcp.rpartition(':')[2]}"
    async with grpc.aio.secure_channel(address, credentials) as channel:
        return await lease_service_pb2_grpc.LeaseServiceStub(channel).AcquireLease(
            lease_service_pb2.AcquireLeaseRequest(request_id=UUID, scopes=[types_pb2.Scope(provider="openai")]),
            metadata=METADATA,
            timeout=60,
        )


async def test_a_lease_is_bound_to_the_certificate(door: Door, authority: Authority) -> None:
    """The digest of the client's certificate (DER) is the binding."""
    own = authority.issue("agent")
    answer = await acquire(door, authority, own)
    assert own.digest == answer.lease.binding.certificate_sha256


async def test_a_refusal_shows_uid_and_certificate_of_the_peer(door: Door, authority: Authority) -> None:
    """On loopback, the recorded peer has both: the kernel's uid and the certificate."""
    own = authority.issue("agent")
    credentials = grpc.ssl_channel_credentials(authority.pem, own.key, own.pem)
    async with grpc.aio.secure_channel(f"localhost:{door.tcp.rpartition(':')[2]}", credentials) as channel:
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ListLeases(lease_service_pb2.ListLeasesRequest(page_size=-1), metadata=METADATA, timeout=60)
    assert [Peer(os.getuid(), own.digest)] == [refused.peer for refused in door.recorder.kept]


@pytest.mark.parametrize("who", ["nobody", "stranger"])
async def test_without_a_certificate_of_our_authority_there_is_no_call(
    door: Door, authority: Authority, who: str
) -> None:
    """No certificate, or one of another authority: the handshake fails, nothing reaches the door."""
    own = None if who == "nobody" else Authority().issue("agent")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await acquire(door, authority, own)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not door.recorder.kept
