"""Honeytokens against a real sidecar: made by the command, used at both doors, and the file followed while it runs."""

import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.processes.tokens import ISSUER, token

from leasehold import LeaseholdClient
from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc
from leasehold_broker.demo.stage import broker

pytestmark = [pytest.mark.timeout(120)]
ISSUERS = """
[[issuers]]
name = "test"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"
labels = {{ environment = {{ fixed = "test" }} }}
[honeytokens]
file = "{root}/honeytokens.json"
"""


def lay(path: Path, name: str, kind: str) -> str:
    """A new honeytoken's value."""
    made = subprocess.run(
        broker("honeytoken", "create", name, "--kind", kind, "--file", str(path)),
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


def refused_with(port: int, value: str) -> int:
    """Status of a call with this API key."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/openai/v1/chat/completions",
        data=b"{}",
        headers={"Authorization": f"Bearer {value}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def presented(target: str, value: str) -> grpc.StatusCode:
    """What becomes of an RPC with this as workload token; our client would not send it."""
    metadata = (("leasehold", "1"), ("authorization", f"Bearer {value}"))
    with grpc.insecure_channel(target) as channel:
        stub = lease_service_pb2_grpc.LeaseServiceStub(channel)
        try:
            stub.ListLeases(lease_service_pb2.ListLeasesRequest(), metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_whoever_uses_one_loses_its_leases_at_either_door():
    """A planted key at the egress, and a planted lease token as workload token; only digests are on the disk."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        planted = lay(root / "honeytokens.json", "ci-image", "openai")
        files = OwnSidecar(
            root, ISSUERS.format(root=root, issuer=ISSUER), GRANT.format(name="test", issuer=ISSUER, extra="")
        )
        with files.running() as sidecar, LeaseholdClient(sidecar.target, token()) as client:
            port = sidecar.egress_port
            first = client.acquire(provider="openai", renew=False)
            assert refused_with(port, planted) == 401
            found = sidecar.event("finding.honeytoken")
            assert found["details"]["honeytoken"] == "ci-image"
            assert found["subject"]["subject"] == "agent"
            assert found["lease"] == first.name
            assert client.get(first.name).state == "revoked"
            first.abandon()

            later = lay(root / "honeytokens.json", "handbook", "lease")
            second = client.acquire(provider="openai", renew=False)
            sidecar.logged("honeytokens laid")
            assert presented(sidecar.target, later) is grpc.StatusCode.UNAUTHENTICATED
            found = sidecar.event("finding.honeytoken", lease=second.name)
            assert found["details"]["honeytoken"] == "handbook"
            assert client.get(second.name).state == "revoked"
            second.abandon()
        for path in root.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert planted.encode() not in data
                assert later.encode() not in data
