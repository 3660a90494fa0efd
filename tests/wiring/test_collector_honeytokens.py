"""Honeytokens at every door of a real collector: each gives the finding that a sidecar gives, before the answer."""

import asyncio
import os
import socket
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tests.fakes.certified_collector import BY_CERTIFICATE, House
from tests.processes.test_honeytokens import lay

from leasehold.operators import OperatorClient
from leasehold.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    sidecar_service_pb2,
    sidecar_service_pb2_grpc,
)

pytestmark = pytest.mark.timeout(120)
ME = os.geteuid()
MORE = """
[honeytokens]
file = "honeytokens.json"
[signals]
address = "127.0.0.1:{port}"
[[signals.receive]]
name = "idp"
issuer = "https://idp.example/"
audience = "https://collector.example/"
jwks_file = "keys.json"
email_issuer = "https://idp.example/"
"""


@pytest.fixture
def house():
    """Not serving yet; its path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield House(Path(folder))


def findings(house: House) -> list[dict]:
    """What the audit log says of honeytokens."""
    with OperatorClient(house.target) as client:
        return [record.event() for record in client.events(type="finding.honeytoken")]


def call(house: House, make, *metadata: tuple[str, str]) -> grpc.StatusCode:
    """The code of an RPC over the Unix socket with these metadata."""
    with grpc.insecure_channel(house.target, [("grpc.default_authority", "localhost")]) as channel:
        try:
            make(channel, [("leasehold", "1"), *metadata])
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def list_streams(channel, metadata):
    """As an operator."""
    stub = audit_service_pb2_grpc.AuditServiceStub(channel)
    stub.ListStreams(audit_service_pb2.ListStreamsRequest(), metadata=metadata, timeout=20)


def rotate(channel, metadata):
    """As a pipeline."""
    stub = key_service_pb2_grpc.KeyServiceStub(channel)
    stub.ListRotations(key_service_pb2.ListRotationsRequest(), metadata=metadata, timeout=20)


def sync(channel, metadata):
    """As a sidecar."""
    stub = sidecar_service_pb2_grpc.SidecarServiceStub(channel)
    next(iter(stub.SyncState(iter([sidecar_service_pb2.SyncStateRequest()]), metadata=metadata, timeout=20)))


def post(port: int, headers: dict[str, str], query: str = "") -> int:
    """The status of a request to the HTTP door."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/signals/idp{query}", data=b"x", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_a_honeytoken_at_any_door_is_told(house):
    """Planted lease and key, wherever a credential can be: refused as any other, and each use is a finding."""
    (house.folder / "keys.json").write_text('{"keys": []}')
    (house.folder / "keys.json").chmod(0o644)
    path = house.folder / "honeytokens.json"
    lease, key = lay(path, "wiki", "lease"), lay(path, "image", "openai")
    kinds = ("anthropic", "groq", "xai", "gemini")
    more = {kind: lay(path, kind, kind) for kind in kinds}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    more_tables = MORE.format(port=port)
    async with house.serving(BY_CERTIFICATE, client_ca=True, unix=True, operator=ME, more=more_tables):
        uses = [
            (list_streams, ("authorization", f"Bearer {lease}")),
            (sync, ("authorization", f"Bearer {key}")),
            (rotate, ("authorization", f"Basic {more['anthropic']}")),
            (list_streams, ("authorization", more["groq"])),
        ]
        for make, metadata in uses:
            assert await asyncio.to_thread(call, house, make, metadata) == grpc.StatusCode.UNAUTHENTICATED
        assert await asyncio.to_thread(post, port, {"Authorization": f"Bearer {more['xai']}"}) == 400
        assert await asyncio.to_thread(post, port, {}, f"?key={more['gemini']}") == 400
        found = await asyncio.to_thread(findings, house)
        names = [one["details"]["honeytoken"] for one in found]
        assert names == ["wiki", "image", "anthropic", "groq", "xai", "gemini"]
        assert found[0]["details"]["peer"] == f"uid:{ME}"
        assert "AuditService/ListStreams" in found[0]["details"]["message"]
        assert "POST /signals/idp" in found[4]["details"]["message"]
        for value in (lease, key, *more.values()):
            assert value not in str(found)
        # The same one of the same peer is not told again, another caller is refused without any finding.
        await asyncio.to_thread(call, house, *uses[0])
        await asyncio.to_thread(call, house, list_streams, ("authorization", "Bearer nonsense"))
        assert len(await asyncio.to_thread(findings, house)) == len(found)


async def test_the_file_is_followed(house):
    """A honeytoken that is laid while the collector runs is known within its next looks at the file."""
    path = house.folder / "honeytokens.json"
    lay(path, "first", "lease")
    more = '[honeytokens]\nfile = "honeytokens.json"\n'
    async with house.serving(BY_CERTIFICATE, client_ca=True, unix=True, operator=ME, more=more):
        late = await asyncio.to_thread(lay, path, "late", "lease")
        for _ in range(200):
            await asyncio.to_thread(call, house, list_streams, ("authorization", f"Bearer {late}"))
            if await asyncio.to_thread(findings, house):
                break
            await asyncio.sleep(0.1)
        [found] = await asyncio.to_thread(findings, house)
        assert found["details"]["honeytoken"] == "late"
